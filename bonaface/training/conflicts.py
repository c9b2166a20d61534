"""What a recipe may not say: values out of their bounds, and values that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import TrainingArguments

from bonaface.errors import UsageError
from bonaface.training.arguments import check_arguments
from bonaface.training.flags import refuse_unknown
from bonaface.training.machine import has_compiler
from bonaface.training.options import RULES, Recipe, named_data, weights_of
from bonaface.training.rules import check

# Values that are valid alone, but not with another one or on this machine: whether so, why, and a remedy.
Conflicts = Iterator[tuple[Any, str, str]]


def check_recipe(recipe: Recipe, args: TrainingArguments) -> None:
    """Refuse, before any work, what would fail or mislead later. Raises :class:`UsageError`."""
    sets, weights = named_data(recipe.data), weights_of(recipe.mix)
    if len(sets) > 1:
        for name in weights:
            refuse_unknown(name, set(sets), "data set", "mix: ")
    check(recipe, RULES)
    check_arguments(args)
    for wrong, message, hint in (*_of_data_and_model(recipe, args), *_of_training(recipe, args)):
        if wrong:
            raise UsageError(message, hint)


def _of_data_and_model(recipe: Recipe, args: TrainingArguments) -> Conflicts:
    sizes = (recipe.validation_size, recipe.test_size)
    yield (
        recipe.prepare_size is not None and not recipe.prepare,
        "prepare_size has no effect with `prepare: false`",
        "leave one of the two out",
    )
    yield (
        recipe.compile and not has_compiler(args.use_cpu),
        f"compile: torch.compile needs {'a C++ compiler' if args.use_cpu else 'triton and a C compiler'}",
        "install one, as in `apt-get install g++`, or leave compile out",
    )
    yield (
        sum(sizes) >= 1,
        f"validation_size {sizes[0]} and test_size {sizes[1]} leave nothing for one of the splits",
        "make their sum less than 1",
    )
    yield (
        recipe.resize and recipe.image_size and recipe.resize < recipe.image_size,
        f"resize {recipe.resize} is smaller than image_size {recipe.image_size}",
        "make resize at least as large as image_size",
    )


def _of_training(recipe: Recipe, args: TrainingArguments) -> Conflicts:
    evaluates = args.eval_strategy != "no"
    yield (
        recipe.early_stopping_patience and not evaluates,
        "early_stopping_patience needs evaluations",
        "set eval_strategy to epoch or steps",
    )
    yield (
        recipe.schedule == "plateau" and not evaluates,
        "the plateau schedule needs evaluations",
        "set eval_strategy to epoch or steps",
    )
    yield (
        recipe.lora_rank and (recipe.ema_decay or recipe.layer_decay or recipe.freeze != "none"),
        "lora_rank cannot be combined with freeze, ema_decay or layer_decay",
        "leave the others out: LoRA itself freezes the weights",
    )
    yield (
        recipe.head_only and (recipe.lora_rank or recipe.cutmix or recipe.head_hidden_size or recipe.high_pass_stem),
        "head_only cannot be combined with lora_rank, cutmix, head_hidden_size or high_pass_stem",
        "leave them out, or use head_only in a first stage alone",
    )
    yield (
        recipe.head_block and not recipe.head_only,
        "head_block reads the features that head_only keeps",
        "add `head_only: 3`, or leave head_block out",
    )
    yield (
        recipe.cached_views and (recipe.freeze in ("none", "backbone") or recipe.head_only or recipe.lora_rank),
        "cached_views trains the blocks behind the frozen ones: it needs freeze, and neither head_only nor lora_rank",
        "add `freeze: all_but_last_N`; for the last layer alone, use head_only in its place",
    )
    yield (
        recipe.cached_views and (recipe.cutmix or recipe.high_pass_stem or recipe.compile),
        "cached_views trains no pixels: no cutmix, high_pass_stem or compile",
        "leave them out",
    )
    yield (
        recipe.teachers and not recipe.cached_views,
        "teachers read the maps that cached_views keeps",
        "add `cached_views: 5`, or leave teachers out",
    )
    yield (
        recipe.balance == "class_weights" and (recipe.mixup or recipe.cutmix),
        "class_weights cannot be combined with mixup or cutmix",
        "use `balance: label`",
    )
