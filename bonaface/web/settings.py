"""Where the server listens, by options and environment: a wrong value is reported before anything starts."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from urllib.parse import urlsplit

from bonaface.environment import check_hub, check_numbers, whole_number
from bonaface.errors import UsageError
from bonaface.proxies import ask_directly, check_certificates, check_proxies, ignore_proxies

# What Gradio, uvicorn and the Hub's client read by themselves, each with a bare int(), and the least valid value.
WHOLE_NUMBERS = {
    "GRADIO_NUM_PORTS": 1, "GRADIO_NODE_NUM_PORTS": 1, "GRADIO_NODE_SERVER_PORT": 1, "GRADIO_NUM_WORKERS": 0,
    "GRADIO_ANALYTICS_MAX_EVENTS": 1, "GRADIO_ANALYTICS_CACHE_FREQUENCY": 1,
    "GRADIO_DEBUG": 0, "WEB_CONCURRENCY": 1,
}  # fmt: skip
SWITCHES = ("GRADIO_SHARE", "GRADIO_MCP_SERVER", "GRADIO_ANALYTICS_ENABLED", "GRADIO_SSR_MODE", "GRADIO_RUN_HISTORY")
PLACES = ("GRADIO_ALLOWED_PATHS", "GRADIO_BLOCKED_PATHS", "GRADIO_NODE_PATH", "BONAFACE_YUNET")
# Of Gradio's own development: they reload or edit the program, or keep its server from returning to load the model, or
# start processes that take files past our limits.
UNSET = ("GRADIO_DEBUG", "GRADIO_NUM_WORKERS", "GRADIO_LOCAL_DEV_MODE", "GRADIO_VIBE_MODE", "GRADIO_WATCH_DIRS")
LARGEST_PORT = 65535


def switch(name: str) -> bool:
    """Whether the environment turns something on. Raises UsageError for other words than true and false."""
    text = os.environ.get(name, "").strip().lower()
    if text not in ("", "true", "false"):
        raise UsageError(f"{name} is {text!r}, which is neither true nor false", f"set {name}=true, or unset it")
    return text == "true"


def check_environment() -> None:
    """Raise UsageError for a variable that would end the start, now or in Gradio."""
    check_hub()
    check_certificates()  # Gradio asks itself whether it is up
    check_numbers(WHOLE_NUMBERS)
    if os.environ.get("GRADIO_DEFAULT_CONCURRENCY_LIMIT", "").lower() != "none":
        check_numbers({"GRADIO_DEFAULT_CONCURRENCY_LIMIT": 1})
    for name in SWITCHES:
        switch(name)
    beat = os.environ.get("GRADIO_HEARTBEAT_INTERVAL", "")
    if beat and not re.fullmatch(r"(?!0*\.?0*$)\d*\.?\d+", beat):
        raise UsageError(
            f"GRADIO_HEARTBEAT_INTERVAL is {beat!r}, which is not a number of seconds", "set 15, or unset it"
        )
    for name in PLACES:
        for place in filter(None, map(str.strip, os.environ.get(name, "").split(","))):
            if not os.path.exists(os.path.expanduser(place)):  # noqa: PTH110, PTH111 - Path's raise for impossible names
                raise UsageError(f"{name} names {place}, which does not exist", f"correct or unset {name}")


def server_port(option: str | None) -> int:
    """The port by the command line, else the environment, else 7860; 0 stands for any. Raises UsageError."""
    if option is not None:
        return whole_number("--port", option, 0, LARGEST_PORT)
    name = "GRADIO_SERVER_PORT"
    return whole_number(name, os.environ.get(name) or "7860", 0, LARGEST_PORT)


def server_root(option: str | None) -> str:
    """Where visitors find the app's root: a path or a whole address, without its last slash. Raises UsageError."""
    name = "GRADIO_ROOT_PATH" if option is None else "--root-path"
    root = (os.environ.get(name, "") if option is None else option).strip().rstrip("/")
    address = urlsplit(root)
    whole = address.scheme in ("http", "https") and bool(address.netloc)
    path = address.path if whole else root
    if not re.fullmatch(r"(/[\w.~%@:+-]+)*", path, re.ASCII) or (address.scheme and not whole):
        raise UsageError(f"{name} is {root!r}, which is not a path", "give the part after the host, such as /bonaface")
    return root


def bindable(host: str, port: int, *, chosen_by: str = "--host") -> int:
    """The port, or a free one for 0, after a try to listen there. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # elsewhere it would take a port away from whoever has it
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EADDRINUSE:
            hint = "choose another with --port (0 takes a free one), or stop the program that uses it"
            raise UsageError(f"port {port} of {host} is in use", hint) from error
        if number in (errno.EACCES, errno.EPERM):
            hint = "choose one above 1023 with --port, and put a proxy in front"
            raise UsageError(f"port {port} of {host} needs more privileges", hint) from error
        why = getattr(error, "strerror", None) or error
        hint = "use 127.0.0.1 for this machine alone, or 0.0.0.0 for all of its addresses"
        raise UsageError(f"cannot listen on {host}, set by {chosen_by}: {why}", hint) from error


def prepare_environment(host: str, port: int, *, outside: bool) -> None:
    """Set what Gradio reads when it is imported and when it asks itself whether it is up.

    Args:
        outside: something from the network is needed (a model on the Hub, a public address), so that a proxy which
            cannot be used is an error. Otherwise the app starts offline.

    Raises:
        UsageError: such a proxy.
    """
    # Gradio tries this host, with an IPv4 socket, before it listens on the one that it is told.
    os.environ["GRADIO_SERVER_NAME"] = "127.0.0.1" if ":" in host else host
    os.environ["GRADIO_SERVER_PORT"] = str(port)
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")  # else uvicorn believes every visitor of a proxy on this machine
    if outside:
        check_proxies()
    try:
        ask_directly(host.strip("[]"))
    except UsageError as error:
        print(f"note: {error}; the app needs no proxy and stays offline", file=sys.stderr)
        ignore_proxies()


def shown_address(host: str) -> str:
    """The host as an address has it: IPv6 in brackets."""
    bare = host.strip("[]")
    return f"[{bare}]" if ":" in bare else bare
