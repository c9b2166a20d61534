"""Protection between the network and Gradio: nothing is fetched for a visitor, and no request is too large.

Gradio takes a file as ``{"path": …}`` and, where the path is an address, downloads it before any code of an app runs.
Every way in (queue, plain HTTP, MCP) ends in ``Blocks.preprocess_data``, so that is where :class:`GuardedBlocks` looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUSY = "Too many requests are waiting. Try again in a minute."
NO_ADDRESSES = "URLs are never fetched. Send the file itself."
# Gradio's page needs inline scripts and styles, and its HTML component compiles templates. Whatever is shown, the
# browser loads it from here alone.
CONTENT_POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'"


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


class RequestGuard:
    """ASGI middleware: limits the body and the number of requests, and what the page may load.

    Args:
        app: the application to protect.
        largest: bytes of a body. Gradio itself bounds each file, not their sum.
        most: POST requests at the same time; further ones get 503.
    """

    def __init__(self, app: ASGIApp, largest: int, most: int) -> None:
        self.app, self.largest, self.most = app, largest, most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self.largest:
            text = f"Upload at most {self.largest / 1e6:.0f} MB at a time."
            await PlainTextResponse(text, status_code=413)(scope, receive, send)
            return
        if scope["method"] == "POST":
            if self._under_way >= self.most:
                await PlainTextResponse(BUSY, status_code=503, headers={"Retry-After": "10"})(scope, receive, send)
                return
            self._under_way += 1
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return message if seen <= self.largest else {"type": "http.disconnect"}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        finally:
            self._under_way -= scope["method"] == "POST"
