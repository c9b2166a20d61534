"""How fast the audit reads files and finds near duplicates; prints two Markdown tables.

    python benchmarks/audit_speed.py [--files 2000] [--sizes 25000,50000,100000]

1. Facts, content hash and thumbnail of 256 px JPEGs that are made here, in threads.
2. Near-duplicate search over random smooth pictures, of which 2 % are copies planted by mirroring, moving by a part of
   a pixel, and noise. Each size runs in a process of its own, so that the peak memory is its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import idctn
from scipy.ndimage import shift

from bonaface.data.duplicates import SIDE, duplicate_groups, near_duplicates, perceptual_hashes


def scan_speed(n: int, folder: Path) -> dict[str, float]:
    """Files a second of the audit's reading pass, over files that the system has in its cache."""
    from bonaface.data.listing import list_data
    from bonaface.data.scan import scan_rows

    rng = np.random.default_rng(0)
    sizes = []
    for i in range(n):
        picture = Image.fromarray(_smooth(rng, 1, 64)[0]).resize((256, 256)).convert("RGB")
        noisy = np.asarray(picture) + rng.normal(0, 6, (256, 256, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
        path = folder / ("real" if i % 2 else "fake") / f"{i:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(buffer.getvalue())
        sizes.append(buffer.tell())
    listing = list_data(folder, check="none")
    start, worked = time.perf_counter(), time.process_time()
    scans = scan_rows(listing.rows)
    perceptual_hashes(np.stack([scan.thumbnail for scan in scans.values()]))
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    rates = {"files/s": n / seconds, "files/s of one core's time": n / worked}
    return {"files": n, "mean kB": float(np.mean(sizes)) / 1000, "seconds": seconds, **rates}


def search_speed(n: int) -> dict[str, float]:
    """One search over n thumbnails, a copy of one in fifty planted."""
    rng = np.random.default_rng(n)
    copies = n // 50
    pictures = np.concatenate([_smooth(rng, min(4096, n - copies - i)) for i in range(0, n - copies, 4096)])
    originals = rng.permutation(n - copies)[:copies]
    planted = [_copy(pictures[i], k, rng) for k, i in enumerate(originals)]
    thumbnails = np.concatenate([pictures, np.stack(planted)])
    start, worked = time.perf_counter(), time.process_time()
    links = near_duplicates(thumbnails)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    groups = duplicate_groups(n, links.first, links.second)
    found = groups[originals] == groups[n - copies :]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wrong = len(links.first) - int(found.sum())
    cost = {"seconds": seconds, "CPU seconds": worked, "peak GiB": peak}
    return {"images": n, **cost, "recall": float(found.mean()), "false pairs": wrong}


def _smooth(rng: np.random.Generator, n: int, side: int = SIDE) -> np.ndarray:
    """Random pictures (n, side, side) uint8 whose spectrum falls as that of photographs, as 1/f."""
    v, u = np.mgrid[:side, :side]
    waves = rng.standard_normal((n, side, side), np.float32) / (1 + np.hypot(u, v))
    waves[:, 0, 0] = 0
    pictures = idctn(waves, axes=(1, 2), norm="ortho")
    pictures *= 50 / pictures.std(axis=(1, 2), keepdims=True)
    return (pictures + 128).clip(0, 255).astype(np.uint8)


def _copy(picture: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    turned = picture[:, ::-1] if kind % 2 else picture
    moved = shift(turned.astype(np.float32), rng.uniform(-0.4, 0.4, 2), order=1, mode="nearest")
    return (moved + rng.normal(0, 1.5, moved.shape)).clip(0, 255).astype(np.uint8)


def _table(rows: list[dict[str, float]]) -> str:
    head = f"| {' | '.join(rows[0])} |\n|{'---:|' * len(rows[0])}"
    return "\n".join([head, *("| " + " | ".join(f"{v:,.4g}" for v in row.values()) + " |" for row in rows)])


def main() -> None:
    """Measure both, each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--sizes", default="25000,50000,100000")
    parser.add_argument("--search", type=int, help=argparse.SUPPRESS)  # one size, in this process
    arguments = parser.parse_args()
    if arguments.search:
        print(json.dumps(search_speed(arguments.search)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f"{os.cpu_count()} cores\n\n{_table([scan_speed(arguments.files, Path(folder))])}\n")
    rows = []
    for n in arguments.sizes.split(","):
        command = [sys.executable, __file__, "--search", n]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(_table(rows))


if __name__ == "__main__":
    main()
