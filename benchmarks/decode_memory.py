"""Memory and time that one image takes to be read, by format: what SECURITY.md states.

    python benchmarks/decode_memory.py [--megapixels 63]

Each file is made as the format costs most (several scans, an alpha channel, 16 bits, to be turned by its EXIF) and read
as ``load_image`` does. Memory is the highest that the process grew by, as the system counts it, beside the file's
bytes, over the three bytes a pixel of the result. Hostile files are made as close to their bounds as possible, and
timed where they cost most.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import multiprocessing
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bonaface.imaging import effort
from bonaface.imaging.images import MAX_BYTES, MAX_PIXELS, decode_image
from bonaface.provenance.read import read_provenance

ROOT = Path(__file__).resolve().parent.parent
# fmt: off
KINDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "JPEG": [("RGB", {"subsampling": 0}), ("L", {})],
    "JPEG, progressive": [("RGB", {"progressive": True, "subsampling": 0}), ("CMYK", {"progressive": True})],
    "PNG": [("RGB", {"compress_level": 1}), ("RGBA", {"compress_level": 1}), ("P", {"compress_level": 1}),
            ("I;16", {"compress_level": 1})],
    "WebP": [("RGB", {"quality": 50, "method": 0}), ("RGBA", {"quality": 50, "method": 0})],
    "GIF": [("P", {})],
    "BMP": [("RGB", {})],
    "TIFF": [("RGB", {"compression": "tiff_lzw"}), ("RGBA", {"compression": "tiff_lzw"}),
             ("F", {"compression": "tiff_lzw"}), ("CMYK", {"compression": "tiff_lzw"})],
    "AVIF": [("RGB", {"speed": 10, "quality": 50}), ("RGBA", {"speed": 10, "quality": 50})],
    "HEIC": [("RGB", {"quality": 50}), ("RGBA", {"quality": 50})],
}
# fmt: on


def large(kind: str, mode: str, pixels: int, options: dict[str, Any]) -> bytes:
    """A valid file of so many pixels, to be turned where its format can say so."""
    side = int(pixels**0.5)
    image = Image.linear_gradient("L").resize((side, side))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    elif mode == "P":
        image = image.quantize(64)
        options = options | {"transparency": 3}
    else:
        image = image.convert(mode)
    exif, buffer, name = Image.Exif(), io.BytesIO(), kind.split(",")[0]
    exif[0x0112] = 6
    if name not in ("GIF", "BMP"):
        options = options | {"exif": exif}
    image.save(buffer, {"WebP": "WEBP", "HEIC": "HEIF"}.get(name, name), **options)
    return buffer.getvalue()


def resident(which: str) -> int:
    """Bytes of this process: VmHWM, the highest, or VmRSS."""
    found = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def growth(read: Callable[[bytes], Any], data: bytes) -> tuple[int, float]:
    """Bytes by which the process grew at most while it read, and seconds of processor time."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest is now what there is
    before, started = resident("VmHWM"), time.process_time()
    read(data)
    return resident("VmHWM") - before, time.process_time() - started


def _measure(kind: str, pixels: int, out: Any) -> None:
    found = []
    decode_image(large(kind, KINDS[kind][0][0], 10_000, KINDS[kind][0][1]))  # what is loaded once
    for mode, options in KINDS[kind]:
        n = pixels // 8 if kind == "HEIC" else pixels  # x265 would encode the others for many minutes
        data = large(kind, mode, n, options)
        while len(data) > MAX_BYTES:  # what is not compressed has fewer pixels
            n //= 2
            data = large(kind, mode, n, options)
        grown, seconds = growth(decode_image, data)
        found.append((grown / (3 * int(n**0.5) ** 2), seconds))
    out.put((max(ratio for ratio, _ in found), max(seconds for _, seconds in found)))


def in_own_process(work: Callable[..., None], *arguments: Any) -> Any:
    """What the function puts into the queue that is its last argument."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=work, args=(*arguments, out))
    process.start()
    try:
        return out.get(timeout=600)
    finally:
        process.join()


def decoded(kind: str, pixels: int) -> tuple[float, float]:
    """Of the costliest file of a format: growth over three bytes a pixel, and seconds of processor time."""
    return in_own_process(_measure, kind, pixels)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _scans(pixels: int) -> bytes:
    data = large("JPEG, progressive", "RGB", pixels, {"progressive": True, "subsampling": 0})
    at = data.find(b"\xff\xda")
    first = data[at : data.find(b"\xff\xda", at + 2)]
    first = first[: first.rfind(b"\xff\xc4")] if b"\xff\xc4" in first else first
    return data[:at] + first * (effort.MAX_SCANS - data.count(b"\xff\xda", at)) + data[at:]


def hostile(megapixels: int = 63) -> dict[str, bytes]:
    """Files that cost most within the bounds."""
    small = {kind: large(kind, "RGB", 1000, {}) for kind in ("PNG", "JPEG", "GIF")}
    png, jpeg, gif = small["PNG"], small["JPEG"], large("GIF", "P", 1000, {})
    colours = 13 + (3 << ((gif[10] & 7) + 1))
    most = effort.MAX_PARTS - 100
    side = int((effort.MAX_RUN_LENGTHS / 2) ** 0.5) - 10
    runs = (b"\1\7" * side + b"\0\0") * side
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 256)
    text = b"".join(_chunk(b"tEXt", b"c%d\0" % i + b"Steps: 1, Sampler:" * 11_000) for i in range(200))
    nested = b"<a>x" * 15_000
    xmp = b"\xff\xe1" + struct.pack(">H", len(nested) + 31) + b"http://ns.adobe.com/xap/1.0/\0" + nested
    return {
        "100,000 chunks": png[:33] + _chunk(b"prVt", b"") * most + png[33:],
        "100,000 texts": png[:33] + _chunk(b"tEXt", b"a\0b") * most + png[33:],
        "40 MB of parameters": png[:33] + text + png[33:],
        "100,000 segments": jpeg[:2] + b"\xff\xe1\0\x08Exif\0\0" * (most // 2) + jpeg[2:],
        f"{effort.MAX_SCANS} scans": _scans(megapixels * 1_000_000),
        "20,000 blocks": gif[:colours]
        + b"\x21\xfe"
        + (b"\xff" + b"a" * 255) * (effort.MAX_BLOCKS - 10)
        + b"\0"
        + gif[colours:],
        "run lengths": struct.pack("<2sIHHI", b"BM", 1078, 0, 0, 1078) + head + bytes(1024) + runs,
        "elements in elements": jpeg[:2] + xmp + jpeg[2:],
    }


def _times(out: Any) -> None:
    seconds = {}
    for name, data in hostile().items():
        seconds[name] = 0.0
        for read in (decode_image, read_provenance):
            started = time.process_time()
            try:
                read(data)
            except ValueError as error:  # an ImageError: refusing takes time, too
                print(f"{name}: {error}", file=sys.stderr)
            seconds[name] = max(seconds[name], time.process_time() - started)
    out.put(seconds)


def main() -> None:
    """Measure, print, and leave JSON in benchmarks/results/."""
    sys.path.insert(0, str(Path(__file__).parent))
    from record import record

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=63)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "decode_memory.json")
    options = parser.parse_args()
    pixels = min(int(options.megapixels * 1e6), MAX_PIXELS)
    print("| format | memory / (3 bytes a pixel) | seconds |\n|---|---|---|")
    formats: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        ratio, seconds = decoded(kind, pixels)
        formats[kind] = {"memory": round(ratio, 2), "seconds": round(seconds, 2)}
        print(f"| {kind} | {ratio:.2f} | {seconds:.1f} |", flush=True)
    times = {name: round(seconds, 2) for name, seconds in in_own_process(_times).items()}
    for name, spent in times.items():
        print(f"| {name} | | {spent:.1f} |")
    worst = max(each["memory"] for each in formats.values())
    means = "largest growth of memory / three bytes a pixel, over the formats"
    record(options.out, worst, means, megapixels=pixels / 1e6, formats=formats, hostile_seconds=times)


if __name__ == "__main__":
    main()
