"""Inputs that broke a reader's promise once: the target's name, and the bytes."""

from __future__ import annotations

JOURNAL = b'{"batch_size": 2, "model": "m"}\n'

CRASHERS: list[tuple[str, bytes]] = [
    ("journal", JOURNAL + b'{"path": "a\xff"}\n'),  # not UTF-8
    ("journal", JOURNAL + bytes(40) + b"\n"),  # zeros, as a file system leaves them when the power fails
    ("journal", JOURNAL + b'["path"]\n'),
    ("journal", b"[]\n"),
    ("journal", b'{"batch_size": "two"}\n{}\n'),
]
