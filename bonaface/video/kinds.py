"""Which files are clips: videos by their first bytes or suffix, and animated GIF, WebP, PNG and AVIF."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from bonaface.imaging.content import VIDEO_KINDS, content_kind
from bonaface.imaging.images import IMAGE_SUFFIXES, is_image_name

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".3gp", ".3g2",
    ".wmv", ".asf", ".flv", ".ogv",
])
# fmt: on
MOVING_SUFFIXES = frozenset([".gif", ".webp", ".png", ".apng", ".avif"])
MOVING_KINDS = ("GIF", "WebP", "PNG", "AVIF")
HEAD = 512  # bytes


def is_video_name(name: str) -> bool:
    """Whether a file of this name (a path or not) is taken for a video where a folder is searched: by its suffix."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122 - a million names


def is_input_name(name: str) -> bool:
    """Whether it is taken for a video or an image."""
    return is_image_name(name) or is_video_name(name)


def is_clip(path: str) -> bool:
    """Whether a file is judged as a clip; one that cannot be read is one by its suffix alone.

    Files with the suffix of a still image are not opened, and what else is named like an image stays one, so that
    reading it can say what it is.
    """
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    if suffix in IMAGE_SUFFIXES - MOVING_SUFFIXES:
        return False
    kind, head = kind_of(path)
    if kind in MOVING_KINDS:
        return _moves(path, kind, head)
    return suffix not in IMAGE_SUFFIXES and (kind in VIDEO_KINDS or suffix in VIDEO_SUFFIXES)


def kind_of(path: str) -> tuple[str | None, bytes]:
    """What the first bytes say (see :func:`content_kind`), and these bytes; None and none for what cannot be read."""
    try:
        if not Path(path).is_file():  # a named pipe would block
            return None, b""
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
    except (OSError, ValueError):
        return None, b""
    return content_kind(head), head


def _moves(path: str, kind: str, head: bytes) -> bool:
    if kind == "WebP":  # Pillow would read the whole file to tell
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    if kind == "AVIF":
        return b"avis" in head[8:32]
    try:
        with Image.open(path, formats=[kind]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # reading it as a still image says what is wrong
        return False
