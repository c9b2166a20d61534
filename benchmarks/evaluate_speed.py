"""How fast an evaluation with all degradations is, beside the bare model on ready tensors, in one run.

    python benchmarks/evaluate_speed.py --images 100
    python benchmarks/evaluate_speed.py --data DATA --model runs/NAME --images 3880

Without ``--data`` the images are JPEG files of smooth noise. ``decoded`` must equal the number of images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from bonaface.data.dataset import balanced_subset
from bonaface.evaluation import scores
from bonaface.evaluation.data import evaluation_data
from bonaface.evaluation.options import EvaluationOptions
from bonaface.evaluation.robustness import all_variants
from bonaface.evaluation.scores import CLEAN, score_images
from bonaface.inference.detector import Detector
from bonaface.models.load import load_model


def make_data(folder: Path, n: int, side: int) -> Path:
    """`n` JPEG files in two classes."""
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        path = folder / ("real", "fake")[i % 2] / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder


def make_model(folder: Path, side: int) -> Path:
    """The small ResNet with fresh weights."""
    model, processor = load_model("resnet", ["fake", "real"], image_size=side)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def bare_speed(detector: Detector, batch_size: int, seconds: float = 5.0) -> float:
    """Images a second of the network alone, on a batch that is ready."""
    pixels = detector.pixels(Image.new("RGB", (300, 300))).expand(batch_size, -1, -1, -1).contiguous()
    detector.engine(pixels)
    n, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        detector.engine(pixels)
        n += batch_size
    return n / (time.perf_counter() - started)


def main() -> None:
    """Time the bare model and the evaluation on the same images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="image folder; drawn images when not given")
    parser.add_argument("--model", help="model folder; the small ResNet with fresh weights when not given")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--side", type=int, default=144, help="of drawn images, pixels")
    parser.add_argument("--image-size", type=int, default=128, help="of the fresh model's input, pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[None], help="threads that decode and degrade")
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        data = args.data or make_data(root / "data", args.images, args.side)
        detector = Detector.from_pretrained(args.model or make_model(root / "model", args.image_size))
        images, _ = evaluation_data(str(data), EvaluationOptions(split="all"))
        rows = balanced_subset(next(iter(images.splits.values())), args.images)
        variants = all_variants()
        bare = bare_speed(detector, args.batch_size)
        print(f"{torch.get_num_threads()} torch threads; bare model {bare:.0f} img/s on ready tensors")
        for threads in args.threads:
            for name, chosen in (("clean", [CLEAN]), ("all degradations", variants)):
                with mock.patch.object(scores, "decode_image", wraps=scores.decode_image) as decoded:
                    started, busy = time.perf_counter(), time.process_time()
                    score_images(rows, [detector], variants=chosen, threads=threads, batch_size=args.batch_size)
                    took, busy = time.perf_counter() - started, time.process_time() - busy
                pictures = len(rows) * len(chosen)
                print(
                    f"threads {threads or 'auto'}, {name}: {len(rows)} images, {decoded.call_count} decoded, "
                    f"{pictures} pictures in {took:.1f} s: {pictures / took:.0f} img/s, "
                    f"{pictures / took / bare:.0%} of the bare model, {1000 * busy / pictures:.1f} ms of CPU each; "
                    f"3,880 images would take {3880 * took / len(rows) / 60:.1f} min"
                )


if __name__ == "__main__":
    main()
