"""The environment's variables for proxies and certificates, as httpx reads them: the Hub's client and Gradio use it.

httpx refuses to create any client while one of them is invalid, whatever the address of the request.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import ssl
from urllib.request import getproxies_environment

from bonaface.errors import UsageError

SCHEMES = ("http", "https", "socks5", "socks5h")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_proxies() -> None:
    """Raise UsageError, naming the variable, where httpx cannot use the environment's proxies or certificates."""
    import httpx

    check_certificates()
    proxies = getproxies_environment()
    if proxies.get("no", "").strip() == "*":
        return
    for kind in ("http", "https", "all"):
        url = proxies.get(kind, "").strip()
        name = _spelled(f"{kind}_proxy")
        try:
            scheme = httpx.URL(url if "://" in url else f"http://{url}").scheme
        except httpx.InvalidURL as error:
            raise UsageError(f"{name} is not a proxy address: {error}", "set http://HOST:PORT, or unset it") from error
        if scheme not in SCHEMES:
            raise UsageError(f"{name} has an unsupported proxy scheme: {scheme}://", f"use one of {', '.join(SCHEMES)}")
        if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise UsageError(
                f"{name} is a SOCKS proxy, which needs a package that is not installed",
                f"pip install 'httpx[socks]', or unset {name}",
            )
    for host in filter(None, map(str.strip, proxies.get("no", "").split(","))):
        if not _is_host(host):
            name = _spelled("no_proxy")
            raise UsageError(
                f"{name} has an invalid entry: {host}", "list host names, or IPv6 addresses without brackets"
            )


def check_certificates() -> None:
    """Raise UsageError for a file of certificates that cannot be read."""
    file = os.environ.get("SSL_CERT_FILE")
    try:
        if file:
            ssl.create_default_context(cafile=file)
    except OSError as error:
        why = "contains no certificates" if isinstance(error, ssl.SSLError) else (error.strerror or str(error)).lower()
        raise UsageError(f"SSL_CERT_FILE is {file}: {why}", "name a file in PEM format, or unset it") from error


def ask_directly(*hosts: str) -> None:
    """Reach these hosts, and this machine, without a proxy; other hosts as before.

    Raises:
        UsageError: as :func:`check_proxies`.
    """
    check_proxies()
    proxies = getproxies_environment()
    if set(proxies) - {"no"}:  # where nothing is set, setting this would hide a system's own proxies
        known = [host.strip() for host in proxies.get("no", "").split(",") if host.strip()]
        _set_no_proxy(",".join(dict.fromkeys([*known, *LOOPBACK, *hosts])))


def ignore_proxies() -> None:
    """Use no proxy, and do not contact the Hub, which may be unreachable without one."""
    _set_no_proxy("*")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the Hub's client is imported


def _set_no_proxy(hosts: str) -> None:
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = hosts


def _spelled(name: str) -> str:
    """The variable's name as the environment spells it: lower case takes precedence."""
    return name if os.environ.get(name) else next((key for key in os.environ if key.lower() == name), name.upper())


def _is_host(entry: str) -> bool:
    import httpx

    try:
        ipaddress.IPv6Address(entry)
        return True
    except ValueError:
        pass
    try:
        httpx.URL(entry if "://" in entry else f"all://*{entry}")
    except httpx.InvalidURL:
        return False
    return True
