"""How much a visitor may send, and how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the app; each is checked before the work that it guards.

    Attributes:
        files: images per batch, including those inside an archive.
        upload_bytes: of one file, and of all files that are sent together.
        unpacked_bytes: what an archive may unpack to.
        clip_seconds: what a clip may last.
        waiting: requests that may wait; further ones are told that the app is busy.
        together: requests that are run together, as one batch of the model.
        per_minute: POST requests of each client; None for no limit. A check on the page takes four.
        behind_proxy: every request comes through one proxy, which names the client.
        keep_seconds: uploads and results are deleted when the page is closed, and at the latest after this time.
    """

    files: int = 500
    upload_bytes: int = 200_000_000
    unpacked_bytes: int = 1_000_000_000
    clip_seconds: int = 3600
    waiting: int = 128
    together: int = 32
    per_minute: int | None = None
    behind_proxy: bool = False
    keep_seconds: int = 900
