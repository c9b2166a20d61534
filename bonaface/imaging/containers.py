"""Where the parts of an image file lie: segments, chunks, boxes and blocks, and where the image ends.

Metadata counts only where its format puts it. A search through the bytes would also find what stands in a comment, in
pixels, in an embedded thumbnail, or behind the image, where anyone can append anything. Nothing is decoded or copied
here; every walk stays within the bytes and within ``MAX_PARTS`` steps.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bonaface.imaging.content import content_kind
from bonaface.imaging.tiff_extent import tiff_extent

MAX_PARTS = 100_000


@dataclass(frozen=True)
class Part:
    """A segment, chunk, box or block by its format's own name; its payload is ``data[start:stop]``."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Container:
    """The parts of one image.

    Attributes:
        kind: the format, as :func:`bonaface.imaging.content.content_kind` names it.
        parts: in file order; of a JPEG those in front of its pixels.
        end: the offset behind the image's last byte. Where the file does not tell, the number of bytes.
    """

    kind: str
    parts: tuple[Part, ...]
    end: int
    data: bytes = field(repr=False)

    def payloads(self, name: str) -> Iterator[bytes]:
        """The payload of each part of this name."""
        for part in self.parts:
            if part.name == name:
                yield self.data[part.start : part.stop]

    @property
    def image(self) -> bytes:
        """The bytes without those behind the image's end."""
        return self.data if self.end == len(self.data) else self.data[: self.end]

    @property
    def has_c2pa(self) -> bool:
        """Whether a C2PA manifest store lies where the format keeps it (C2PA 2.1, A.3 to A.5)."""
        return any(_is_store(payload) for payload in _stores(self))

    @property
    def c2pa_bytes(self) -> int:
        """Bytes where the format keeps a C2PA manifest store."""
        return sum(map(len, _stores(self)))


def read_container(data: bytes) -> Container:
    """The parts of an image file. Of a broken one, and of a format without parts, those that can be found."""
    kind = content_kind(data) or ""
    parts, end = _WALKS.get(kind, _nothing)(data)
    return Container(kind, tuple(parts), min(end, len(data)), data)


Walk = tuple[list[Part], int]


def _nothing(data: bytes) -> Walk:
    return [], len(data)


# --- JPEG (ITU-T T.81, B.1) -----------------------------------------------------------------------------------------

MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# In coded data a 0xff is followed by a zero or is a restart marker; any other marker ends the scan.
END_OF_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length


def _jpeg(data: bytes) -> Walk:
    parts: list[Part] = []
    at, pattern = 2, MARKER
    for _ in range(MAX_PARTS):
        found = pattern.search(data, at)
        if not found:
            break
        marker, at = found.group(1)[0], found.end()
        if marker == 0xD9:  # EOI
            return parts, at
        if marker in _ALONE:
            continue
        stop = at + int.from_bytes(data[at : at + 2], "big")
        if not at + 2 <= stop <= len(data):
            break
        if marker == 0xDA:  # SOS
            pattern = END_OF_SCAN
        elif pattern is MARKER:
            name = f"APP{marker - 0xE0}" if 0xE0 <= marker < 0xF0 else "COM" if marker == 0xFE else f"{marker:02X}"
            parts.append(Part(name, at + 2, stop))
        at = stop
    return parts, len(data)


# --- PNG (ISO/IEC 15948) and RIFF (WebP) ----------------------------------------------------------------------------


def _png(data: bytes) -> Walk:
    parts: list[Part] = []
    at = 8
    while at + 12 <= len(data) and len(parts) < MAX_PARTS:
        stop = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if stop + 4 > len(data):
            break
        parts.append(Part(data[at + 4 : at + 8].decode("latin-1"), at + 8, stop))
        at = stop + 4  # its checksum
        if parts[-1].name == "IEND":
            return parts, at
    return parts, len(data)


def _riff(data: bytes) -> Walk:
    end = 8 + int.from_bytes(data[4:8], "little")
    end = min(end + end % 2, len(data))
    parts: list[Part] = []
    at = 12
    while at + 8 <= end and len(parts) < MAX_PARTS:
        stop = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if stop > end:
            break
        parts.append(Part(data[at : at + 4].decode("latin-1"), at + 8, stop))
        at = stop + stop % 2
    return parts, end


# --- GIF (89a) ------------------------------------------------------------------------------------------------------


def _gif(data: bytes) -> Walk:
    parts: list[Part] = []
    at = 13 + _palette(data[10:11])
    while at < len(data) and len(parts) < MAX_PARTS:
        if data[at] == 0x3B:  # the trailer
            return parts, at + 1
        if data[at] == 0x2C:  # an image: descriptor, colours, code size, pixels
            at += 10 + _palette(data[at + 9 : at + 10]) + 1
            name = "image"
        elif data[at] == 0x21:
            name = {b"\xff": "application", b"\xfe": "comment"}.get(data[at + 1 : at + 2], "extension")
            at += 2
        else:
            break
        start = at
        while at < len(data) and data[at]:
            at += 1 + data[at]
        if at >= len(data):
            break
        parts.append(Part(name, start, at))
        at += 1
    return parts, len(data)


def _palette(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


# --- HEIF and AVIF (ISO/IEC 14496-12 and 23008-12) ------------------------------------------------------------------


def _boxes(data: bytes, at: int = 0, end: int | None = None) -> Iterator[Part]:
    end = len(data) if end is None else end
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        size, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = at + size if size else end  # 0: up to the end of the file
        if not start <= stop <= end:
            return
        yield Part(data[at + 4 : at + 8].decode("latin-1"), start, stop)
        at = stop


def _heif(data: bytes) -> Walk:
    """There is no last box: the image ends with the box that holds its last byte of pixels."""
    boxes = list(_boxes(data))
    first = {box.name: box for box in reversed(boxes)}
    if "meta" not in first:
        return boxes, len(data)
    meta = first["meta"]
    reach = max((first[name].stop for name in ("ftyp", "meta", "moov") if name in first), default=0)
    if "moov" in first and "mdat" in first:
        reach = max(reach, first["mdat"].stop)  # a sequence's frames
    for box in _boxes(data, meta.start + 4, meta.stop):
        if box.name == "iloc":
            reach = max(reach, _last_extent(data[box.start : box.stop], len(data)))
    end = next((box.stop for box in boxes if box.stop >= reach), len(data))
    return [box for box in boxes if box.stop <= end], end


def _last_extent(iloc: bytes, n_bytes: int) -> int:
    """Where the last byte of all items lies, by an item location box (ISO/IEC 14496-12, 8.11.3)."""
    version, at = iloc[0], 6
    sizes = [iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4, iloc[5] & 15 if version else 0]

    def number(size: int) -> int:
        nonlocal at
        if at + size > len(iloc):
            raise EOFError
        at += size
        return int.from_bytes(iloc[at - size : at], "big")

    reach, n_extents = 0, 0
    try:
        for _ in range(min(number(4 if version == 2 else 2), MAX_PARTS)):
            number(4 if version == 2 else 2)  # the item's number
            in_file = not (number(2) & 15 if version else 0)
            number(2)  # which file
            base = number(sizes[2])
            for _ in range(number(2)):
                number(sizes[3])
                offset, length = number(sizes[0]), number(sizes[1])
                n_extents += 1
                if n_extents > MAX_PARTS:
                    return reach
                if in_file:
                    reach = max(reach, base + offset + length if length else n_bytes)
    except EOFError:
        pass
    return min(reach, n_bytes)


# --- TIFF and BMP ---------------------------------------------------------------------------------------------------


def _tiff(data: bytes) -> Walk:
    entries, end = tiff_extent(data)
    return [Part(str(tag), start, stop) for tag, start, stop in entries], end


def _bmp(data: bytes) -> Walk:
    size = int.from_bytes(data[2:6], "little")
    return [], size if 54 <= size <= len(data) else len(data)


_WALKS: dict[str, Callable[[bytes], Walk]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _riff,
    "GIF": _gif,
    "AVIF": _heif,
    "HEIC": _heif,
    "TIFF": _tiff,
    "BMP": _bmp,
}


# --- C2PA -----------------------------------------------------------------------------------------------------------

_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def _stores(container: Container) -> Iterator[bytes]:
    """What may be a manifest store, beginning with its JUMBF superbox."""
    match container.kind:
        case "JPEG":  # common identifier, box instance and packet number in front: ISO/IEC 18477-3, B.1
            yield from (payload[8:] for payload in container.payloads("APP11") if payload[:2] == b"JP")
        case "PNG":
            yield from container.payloads("caBX")
        case "WebP":
            yield from container.payloads("C2PA")
        case "GIF":
            for payload in container.payloads("application"):
                if payload[1:9] == b"C2PA_GIF":
                    yield payload[13:]
        case "TIFF":
            yield from container.payloads("52545")
        case "AVIF" | "HEIC":  # identifier, version, purpose ("manifest"), offset of an auxiliary box
            for payload in container.payloads("uuid"):
                if payload[:16] == _C2PA_BOX:
                    yield payload[16 + 4 :].partition(b"\0")[2][8:]


def _is_store(payload: bytes) -> bool:
    """A JUMBF superbox whose description box has the type "c2pa"."""
    if len(payload) < 24:
        return False
    _, superbox, _, description, kind = struct.unpack_from(">I4sI4s4s", payload)
    return (superbox, description, kind) == (b"jumb", b"jumd", b"c2pa")
