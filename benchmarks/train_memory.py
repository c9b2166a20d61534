"""Peak memory of a training run against the number of images: it must stay flat, since columns hold no pixels.

    python benchmarks/train_memory.py --files 1000 20000

Each size trains the same number of steps in a process of its own; the files are links to a few hundred pictures.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DISTINCT = 200


def make_data(folder: Path, n_files: int, side: int = 64) -> Path:
    """`n_files` JPEG names in two classes that share the bytes of a few hundred pictures."""
    rng = np.random.default_rng(0)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for i in range(DISTINCT):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(originals / f"{i}.jpg")
    for label in ("real", "fake"):
        (folder / "data" / label / "links").mkdir(parents=True)
        for i in range(n_files // 2):
            os.link(originals / f"{i % DISTINCT}.jpg", folder / "data" / label / "links" / f"{i:07d}.jpg")
    return folder / "data"


def peak_memory(data: Path, out: Path, steps: int) -> float:
    """MiB at the peak of the largest process of a training run of `steps` steps."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(data), str(out), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.strip().splitlines()[-1])


def measure(data: str, out: str, steps: str) -> None:
    """Train here and print the peak resident size, MiB."""
    sys.path.insert(0, str(ROOT))
    from bonaface.cli import train

    train.main(
        ["--data", data, "--output_dir", out, "--model", "resnet", "--image_size", "32", "--max_steps", steps]
        + ["--per_device_train_batch_size", "16", "--max_eval_samples", "100", "--eval_strategy", "no"]
        + ["--save_strategy", "no", "--load_best_model_at_end", "False", "--dataloader_num_workers", "0"]
        + ["--prepare", "False", "--audit", "False", "--robustness", "none"]
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    print(f"{'files':>8}  {'peak MiB':>9}")
    for n_files in args.files:
        with tempfile.TemporaryDirectory() as folder:
            data = make_data(Path(folder), n_files)
            print(f"{n_files:>8}  {peak_memory(data, Path(folder) / 'run', args.steps):>9.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main()
