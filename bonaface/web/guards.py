"""Protection between the network and Gradio: nothing is fetched for a visitor, and no request is too large.

Gradio takes a file as ``{"path": …}`` and, where the path is an address, downloads it before any code of an app runs.
Every way in (queue, plain HTTP, MCP) ends in ``Blocks.preprocess_data``, so that is where :class:`GuardedBlocks` looks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bonaface.web.clients import RateLimit, client_of

BUSY = "Too many requests are waiting. Try again in a minute."
NO_ADDRESSES = "URLs are never fetched. Send the file itself."
# Gradio's page needs inline scripts and styles, and its HTML component compiles templates. Whatever is shown, the
# browser loads it from here alone.
CONTENT_POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'"
TOO_OFTEN = "You ask too often. Try again later."
TOO_SLOW = "The request was sent too slowly."
PATIENCE, SLOWEST = 30, 10_000  # seconds for any body, and bytes a second beyond
# What Gradio's login page consists of, and whether the server is up.
OPEN = ("/", "/login", "/health", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json", "/pwa_icon",
        "/gradio_api/startup-events")  # fmt: skip
OPEN_BELOW = ("/static/", "/assets/", "/svelte/")


class GuardedBlocks(gr.Blocks):
    """Blocks that refuse a file which is an address, before Gradio looks at it."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """As Gradio's. Raises gr.Error."""
        refuse_addresses(inputs)
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def refuse_addresses(value: Any) -> None:
    """Raise gr.Error where a file in a request's data, however deep, is to be had from an address.

    A ``url`` beside a local ``path`` is what Gradio's own page sends, and is never fetched; ``data:`` contains the
    bytes themselves.
    """
    if isinstance(value, Mapping):
        path, url = value.get("path"), value.get("url")
        for place in (path, None if path else url):
            if isinstance(place, str) and "://" in place[:40]:
                raise gr.Error(NO_ADDRESSES, print_exception=False)
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            refuse_addresses(item)


@dataclass(frozen=True)
class Refusal:
    """What a request is told in place of the application's answer."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)


BUSY_REFUSAL = Refusal(503, BUSY, {"Retry-After": "10"})


class RequestGuard:
    """ASGI middleware: who may ask, how much and how fast, and what the page may load.

    Args:
        app: the application to protect.
        largest: bytes of a body. Gradio itself bounds each file, not their sum.
        most: POST requests at the same time; further ones get 503. Four times as many may still be sending.
        rate: POST requests of each client; None for no limit.
        behind_proxy: all requests come through a proxy that names the client, see :func:`client_of`.
        login: with a password, nothing but the page that asks for it is given to those who have not.
        framed_by: addresses whose pages may show this one in a frame.
        patience: seconds in which a body begins to count; from then on it must be faster than ``SLOWEST``.
    """

    def __init__(
        self,
        app: ASGIApp,
        largest: int,
        most: int,
        *,
        rate: RateLimit | None = None,
        behind_proxy: bool = False,
        login: bool = False,
        framed_by: str = "",
        patience: float = PATIENCE,
    ) -> None:
        self.app, self.largest, self.most, self.rate = app, largest, most, rate
        self.behind_proxy, self.login, self.patience = behind_proxy, login, patience
        self.headers = headers_for(framed_by)
        self._sending = self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
            await send(message)

        body = Body(receive, self.largest, self.patience)
        refusal = self._refusal(scope)
        if not refusal:
            refusal = await self._answer(scope, body, with_headers)
        if refusal and not started:
            answer = PlainTextResponse(refusal.text, status_code=refusal.status, headers=refusal.headers)
            await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """By the request's header alone."""
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self.largest:
            return too_large(self.largest)
        if self.login and not is_open(scope["path"], scope["method"]) and not is_logged_in(scope):
            return Refusal(401, "Log in first.")
        if scope["method"] != "POST":
            return None
        if self.rate:
            wait = self.rate.seconds_to_wait(client_of(scope, behind_proxy=self.behind_proxy))
            if wait:
                return Refusal(429, TOO_OFTEN, {"Retry-After": str(math.ceil(wait))})
        return BUSY_REFUSAL if self._sending >= 4 * self.most or self._under_way >= self.most else None

    async def _answer(self, scope: Scope, body: Body, send: Send) -> Refusal | None:
        """Let the application answer; what it is refused on the way."""
        counts = scope["method"] == "POST"

        def arrived() -> Refusal | None:
            self._sending -= 1
            self._under_way += 1
            return BUSY_REFUSAL if self._under_way > self.most else None

        if counts:
            self._sending, body.on_arrival = self._sending + 1, arrived

        async def unless_refused(message: Message) -> None:
            if not body.refusal:
                await send(message)

        try:
            await self.app(scope, body.receive, unless_refused)
        except Exception:
            if not (body.refusal or body.gone):  # else it is the application's complaint that the body ended early
                raise
        finally:
            self._sending -= counts and not body.complete
            self._under_way -= counts and body.complete
        return body.refusal


class Body:
    """A request's body on its way: refused, by an early end, where it becomes too large or is sent too slowly.

    Attributes:
        refusal: why it ended early.
        gone: the client left before it was here.
        complete: it is here; ``on_arrival``, called then, may refuse the request all the same.
    """

    def __init__(self, receive: Receive, largest: int, patience: float) -> None:
        self._receive, self.largest, self.patience = receive, largest, patience
        self.refusal: Refusal | None = None
        self.gone = self.complete = False
        self.on_arrival: Callable[[], Refusal | None] | None = None
        self._seen, self._began = 0, time.monotonic()

    async def receive(self) -> Message:
        """As ASGI has it."""
        if self.refusal:
            return {"type": "http.disconnect"}
        if self.complete:  # what comes now is the end of the connection
            return await self._receive()
        left = self._began + self.patience + self._seen / SLOWEST - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError:
            self.refusal = Refusal(408, TOO_SLOW, {"Connection": "close"})
            return {"type": "http.disconnect"}
        self.gone = message["type"] == "http.disconnect"
        self._seen += len(message.get("body", b""))
        if self._seen > self.largest:
            self.refusal = too_large(self.largest)
        elif message["type"] == "http.request" and not message.get("more_body", False):
            self.complete = True
            self.refusal = self.on_arrival() if self.on_arrival else None
        return {"type": "http.disconnect"} if self.refusal else message


def too_large(largest: int) -> Refusal:
    """Of a body beyond ``largest`` bytes."""
    return Refusal(413, f"Upload at most {largest / 1e6:.0f} MB at a time.", {"Connection": "close"})


def headers_for(framed_by: str) -> dict[str, str]:
    """Headers of every answer; ``framed_by`` are addresses, separated by blanks, beside the page's own."""
    headers = {
        "Content-Security-Policy": f"{CONTENT_POLICY}; frame-ancestors 'self' {framed_by}".rstrip(),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return headers if framed_by else headers | {"X-Frame-Options": "SAMEORIGIN"}  # which can name no other address


def is_open(path: str, method: str) -> bool:
    """Whether what is at a path is given to those who have not logged in: the page that asks for the password."""
    path = path.rstrip("/") or "/"
    if method == "POST":
        return path == "/login"
    return path in OPEN or path.startswith(OPEN_BELOW)


def is_logged_in(scope: Scope) -> bool:
    """Whether a request has the cookie that Gradio gives for the password."""
    app, cookies = scope["app"], Request(scope).cookies
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(cookies.get(name) in app.tokens for name in names)
