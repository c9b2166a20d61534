"""One side of benchmarks/train_throughput.py, in a process of its own: the stock recipe, ours, or the limit.

It trains only in its turn: it waits for a line on stdin and answers ``@ SECONDS`` for the steps that count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MODELS = {  # as `--model` takes them
    "convnextv2_atto": "timm/convnextv2_atto.fcmae",
    "convnextv2_tiny": "timm/convnextv2_tiny.fcmae",
    "vit_tiny": "timm/vit_tiny_patch16_224.augreg_in21k",
    "vit_small": "timm/vit_small_patch16_224.augreg_in21k",
    "resnet18": "timm/resnet18.a1_in1k",
    "lite0": "lite0",
}
FIRST = 3  # steps in which everything is compiled and chosen
ENDLESS = 100_000  # epochs; the parent says when it is enough


def turns(steps: int, idle: int) -> Any:
    """A callback that lets a Trainer train in its turns alone: `idle` steps, then `steps` that are timed."""
    import torch
    from transformers import TrainerCallback

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.left, self.begun, self.counted = FIRST, now(), FIRST

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.left == steps and self.counted == steps:
                self.begun = now()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.left -= 1
            if self.left == 0:
                seconds, self.left, self.counted = now() - self.begun, steps + idle, steps
                if state.is_world_process_zero:  # others wait for it at the next exchange of gradients
                    print(f"@ {seconds}", flush=True)
                    sys.stdin.readline()

    return Turns()


def stock_trainer(
    model: Any,
    processor: Any,
    data: str,
    batch: int,
    seed: int = 42,
    area: tuple[float, float] = (0.08, 1.0),
    **arguments: Any,
) -> Any:
    """The image-classification recipe as people run it: torchvision transforms in `set_transform`, defaults.

    ``area`` is the share of the picture that a random crop takes, torchvision's default.
    """
    import torch
    from datasets import load_dataset
    from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToTensor
    from transformers import Trainer, TrainingArguments

    config = processor.data_config
    transform = Compose(
        [
            RandomResizedCrop(config["input_size"][-1], scale=area),
            RandomHorizontalFlip(),
            ToTensor(),
            Normalize(config["mean"], config["std"]),
        ]
    )

    def transformed(rows: dict[str, Any]) -> dict[str, Any]:
        return {
            "pixel_values": [transform(image.convert("RGB")) for image in rows["image"]],
            "label": rows["label"],
        }

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "labels": torch.tensor([item["label"] for item in items]),
        }

    rows = load_dataset("imagefolder", data_dir=data, split="train")
    rows.set_transform(transformed)
    defaults: dict[str, Any] = {"num_train_epochs": ENDLESS, "save_strategy": "no", "logging_strategy": "no"}
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="unused",
            per_device_train_batch_size=batch,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            **{**defaults, **arguments},
        ),
        train_dataset=rows,
        data_collator=collate,
    )


def our_trainer(model: str, data: str, batch: int, flags: list[str]) -> tuple[Any, Any, Any]:
    """The trainer that train_hf.py would build, its data and its image processor; nothing is saved or evaluated."""
    from bonaface.cli import train
    from bonaface.training.build import build_trainer
    from bonaface.training.recipe import read_recipe, stages_of

    recipe, args, _ = read_recipe(
        [
            "--data", data, "--model", MODELS[model], "--from_scratch", "True",
            "--augmentation", "standard", "--audit", "False", "--output_dir", "unused", "--disable_tqdm", "True",
            "--per_device_train_batch_size", str(batch), "--eval_strategy", "no", "--save_strategy", "no",
            "--logging_strategy", "no", "--load_best_model_at_end", "False", "--num_train_epochs", str(ENDLESS), *flags,
        ]
    )  # fmt: skip
    faces, _ = train.read_data(recipe, args.seed)
    train.set_seed(args.seed)
    network, processor = train.build_model(recipe, faces.labels)
    return build_trainer(network, processor, faces, stages_of(recipe, args)[0], say=print), faces, processor


class Resident:
    """A loader that reads nothing: one batch, which lies on the device already, again and again."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 100_000

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(len(self)):
            yield self.batch


def make_resident(trainer: Any) -> None:
    """Give the trainer one random batch in place of its loader, in the units and the format that its model reads."""
    import torch

    side, n = trainer.preprocessing.height, trainer.args.per_device_train_batch_size
    pixels = torch.randn(n, 3, side, side, device=trainer.args.device)
    if trainer.data_collator.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    loader = Resident({"pixel_values": pixels, "labels": torch.arange(n, device=trainer.args.device) % 2})
    trainer.get_train_dataloader = lambda: loader


def main() -> None:
    """Train one side in its turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["stock", "ours", "limit"])
    parser.add_argument("--model", choices=list(MODELS), required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options, flags = parser.parse_known_args()
    if options.side == "stock":
        from transformers import set_seed

        from bonaface.models.load import load_model

        set_seed(42)
        network, processor = load_model(MODELS[options.model], ["fake", "real"], from_scratch=True)
        trainer = stock_trainer(network, processor, options.data, options.batch)
        idle = 2
    else:
        trainer, _, _ = our_trainer(options.model, options.data, options.batch, flags)
        # Two batches a worker may wait for the turn; three times as many steps, since more are loaded meanwhile.
        idle = 2 + 6 * trainer.args.dataloader_num_workers
        if options.side == "limit":
            make_resident(trainer)
            idle = 2
    trainer.add_callback(turns(options.steps, idle))
    trainer.train()


if __name__ == "__main__":
    main()
