"""What happens between the steps of a Trainer: the sampler's epoch, projections, patience, readable lines."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bonaface.data.loading import EpochSampler
from bonaface.errors import DivergedError
from bonaface.models.parts import project_high_pass, stem

LOOK = 50


class EpochCallback(TrainerCallback):
    """Tells the sampler the epoch, also when training resumes in the middle of one."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Pass the epoch on."""
        self.sampler.set_epoch(int(state.epoch or 0))


class HighPassCallback(TrainerCallback):
    """Keeps the stem blind to the mean of 2x2 blocks by projecting its kernel after every optimiser step."""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Project the fresh kernel; a resumed one is projected already, and rounding must not move it."""
        if state.global_step == 0:
            project_high_pass(stem(kwargs["model"]))

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Project the kernel that the step has moved."""
        project_high_pass(stem(kwargs["model"]))


class Patience(TrainerCallback):
    """Stops after `patience` evaluations without a better one.

    It counts in the log of evaluations, which a checkpoint contains; transformers' own callback keeps its own count,
    which starts again after a resume.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look back at all evaluations so far."""
        assert args.metric_for_best_model is not None
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        values = [row[name] for row in state.log_history if name in row]
        best = (max if args.greater_is_better else min)(values)
        control.should_training_stop |= len(values) - 1 - values.index(best) >= self.patience


class Divergence(TrainerCallback):
    """Ends a training whose loss or weights are not finite, with the step and the learning rate at which it began.

    On a CPU it looks after each step. A GPU would have to finish first, so there it remembers the first such step and
    looks every :data:`LOOK` steps, and before weights are scored or written.
    """

    def __init__(self) -> None:
        self.step: torch.Tensor | None = None  # the first one with such a loss; 0 where there was none
        self.rates: dict[int, float] = {}
        self.now = 0

    def watch(self, loss: torch.Tensor, step: int, rate: float) -> None:
        """Check the loss, a scalar, of this step (from 1) with this learning rate. Raises DivergedError."""
        loss = loss.detach()
        if self.step is None:
            self.step = torch.zeros((), dtype=torch.long, device=loss.device)
        bad = ~torch.isfinite(loss) & (self.step == 0)
        self.step = torch.where(bad, step, self.step)
        self.rates[step], self.now = rate, step
        if loss.device.type == "cpu" or step % LOOK == 0:
            self.check()

    def check(self) -> None:
        """Raise DivergedError where a loss since the last look was not finite."""
        step = 0 if self.step is None else int(self.step)
        if step:
            raise DivergedError(
                f"the training diverged: the loss is not finite (NaN or infinite) at step {step}, "
                f"where the learning rate was {self.rates[step]:.3g}"
            )
        self.rates = {step: rate for step, rate in self.rates.items() if step == self.now}

    @torch.no_grad()
    def check_weights(self, model: nn.Module) -> None:
        """Raise DivergedError where a loss or a weight is not finite; batch norms' statistics count too."""
        self.check()
        state = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        if not torch.stack([torch.isfinite(tensor).all() for tensor in state]).all():
            raise DivergedError(f"the training diverged: weights are not finite (NaN or infinite) {self.where}")

    @property
    def where(self) -> str:
        """How far the training is, for a message."""
        return f"after step {self.now}, where the learning rate was {self.rates.get(self.now, 0):.3g}"


class EpochLines(ProgressCallback):
    """The progress bar on a terminal, and one readable line per evaluation in place of a dictionary."""

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
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
