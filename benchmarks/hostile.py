"""Score thousands of broken, lying and oversized files: a row for each, no crash, no hang, little memory.

    python benchmarks/hostile.py --files 10000

Files are made by a seeded mutator from small pictures of every format: cut off, bytes flipped, blocks repeated or
zeroed, headers that promise huge sizes, decompression bombs, wrong suffixes, other modes, broken metadata, or nothing
at all. Exit code 1 where a promise is broken: a row a file, no file above 5 s, at most 0.75 GiB more than the process
had before, which is what SECURITY.md allows an image of 63 megapixels.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import resource
import struct
import tempfile
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import record
from transformers import logging

from bonaface.inference.detector import Detector
from bonaface.inference.scoring import find_inputs, score_files
from bonaface.models.load import load_model

MAX_SECONDS, MAX_GROWTH = 5.0, 0.75  # of one file; GiB
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
FORMATS |= {"HEIF": ".heic", "AVIF": ".avif"}  # those that bring libraries of their own
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB", "HSV", "PA")
SIZES = ((1, 1), (1, 40), (40, 1), (3, 3), (64, 64), (90, 61), (4, 2000), (300, 300))
Mutation = Callable[[bytes, np.random.Generator], bytes]


def seed_picture(rng: np.random.Generator) -> tuple[bytes, str]:
    """A small valid file of a random format, mode and size, and its suffix."""
    kind = str(rng.choice(list(FORMATS)))
    width, height = SIZES[rng.integers(len(SIZES))]
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    mode = str(rng.choice(MODES))
    try:
        buffer = io.BytesIO()
        converted = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
        converted.save(buffer, kind, exif=rng.bytes(int(rng.integers(0, 60))) if rng.random() < 0.1 else b"")
    except (OSError, ValueError, KeyError, SyntaxError, struct.error):  # not every format has every mode
        buffer = io.BytesIO()
        image.save(buffer, kind)
    return buffer.getvalue(), FORMATS[kind]


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """The first bytes of the file."""
    return data[: int(rng.integers(0, len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits turned, anywhere."""
    noisy = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 30))):
        noisy[place] ^= 1 << int(rng.integers(8))
    return bytes(noisy)


def header_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits turned in the first 40 bytes."""
    return flipped(data[:40], rng) + data[40:]


def block_zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros somewhere."""
    start = int(rng.integers(0, len(data)))
    length = int(rng.integers(1, 200))
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def block_repeated(data: bytes, rng: np.random.Generator) -> bytes:
    """A block repeated up to 300 times."""
    start = int(rng.integers(0, len(data)))
    return data[:start] + data[start : start + 100] * int(rng.integers(2, 300)) + data[start:]


def two_files(data: bytes, rng: np.random.Generator) -> bytes:
    """The first half of one file in front of another one."""
    return data[: len(data) // 2] + seed_picture(rng)[0]


def lengths_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Four bytes somewhere become a huge or a zero number."""
    place = int(rng.integers(0, max(1, len(data) - 4)))
    return data[:place] + struct.pack(">I", int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65535]))) + data[place + 4 :]


def nothing(_: bytes, rng: np.random.Generator) -> bytes:
    """No bytes, or random ones."""
    return rng.bytes(int(rng.integers(0, 3)) * 500)


def other_content(_: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of another format, then noise."""
    starts = (b"%PDF-1.7\n", b"PK\x03\x04", b"<svg onload='x'>", b"<!doctype html>", b"GIF89a", b"\x7fELF", b"\xff\xd8")
    return starts[rng.integers(len(starts))] + rng.bytes(400)


def png_promise(_: bytes, rng: np.random.Generator) -> bytes:
    """A PNG that promises a size and holds zeros for some of it: a bomb, or a lie."""
    sides = [int(rng.choice([1, 3000, 7900, 8100, 30_000, 100_000, 2**31 - 1])) for _ in range(2)]
    held = min(sides[0] * sides[1] * 3, int(rng.choice([100, 10_000_000, 190_000_000])))
    header = struct.pack(">IIBBBBB", *sides, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _zeros(held)) + _chunk(b"IEND", b"")


def large(_: bytes, rng: np.random.Generator) -> bytes:
    """A valid picture of 36 to 63 megapixels, sometimes with transparency, or to be turned."""
    width = int(rng.integers(6000, 7950))
    kind = str(rng.choice(["PNG", "PNG", "WEBP", "JPEG", "GIF", "TIFF"]))
    mode = str(rng.choice(["RGB", "RGBA", "L", "P", "CMYK", "I;16"]))
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    fast = {
        "PNG": {"compress_level": 1},
        "WEBP": {"method": 0, "lossless": True, "quality": 0},
        "TIFF": {"compression": "tiff_lzw"},
    }
    image = Image.new(mode, (width, width))
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, exif=exif, **fast.get(kind, {"progressive": True}))
    except (OSError, ValueError):  # not every format has every mode
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, kind, exif=exif, **fast.get(kind, {"progressive": True}))
    return buffer.getvalue()


def text_bomb(data: bytes, _: np.random.Generator) -> bytes:
    """A PNG with a compressed text of 200 MB in front of everything else."""
    if not data.startswith(b"\x89PNG"):
        data = png_of_noise()
    return data[:33] + _chunk(b"zTXt", b"Comment\0\0" + _zeros(200_000_000)) + data[33:]


def png_of_noise() -> bytes:
    """A small valid PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def untouched(data: bytes, _: np.random.Generator) -> bytes:
    """The file as it is."""
    return data


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_ZEROS: dict[int, bytes] = {}


def _zeros(n: int) -> bytes:
    """`n` zeros, compressed a megabyte at a time and kept."""
    if n not in _ZEROS:
        packer = zlib.compressobj(9)
        parts = [packer.compress(bytes(min(1_000_000, n - start))) for start in range(0, n, 1_000_000)]
        _ZEROS[n] = b"".join([*parts, packer.flush()])
    return _ZEROS[n]


# Weights: the costly ones are rare.
MUTATIONS: dict[Mutation, float] = {
    truncated: 20,
    flipped: 20,
    header_flipped: 15,
    block_zeroed: 8,
    block_repeated: 8,
    two_files: 6,
    lengths_changed: 10,
    nothing: 3,
    other_content: 4,
    untouched: 6,
    png_promise: 1,
    text_bomb: 0.2,
    large: 0.2,
}


def mutant(seed: int, index: int) -> tuple[str, bytes]:
    """Name and bytes of one hostile file; a function of its arguments alone."""
    rng = np.random.default_rng([seed, index])
    data, suffix = seed_picture(rng)
    weights = np.array(list(MUTATIONS.values()))
    mutation = list(MUTATIONS)[rng.choice(len(weights), p=weights / weights.sum())]
    if rng.random() < 0.1:
        suffix = str(rng.choice([".jpg", ".png", ".webp", ".heic", ".avif"]))
    return f"{index:06d}-{mutation.__name__}{suffix}", mutation(data, rng)


def write_mutants(folder: Path, n: int, seed: int) -> None:
    """Write `n` hostile files into a new folder."""
    folder.mkdir()
    for index in range(n):
        name, data = mutant(seed, index)
        (folder / name).write_bytes(data)


def make_model(folder: Path) -> Path:
    """A small ResNet with fresh weights."""
    model, processor = load_model("resnet", ["fake", "real"], image_size=64)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def resident() -> float:
    """The most memory this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Stopwatch:
    """The longest that one picture took to read, whichever thread it was in."""

    def __init__(self, detector: Detector) -> None:
        self.worst, self.name, self._lock = 0.0, "", threading.Lock()
        self._views = detector.reader._views
        detector.reader._views = self._timed  # type: ignore[method-assign]

    def _timed(self, data: bytes | None, image: Any, *rest: Any) -> Any:
        started = time.thread_time()
        try:
            return self._views(data, image, *rest)
        finally:
            seconds = time.thread_time() - started
            with self._lock:
                if seconds > self.worst:
                    self.worst, self.name = seconds, str(image)


def main() -> None:
    """Make the files, score them, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--faces", action="store_true", help="search every picture for faces too")
    args = parser.parse_args()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="PIL")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        # In a process of its own, so that the memory for making bombs is not counted.
        maker = multiprocessing.get_context("spawn").Process(
            target=write_mutants, args=(root / "files", args.files, args.seed)
        )
        maker.start()
        maker.join()
        detector = Detector.from_pretrained(make_model(root / "model"))
        watch = Stopwatch(detector)
        before, started = resident(), time.perf_counter()
        paths = list(find_inputs([root / "files"]))
        score_files(paths, detector, root / "scores.csv", faces=True if args.faces else None)
        seconds = time.perf_counter() - started
        with (root / "scores.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    print(f"{args.files} files in {seconds:.0f} s; {dict(Counter(row['status'] for row in rows).most_common())}")
    print(f"longest: {watch.worst:.2f} s of CPU, {Path(watch.name).name}")
    print(f"resident: {before:.2f} GiB before, {resident():.2f} GiB at most")
    kept = [row["path"] for row in rows] == paths and len(paths) == args.files
    promises = {
        "a row a file": kept,
        f"no file above {MAX_SECONDS} s": watch.worst < MAX_SECONDS,
        f"at most {MAX_GROWTH} GiB more": resident() - before <= MAX_GROWTH,
    }
    for promise, held in promises.items():
        print(f"{promise}: {'held' if held else 'BROKEN'}")
    record(
        args.out,
        resident() / before,
        "most memory resident / before the first file",
        files=args.files,
        resident_gib=round(resident(), 3),
        longest_s=round(watch.worst, 2),
        promises=promises,
    )
    raise SystemExit(not all(promises.values()))


if __name__ == "__main__":
    main()
