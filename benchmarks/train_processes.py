"""Two training processes beside two that know nothing of each other, which is as fast as the cores allow.

    python benchmarks/train_processes.py --model vit_tiny

*together* is one training of two processes started by torchrun, which exchange gradients after each step; *apart* are
two trainings of one process each, at the same time. Both have one thread a process and the same batch for each. Their
rates are taken in turn; the ratio is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from record import record
from train_sides import MODELS
from train_throughput import ROOT, Side, make_data

PROCESSES = 2


def main() -> None:
    """Measure, print a line and leave JSON in benchmarks/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="resnet18")
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16, help="of each process")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train_processes.json")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rates: dict[str, list[float]] = {"together": [], "apart": []}
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(PROCESSES) as pool:
        data = make_data(Path(work, "data"), "jpeg256", options.files)
        arguments = ["--model", options.model, "--data", str(data), "--batch", str(options.batch)]
        arguments += ["--steps", str(options.steps), "--prepare", "False", "--compile", "False"]
        arguments += ["--dataloader_num_workers", "0"]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(PROCESSES)]
        together = Side("ours", arguments, Path(work), launcher)
        apart = list(pool.map(lambda _: Side("ours", arguments, Path(work)), range(PROCESSES)))
        images = options.batch * options.steps
        try:
            for _ in range(options.rounds):
                rates["together"].append(PROCESSES * images / together.turn())
                rates["apart"].append(sum(images / seconds for seconds in pool.map(Side.turn, apart)))
        finally:
            for side in (together, *apart):
                side.stop()
    ratio = median(a / b for a, b in zip(rates["together"], rates["apart"], strict=True))
    print(
        f"{options.model}: together {median(rates['together']):.1f} img/s, apart {median(rates['apart']):.1f}", end=""
    )
    print(f", ratio {ratio:.3f}")
    speeds = {k: [round(x, 1) for x in v] for k, v in rates.items()}
    means = "images a second of processes together / apart, median over the rounds"
    record(options.out, ratio, means, model=options.model, batch=options.batch, img_per_s=speeds)


if __name__ == "__main__":
    main()
