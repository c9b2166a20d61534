"""The web app: someone with a picture and a doubt gets a clear, honest answer. Also a Space's entry point and an API.

python app.py                               # the newest run on photographs, else the shipped model
python app.py --model runs/mine             # a model folder or Hub id; a second one to compare it with
python app.py --host 0.0.0.0 --auth me:secret
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bonafide.errors import UsageError, usage_errors_exit
from bonafide.web.choice import default_model
from bonafide.web.limits import Limits


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = Limits()
    parser = argparse.ArgumentParser(description="Serve the detector as a web page and an API.")
    parser.add_argument("--model", nargs="+", metavar="MODEL", help="model folder or Hub id; two of them are compared")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
    parser.add_argument("--share", action="store_true", help="also give it a public address, through Gradio's server")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="who may come in")
    parser.add_argument("--mcp", action="store_true", help="serve the API as MCP tools too; needs gradio[mcp]")
    parser.add_argument("--max-files", type=int, default=defaults.files, help="pictures of one batch")
    parser.add_argument("--max-upload", type=int, default=defaults.upload_bytes // 10**6, help="MB sent at a time")
    parser.add_argument("--max-waiting", type=int, default=defaults.waiting, help="requests that may wait")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped. Raises UsageError."""
    options = parse_arguments(arguments)
    login = check_options(options)
    models = options.model or [model for model in [default_model(Path.cwd())] if model]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl-C: what visitors sent is deleted on the way out
    with tempfile.TemporaryDirectory(prefix="bonafide-app-") as folder:
        # Read when Gradio is imported. Uploads lie in a folder of this server alone, and are gone with it.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        from bonafide.web.page import build_page, launch_options
        from bonafide.web.service import Service

        limits = Limits(files=options.max_files, upload_bytes=options.max_upload * 10**6, waiting=options.max_waiting)
        service = Service(models, limits)
        page = build_page(service, Path(folder))
        if service.situation.status == "no model":
            print(service.situation.message, file=sys.stderr)
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=login,
            mcp_server=options.mcp,
            prevent_thread_lock=True,
            **launch_options(service),
        )
        service.start()  # now, for torch's import would keep the page waiting
        page.block_thread()


def check_options(options: argparse.Namespace) -> tuple[str, str] | None:
    """User and password, where there are any. Raises UsageError for what cannot be meant."""
    if options.model and len(options.model) > 2:
        raise UsageError(f"{len(options.model)} models were given", "give one, or two to compare")
    if options.mcp and importlib.util.find_spec("mcp") is None:
        raise UsageError("--mcp needs a package that is not installed", "pip install 'gradio[mcp]'")
    if options.mcp and options.auth:  # Gradio's tools call the page from within, and have no password
        raise UsageError("tools cannot log in", "leave --mcp or --auth out, or let a proxy ask for the password")
    if options.auth is None:
        return None
    user, colon, password = options.auth.partition(":")
    if not (user and colon and password):
        raise UsageError("--auth takes USER:PASSWORD", "for instance --auth me:a-long-secret")
    return user, password


if __name__ == "__main__":
    with usage_errors_exit():
        main()
