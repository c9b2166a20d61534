"""Time from a raw folder to the first training step, of this checkout and of another one, in turns.

    git worktree add ../before COMMIT
    python benchmarks/first_step.py --data RAW --against ../before --repeats 3

Each run is ``train_hf.py --data RAW`` in an empty folder: the data is listed, audited, aligned and split, the model is
built, and the run ends with its first step. The ratio is that of the medians, other checkout by this one; on a busy
machine believe that of processor time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parent.parent
# Ends the process, workers included, where training begins.
STOP = """
import os, runpy, sys
from transformers import Trainer
first = Trainer.training_step
def step(*args, **options):
    first(*args, **options)
    sys.stdout.flush()
    os._exit(77)
Trainer.training_step = step
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def seconds_to_first_step(checkout: Path, data: Path) -> tuple[float, float]:
    """Of one run in an empty folder: passed on the clock, spent by its processes."""
    script = checkout / "train_hf.py"
    flags = ["--data", str(data), "--model", "resnet", "--output_dir", "run", "--disable_tqdm", "True"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with tempfile.TemporaryDirectory() as work:
        started, spent = time.perf_counter(), processor_seconds()
        done = subprocess.run(
            [sys.executable, "-c", STOP, str(script), *flags],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started, processor_seconds() - spent
    if done.returncode != 77:
        raise SystemExit(f"{script} did not come to its first step:\n{done.stdout}\n{done.stderr}")
    return seconds


def processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run both in turns, print each time, and leave JSON in benchmarks/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="a raw folder")
    parser.add_argument("--against", required=True, type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "first_step.json")
    options = parser.parse_args()
    sides = {"other": options.against.resolve(), "this": ROOT}
    passed: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(options.repeats):
        for name in sorted(sides, reverse=bool(i % 2)):  # neither is always first
            times = seconds_to_first_step(sides[name], options.data.resolve())
            for found, value in zip((passed, spent), times, strict=True):
                found[name].append(round(value, 2))
            print(f"{name}: {times[0]:.1f} s, {times[1]:.1f} s of processor time", flush=True)
    ratio, ratio_spent = (statistics.median(t["other"]) / statistics.median(t["this"]) for t in (passed, spent))
    n_files = sum(path.is_file() for path in options.data.rglob("*"))
    print(f"{ratio:.2f} times as fast as the other checkout ({ratio_spent:.2f} in processor time), {n_files:,} files")
    record(
        options.out,
        ratio,
        "seconds of the other checkout / of this one",
        files=n_files,
        seconds=passed,
        processor_seconds=spent,
        ratio_of_processor_time=round(ratio_spent, 3),
    )


if __name__ == "__main__":
    main()
