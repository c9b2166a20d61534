"""A small file that would keep decoders busy for minutes, or make gigabytes, is refused at once; others are not."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from bonaface.imaging.effort import MAX_BLOCKS, MAX_PARTS, MAX_RUN_LENGTHS, MAX_SCANS, too_costly
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import ImageError, decode_image
from bonaface.provenance.read import read_provenance


def encoded(kind: str, **save: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "tan").save(buffer, kind, **save)
    return buffer.getvalue()


PNG, JPEG, GIF, WEBP = (encoded(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP"))
COLOURS = 13 + (3 << ((GIF[10] & 7) + 1))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def scans(n: int) -> bytes:
    """A progressive JPEG with its last scan n times."""
    data = encoded("JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * (n - data.count(b"\xff\xda") + 1) + data[-2:]


def run_lengths(n: int) -> bytes:
    """A BMP of one row in n bytes of run lengths."""
    head = struct.pack("<IiiHHIIiiII", 40, 32, 1, 1, 8, 1, n, 0, 0, 256, 256)
    return struct.pack("<2sIHHI", b"BM", 1078 + n, 0, 0, 1078) + head + bytes(1024) + b"\1\7" * (n // 2)


def folder(tags: int, size: int, offsets: int = 1) -> bytes:
    """A TIFF of 32 x 32 grey pixels, with further tags that all have the same bytes for their value."""
    known = [(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, offsets, 8), (279, 4, 1, 1024)]
    at = 10 + 12 * (len(known) + tags) + 4
    entries = [struct.pack("<HHII", *entry) for entry in known]
    entries += [struct.pack("<HHII", 1000 + i, 7, size, at) for i in range(tags)]
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return head + b"".join(entries) + bytes(4) + bytes(max(size, 4 * offsets, 1024))


def webp_with_exif(block: bytes) -> bytes:
    chunks = b"VP8X\x0a\0\0\0\x08\0\0\0\x1f\0\0\x1f\0\0" + WEBP[12:]
    body = b"WEBP" + chunks + b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


FILLED = MAX_PARTS // 2
CASES: dict[str, tuple[Callable[[int], bytes], int, str]] = {
    "chunks": (lambda n: PNG[:33] + chunk(b"prVt", b"") * n + PNG[33:], MAX_PARTS, "chunks"),
    "chunks behind the pixels": (lambda n: PNG[:-12] + chunk(b"prVt", b"") * n + PNG[-12:], MAX_PARTS, "chunks"),
    "segments": (lambda n: JPEG[:2] + b"\xff\xfe\0\2" * n + JPEG[2:], MAX_PARTS, "segments"),
    "fill bytes": (lambda n: JPEG[:2] + b"\xff" * n + JPEG[2:], MAX_PARTS, "bytes between"),
    "junk": (lambda n: JPEG[:20] + b"\0" * n + JPEG[20:], MAX_PARTS, "bytes between"),
    "nothing but junk": (lambda n: JPEG[:20] + b"\0" * n, MAX_PARTS, "without a segment"),
    "scans": (scans, MAX_SCANS, "scans"),
    "comments": (lambda n: GIF[:COLOURS] + b"\x21\xfe" + b"\1a" * n + b"\0" + GIF[COLOURS:], MAX_BLOCKS, "blocks"),
    "extensions": (lambda n: GIF[:COLOURS] + b"\x21\xfe\0" * n + GIF[COLOURS:], MAX_BLOCKS, "blocks"),
    "other bytes": (lambda n: GIF[:COLOURS] + b"\1" * n + GIF[COLOURS:], MAX_BLOCKS, "blocks"),
    "run lengths": (run_lengths, MAX_RUN_LENGTHS, "run lengths"),
}


@pytest.mark.parametrize("name", CASES)
def test_more_than_the_bound_is_refused_at_once_and_what_is_below_is_not(name: str) -> None:
    make, bound, said = CASES[name]
    data, started = make(bound + 1), time.process_time()
    for read in (decode_image, inspect_image):
        with pytest.raises(ImageError, match=said):
            read(data)
    assert time.process_time() - started < 2
    below = make(bound // 2)
    assert too_costly(below, {b"\x89P": "PNG", b"\xff\xd8": "JPEG", b"GI": "GIF", b"BM": "BMP"}[below[:2]]) == ""


def test_scans_of_an_image_behind_this_one_do_not_count() -> None:
    """A motion photo's video has any two bytes somewhere."""
    assert decode_image(JPEG + b"\xff\xda\0\2" * 10 * MAX_SCANS).size == (32, 32)


@pytest.mark.parametrize(
    "data",
    [folder(1000, 1_000_000), folder(10_000, 8), folder(0, 0, offsets=MAX_PARTS + 1)],
    ids=["shared values", "entries", "strips"],
)
def test_a_folder_that_no_program_writes_is_refused(data: bytes, peak: Callable[..., int]) -> None:
    for read in (decode_image, inspect_image, read_provenance):
        assert peak(read, data, fails=ImageError) < 50_000_000


def test_the_same_folder_as_exif_states_nothing_and_costs_no_memory(peak: Callable[..., int]) -> None:
    block = folder(1000, 1_000_000)
    innocent = b"Exif\0\0" + folder(0, 0) + bytes(len(block) - len(folder(0, 0)))
    avif = encoded("AVIF", exif=innocent).replace(innocent[6:], block)
    assert block in avif
    for data in (webp_with_exif(block), PNG[:33] + chunk(b"eXIf", block) + PNG[33:]):
        assert decode_image(data).size == (32, 32)
        assert read_provenance(data).evidence == ()
        assert peak(decode_image, data) + peak(read_provenance, data) < 50_000_000
    assert peak(decode_image, avif, fails=ImageError) < 50_000_000


def test_an_honest_folder_is_read() -> None:
    assert decode_image(folder(20, 8)).size == (32, 32)


@pytest.fixture
def peak() -> Callable[..., int]:
    """Bytes by which the process grew while a function ran, as the system counts them."""
    import re
    from pathlib import Path

    def high() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]

    def measure(read: Callable[[bytes], Any], data: bytes, fails: type[Exception] | None = None) -> int:
        Path("/proc/self/clear_refs").write_text("5")
        before = high()
        if fails:
            with pytest.raises(fails):
                read(data)
        else:
            read(data)
        return high() - before

    return measure
