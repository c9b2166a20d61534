"""Proxy variables: what httpx cannot use is named, and nobody asks himself by way of a proxy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bonaface.data.listing import list_data
from bonaface.errors import UsageError
from bonaface.hub.publish import check_login
from bonaface.models.download import model_folder
from bonaface.proxies import ask_directly, check_proxies, ignore_proxies
from bonaface.web.settings import check_environment

SOCKS = "socks5://127.0.0.1:9"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = dict(os.environ)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", SOCKS),
        ("https_proxy", "socks5h://127.0.0.1:9"),
        ("all_proxy", "socks://127.0.0.1:9"),  # as desktops write it
        ("HTTP_PROXY", "http://127.0.0.1:port"),
        ("NO_PROXY", "localhost,[::1]"),
        ("no_proxy", "fe80::/10"),
    ],
)
def test_what_cannot_be_used_is_named_wherever_the_hub_is_asked(name: str, value: str, tmp_path: Path) -> None:
    os.environ["HTTP_PROXY"] = "http://127.0.0.1:9"  # without a proxy httpx does not read exceptions
    os.environ[name] = value
    with pytest.raises((ImportError, ValueError, httpx.InvalidURL)):  # this is what it guards from
        httpx.Client()
    os.environ["HF_TOKEN"] = "hf_x"
    for ask in (
        check_proxies,
        lambda: model_folder("user/name"),
        lambda: list_data("user/name"),
        lambda: check_login("user/name"),
    ):
        with pytest.raises(UsageError, match=name):
            ask()


@pytest.mark.parametrize("value", ["http://127.0.0.1:9", "127.0.0.1:9", "https://me:secret@proxy.local:8080", ""])
def test_what_can_be_used_is_let_through_but_not_for_this_machine(value: str) -> None:
    os.environ |= {"HTTP_PROXY": value, "NO_PROXY": "intern.local, 10.0.0.0/8,::1"}
    ask_directly("192.0.2.7")
    with httpx.Client() as client:
        through = [
            type(client._transport_for_url(httpx.URL(f"http://{host}:7860/"))._pool).__name__
            for host in ("127.0.0.1", "localhost", "[::1]", "192.0.2.7", "intern.local", "example.org")
        ]
    assert through == ["ConnectionPool"] * 5 + ["HTTPProxy" if value else "ConnectionPool"]


def test_without_any_proxy_nothing_is_changed() -> None:
    ask_directly("127.0.0.1")
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]


def test_an_app_that_needs_nothing_from_elsewhere_does_without() -> None:
    os.environ["ALL_PROXY"] = SOCKS
    ignore_proxies()
    check_proxies()
    httpx.Client().close()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("content", "why"), [(None, "no such file"), ("not a certificate", "contains no certificates")]
)
def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, content: str | None, why: str) -> None:
    file = tmp_path / "certificates.pem"
    if content is not None:
        file.write_text(content)
    os.environ["SSL_CERT_FILE"] = str(file)
    for ask in (check_proxies, check_environment):
        with pytest.raises(UsageError, match=f"SSL_CERT_FILE is .*: {why}"):
            ask()
