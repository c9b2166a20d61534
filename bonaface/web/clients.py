"""Who asks, by address, and how often each may."""

from __future__ import annotations

import ipaddress
import time

from starlette.datastructures import Headers
from starlette.types import Scope

KNOWN = 10_000  # clients that are remembered at a time


def client_of(scope: Scope, *, behind_proxy: bool) -> str:
    """The address that a request came from, of IPv6 the network of one customer (/64).

    A header may say anything: only where all requests come through one proxy is its last word in ``X-Forwarded-For``
    taken, which is the proxy's own.
    """
    said = Headers(scope=scope).get("x-forwarded-for", "") if behind_proxy else ""
    address = said.rpartition(",")[2].strip() or str((scope.get("client") or ("", 0))[0])
    try:
        found = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return address[:60]
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class RateLimit:
    """At most ``per_minute`` requests of each client: a bucket of so many that fills up evenly."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}  # requests, and when it was counted

    def seconds_to_wait(self, client: str, now: float | None = None) -> float:
        """0 where the client may ask, which counts; else how long until it may."""
        now = time.monotonic() if now is None else now
        left, since = self._left.pop(client, (float(self.per_minute), now))
        left = min(self.per_minute, left + (now - since) * self.per_minute / 60)
        allowed = left >= 1
        self._left[client] = (left - allowed, now)  # the last one in the dict is the one that asked last
        if len(self._left) > KNOWN:
            del self._left[next(iter(self._left))]
        return 0.0 if allowed else (1 - left) * 60 / self.per_minute
