"""What reading a data set costs as it grows: listing, audit, alignment, splitting; seconds, bytes and peak memory.

    python benchmarks/data_scale.py --files 500 1000 2000 4000

Each size runs in a process of its own on 256 px JPEG files, each another cut of one of 24 drawn portraits. The last
column is the time of the size over that of the smallest, divided by how many times larger it is: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_throughput import make_data

from bonaface.training.assembly import assemble, split_assembly
from bonaface.training.options import Recipe

STEPS = ("list_audit_align_s", "again_s", "split_s")


def measure(data: str) -> dict[str, float]:
    """Seconds of the first reading, which aligns, of a second, and of splitting; MiB of this process at its peak."""
    recipe = Recipe(data=[data], audit=True)
    begun = time.perf_counter()
    assemble(recipe)
    first = time.perf_counter()
    assembly = assemble(recipe)
    again = time.perf_counter()
    split_assembly(assembly, recipe, seed=0)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    disk = sum(path.stat().st_size for path in Path("prepared").rglob("*") if path.is_file())
    seconds = dict(zip(STEPS, (first - begun, again - first, done - again), strict=True))
    return {**seconds, "peak_MiB": peak, "aligned_bytes_per_image": disk / len(assembly.listing.rows)}


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    sizes = parser.parse_args().files
    print(f"{'files':>7} {'list, audit, align s':>21} {'again s':>8} {'split s':>8} {'MiB':>6} {'B/image':>8} {'x':>6}")
    base = 0.0
    for n in sizes:
        with tempfile.TemporaryDirectory() as work:
            make_data(Path(work, "data"), "jpeg256", n)
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", "data"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=work)
            if done.returncode:
                raise RuntimeError(done.stderr)
            row = json.loads(done.stdout.strip().splitlines()[-1])
        seconds = [row[step] for step in STEPS]
        base = base or seconds[0] / n
        print(
            f"{n:>7} {seconds[0]:21.1f} {seconds[1]:8.1f} {seconds[2]:8.1f} {row['peak_MiB']:6.0f} "
            f"{row['aligned_bytes_per_image']:8.0f} {seconds[0] / n / base:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main()
