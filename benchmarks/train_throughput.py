"""Training speed: the stock Hugging Face recipe, ours, and the limit, in turn in one process tree.

    python benchmarks/train_throughput.py --models resnet18 convnextv2_atto --images jpeg256 jpeg1024 png1024
    python benchmarks/train_throughput.py --models convnextv2_tiny vit_small --images jpeg256 --batch 256    # a GPU

*stock* is the image-classification recipe as its users run it: `load_dataset("imagefolder")`, torchvision transforms in
`set_transform`, `Trainer` with its defaults (float32, no workers). *ours* is `train_hf.py`'s own trainer with its
defaults and the same augmentation (`standard`); pictures of 1024 px are aligned first, which is timed apart.
*limit* is our step on one random batch that stays on the device: nothing is read. All train the same network with fresh
weights on the same files at the same batch size.

Each runs in a process of its own and waits for its turn. A turn begins with steps that do not count, as many as batches
may have been loaded while others had theirs. Ratios are taken within a round and their median is told, so that other
work on the machine slows all alike. Compiling is told apart: the seconds of the first steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import machine, record
from train_sides import MODELS

from bonaface.data.portraits import draw_portrait
from bonaface.imaging.transforms import Preprocessing
from bonaface.models.load import load_model
from bonaface.training.machine import training_flops

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"jpeg256": (256, "jpg"), "jpeg1024": (1024, "jpg"), "png1024": (1024, "png")}
SIDES = ("stock", "ours", "limit")
BF16_PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # FLOP/s, dense, by the vendor's datasheets
DISTINCT = 4096  # files
DRAWN = 24  # portraits, from which all files are cut


def make_data(folder: Path, kind: str, n: int) -> Path:
    """Drawn portraits in `folder`/{train,validation,test}/{real,fake}; each file is another cut of one of them.

    Beyond DISTINCT they are links to those before: enough that an epoch is as long as with a real set.
    """
    side, _ = KINDS[kind]
    names = [
        folder / split / ("real", "fake")[i % 2] / f"{i:06d}.{KINDS[kind][1]}"
        for split, count in (("train", n), ("validation", 16), ("test", 8))
        for i in range(count)
    ]
    for parent in {name.parent for name in names}:
        parent.mkdir(parents=True)
    links, names = names[DISTINCT:n], names[:DISTINCT] + names[max(n, DISTINCT) :]
    step = -(-len(names) // 64)
    with ProcessPoolExecutor() as pool:
        drawn = list(pool.map(partial(_draw, side + side // 8), range(DRAWN)))
        jobs = [pool.submit(_write, drawn, side, names[i : i + step], i) for i in range(0, len(names), step)]
        for job in jobs:
            job.result()
    for i, link in enumerate(links):
        os.link(names[i % DISTINCT], link)
    return folder


def _draw(side: int, seed: int) -> np.ndarray:
    return np.uint8(draw_portrait(side, np.random.default_rng(seed)) * 255)


def _write(drawn: list[np.ndarray], side: int, names: list[Path], start: int) -> None:
    for i, name in enumerate(names, start):
        rng = np.random.default_rng((7, i))
        pixels = drawn[i % DRAWN]
        x, y = rng.integers(0, len(pixels) - side + 1, 2)
        grain = rng.normal(0, 2, (side, side, 1))  # so that no two are copies, and PNG has something to code
        cut = np.clip(pixels[y : y + side, x : x + side] + grain, 0, 255).astype(np.uint8)
        Image.fromarray(cut).save(name, quality=90)


class Side:
    """A training in a process of its own, which runs when it is told to."""

    def __init__(self, side: str, arguments: list[str], folder: Path, launcher: Sequence[str] = ()) -> None:
        command = [sys.executable, *launcher, str(ROOT / "benchmarks" / "train_sides.py"), side, *arguments]
        self.errors = (folder / f"{side}.err").open("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=folder
        )
        self.said: list[str] = []
        self.first = self._seconds()  # the first steps, with everything that is done once

    def turn(self) -> float:
        """Seconds for the steps of one turn."""
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._seconds()

    def stop(self) -> None:
        """End the training."""
        self.process.terminate()
        self.process.communicate()

    def _seconds(self) -> float:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("@ "):
                return float(line.split()[1])
            self.said.append(line.strip())
        self.errors.seek(0)
        raise RuntimeError(self.errors.read()[-3000:])


def measure(model: str, kind: str, options: argparse.Namespace, flags: list[str], work: Path) -> dict[str, Any]:
    """All three sides on one network and one kind of picture: img/s of each round, and the medians of their ratios."""
    data = work / kind
    if not data.exists():
        make_data(data, kind, options.files)
    flags = [*flags, *(["--prepare_size", "224", "288"] if KINDS[kind][0] > 256 else ["--prepare", "False"])]
    arguments = ["--model", model, "--data", str(data), "--batch", str(options.batch), "--steps", str(options.steps)]
    sides, rates = {}, {side: [] for side in SIDES}
    try:
        for side in SIDES:
            sides[side] = Side(side, [*arguments, *([] if side == "stock" else flags)], work)
        for _ in range(options.rounds):
            for name, side in sides.items():
                rates[name].append(options.batch * options.steps / side.turn())
    finally:
        for side in sides.values():
            side.stop()
    ratio = {
        name: round(median(a / b for a, b in zip(rates["ours"], rates[other], strict=True)), 3)
        for name, other in (("ratio", "stock"), ("ratio_to_limit", "limit"))
    }
    network, processor = load_model(MODELS[model], ["fake", "real"], from_scratch=True)
    facts = Preprocessing.of(processor)
    flops = training_flops(network, (facts.height, facts.width))
    result = {
        "model": model,
        "images": kind,
        "img_per_s": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
        **ratio,
        "first_steps_s": {name: round(side.first, 1) for name, side in sides.items()},
        "training_gflop_per_image": round(flops / 1e9, 2),
        "chosen": next((line for line in sides["ours"].said if line.startswith("speed: ")), ""),
    }
    peak = _bf16_peak()
    if peak:
        result["share_of_bf16_peak"] = {name: round(median(v) * flops / peak, 3) for name, v in rates.items()}
    return result


def _bf16_peak() -> float | None:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for known, peak in BF16_PEAK.items() if known in name), None)


def main() -> None:
    """Measure each network on each kind of picture; a table, and JSON in benchmarks/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["resnet18", "convnextv2_atto"])
    parser.add_argument("--images", nargs="+", choices=list(KINDS), default=["jpeg256"])
    parser.add_argument("--files", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="that are timed in each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/results/train_throughput_{cpu,gpu}.json")
    options, flags = parser.parse_known_args()  # what is left goes to train_hf.py's trainer, as --compile True
    device = "gpu" if torch.cuda.is_available() else "cpu"
    out = options.out or ROOT / "benchmarks" / "results" / f"train_throughput_{device}.json"
    results = []
    print(f"{machine()}; batch {options.batch}, median of {options.rounds} rounds of {options.steps} steps", flush=True)
    print(f"{'network':<16} {'images':<9} {'stock':>8} {'ours':>8} {'limit':>8} {'ours/stock':>11} {'ours/limit':>11}")
    with tempfile.TemporaryDirectory() as work:
        for kind in options.images:
            for model in options.models:
                found = measure(model, kind, options, flags, Path(work))
                results.append(found)
                speeds = " ".join(f"{median(found['img_per_s'][side]):8.1f}" for side in SIDES)
                print(f"{model:<16} {kind:<9} {speeds} {found['ratio']:11.2f} {found['ratio_to_limit']:11.3f}")
                print(f"  {found['chosen']}; first steps {found['first_steps_s']}", flush=True)
                means = "images a second of ours / of the stock recipe; ratio_to_limit: of ours / of the network alone"
                record(out, None, means, batch=options.batch, results=results)


if __name__ == "__main__":
    main()
