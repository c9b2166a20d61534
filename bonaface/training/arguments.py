"""Which of transformers' `TrainingArguments` cannot work here, or are out of bounds: refused before any work."""

from __future__ import annotations

import difflib
from dataclasses import fields

from transformers import TrainingArguments

from bonaface.errors import UsageError
from bonaface.training.machine import has_compiler
from bonaface.training.rules import Bounds, Rule, check

# What an evaluation during training gives, and whether more of it is better.
METRICS = {
    "auc": True, "accuracy": True, "balanced_accuracy": True, "average_precision": True, "recall": True,
    "tpr_at_5pct_fpr": True, "tpr_at_1pct_fpr": True, "tpr_at_0.5pct_fpr": True,
    "loss": False, "log_loss": False, "brier": False, "ece": False, "eer": False, "fpr": False,
}  # fmt: skip

BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
         "eval_accumulation_steps", "dataloader_prefetch_factor", "save_total_limit", "ddp_timeout"),
        Bounds(1),
    ),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "eval_delay"),
        Bounds(0),
    ),
    "dataloader_num_workers": Bounds(0, 256, "[]"),  # processes: thousands of them bring a machine down
    **dict.fromkeys(("adam_beta1", "adam_beta2"), Bounds(0, 1)),
    "label_smoothing_factor": Bounds(0, 1, "[]"),
    "seed": Bounds(0, 2**32 - 1, "[]"),
    "data_seed": Bounds(0, 2**32 - 1, "[]"),
}  # fmt: skip

# Fields with the one value that works here, and why no other does.
FIXED: dict[str, tuple[object, str]] = {
    "prediction_loss_only": (False, "evaluations would have no figures"),
    "eval_do_concat_batches": (True, "figures need all batches together"),
    "batch_eval_metrics": (False, "figures need all batches together"),
    "label_names": (None, "batches always call them `labels`"),
    "train_sampling_strategy": ("random", "images have no lengths to group by"),
    "neftune_noise_alpha": (None, "it is for language models"),
    "use_liger_kernel": (False, "its kernels are for language models"),
}


def check_arguments(args: TrainingArguments) -> None:
    """Refuse values that would fail in the middle of a training, or make it meaningless. Raises UsageError."""
    bounds: dict[str, tuple[Rule, ...]] = {name: (rule,) for name, rule in BOUNDS.items()}
    for name in ("logging", "eval", "save"):
        if getattr(args, f"{name}_strategy") == "steps":
            bounds[f"{name}_steps"] = (Bounds(0, ends="()"),)
    if args.max_steps != -1:
        bounds["max_steps"] = (Bounds(1),)
    else:
        bounds["num_train_epochs"] = (Bounds(0, ends="()"),)
    check(args, bounds)
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
            f"metric_for_best_model: `{name}` is not one of {', '.join(METRICS)}",
            f"did you mean {near[0]}?" if near else "use auc (the default), accuracy or loss",
        )
    if bool(args.greater_is_better) != greater:
        raise UsageError(
            f"greater_is_better {args.greater_is_better} with metric_for_best_model {name} would keep the worst model",
            "leave greater_is_better out: it follows from the metric",
        )
