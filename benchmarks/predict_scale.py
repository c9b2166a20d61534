"""A large folder scored from the command line: files a second, and whether memory grows with their number.

    python benchmarks/predict_scale.py --model runs/NAME --files 100000 [--engine openvino --dtype bf16]

The files are drawn portraits, 2,000 of which differ; the others are links to these. The resident
memory of the command and its workers is read each second; the ratio is the most of the second half of the run
over the most of its first tenth. The table is counted afterwards: a row for each file, none of them an error.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
import pyarrow.parquet as pq
from record import record
from train_throughput import make_data

ROOT = Path(__file__).resolve().parent.parent
DISTINCT = 2000


def make_folder(folder: Path, count: int) -> Path:
    """``count`` names of portraits of 256 px, a thousand in a folder."""
    files = sorted(path for path in make_data(folder / "drawn", "jpeg256", DISTINCT).rglob("*.jpg"))
    for number in range(count):
        name = folder / "all" / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[number % len(files)], name)
    return folder / "all"


def resident(process: psutil.Process) -> int:
    """Bytes that the process and its children alone occupy: pages that they share count once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    """Score, watch, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="JSON file")
    options, flags = parser.parse_known_args()  # what is left goes to `predict`
    model = Path(options.model).resolve() if Path(options.model).exists() else options.model
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(Path(scratch), options.files)
        table = Path(scratch, "scores.parquet")
        command = [sys.executable, "-m", "bonaface", "predict", str(folder), "--model", str(model), "--out", str(table)]
        started, seen = time.perf_counter(), []
        with Path(scratch, "said").open("w+") as said:
            process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                seen.append(resident(watched))
                time.sleep(1)
            if process.returncode:
                said.seek(0)
                raise SystemExit(said.read()[-3000:])
        seconds = time.perf_counter() - started
        status = pq.read_table(table, columns=["status"])["status"].to_pylist()
    tenths = [max(seen[i * len(seen) // 10 : (i + 1) * len(seen) // 10] or [0]) / 2**20 for i in range(10)]
    found = record(
        options.out,
        max(tenths[5:]) / tenths[0],
        "most resident memory in the second half of the run / in its first tenth",
        files=options.files,
        files_per_second=round(options.files / seconds, 1),
        memory_mib_by_tenth=[round(value) for value in tenths],
        median_mib=round(median(seen) / 2**20),
        rows=len(status),
        errors=sum(value != "ok" for value in status),
    )
    print(found)
    if found["rows"] != options.files or found["errors"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
