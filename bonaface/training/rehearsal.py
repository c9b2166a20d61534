"""Finds, before the data is read, what Trainer and its libraries would refuse only after that.

Missing packages, options of an optimizer or a schedule, launchers that are needed: the libraries know best. So a
Trainer with the run's own arguments is built around a network of a few weights, and nothing is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForImageClassification, ResNetConfig, SchedulerType, Trainer, TrainingArguments
from transformers.integrations import MLflowCallback

from bonaface.errors import UsageError
from bonaface.models.head import HiddenHeadForImageClassification
from bonaface.models.load import model_class
from bonaface.training.optimization import one_cycle
from bonaface.training.options import Recipe, library_options
from bonaface.training.recipe import stages_of

STEPS = 100
MLflowCallback._auto_end_run = False  # without mlflow it is deleted half built, and its __del__ would fail aloud


def rehearse(recipe: Recipe, args: TrainingArguments) -> None:
    """Build the Trainer, the optimizer and the schedule of every stage around a toy network.

    Raises:
        UsageError: a package, an option, a schedule's argument or a launcher is missing or wrong, in the library's own
            words; gradient checkpointing of a model that has none.
    """
    if args.gradient_checkpointing and not _has_checkpointing(recipe):
        raise UsageError(
            f"the model {recipe.model} does not support gradient_checkpointing",
            "leave it out; to save memory, use a smaller batch with gradient_accumulation_steps",
        )
    with tempfile.TemporaryDirectory(prefix="bonaface-") as folder:
        for stage in stages_of(recipe, args):
            _rehearse_stage(stage.args, folder, plain=stage.recipe.schedule != "one_cycle")


def _has_checkpointing(recipe: Recipe) -> bool:
    if recipe.head_hidden_size:
        return HiddenHeadForImageClassification.supports_gradient_checkpointing
    kind = model_class(recipe.model, recipe.trust_remote_code)
    return kind is None or kind.supports_gradient_checkpointing


def _rehearse_stage(args: TrainingArguments, folder: str, *, plain: bool) -> None:
    toy = AutoModelForImageClassification.from_config(
        ResNetConfig(embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], layer_type="basic")
    )
    quiet: dict[str, Any] = {"output_dir": folder, "enable_jit_checkpoint": False}  # that sets signal handlers
    rows: Any = [{}]
    evaluated = None if args.eval_strategy == "no" else rows
    trainer = _try("", lambda: Trainer(toy, replace(args, **quiet), train_dataset=rows, eval_dataset=evaluated))
    optimizer = _try("optim, optim_args: ", trainer.create_optimizer)
    kind, options = SchedulerType(args.lr_scheduler_type).value, library_options(args.lr_scheduler_kwargs)
    where = f"lr_scheduler_type {kind}, lr_scheduler_kwargs {options}: "
    if plain:
        schedule = _try(where, lambda: trainer.create_scheduler(STEPS, optimizer))
        _try(where, lambda: [rate(step) for rate in getattr(schedule, "lr_lambdas", ()) for step in range(STEPS + 1)])
    else:
        _try(where, lambda: one_cycle(optimizer, STEPS, args.get_warmup_steps(STEPS), **options))
    if args.gradient_checkpointing:
        how = {"use_reentrant": False, **library_options(args.gradient_checkpointing_kwargs)}
        _try("gradient_checkpointing_kwargs: ", lambda: checkpoint(torch.square, torch.ones(1), **how))


def _try(where: str, work: Callable[[], Any]) -> Any:
    """Do what a library may refuse for any reason, with any type of error."""
    try:
        return work()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{where}{' '.join(str(error).split()) or type(error).__name__}",
            "install what is missing, or change that flag or leave it out",
        ) from error
