"""Whether speed costs accuracy: the stock recipe and ours, as many epochs, the same data, seeds and first weights.

    python benchmarks/train_accuracy.py --data PREPARED --model resnet18 --side 112 --epochs 5 --seeds 0 1 2 3 4
    python benchmarks/train_accuracy.py --data PREPARED --model lite0 --pretrained --side 112 --epochs 1 --seeds 0 1 2

Learning rate, schedule, weight decay, batch and augmentation are alike (the stock defaults would lose from scratch), so
that what differs is what is for speed: precision, memory format, who resizes, who compiles; and what decays, and the
order of the images. Both are tested by the same code. The interval of the mean difference is Student's over the seeds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record
from scipy import stats
from sklearn.metrics import roc_auc_score
from train_sides import MODELS, ROOT, our_trainer, stock_trainer
from transformers import set_seed

from bonaface.data.dataset import FaceData, load_data
from bonaface.data.loading import ImageRows
from bonaface.imaging.transforms import TRAIN_PRESETS, EvalTransform
from bonaface.inference.rows import run_rows
from bonaface.models.load import load_model

ALIKE = {"learning_rate": 1e-3, "weight_decay": 0.05, "lr_scheduler_type": "cosine", "warmup_steps": 0.05}


def link_splits(data: FaceData, folder: Path) -> Path:
    """The files of the splits as `folder`/SPLIT/LABEL/NAME, which `imagefolder` reads as we do."""
    for split, rows in data.splits.items():
        if split == "calibration":
            continue
        for i, row in enumerate(rows):
            link = folder / split / data.labels[row["label"]] / f"{i:06d}{Path(row['image']['path']).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(row["image"]["path"], link)
    return folder


def auc_on_test(model: Any, processor: Any, data: FaceData) -> float:
    """AUC of the fake class on the test split, in float32."""
    rows = data.splits["test"]
    outputs = run_rows(model.float(), ImageRows(rows, EvalTransform(processor)), workers=2)
    scores = torch.softmax(torch.from_numpy(outputs.logits), dim=1)[:, 1 - data.real_index].numpy()
    return float(roc_auc_score(np.array(rows["label"]) != data.real_index, scores))


def main() -> None:
    """Train both with each seed; print AUCs and the mean difference, and leave JSON in benchmarks/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder that `prepare` made")
    parser.add_argument("--model", choices=list(MODELS), default="resnet18")
    parser.add_argument("--pretrained", action="store_true", help="a fine-tune: start from the model's weights")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--side", type=int, help="height and width that the network reads; its own when not given")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train_accuracy.json")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"stock": [], "ours": []}
    seconds: dict[str, list[float]] = {"stock": [], "ours": []}
    source, out = Path(options.data).resolve(), options.out.resolve()
    with tempfile.TemporaryDirectory(dir=source.parent) as work, chdir(work):  # Trainer makes a folder where it is
        folder = link_splits(load_data(source), Path(work, "data"))
        for seed in options.seeds:
            set_seed(seed)
            name, fresh = MODELS[options.model], not options.pretrained
            model, processor = load_model(name, ["fake", "real"], image_size=options.side, from_scratch=fresh)
            alike = {**ALIKE, "num_train_epochs": options.epochs}
            begun = time.perf_counter()
            trainer = stock_trainer(
                model, processor, str(folder), options.batch, seed, TRAIN_PRESETS["standard"].area, **alike
            )
            trainer.train()
            flags = [word for key, value in {**alike, "seed": seed}.items() for word in (f"--{key}", str(value))]
            middle = time.perf_counter()
            flags += ["--prepare", "False", "--from_scratch", str(fresh)]
            flags += ["--image_size", str(options.side)] if options.side else []
            ours, data, _ = our_trainer(options.model, str(folder), options.batch, flags)
            ours.train()
            done = time.perf_counter()
            found["stock"].append(auc_on_test(trainer.model, processor, data))
            found["ours"].append(auc_on_test(ours.model, processor, data))
            seconds["stock"].append(round(middle - begun, 1))
            seconds["ours"].append(round(done - middle, 1))
            print(
                f"seed {seed}: stock {found['stock'][-1]:.4f} in {seconds['stock'][-1]:.0f} s, "
                f"ours {found['ours'][-1]:.4f} in {seconds['ours'][-1]:.0f} s",
                flush=True,
            )
    differences = np.subtract(found["ours"], found["stock"])
    mean, error = differences.mean(), stats.sem(differences) if len(differences) > 1 else np.nan
    low, high = stats.t.interval(0.95, len(differences) - 1, mean, error)
    print(f"{options.model}, {options.epochs} epochs: ours - stock {mean:+.4f} ({low:+.4f} to {high:+.4f})")
    record(
        out,
        float(np.mean(found["ours"]) / np.mean(found["stock"])),
        "mean AUC of ours / of the stock recipe",
        model=options.model,
        pretrained=options.pretrained,
        epochs=options.epochs,
        batch=options.batch,
        side=processor.data_config["input_size"][-1],
        auc=found,
        seconds=seconds,
        difference=mean,
        interval_95=[low, high] if len(differences) > 1 else None,
    )


if __name__ == "__main__":
    main()
