"""The web app: check an image in the browser or through an API. Also a Space's entry point.

python app.py                               # newest run on photographs, else the shipped model
python app.py --model runs/mine             # a model folder or Hub id; a second one to compare it with
python app.py --host 0.0.0.0 --auth me:secret
python app.py --root-path /bonaface         # behind a reverse proxy, see docs/serve.md
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from bonaface.environment import whole_number
from bonaface.errors import UsageError, usage_errors_exit
from bonaface.provenance.trust import trust_list
from bonaface.web.choice import check_model, default_model
from bonaface.web.limits import Limits
from bonaface.web.settings import (
    bindable,
    check_environment,
    prepare_environment,
    server_port,
    server_root,
    shown_address,
    switch,
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Options that are not given can come from GRADIO_… environment variables."""
    defaults = Limits()
    parser = argparse.ArgumentParser("bonaface app", description="Serve the detector as a web page and an API.")
    parser.add_argument("--model", nargs="+", metavar="MODEL", help="Model folder or Hub id; give two to compare them.")
    parser.add_argument(
        "--host", help="Address to listen on, 0.0.0.0 for all; default: GRADIO_SERVER_NAME, else 127.0.0.1."
    )
    parser.add_argument("--port", help="Default: GRADIO_SERVER_PORT, else 7860; 0 takes a free one.")
    parser.add_argument(
        "--root-path", metavar="PATH", help="Path behind a reverse proxy, such as /bonaface; default: GRADIO_ROOT_PATH."
    )
    parser.add_argument("--share", action="store_true", help="Also serve on a public address, through Gradio's server.")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="User and password that visitors must give.")
    parser.add_argument("--mcp", action="store_true", help="Also serve the API as MCP tools; needs gradio[mcp].")
    for name, default, what in (
        ("--max-files", defaults.files, "Images per batch"),
        ("--max-upload", defaults.upload_bytes // 10**6, "MB per upload"),
        ("--max-waiting", defaults.waiting, "Requests that may wait"),
        ("--keep-seconds", defaults.keep_seconds, "Seconds after which an unused upload is deleted"),
    ):
        parser.add_argument(name, metavar="N", default=str(default), help=f"{what}; default: {default}.")
    parser.add_argument(
        "--rate-limit", metavar="N", help="POST requests per client and minute (a check takes four); default: no limit."
    )
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="All requests come through one proxy: tell clients apart by the last address in X-Forwarded-For.",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped. Raises UsageError."""
    options = parse_arguments(arguments)
    check_environment()
    trust_list()
    options.share, options.mcp = options.share or switch("GRADIO_SHARE"), options.mcp or switch("GRADIO_MCP_SERVER")
    login = check_options(options)
    limits = read_limits(options)
    root = server_root(options.root_path)
    host = options.host if options.host is not None else os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    said = "GRADIO_SERVER_NAME" if options.host is None else "--host"
    port = bindable(host, server_port(options.port), chosen_by=said)
    models = options.model or [model for model in [default_model(Path.cwd())] if model]
    prepare_environment(host, port, outside=options.share or not all(Path(model).is_dir() for model in models))
    for model in options.model or []:
        check_model(model)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl-C: uploads are deleted on the way out
    with tempfile.TemporaryDirectory(prefix="bonaface-app-") as folder:
        # Read when Gradio is imported. Uploads lie in a folder of this server alone, and are gone with it.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        from bonaface.web.page import build_page, launch_options
        from bonaface.web.service import Service

        service = Service(models, limits)
        page = build_page(service, Path(folder))
        if service.situation.status == "no model":
            print(service.situation.message, file=sys.stderr)
        page.launch(
            server_name=shown_address(host),
            server_port=port,
            root_path=root,
            share=options.share,
            auth=login,
            mcp_server=options.mcp,
            prevent_thread_lock=True,
            **launch_options(service, login=login is not None),
        )
        service.start()  # only now, because importing torch would delay the page
        threading.Event().wait()  # until a signal; Gradio's own wait would exit with 0 on Ctrl-C


def read_limits(options: argparse.Namespace) -> Limits:
    """How much a visitor may send. Raises UsageError for a limit below one."""
    files, megabytes, waiting = (
        whole_number(f"--max-{name}", getattr(options, f"max_{name}"), 1) for name in ("files", "upload", "waiting")
    )
    return Limits(
        files=files,
        upload_bytes=megabytes * 10**6,
        waiting=waiting,
        per_minute=None if options.rate_limit is None else whole_number("--rate-limit", options.rate_limit, 1),
        behind_proxy=options.behind_proxy,
        keep_seconds=whole_number("--keep-seconds", options.keep_seconds, 1),
    )


def check_options(options: argparse.Namespace) -> tuple[str, str] | None:
    """User and password, if given. Raises UsageError for options that exclude each other or are incomplete."""
    if options.model and len(options.model) > 2:
        raise UsageError(f"--model takes at most two models, not {len(options.model)}", "give one, or two to compare")
    if options.mcp and importlib.util.find_spec("mcp") is None:
        raise UsageError("--mcp needs a package that is not installed", "pip install 'gradio[mcp]'")
    if options.mcp and options.auth:  # Gradio's tools call the page from within, and have no password
        raise UsageError("MCP tools cannot log in", "leave out --mcp or --auth, or let a proxy ask for the password")
    if options.auth is None:
        return None
    user, colon, password = options.auth.partition(":")
    if not (user and colon and password):
        raise UsageError("--auth takes USER:PASSWORD", "give both, for example --auth me:a-long-secret")
    return user, password


def run(arguments: Sequence[str] | None = None) -> None:
    """:func:`main` for a terminal: ``error:`` and ``hint:`` lines in place of a traceback."""
    with usage_errors_exit():
        main(arguments)
