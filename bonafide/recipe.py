"""What a training run is told: a recipe file and command line flags -> typed, checked arguments.

Command line beats recipe beats default. A recipe is YAML whose keys are the fields of :class:`Recipe` and of
transformers' `TrainingArguments`; both kinds are flags of ``train_hf.py`` too.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from bonafide.errors import UsageError
from bonafide.models import PRESETS
from bonafide.transforms import TRAIN_PRESETS

BALANCES = ("none", "label", "source", "class_weights")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class Recipe:
    """Everything about a run that `TrainingArguments` does not know."""

    data: str = _option(
        "sample", "image folder, folder with metadata.csv, or Hub data set id; `sample` makes our own set"
    )
    model: str = _option("resnet", f"preset ({', '.join(PRESETS)}), timm/<architecture>, model folder, or Hub id")
    from_scratch: bool = _option(False, "fresh weights from the model's configuration; presets always have them")
    image_size: int | None = _option(None, "side of the model's input, pixels; the model's own when not given")
    resize: int | None = _option(None, "shorter side before the centre crop, pixels; image_size when not given")
    augmentation: str = _option("robust", f"how training images are drawn: {', '.join(TRAIN_PRESETS)}")
    high_pass_stem: bool = _option(False, "blind the first convolution to the mean of each 2x2 pixel block")
    balance: str = _option("none", f"even out label or (label, source): {', '.join(BALANCES)}")
    real_label: str | None = _option(None, "the label that means a photograph; found by its name when not given")
    validation_size: float = _option(0.15, "share cut off for validation where the data has no such split")
    test_size: float = _option(0.15, "share cut off for the test where the data has no such split")
    prepare: bool = _option(True, "train on aligned copies: face crops of one size range and one encoding history")
    audit: bool = _option(True, "look for what gives the classes away before training (file facts, duplicates)")
    strict_audit: bool = _option(False, "refuse to train where the audit finds a leak (exit code 3)")
    max_train_samples: int | None = _option(None, "train on this many images at most, balanced over sources")
    max_eval_samples: int | None = _option(None, "validate and test on this many images each at most")
    robustness: str = _option(
        "quick", "degrade the test images after training: none, quick (two strengths each) or full"
    )
    early_stopping_patience: int | None = _option(None, "stop after this many evaluations without a better one")
    channels_last: bool | None = _option(None, "memory format; by default on for convolutional nets")
    keep_checkpoints: bool = _option(False, "keep the optimiser's checkpoints (they hold pickles) after the run")
    trust_remote_code: bool = _option(False, "run model code that came with a Hub model")
    data_fingerprint: str | None = _option(None, "refuse data with another fingerprint; a finished run's recipe has it")


# Ours where transformers' own defaults do not fit a classifier of images.
DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,  # below 1: a share of all steps
    "num_train_epochs": 10,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
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
# Flags that change neither the data nor the weights: a run may be continued with others.
HARMLESS = {
    "output_dir", "logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "report_to", "run_name",
    "disable_tqdm", "log_level", "dataloader_num_workers", "dataloader_persistent_workers",
    "dataloader_prefetch_factor", "strict_audit", "robustness",
    "dataloader_pin_memory", "per_device_eval_batch_size", "save_total_limit", "keep_checkpoints", "push_to_hub",
    "hub_model_id", "hub_private_repo", "hub_token", "hub_revision", "do_train", "do_eval", "do_predict",
}  # fmt: skip


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "`python train_hf.py --help` lists every flag with its meaning")


def read_recipe(argv: Sequence[str]) -> tuple[Recipe, TrainingArguments, dict[str, Any]]:
    """``[RECIPE.yaml] [--flag value …]`` -> recipe, training arguments, and what was said, with our defaults.

    The third is what a run stores as its ``recipe.yaml``: given to ``train_hf.py`` again it means the same run.

    Raises:
        UsageError: no such file, an unknown key or flag (with the nearest valid name), a value of the wrong type.
    """
    argv = list(argv)
    path = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    parser = _Parser((Recipe, TrainingArguments), allow_abbrev=False)
    known = {f.name for kind in (Recipe, TrainingArguments) for f in fields(kind) if f.init}
    values = _read_yaml(path, known) if path else {}
    name = path.stem if path else "sample"
    defaults = {**DEFAULTS, **_machine_defaults(), "output_dir": f"runs/{name}"}
    defaults.update(values)
    source = f"{path}: " if path else ""
    for key, value in values.items():
        if isinstance(value, list) and parser._option_string_actions[f"--{key}"].nargs not in ("+", "*"):
            raise UsageError(f"{source}{key} takes one value, not a list", f"as in `{key}: {value[0] if value else 1}`")
    try:
        parser.parse_known_args(_as_flags(values))
    except UsageError as error:
        raise UsageError(f"{source}{error}", error.hint) from error
    try:
        recipe, args, unknown = parser.parse_args_into_dataclasses(
            _as_flags(defaults) + argv, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:  # settings that TrainingArguments finds at odds with each other
        raise UsageError(f"{source}{' '.join(str(error).split())}", "change one of these settings") from error
    for word in unknown:
        if word.endswith((".yaml", ".yml")):
            raise UsageError(f"the recipe {word} must come first", "python train_hf.py RECIPE.yaml --flag value …")
        _refuse_unknown(word.split("=")[0].lstrip("-"), known, "flag" if word.startswith("-") else "argument", "")
    if args.dataloader_num_workers == 0:
        args.dataloader_persistent_workers = False
    check_recipe(recipe, args)
    said = {*defaults, *(word.lstrip("-").split("=")[0] for word in argv if word.startswith("--"))} & known - HARMLESS
    effective = {**asdict(recipe), **{key: _plain(getattr(args, key)) for key in said if hasattr(args, key)}}
    return recipe, args, {key: value for key, value in effective.items() if value is not None and key not in HARMLESS}


def check_recipe(recipe: Recipe, args: TrainingArguments) -> None:
    """Refuse, before any work, what would fail or mislead later. Raises :class:`UsageError`."""
    choices = {
        "augmentation": tuple(TRAIN_PRESETS),
        "balance": BALANCES,
        "robustness": ("none", "quick", "full"),
    }
    for key, allowed in choices.items():
        value = getattr(recipe, key)
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1)
            raise UsageError(
                f"{key}: `{value}` is not one of {', '.join(allowed)}",
                f"did you mean {near[0] if near else allowed[0]}?",
            )
    least = {"image_size": 8, "resize": 8, "max_train_samples": 2, "max_eval_samples": 2, "early_stopping_patience": 1}
    for key, low in least.items():
        value = getattr(recipe, key)
        if value is not None and value < low:
            raise UsageError(f"{key} is {value}", f"give at least {low}, or leave it out")
    if args.seed < 0:
        raise UsageError(f"seed is {args.seed}", "give 0 or more")
    sizes = (recipe.validation_size, recipe.test_size)
    if min(sizes) <= 0 or sum(sizes) >= 1:
        raise UsageError(
            f"validation_size {sizes[0]} and test_size {sizes[1]} leave nothing for one of the splits",
            "both must be above 0 and their sum below 1",
        )
    if recipe.early_stopping_patience and args.eval_strategy == "no":
        raise UsageError("early_stopping_patience needs evaluations", "set eval_strategy to epoch or steps")
    if recipe.resize and recipe.image_size and recipe.resize < recipe.image_size:
        raise UsageError(
            f"resize {recipe.resize} is smaller than image_size {recipe.image_size}",
            "the crop must fit into the picture",
        )


def changed_keys(stored: dict[str, Any], now: dict[str, Any], args: TrainingArguments) -> list[str]:
    """Keys by which a stored run differs from this one in what it would compute: ``key: old -> new``."""
    defaults = {**asdict(Recipe()), **TrainingArguments(output_dir="unused", use_cpu=True).to_dict()}
    differences = []
    for key in sorted((stored.keys() | now.keys()) - {"data_fingerprint"}):
        old, new = stored.get(key, defaults.get(key)), now.get(key, defaults.get(key))
        if _plain(old) != _plain(new):
            differences.append(f"{key}: {old} -> {new}")
    return differences


def _machine_defaults() -> dict[str, Any]:
    """bf16 where the device has it; decoding workers by the number of cores, one of which a CPU keeps for the model."""
    gpu = torch.cuda.is_available()
    bf16 = torch.cuda.is_bf16_supported() if gpu else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    cpu = not gpu and not torch.backends.mps.is_available()
    cores = os.cpu_count() or 1
    workers = max(1, cores // 2) if cpu else cores
    return {
        "bf16": bool(bf16),
        "use_cpu": cpu,
        "dataloader_num_workers": min(8, workers),
        "disable_tqdm": not sys.stderr.isatty(),  # else it would follow transformers' log level
    }


def _read_yaml(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"no recipe at {path}", "recipes end in .yaml; see recipes/") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}", "one `key: value` a line") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no keys", "one `key: value` a line")
    for key in values:
        _refuse_unknown(str(key), known, "key", f"{path}: ")
    return values


def _refuse_unknown(word: str, known: set[str], kind: str, where: str) -> None:
    if word not in known:
        near = difflib.get_close_matches(word, sorted(known), 1)
        hint = f"did you mean {near[0]}?" if near else "`python train_hf.py --help` lists what there is"
        raise UsageError(f"{where}unknown {kind} `{word}`", hint)


def _as_flags(values: dict[str, Any]) -> list[str]:
    flags: list[str] = []
    for key, value in values.items():
        if isinstance(value, list):
            flags += [f"--{key}", *map(str, value)]
        elif value is not None:
            flags.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
    return flags


def _plain(value: Any) -> Any:
    """Enumerations and tuples as YAML can hold them."""
    value = getattr(value, "value", value)
    return list(value) if isinstance(value, tuple) else value
