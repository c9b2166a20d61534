"""How much work a file makes for those who decode it, bounded before they begin: bytes and pixels do not tell.

A JPEG of 300 KB can pass over the same pixels a thousand times, 2 MB of empty parts take a second to walk, and a folder
of EXIF in 1 MB can name the same megabyte thousands of times as the value of another tag. Each bound is far above what
cameras and programs write.
"""

from __future__ import annotations

import io
import struct
from typing import IO, Any

from PIL import TiffImagePlugin

from bonaface.imaging.containers import END_OF_SCAN, MARKER, MAX_PARTS, read_container
from bonaface.imaging.tiff_extent import MAX_ENTRIES

MAX_SCANS = 32  # of a JPEG; progressive ones have about ten
MAX_BLOCKS = 20_000  # of a GIF's comments and extensions, which Pillow joins by copying
MAX_RUN_LENGTHS = 10_000_000  # bytes and pixels of a BMP in run lengths, which Pillow decodes in Python
SHARED_BYTES = 65_536  # by which a folder's values may exceed the file, because small ones are shared
_OFFSETS = (273, 324)  # TIFF: where each strip, or tile, is


def too_costly(data: bytes, kind: str | None) -> str:
    """What there is too much of in an image file of this kind of content; "" where it may be decoded."""
    match kind:
        case "JPEG":
            return _jpeg(data)
        case "PNG" if len(read_container(data).parts) >= MAX_PARTS:
            return f"more than {MAX_PARTS:,} chunks"
        case "GIF" if _gif_blocks(data) > MAX_BLOCKS:
            return f"more than {MAX_BLOCKS:,} blocks in front of its pixels"
        case "BMP" if _run_lengths(data) > MAX_RUN_LENGTHS:
            return f"run lengths of more than {MAX_RUN_LENGTHS:,} bytes or pixels"
    return ""


def _jpeg(data: bytes) -> str:
    """In front of the pixels, Pillow walks segments and the bytes between them; libjpeg passes over all scans."""
    at, steps, scans, pattern = 2, 0, 0, MARKER
    while found := pattern.search(data, at):
        steps += found.end() - at - 1 if not scans else 0
        if steps > MAX_PARTS:
            return f"more than {MAX_PARTS:,} segments or bytes between them"
        marker, at = found.group(1)[0], found.end()
        if marker == 0xD9:
            return ""
        if marker == 0xDA:
            if not scans and data.count(b"\xff\xda", at) < MAX_SCANS:  # a second image behind this one included
                return ""
            scans, pattern = scans + 1, END_OF_SCAN
            if scans > MAX_SCANS:
                return f"more than {MAX_SCANS} scans"
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8):  # with a length
            at += int.from_bytes(data[at : at + 2], "big")
    return f"more than {MAX_PARTS:,} bytes without a segment" if not scans and len(data) - at > MAX_PARTS else ""


def _gif_blocks(data: bytes) -> int:
    """Sub-blocks in front of the first image, and other bytes there."""
    at, n = 13 + (3 << ((data[10] & 7) + 1) if data[10:11] and data[10] & 0x80 else 0), 0
    while at < len(data) and data[at] not in b"\x2c\x3b" and n <= MAX_BLOCKS:
        n += 1
        if data[at] != 0x21:
            at += 1
            continue
        at += 2
        while at < len(data) and data[at] and n <= MAX_BLOCKS:
            at, n = at + 1 + data[at], n + 1
        at += 1
    return n


def _run_lengths(data: bytes) -> int:
    """Bytes of a BMP in run lengths, or its pixels if they are more; 0 of any other BMP."""
    if len(data) < 34 or int.from_bytes(data[30:34], "little") not in (1, 2):
        return 0
    width, height = struct.unpack_from("<ii", data, 18)
    return max(len(data), abs(width * height))


def _bounded(fp: IO[bytes], big: bool, order: str) -> None:
    """Raise SyntaxError for a folder at the file's position that is no honest one; the position stays."""
    start = fp.tell()
    try:
        head, width, code = (8, 20, "Q") if big else (2, 12, "I")
        n = int.from_bytes(fp.read(head), "little" if order == "<" else "big")
        if n > MAX_ENTRIES:
            raise SyntaxError(f"a folder of {n:,} entries")
        entries, total = fp.read(n * width), 0
        for at in range(0, len(entries) - width + 1, width):
            tag, kind, count = struct.unpack_from(f"{order}HH{code}", entries, at)
            total += count * TiffImagePlugin.ImageFileDirectory_v2._load_dispatch.get(kind, (0,))[0]
            if tag in _OFFSETS and count > MAX_PARTS:
                raise SyntaxError(f"an image of {count:,} strips or tiles")
        if total > fp.seek(0, io.SEEK_END) + SHARED_BYTES:
            raise SyntaxError("a folder with more values than bytes")
    finally:
        fp.seek(start)


def bound_folders() -> None:
    """Let Pillow refuse a TIFF's folder, which EXIF is too, before it copies the values; in this process, from now on.

    It reads folders while it opens some formats, so nobody could look at them first.
    """
    load: Any = TiffImagePlugin.ImageFileDirectory_v2.load

    def bounded(self: Any, fp: IO[bytes]) -> None:
        _bounded(fp, self._bigtiff, self._endian)
        load(self, fp)

    if load.__name__ != bounded.__name__:
        TiffImagePlugin.ImageFileDirectory_v2.load = bounded  # type: ignore[method-assign]
