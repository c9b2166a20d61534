"""The stages of a training, one after the other: each starts from the best weights of the one before.

A stage keeps its checkpoints in a folder of its own. When it ends it leaves its best weights there and, written last,
its log, so that an interrupted run resumes in the middle of its stage.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments, set_seed

from bonaface.data.dataset import FaceData
from bonaface.errors import DivergedError
from bonaface.files import write_json
from bonaface.models.lora import add_lora, merge_lora
from bonaface.training.assembly import choose_sets
from bonaface.training.build import build_trainer
from bonaface.training.checkpoints import (
    BEST,
    DIVERGED,
    LOG,
    drop_partial_checkpoints,
    last_complete_checkpoint,
    stage_folder,
)
from bonaface.training.frozen_blocks import FrozenBlocks
from bonaface.training.head_training import train_head
from bonaface.training.optimization import add_dropout, freeze, learnable
from bonaface.training.options import Recipe, Stage, weights_of
from bonaface.training.recipe import stages_of
from bonaface.training.run import on_main_process
from bonaface.training.trainer import FaceTrainer

History = list[dict[str, Any]]


def train_stages(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    recipe: Recipe,
    args: TrainingArguments,
    checkpoints: Path,
    say: Callable[[str], Any] = print,
) -> tuple[PreTrainedModel, History, bool]:
    """Train all stages, or those that remain.

    Returns:
        The model with the best weights of the last stage, in float32; the log of all stages, whose epochs and steps
        count on and whose rows carry the ``stage`` where there are several; whether training was resumed.

    Raises:
        UsageError: a stage that freezes more blocks than there are.
        DivergedError: a loss that is not finite.
    """
    stages = stages_of(recipe, args)
    everything = learnable(model)
    for stage in stages:
        freeze(model, stage.recipe.freeze, everything)  # an impossible stage is found before any is trained
    if any(stage.recipe.mix for stage in stages) and "dataset" not in data.splits["train"].column_names:
        say("mix has no effect with a single data set: every stage trains on all of it")
    hook = add_dropout(model, recipe.head_dropout) if recipe.head_dropout and not recipe.head_hidden_size else None
    history: History = []
    resumed = False
    for number, stage in enumerate(stages):
        folder = stage_folder(checkpoints, number, stage.name)
        if not (folder / LOG).is_file():
            if len(stages) > 1:
                say(f"stage {number + 1} of {len(stages)}: {stage.name}")
            begun = last_complete_checkpoint(folder)
            freeze(model, stage.recipe.freeze, everything)
            model, log = _train(model, processor, data, stage, number, folder, say)
            on_main_process(partial(_leave, model, folder, log, recipe.keep_checkpoints))
            resumed |= begun is not None
        else:
            resumed = True
        model.load_state_dict(load_file(folder / BEST))
        history = _append(history, json.loads((folder / LOG).read_text()), stage.name if len(stages) > 1 else None)
    if hook is not None:
        hook.remove()
    freeze(model, "none", everything)
    return model, history, resumed


def _train(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    stage: Stage,
    number: int,
    folder: Path,
    say: Callable[[str], Any],
) -> tuple[PreTrainedModel, History]:
    stage = replace(stage, args=replace(stage.args, output_dir=str(folder)))
    data = choose_sets(data, weights_of(stage.recipe.mix))
    if stage.recipe.head_only:
        return model, train_head(model, processor, data, stage, say)
    set_seed(stage.args.seed)  # a stage is the same whether the one before it ran in this process or an earlier one
    build = partial(build_trainer, processor=processor, data=data, number=number, say=say)
    if stage.recipe.cached_views:
        frozen = FrozenBlocks(model, processor, stage)
        in_memory = replace(stage.args, dataloader_num_workers=0, dataloader_persistent_workers=False)
        with frozen.bypassed():
            trainer = build(model, stage=replace(stage, args=in_memory), frozen=frozen)
            return model, _fit(trainer, folder, say)
    learner = add_lora(model, stage.recipe.lora_rank) if stage.recipe.lora_rank else model
    history = _fit(build(learner, stage=stage), folder, say)
    return merge_lora(learner) if stage.recipe.lora_rank else model, history


def _fit(trainer: FaceTrainer, folder: Path, say: Callable[[str], Any]) -> History:
    """Train in place, from the last complete checkpoint where there is one; the log."""
    on_main_process(lambda: drop_partial_checkpoints(folder))
    resume = last_complete_checkpoint(folder)
    if resume:
        say(f"resuming from {resume}")
    try:
        trainer.train(resume_from_checkpoint=resume)
        trainer.divergence.check_weights(trainer.model)  # of a training without evaluations too
    except DivergedError:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DIVERGED).touch()
        raise
    trainer.model._compiled_call_impl = None  # what comes after the training runs once
    if trainer.average and not trainer.args.load_best_model_at_end:
        trainer.average.keep()
    return trainer.state.log_history


def _leave(model: nn.Module, folder: Path, log: History, keep_checkpoints: bool) -> None:
    """Write what the next stage needs; the log last of all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / BEST)
    write_json(folder / LOG, log, indent=None)
    if not keep_checkpoints:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


def _append(history: History, log: History, stage: str | None) -> History:
    """The rows of one more stage, whose epochs and steps continue the count."""
    start = {key: max((row.get(key, 0) for row in history), default=0) for key in ("epoch", "step")}
    named = {} if stage is None else {"stage": stage}
    moved = [row | {key: row[key] + start[key] for key in start if key in row} | named for row in log]
    return history + moved
