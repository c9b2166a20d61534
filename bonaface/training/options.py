"""The settings of a run: the fields of a recipe beside transformers' `TrainingArguments`, and their defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from transformers import TrainingArguments

from bonaface.data.alignment import Alignment
from bonaface.data.units import GROUPS_HELP, check_groups
from bonaface.errors import UsageError
from bonaface.imaging.transforms import TRAIN_PRESETS
from bonaface.models.load import PRESETS
from bonaface.models.pretrained import PACKAGED
from bonaface.training.rules import Bounds, Choices, Passes, rules_of

BALANCES = ("none", "label", "source", "source_root", "class_weights")
# Learning rate after warm-up, by the names people use, and what transformers calls them; one-cycle warms up by itself.
SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
    "plateau": "reduce_lr_on_plateau",
    "one_cycle": "constant",
}
FREEZES = ("none", "backbone", "all_but_last_N")
ROBUSTNESS = ("none", "quick", "full")


def _check_freeze(value: str) -> None:
    if value in FREEZES[:2] or re.fullmatch(r"all_but_last_[1-9]\d*", value):
        return
    everything = value in ("all", "everything", "all_but_last_0")
    wrong = "freezes everything" if everything else f"is not one of {', '.join(FREEZES)}"
    raise UsageError(
        f"freeze: `{value}` {wrong}",
        "use `freeze: backbone` (the head learns) or, for example, `freeze: all_but_last_2`",
    )


def _check_prepare_size(value: list[int]) -> None:
    if len(value) != 2:
        raise UsageError(f"prepare_size takes two numbers, not {len(value)}", "give a range, such as 256 320")
    Alignment(size_range=(value[0], value[1]))


def library_options(given: dict[str, Any] | str | None) -> dict[str, Any]:
    """A field of `TrainingArguments` such as ``lr_scheduler_kwargs``, which parses a text when it is made."""
    assert not isinstance(given, str)
    return given or {}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class Recipe:
    """Settings of a run that `TrainingArguments` does not have, with the rules for their values."""

    data: list[str] = field(
        default_factory=lambda: ["sample"],
        metadata={
            "help": "Image folder, metadata.csv folder or Hub id; several as name=DATA; `sample` is the embedded set."
        },
    )
    mix: list[str] | None = field(
        default=None, metadata={"help": "Which of several data sets to train on, and how often: name=weight."}
    )
    splits: str | None = _option(
        None, "CSV file with the columns path and split, which overrides the data's own splits."
    )
    groups: Annotated[str, Passes(check_groups)] = _option("auto", GROUPS_HELP)
    model: str = _option(
        "resnet",
        f"Preset ({', '.join(PRESETS)}; pretrained: {', '.join(PACKAGED)}), timm/<architecture>, folder, or Hub id.",
    )
    from_scratch: bool = _option(
        False, f"Start from random weights; presets other than {', '.join(PACKAGED)} always do."
    )
    image_size: Annotated[int | None, Bounds(8, 4096, "[]")] = _option(
        None, "Side of the model's input in pixels; by default the model's own."
    )
    resize: Annotated[int | None, Bounds(8, 4096, "[]")] = _option(
        None, "Shorter side before the centre crop in pixels; by default image_size."
    )
    augmentation: Annotated[str, Choices(tuple(TRAIN_PRESETS))] = _option(
        "robust", f"Augmentation of training images: {', '.join(TRAIN_PRESETS)}."
    )
    high_pass_stem: bool = _option(False, "Make the first convolution blind to the mean of each 2x2 pixel block.")
    balance: Annotated[str, Choices(BALANCES)] = _option("none", f"Balance labels or sources: {', '.join(BALANCES)}.")
    freeze: Annotated[str, Passes(_check_freeze)] = _option(
        "none", f"Weights to freeze: {', '.join(FREEZES)} (N blocks from the end, including the head)."
    )
    head_dropout: Annotated[float, Bounds(0, 1)] = _option(0.0, "Dropout in front of the last layer, in [0, 1).")
    head_hidden_size: Annotated[int | None, Bounds(1)] = _option(
        None,
        "Width of a hidden layer in the head (dense, batch norm, ReLU, dropout); loading then needs `import bonaface`.",
    )
    head_only: Annotated[int | None, Bounds(1)] = _option(
        None,
        "Train the last layer alone, on stored features of the plain view and so many drawn ones: minutes on a CPU.",
    )
    head_block: bool = _option(
        False, "With head_only: train the last block of a vision transformer as well, as a perceptron on its tokens."
    )
    cached_views: Annotated[int | None, Bounds(1)] = _option(
        None, "With freeze: train on stored maps of the frozen blocks, for this many drawn views per image."
    )
    teachers: Annotated[int | None, Bounds(1)] = _option(
        None, "With cached_views: learn from this many perceptrons that read the maps of all stages."
    )
    lora_rank: Annotated[int | None, Bounds(1)] = _option(
        None, "Train low-rank updates (LoRA) of this rank instead of all weights; merged before saving."
    )
    schedule: Annotated[str | None, Choices(tuple(SCHEDULES))] = _option(
        None, f"Learning rate after warm-up: {', '.join(SCHEDULES)}."
    )
    layer_decay: Annotated[float | None, Bounds(0, 1, "()")] = _option(
        None, "Learning rate of a block as a fraction of the next one's, e.g. 0.75."
    )
    ema_decay: Annotated[float | None, Bounds(0, 1, "()")] = _option(
        None, "Evaluate and keep an exponential average of the weights with this decay, e.g. 0.999."
    )
    mixup: Annotated[float, Bounds(0)] = _option(
        0.0, "Mix pairs of images and labels: alpha of the Beta distribution, 0 for never."
    )
    cutmix: Annotated[float, Bounds(0)] = _option(
        0.0, "Paste boxes from other images: alpha of the Beta distribution, 0 for never."
    )
    real_label: str | None = _option(None, "The label of photographs; by default recognised by its name.")
    validation_size: Annotated[float, Bounds(0, 1, "()")] = _option(
        0.15, "Share of images for validation if the data has no such split."
    )
    test_size: Annotated[float, Bounds(0, 1, "()")] = _option(
        0.15, "Share of images for the test if the data has no such split."
    )
    prepare: bool = _option(True, "Train on aligned copies: face crops of one size range and one encoding history.")
    audit: bool = _option(True, "Look for shortcuts (file facts, duplicates) before training.")
    strict_audit: bool = _option(False, "Refuse to train if the audit finds a leak (exit code 3).")
    max_train_samples: Annotated[int | None, Bounds(2)] = _option(
        None, "Train on at most this many images, balanced over sources."
    )
    max_eval_samples: Annotated[int | None, Bounds(2)] = _option(
        None, "Validate and test on at most this many images each."
    )
    robustness: Annotated[str, Choices(ROBUSTNESS)] = _option(
        "quick", "Degradations of the test images after training: none, quick (two strengths each) or full."
    )
    float8: bool = _option(False, "Store the weights as 8-bit floats, a quarter of the size; loaded as float32.")
    calibrate_on: str | None = _option(
        None, "predictions.parquet of a leave-one-source-out crossval, to calibrate on unseen sources."
    )
    early_stopping_patience: Annotated[int | None, Bounds(1)] = _option(
        None, "Stop after this many evaluations without an improvement."
    )
    channels_last: bool | None = _option(None, "Memory format; by default on for convolutional networks.")
    compile: bool | None = _option(None, "Use torch.compile; by default if the run is long enough to gain from it.")
    face_margin: Annotated[float | None, Bounds(0, 2)] = _option(
        None,
        "Border around faces, as a share of the face box on each side: of the aligned copies (by default 0.15), or of "
        "the crops in the data with `prepare: false`.",
    )
    prepare_size: Annotated[list[int] | None, Passes(_check_prepare_size)] = field(
        default=None, metadata={"help": "Range of the aligned crops' side in pixels; by default 128 160."}
    )
    search: Annotated[int | None, Bounds(1)] = _option(
        None, "Try this many settings of the recipe's search_space, and write the best as a recipe."
    )
    keep_checkpoints: bool = _option(False, "Keep the optimiser's checkpoints (which contain pickles) after the run.")
    trust_remote_code: bool = _option(False, "Run the model code that comes with a Hub model.")
    data_fingerprint: str | None = _option(
        None, "Refuse data with another fingerprint; stored in a finished run's recipe."
    )
    # These need more room than a flag has: in a recipe's YAML only.
    stages: list[dict[str, Any]] | None = field(default=None, init=False)  # the recipe with some keys changed, in turn
    families: dict[str, list[str]] | None = field(default=None, init=False)  # generators from the same maker
    search_space: dict[str, Any] | None = field(default=None, init=False)  # what --search tries


RULES = rules_of(Recipe)


@dataclass(frozen=True)
class Stage:
    """One part of a training: the recipe and the arguments with the stage's own keys in place."""

    name: str
    recipe: Recipe
    args: TrainingArguments


# What a stage may set for itself; everything else is the whole run's.
STAGE_KEYS = {
    "name", "freeze", "head_only", "head_block", "cached_views", "teachers", "mix", "augmentation", "balance",
    "early_stopping_patience", "layer_decay", "ema_decay", "mixup", "cutmix", "lora_rank", "max_train_samples",
    "schedule", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "learning_rate", "num_train_epochs",
    "max_steps", "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "label_smoothing_factor", "per_device_train_batch_size", "gradient_accumulation_steps",
}  # fmt: skip
YAML_ONLY = ("stages", "families", "search_space")


# Ours where transformers' own defaults do not fit a classifier of images.
DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,  # below 1: a share of all steps
    "num_train_epochs": 10,
    "per_device_train_batch_size": 32,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "save_total_limit": 1,  # the newest, and the best beside it
    "load_best_model_at_end": True,
    "metric_for_best_model": "auc",
    "greater_is_better": True,
    "report_to": "none",
    "remove_unused_columns": False,
    "dataloader_persistent_workers": True,
}
# Flags that change neither the data nor the weights: a run may be resumed with others, and does not store them.
# What decides which weights are the best (evaluation, and saving where the best are loaded) is not among them; nor is
# what draws random numbers between two steps, as each evaluation does.
HARMLESS = {
    # where it goes, and what is written of it
    "output_dir", "logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "logging_nan_inf_filter",
    "log_level", "log_level_replica", "log_on_each_node", "disable_tqdm", "report_to", "run_name", "project",
    "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "include_num_input_tokens_seen",
    "skip_memory_metrics", "debug", "robustness",
    # checkpoints
    "save_total_limit", "save_only_model", "save_on_each_node", "enable_jit_checkpoint", "keep_checkpoints",
    "resume_from_checkpoint", "restore_callback_states_from_checkpoint",
    # how the images come
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "dataloader_multiprocessing_context", "per_device_eval_batch_size", "eval_accumulation_steps",
    "torch_empty_cache_steps",
    # the Hub
    "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token", "hub_revision", "hub_strategy", "hub_always_push",
    # the rest: launchers, and what concerns only the time before or beside the training
    "ddp_timeout", "local_rank", "do_train", "do_eval", "do_predict", "strict_audit", "search", "use_cache",
    "include_for_metrics", "eval_use_gather_object",
}  # fmt: skip


def named_data(data: Sequence[str]) -> dict[str, str]:
    """``["DATA"]`` or ``["name=DATA", "name=DATA", …]`` -> {name: DATA}; one set alone needs no name.

    Raises:
        UsageError: several sets of which one has no name, or two share one.
    """
    if len(data) == 1:
        name, _, place = data[0].partition("=")
        return {name: place} if name.isidentifier() and place else {"": data[0]}
    pairs = [item.partition("=")[::2] for item in data]
    names = [name for name, place in pairs if name.isidentifier() and place]
    if len(names) != len(data) or len(set(names)) != len(names):
        raise UsageError(
            f"several data sets need a name each, not {' '.join(data)}", "name them: --data old=DATA1 new=DATA2"
        )
    return dict(pairs)


def weights_of(mix: Sequence[str] | None) -> dict[str, float]:
    """``["name", "name=2", …]`` -> {name: weight}; a weight that is not given is 1.

    Raises:
        UsageError: a weight that is not a positive number.
    """
    weights = {}
    for item in mix or []:
        name, _, weight = item.partition("=")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            weights[name] = 0.0
        if not 0 < weights[name] < float("inf"):
            raise UsageError(f"mix: `{item}` has no positive weight", "write, for example, `mix: {old: 1, new: 3}`")
    return weights
