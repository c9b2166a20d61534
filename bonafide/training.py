"""The Trainer and what it needs: a dataset of undecoded rows, a sampler that carries the epoch, callbacks.

A run is a pure function of its recipe: the order of images and their augmentation depend on (seed, epoch, index)
alone, so that a run that was killed and continued ends with the same bits as one that was not (on one CPU).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import (
    BaseImageProcessor,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from bonafide.data import FaceData, class_weights, image_bytes, sampling_weights
from bonafide.images import decode_image
from bonafide.metrics import FaceMetrics, scalars
from bonafide.models import project_high_pass, stem
from bonafide.recipe import Recipe
from bonafide.transforms import EvalTransform, TrainTransform, sample_seed

COMPLETE = "complete"  # an empty file, written into a checkpoint after everything else

Key = tuple[int, int, int]  # epoch, row, how many times the row was drawn before in this epoch


class ImageRows(torch.utils.data.Dataset):
    """Rows decoded and transformed when asked for: ``{"pixel_values": float32 (3, H, W), "labels": int}``."""

    def __init__(self, rows: Dataset, transform: EvalTransform | TrainTransform, seed: int = 0) -> None:
        self.rows, self.transform, self.seed = rows.select_columns(["image", "label"]), transform, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        epoch, row, copy = key if isinstance(key, tuple) else (0, key, 0)
        item = self.rows[row]
        image = decode_image(image_bytes(item["image"]), name=item["image"].get("path") or "")
        if isinstance(self.transform, TrainTransform):
            pixels = self.transform(image, sample_seed(self.seed, epoch, row + copy * len(self)))
        else:
            pixels = self.transform(image)
        return {"pixel_values": pixels, "labels": item["label"]}


class EpochSampler(Sampler[Key]):
    """A seeded order of rows for each epoch, as keys that carry the epoch into the workers.

    Workers that live on from epoch to epoch never see a ``set_epoch`` on their copy of the dataset; a key reaches them.
    With weights, rows are drawn by systematic resampling: each as often as its weight says, give or take one.
    """

    def __init__(self, n: int, seed: int, weights: np.ndarray | None = None) -> None:
        self.n, self.seed, self.weights, self.epoch = n, seed, weights, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Key]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            yield from ((self.epoch, int(row), 0) for row in rng.permutation(self.n))
            return
        shares = np.cumsum(self.weights)
        ends = np.floor(shares / shares[-1] * self.n + rng.random())
        rows = np.repeat(np.arange(self.n), np.diff(ends, prepend=0).astype(int))
        first = np.searchsorted(rows, rows)
        keys = [(self.epoch, int(row), int(i - start)) for i, (row, start) in enumerate(zip(rows, first, strict=True))]
        yield from (keys[i] for i in rng.permutation(len(keys)))


class Collator:
    """Items -> a batch, in the memory format that the model runs in."""

    def __init__(self, channels_last: bool) -> None:
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([item["pixel_values"] for item in items])
        labels = torch.tensor([item["labels"] for item in items])
        return {"pixel_values": pixels.contiguous(memory_format=self.memory_format), "labels": labels}


class EpochCallback(TrainerCallback):
    """Tells the sampler the epoch, also when training goes on in the middle of one."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class HighPassCallback(TrainerCallback):
    """Keeps the stem blind to the mean of 2x2 blocks by projecting its kernel after every optimiser step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        if state.global_step == 0:  # a resumed kernel is projected already, and rounding must not move it
            project_high_pass(stem(model))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        project_high_pass(stem(model))


class EpochLines(ProgressCallback):
    """The progress bar on a terminal, and one readable line an evaluation in place of a dictionary."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if state.is_world_process_zero and "eval_loss" in logs:
            names = {"eval_loss": "loss", "eval_accuracy": "accuracy", "eval_auc": "AUC", "eval_eer": "EER"}
            figures = "  ".join(f"{name} {logs[key]:.4f}" for key, name in names.items() if key in logs)
            trained = [f"{row['loss']:.4f}" for row in state.log_history if "loss" in row][-1:] or ["-"]
            tqdm.write(f"epoch {state.epoch:5.2f}  training loss {trained[0]}  validation {figures}")


class QuietEpochLines(EpochLines):
    """The lines without the bar, for log files."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """No bar."""

    on_step_end = on_prediction_step = on_evaluate = on_predict = on_train_end = on_train_begin


class FaceTrainer(Trainer):
    """`Trainer` with our sampler and loss, decay where it belongs, and checkpoints that count only when complete."""

    def __init__(self, *, sampler: EpochSampler, loss_weights: torch.Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sampler, self.loss_weights = sampler, loss_weights
        self.model_accepts_loss_kwargs = False  # the loss below is a mean over the batch
        self.add_callback(EpochCallback(sampler))

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self.sampler

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        """Cross-entropy in float32; class weights and label smoothing count in training only."""
        outputs = model(pixel_values=inputs["pixel_values"])
        logits, labels = outputs.logits.float(), inputs["labels"]
        if model.training:
            weight = None if self.loss_weights is None else self.loss_weights.to(logits)
            loss = F.cross_entropy(logits, labels, weight, label_smoothing=self.args.label_smoothing_factor)
        else:
            loss = F.cross_entropy(logits, labels)
        return (loss, outputs) if return_outputs else loss

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Kernels and matrices; not norms, biases, layer scales, class tokens and position embeddings.

        transformers' own rule decays BatchNorm weights, layer scales, tokens and positions.
        """
        spared = re.compile(r"bias|_token|pos(ition)?_emb", re.IGNORECASE)
        return [
            name
            for name, parameter in model.named_parameters()
            if sum(side > 1 for side in parameter.shape) >= 2 and not spared.search(name)
        ]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write, mark as complete, and only then let go of older ones."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            run_dir = self._get_output_dir(trial=trial)
            (Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}" / COMPLETE).touch()
            rotate_checkpoints(
                output_dir=run_dir,
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,
            )


def last_complete_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint that was written to its end. Trainer's own search also takes partial ones."""
    found = [path.parent for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{COMPLETE}")]
    return str(max(found, key=lambda path: int(path.name.split("-")[-1]))) if found else None


def drop_partial_checkpoints(folder: str | Path) -> None:
    """Remove what a killed run left half written."""
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)


def is_convolutional(model: nn.Module) -> bool:
    """Whether channels_last pays: more convolutions than a patch embedding has."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 2


def metrics_function(data: FaceData) -> Callable[[EvalPrediction], dict[str, float]]:
    """What Trainer calls after each evaluation: the single-number figures of :class:`FaceMetrics`."""
    metric = FaceMetrics(data.labels, data.real_label)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        probabilities = torch.softmax(torch.from_numpy(prediction.predictions).double(), dim=1).numpy()
        return scalars(metric.compute(predictions=probabilities, references=prediction.label_ids))

    return compute


def share_cores(args: TrainingArguments) -> None:
    """On a CPU, leave the decoding workers cores of their own.

    OpenMP threads that share a core with a worker wait for each other at every barrier: on two busy cores a training
    step was 15 times slower with two threads than with one. ``OMP_NUM_THREADS`` overrules.
    """
    if args.use_cpu and args.dataloader_num_workers and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - args.dataloader_num_workers))


def build_trainer(
    model: PreTrainedModel, processor: BaseImageProcessor, data: FaceData, recipe: Recipe, args: TrainingArguments
) -> FaceTrainer:
    """A Trainer ready to run: transforms in the workers, balanced sampling, early stopping, metrics."""
    share_cores(args)
    train = data.splits["train"]
    channels_last = is_convolutional(model) if recipe.channels_last is None else recipe.channels_last
    if channels_last:
        model.to(memory_format=torch.channels_last)
    weights = sampling_weights(train, recipe.balance) if recipe.balance in ("label", "source") else None
    loss_weights = None
    if recipe.balance == "class_weights":
        loss_weights = torch.from_numpy(class_weights(train, len(data.labels)))
    callbacks: list[TrainerCallback] = []
    if recipe.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping_patience))
    if recipe.high_pass_stem:
        callbacks.append(HighPassCallback())
    trainer = FaceTrainer(
        model=model,
        args=args,
        train_dataset=ImageRows(train, TrainTransform(processor, recipe.augmentation), args.seed),
        eval_dataset=ImageRows(data.splits["validation"], EvalTransform(processor)),
        data_collator=Collator(channels_last),
        compute_metrics=metrics_function(data),
        callbacks=callbacks,
        sampler=EpochSampler(len(train), args.seed, weights),
        loss_weights=loss_weights,
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(QuietEpochLines() if args.disable_tqdm else EpochLines())
    return trainer
