"""Which of transformers' `TrainingArguments` cannot work here, or have values out of bounds: said before any work."""

from __future__ import annotations

import difflib
import math
from dataclasses import fields

from transformers import TrainingArguments

from bonaface.errors import UsageError
from bonaface.training.machine import has_compiler

# What an evaluation during training gives, and whether more of it is better.
METRICS = {
    "auc": True, "accuracy": True, "balanced_accuracy": True, "average_precision": True, "recall": True,
    "tpr_at_5pct_fpr": True, "tpr_at_1pct_fpr": True, "tpr_at_0.5pct_fpr": True,
    "loss": False, "log_loss": False, "brier": False, "ece": False, "eer": False, "fpr": False,
}  # fmt: skip

# Least and greatest value, and whether these themselves are allowed. None, where a field takes it, always is.
BOUNDS: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
         "eval_accumulation_steps", "dataloader_prefetch_factor", "save_total_limit", "ddp_timeout"),
        (1, math.inf, "[)"),
    ),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "eval_delay", "dataloader_num_workers"),
        (0, math.inf, "[)"),
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), (0, 1, "[)")),
    "label_smoothing_factor": (0, 1, "[]"),
    "seed": (0, 2**32 - 1, "[]"),
    "data_seed": (0, 2**32 - 1, "[]"),
}  # fmt: skip

# Fields with the one value that works here, and why no other does.
FIXED: dict[str, tuple[object, str]] = {
    "prediction_loss_only": (False, "an evaluation would have no figures"),
    "eval_do_concat_batches": (True, "figures are of all batches together"),
    "batch_eval_metrics": (False, "figures are of all batches together"),
    "label_names": (None, "a batch's labels are called labels"),
    "train_sampling_strategy": ("random", "images have no lengths to group by"),
    "neftune_noise_alpha": (None, "it is for language models"),
    "use_liger_kernel": (False, "its kernels are for language models"),
}


def check_arguments(args: TrainingArguments) -> None:
    """Refuse values that would fail in the middle of a training, or make it mean nothing. Raises UsageError."""
    for name, (low, high, ends) in BOUNDS.items():
        _check_bounds(args, name, low, high, ends)
    for name in ("logging", "eval", "save"):
        if getattr(args, f"{name}_strategy") == "steps":
            _check_bounds(args, f"{name}_steps", 0, math.inf, "()")
    if args.max_steps != -1:
        _check_bounds(args, "max_steps", 1, math.inf, "[)")
    else:
        _check_bounds(args, "num_train_epochs", 0, math.inf, "()")
    known = {field.name for field in fields(args)}
    for name, (value, reason) in FIXED.items():
        if name in known and getattr(args, name) != value:
            raise UsageError(f"{name} {getattr(args, name)} cannot work here: {reason}", f"leave {name} out")
    _check_metric(args)
    if args.torch_compile and args.torch_compile_backend == "inductor" and not has_compiler(args.use_cpu):
        raise UsageError(
            f"torch_compile needs {'a C++ compiler' if args.use_cpu else 'triton and a C compiler'}",
            "install one, as in `apt-get install g++`, or leave torch_compile out",
        )


def better_is_greater(metric: str | None) -> bool | None:
    """Whether more of a metric is better; None where there is no such metric."""
    return METRICS.get((metric or "").removeprefix("eval_"))


def _check_metric(args: TrainingArguments) -> None:
    name = args.metric_for_best_model
    if name is None:
        return
    greater = better_is_greater(name)
    if greater is None:
        near = difflib.get_close_matches(name.removeprefix("eval_"), METRICS, 1)
        raise UsageError(
            f"metric_for_best_model: there is no `{name}`; there are {', '.join(METRICS)}",
            f"did you mean {near[0]}?" if near else "auc is the default; accuracy and loss are what others often use",
        )
    if bool(args.greater_is_better) != greater:
        raise UsageError(
            f"greater_is_better {args.greater_is_better} with metric_for_best_model {name} would keep the worst model",
            "leave greater_is_better out: it follows from the metric",
        )


def _check_bounds(args: TrainingArguments, name: str, low: float, high: float, ends: str) -> None:
    value = getattr(args, name)
    if value is None:
        return
    above = value >= low if ends[0] == "[" else value > low
    below = value <= high if ends[1] == "]" else value < high
    if above and below:  # neither holds for NaN
        return
    least = f"at least {low}" if ends[0] == "[" else f"more than {low}"
    most = "" if high == math.inf else f" and {'at most' if ends[1] == ']' else 'less than'} {high}"
    raise UsageError(f"{name} is {value}", f"give {least}{most}, or leave it out")
