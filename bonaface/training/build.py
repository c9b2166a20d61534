"""A stage of a recipe and its data -> a Trainer ready to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel, PrinterCallback, ProgressCallback, TrainerCallback

from bonaface.data.dataset import FaceData, balanced_subset, class_weights
from bonaface.data.loading import Collator, EpochSampler, ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.transforms import EvalTransform, TrainTransform, sample_seed
from bonaface.models.parts import is_convolutional, move
from bonaface.training.balance import drawing_weights, loss_weights
from bonaface.training.cached_rows import MapRows
from bonaface.training.callbacks import EpochLines, HighPassCallback, Patience, QuietEpochLines
from bonaface.training.frozen_blocks import FrozenBlocks
from bonaface.training.machine import compile_pays, speed_line
from bonaface.training.options import Stage, weights_of
from bonaface.training.teacher import train_teacher
from bonaface.training.trainer import FaceTrainer, metrics_function


def build_trainer(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    stage: Stage,
    *,
    number: int = 0,
    kind: type[FaceTrainer] = FaceTrainer,
    frozen: FrozenBlocks | None = None,
    say: Callable[[str], Any] = lambda _: None,
) -> FaceTrainer:
    """A Trainer ready to run one stage, the `number`-th from 0, on the data that the stage is for.

    With ``frozen`` the model is what is left without these blocks, and trains on their maps.
    """
    recipe, args, n_labels = stage.recipe, stage.args, len(data.labels)
    torch.backends.cudnn.benchmark = True  # all batches but the last have one shape
    train, validation = training_rows(data, stage), data.splits["validation"]
    channels_last = is_convolutional(model) if recipe.channels_last is None else recipe.channels_last
    if channels_last:
        move(model, memory_format=torch.channels_last)
    transform = TrainTransform(processor, recipe.augmentation, regions=args.device.type == "cuda")
    compiled = _compiles(model, stage, len(train), transform, frozen)
    say(speed_line(args, channels_last=channels_last, compiled=compiled))
    seed = args.seed if number == 0 else sample_seed(args.seed, number, 0)  # each stage draws its own
    learned = frozen.drawn(train, seed) if frozen else ImageRows(train, transform, seed)
    teacher = _teacher(model, learned, train, n_labels, stage, say)
    trainer = kind(
        model=model,
        args=args,
        train_dataset=learned,
        eval_dataset=frozen.plain(validation) if frozen else ImageRows(validation, EvalTransform(processor)),
        data_collator=Collator(channels_last, regions=transform.gives_regions),
        compute_metrics=metrics_function(data.labels, data.real_label),
        callbacks=_callbacks(stage),
        sampler=_sampler(train, stage, seed),
        recipe=recipe,
        n_labels=n_labels,
        preprocessing=transform.output,
        channels_last=channels_last,
        compiled=compiled,
        teacher=teacher,
        loss_weights=torch.from_numpy(class_weights(train, n_labels)) if recipe.balance == "class_weights" else None,
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(QuietEpochLines() if args.disable_tqdm else EpochLines())
    return trainer


def training_rows(data: FaceData, stage: Stage) -> Dataset:
    """The rows that a stage trains on. Raises UsageError where they are too few for a batch and it would be dropped."""
    recipe, args, rows = stage.recipe, stage.args, data.splits["train"]
    if recipe.max_train_samples:
        rows = balanced_subset(rows, recipe.max_train_samples, args.seed)
    batch = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and len(rows) < batch:
        raise UsageError(
            f"dataloader_drop_last drops all {len(rows)} training images: a batch has {batch}",
            "leave it out, or lower per_device_train_batch_size",
        )
    return rows


def _compiles(
    model: PreTrainedModel, stage: Stage, n_rows: int, transform: TrainTransform, frozen: FrozenBlocks | None
) -> bool:
    """Whether `torch.compile` is to be used: as the recipe says, else where it saves more time than it takes."""
    recipe, args = stage.recipe, stage.args
    compiled = recipe.compile
    if compiled is None:
        step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        images = n_rows * args.num_train_epochs if args.max_steps < 0 else args.max_steps * step
        shape = (transform.output.height, transform.output.width)
        compiled = frozen is None and compile_pays(model, args, int(images), shape)
    if compiled:  # an optional speed-up must not end the run
        torch._dynamo.config.suppress_errors = recipe.compile is None
    return compiled


def _callbacks(stage: Stage) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if stage.recipe.early_stopping_patience:
        callbacks.append(Patience(stage.recipe.early_stopping_patience))
    if stage.recipe.high_pass_stem:
        callbacks.append(HighPassCallback())
    return callbacks


def _sampler(rows: Dataset, stage: Stage, seed: int) -> EpochSampler:
    weights = drawing_weights(rows, stage.recipe.balance, weights_of(stage.recipe.mix))
    return EpochSampler(len(rows), seed, weights, stage.args.per_device_train_batch_size * stage.args.world_size)


def _teacher(
    model: PreTrainedModel,
    learned: ImageRows | MapRows,
    rows: Dataset,
    n_labels: int,
    stage: Stage,
    say: Callable[[str], Any],
) -> nn.Module | None:
    if not stage.recipe.teachers or not isinstance(learned, MapRows):
        return None
    teacher = train_teacher(model, learned, loss_weights(rows, stage.recipe, n_labels), n_labels, stage)
    say(f"teacher: {stage.recipe.teachers} perceptrons on the maps of all stages")
    return teacher
