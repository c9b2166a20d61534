"""Connections that are held open without a request are closed: uvicorn waits for the end of a header for ever."""

from __future__ import annotations

import asyncio
import time
from typing import Any

HEADER_SECONDS = 20  # for a connection to send the whole header of its (next) request
SWEEP_SECONDS = 2


def is_waiting(connection: Any) -> bool:
    """Whether a connection of uvicorn's has no request under way: none yet, or all were answered."""
    cycle = getattr(connection, "cycle", None)
    return hasattr(connection, "cycle") and (cycle is None or cycle.response_complete)


async def close_silent(server: Any, header_seconds: float = HEADER_SECONDS) -> None:
    """Close connections of a uvicorn server that wait for longer than they may; runs as long as its event loop."""
    since: dict[Any, float] = {}
    while True:
        await asyncio.sleep(min(SWEEP_SECONDS, header_seconds))
        waiting = {connection for connection in server.server_state.connections if is_waiting(connection)}
        now = time.monotonic()
        since = {connection: since.get(connection, now) for connection in waiting}
        for connection, began in since.items():
            if now - began > header_seconds:
                connection.transport.close()
