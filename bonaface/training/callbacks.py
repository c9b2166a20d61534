"""What happens between the steps of a Trainer: epochs told to the sampler, projections, patience, readable lines."""

from __future__ import annotations

from typing import Any

from torch import nn
from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback

from bonaface.data.loading import EpochSampler
from bonaface.models.load import project_high_pass, stem


class EpochCallback(TrainerCallback):
    """Tells the sampler the epoch, also when training goes on in the middle of one."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pass the epoch on."""
        self.sampler.set_epoch(int(state.epoch or 0))


class HighPassCallback(TrainerCallback):
    """Keeps the stem blind to the mean of 2x2 blocks by projecting its kernel after every optimiser step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Project the fresh kernel; a resumed one is projected already, and rounding must not move it."""
        if state.global_step == 0:
            project_high_pass(stem(model))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Project the kernel that the step has moved."""
        project_high_pass(stem(model))


class Patience(TrainerCallback):
    """Stops after `patience` evaluations without a better one.

    It counts in the log of evaluations, which a checkpoint holds; transformers' own callback counts in itself and
    starts anew after a resume.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look back at all evaluations so far."""
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        values = [row[name] for row in state.log_history if name in row]
        best = (max if args.greater_is_better else min)(values)
        control.should_training_stop |= len(values) - 1 - values.index(best) >= self.patience


class EpochLines(ProgressCallback):
    """The progress bar on a terminal, and one readable line an evaluation in place of a dictionary."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write the line of an evaluation."""
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
