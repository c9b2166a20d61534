"""How far a TIFF reaches: it has no last part, only offsets that lead from one to the next (TIFF 6.0, section 2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_FOLDERS, MAX_ENTRIES, MAX_VALUES = 100, 10_000, 1_000_000
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_DATA = {273: 279, 324: 325, 513: 514}  # strips, tiles, a thumbnail's JPEG: where they are -> how long they are
_FOLDERS = (330, 34665, 34853, 40965)  # sub-images, EXIF, GPS, interoperability


class Entry(NamedTuple):
    """A tag, and where its value lies in the file."""

    tag: int
    start: int
    stop: int


class _Value(NamedTuple):
    start: int
    stop: int
    code: str | None  # of struct, for whole numbers


def tiff_extent(data: bytes) -> tuple[list[Entry], int]:
    """The entries of a TIFF's first folder, and the offset behind the last byte that any folder points to.

    Where nothing can be followed, no entries and the number of bytes.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    first: list[Entry] = []
    reach, waiting, seen = 0, [_number(data, 8 if big else 4, order, "Q" if big else "I")], set[int]()
    while waiting and len(seen) < MAX_FOLDERS:
        at = waiting.pop()
        if at in seen or not 0 < at < len(data):
            continue
        seen.add(at)
        values, stop, following = _folder(data, at, order, big)
        if len(seen) == 1:
            first = [Entry(tag, value.start, value.stop) for tag, value in values.items() if value.stop <= len(data)]
        for tag in _FOLDERS:
            waiting += _numbers(data, values.get(tag), order)
        waiting.append(following)
        ends = [value.stop for value in values.values()]
        for starts, lengths in _DATA.items():
            pairs = zip(
                _numbers(data, values.get(starts), order), _numbers(data, values.get(lengths), order), strict=False
            )
            ends += [start + length for start, length in pairs]
        reach = max([reach, stop, *(end for end in ends if end <= len(data))])
    return first, reach or len(data)


def _folder(data: bytes, at: int, order: str, big: bool) -> tuple[dict[int, _Value], int, int]:
    """A folder's values by tag, where it ends, and the offset of the next one (0: none)."""
    head, width, inline, offset = (8, 20, 8, "Q") if big else (2, 12, 4, "I")
    n = min(_number(data, at, order, "Q" if big else "H"), MAX_ENTRIES)
    values: dict[int, _Value] = {}
    for start in _entries(at + head, width, n, len(data)):
        tag, kind = struct.unpack_from(order + "HH", data, start)
        size = _SIZES.get(kind, 1) * _number(data, start + 4, order, offset)
        place = start + width - inline
        if size > inline:
            place = _number(data, place, order, offset)
        values[tag] = _Value(place, place + size, _CODES.get(kind))
    stop = at + head + n * width
    return values, min(stop + inline, len(data)), _number(data, stop, order, offset)


def _entries(first: int, width: int, n: int, n_bytes: int) -> Iterator[int]:
    return (start for start in range(first, first + n * width, width) if start + width <= n_bytes)


def _number(data: bytes, at: int, order: str, code: str) -> int:
    """0 where the file ends before it."""
    return int(struct.unpack_from(order + code, data, at)[0]) if at + struct.calcsize(code) <= len(data) else 0


def _numbers(data: bytes, value: _Value | None, order: str) -> list[int]:
    if value is None or value.code is None or value.stop > len(data):
        return []
    n = min((value.stop - value.start) // struct.calcsize(value.code), MAX_VALUES)
    return list(struct.unpack_from(f"{order}{n}{value.code}", data, value.start))
