"""`Trainer` for one stage: our sampler, loss, decay, schedules and checkpoints that count only when complete.

A run is a pure function of its recipe: the order of images and their augmentation depend on (seed, epoch, index)
alone, so that a run that was killed and resumed ends with the same bits as one that was not (on one CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from bonaface.data.loading import EpochSampler
from bonaface.errors import DivergedError
from bonaface.imaging.transforms import Preprocessing
from bonaface.stats.metrics import FaceMetrics, scalars
from bonaface.training.callbacks import Divergence, EpochCallback
from bonaface.training.checkpoints import COMPLETE
from bonaface.training.machine import be_polite
from bonaface.training.optimization import (
    PlateauWarmup,
    WeightAverage,
    decayed_names,
    layer_decay_groups,
    one_cycle,
    rest,
)
from bonaface.training.options import Recipe, library_options


class NotFiniteError(ValueError):
    """Scores from which no figure can be computed."""


class FaceTrainer(Trainer):
    """`Trainer` for one stage of a recipe.

    Args:
        sampler: the order of the training rows.
        recipe: of the stage.
        n_labels: classes of the model.
        preprocessing: brings batches of uint8 levels to the model's units, on the device.
        channels_last: the memory format of pixels and weights.
        loss_weights: of each class, float (n_labels,), for the training loss; None for none.
        compiled: run full training batches by `torch.compile`.
        kwargs: of `Trainer`.
    """

    model: PreTrainedModel
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *,
        sampler: EpochSampler,
        recipe: Recipe,
        n_labels: int,
        preprocessing: Preprocessing,
        channels_last: bool = False,
        loss_weights: torch.Tensor | None = None,
        compiled: bool = False,
        teacher: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sampler, self.recipe, self.n_labels = sampler, recipe, n_labels
        self.loss_weights = None if loss_weights is None else loss_weights.to(self.args.device)
        self.preprocessing, self.compiled, self.teacher = preprocessing, compiled, teacher
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        if compiled:
            self.model.compile(dynamic=False)
        self.model_accepts_loss_kwargs = False  # the loss below is a mean over the batch
        self.mix = mixing(recipe, n_labels)
        self.divergence = Divergence()
        self.add_callback(self.divergence)
        self.add_callback(EpochCallback(sampler))
        self.average: WeightAverage | None = None
        self.follow(self.model)

    def follow(self, model: nn.Module) -> None:
        """Average the weights of this model where the recipe says so, in place of another one's."""
        self.remove_callback(WeightAverage)
        if self.recipe.ema_decay:
            self.average = WeightAverage(model, self.recipe.ema_decay)
            self.add_callback(self.average)  # behind the callbacks that change the weights after a step

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self.sampler

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)
        if self.args.use_cpu:  # samples carry seeds of their own: Trainer's function seeds what nobody draws from
            loader.worker_init_fn = be_polite
        return loader

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Trainer's own, whose loss is watched."""
        loss = super().training_step(*args, **kwargs)
        self.divergence.watch(loss, self.state.global_step + 1, self._get_learning_rate())
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy in float32; class weights, smoothing and mixing count in training only."""
        pixels, labels = inputs["pixel_values"], inputs["labels"]
        if "sizes" in inputs:
            pixels = self.preprocessing.resize(pixels, inputs["sizes"])
            pixels = self.preprocessing.normalize(pixels.contiguous(memory_format=self.memory_format))
        elif pixels.dtype == torch.uint8:
            pixels = self.preprocessing.normalize(pixels)
        if model.training:
            rest(model)
            if self.mix is not None:
                pixels, labels = self.mix(pixels, labels)
            if self.teacher is not None:
                labels = self.teacher(pixels)
        with self._as_compiled(model, len(pixels)):
            outputs = model(pixel_values=pixels)
        logits = outputs.logits.float()
        if model.training:
            weight = None if self.loss_weights is None else self.loss_weights.to(logits)
            loss = F.cross_entropy(logits, labels, weight, label_smoothing=self.args.label_smoothing_factor)
        else:
            loss = F.cross_entropy(logits, labels)
        return (loss, outputs) if return_outputs else loss

    def _as_compiled(self, model: nn.Module, size: int) -> Any:
        """Compiled code for full training batches alone: each other shape or mode would be compiled for itself."""
        if not self.compiled or (model.training and size == self.args.train_batch_size):
            return nullcontext()
        return torch.compiler.set_stance("force_eager")

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Kernels and matrices, see :func:`bonaface.training.optimization.decayed_names`."""
        return decayed_names(model)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's own, with a learning rate for each block where the recipe has `layer_decay`."""
        if self.optimizer is None and self.recipe.layer_decay:
            kind, kwargs = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            rate, decay = self.args.learning_rate, self.args.weight_decay
            self.optimizer = kind(layer_decay_groups(self.model, rate, decay, self.recipe.layer_decay), **kwargs)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Trainer's own; also one-cycle, and warm-up in front of reduce-on-plateau."""
        optimizer = optimizer or self.optimizer
        warmup = self.args.get_warmup_steps(num_training_steps)
        if self.lr_scheduler is None and self.recipe.schedule == "one_cycle":
            self.lr_scheduler = one_cycle(
                optimizer, num_training_steps, warmup, **library_options(self.args.lr_scheduler_kwargs)
            )
            self._created_lr_scheduler = True
        elif self.lr_scheduler is None and self.args.lr_scheduler_type == "reduce_lr_on_plateau":
            better = "max" if self.args.greater_is_better else "min"
            self.args.lr_scheduler_kwargs = {"mode": better, **library_options(self.args.lr_scheduler_kwargs)}
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
            self.remove_callback(PlateauWarmup)
            self.add_callback(PlateauWarmup(warmup))
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trainer's own, of the averaged weights where there are any. Raises DivergedError, and does not score NaN."""
        self.divergence.check_weights(self.model)
        with self.average.applied() if self.average else nullcontext():
            try:
                return super().evaluate(*args, **kwargs)
            except NotFiniteError as error:
                raise DivergedError(f"the training diverged: {error} {self.divergence.where}") from error

    @torch.inference_mode()
    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's own, which alone would still count versions of tensors for gradients."""
        return super().prediction_step(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write, mark as complete, and only then let go of older ones.

        Weights that are not finite are no checkpoint, and neither are weights without an optimizer's state: a run that
        resumed from them would not end with the same bits.
        """
        self.divergence.check_weights(self.model)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            run_dir = self._get_output_dir(trial=trial)
            folder = Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            if self.average:
                self.average.save(folder)
            if not self.args.save_only_model:
                (folder / COMPLETE).touch()
            rotate_checkpoints(
                output_dir=run_dir,
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,
            )
        self.accelerator.wait_for_everyone()  # a last checkpoint may be the best, which every process loads next

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average:
            self.average.load(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.average:
            self.average.keep(self.state.best_model_checkpoint)


def mixing(recipe: Recipe, n_labels: int) -> v2.Transform | None:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch; each half of the time where both are on."""
    mixes: list[v2.Transform] = []
    if recipe.mixup:
        mixes.append(v2.MixUp(alpha=recipe.mixup, num_classes=n_labels))
    if recipe.cutmix:
        mixes.append(v2.CutMix(alpha=recipe.cutmix, num_classes=n_labels))
    return v2.RandomChoice(mixes) if mixes else None


def metrics_function(labels: Sequence[str], real_label: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """What Trainer calls after each evaluation: the single-number figures of :class:`FaceMetrics`."""
    metric = FaceMetrics(labels, real_label)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        if not np.isfinite(prediction.predictions).all():
            raise NotFiniteError("the scores of the validation images are not finite (NaN or infinite)")
        probabilities = torch.softmax(torch.from_numpy(prediction.predictions).double(), dim=1).numpy()
        figures = metric.compute(predictions=probabilities, references=prediction.label_ids)
        assert figures is not None  # a process gets nothing where another one gathers its rows
        return scalars(figures)

    return compute
