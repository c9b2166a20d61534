"""``head_only``: the last layer alone, on kept features of drawn views. Minutes where a fine-tune takes hours.

Kornblith et al. (2019) and Kumar et al. (2022): on data unlike the training's, a linear head on good frozen features
often outperforms a fine-tune, and is a better start for one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import BaseImageProcessor, EvalPrediction, PreTrainedModel

from bonaface.data.dataset import FaceData, balanced_subset, class_weights
from bonaface.imaging.transforms import EvalTransform
from bonaface.models.load import last_linear
from bonaface.training.frozen_features import FOLDER, batches, frozen_features, plain_features
from bonaface.training.options import Stage, weights_of
from bonaface.training.trainer import drawing_weights, metrics_function

History = list[dict[str, Any]]


def train_head(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    stage: Stage,
    say: Callable[[str], Any] = print,
    folder: Path = FOLDER,
) -> History:
    """Train the last layer of ``model`` in place; gives the log of epochs, as a Trainer's.

    The features are standardised for the training, and the layer takes that over, so the architecture stays what it
    is. The epoch with the best validation AUC is kept.

    Raises:
        UsageError: the logits do not come from a linear layer.
    """
    recipe, args = stage.recipe, stage.args
    assert recipe.head_only is not None
    rows, validation = data.splits["train"], data.splits["validation"]
    if recipe.max_train_samples:
        rows = balanced_subset(rows, recipe.max_train_samples, args.seed)
    workers = args.dataloader_num_workers
    views = frozen_features(
        model, processor, rows, data.fingerprint, augmentation=recipe.augmentation, views=recipe.head_only,
        seed=args.seed, workers=workers, folder=folder,
    )  # fmt: skip
    held_out = plain_features(model, validation, EvalTransform(processor), workers)
    say(f"head: {len(rows):,} images, {recipe.head_only} views of each, {views.shape[2]} features in {folder}")
    mean, std = views.mean((0, 1)), views.std((0, 1)) + 1e-6
    views = (views - mean) / std
    labels = torch.tensor(rows["label"])
    weights = _weights(rows, stage, len(data.labels))
    figures = metrics_function(data.labels, data.real_label)
    head, history = _Head(views.shape[2], len(data.labels), stage), History()
    best: tuple[float, dict[str, torch.Tensor]] = (-np.inf, {})
    for epoch in range(1, int(args.num_train_epochs) + 1):
        loss, steps = head.epoch(views, labels, weights)
        with torch.inference_mode():
            logits = head.layer(torch.from_numpy((held_out - mean) / std)).numpy()
        evaluated = figures(EvalPrediction(predictions=logits, label_ids=np.array(validation["label"])))
        place = {"epoch": float(epoch), "step": steps * epoch}
        history += [{"loss": loss, **place}, {f"eval_{name}": value for name, value in evaluated.items()} | place]
        if evaluated["auc"] > best[0]:
            best = evaluated["auc"], {name: value.clone() for name, value in head.layer.state_dict().items()}
    _take_over(model, len(data.labels), best[1], mean, std)
    say(f"head: best validation AUC {best[0]:.4f}")
    return history


class _Head:
    """A linear layer on standardised features and what trains it."""

    def __init__(self, width: int, n_labels: int, stage: Stage) -> None:
        recipe, args = stage.recipe, stage.args
        self.rng, self.mixup, self.batch = np.random.default_rng(args.seed), recipe.mixup, 128
        self.layer, self.dropout = nn.Linear(width, n_labels), nn.Dropout(recipe.head_dropout)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.smoothing = args.label_smoothing_factor
        self.optimiser = torch.optim.AdamW(self.layer.parameters(), args.learning_rate, weight_decay=args.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, max(int(args.num_train_epochs), 1))

    def epoch(self, views: NDArray[np.float32], labels: torch.Tensor, weights: torch.Tensor) -> tuple[float, int]:
        """One pass, a view drawn for each image; mean loss and number of steps."""
        drawn = self.rng.integers(len(views), size=len(labels))
        total, steps = 0.0, 0
        for picked in batches(len(labels), self.batch, self.rng):
            x = torch.from_numpy(views[drawn[picked], picked])
            y = nn.functional.one_hot(labels[picked], self.layer.out_features).float()
            w = weights[picked]
            if self.mixup:
                share = float(self.rng.beta(self.mixup, self.mixup))
                other = torch.from_numpy(self.rng.permutation(len(picked)))
                x, y, w = (share * part + (1 - share) * part[other] for part in (x, y, w))
            losses = nn.functional.cross_entropy(
                self.layer(self.dropout(x)), y, reduction="none", label_smoothing=self.smoothing
            )
            self.optimiser.zero_grad()
            loss = (losses * w).mean()
            loss.backward()
            self.optimiser.step()
            total, steps = total + loss.item(), steps + 1
        self.schedule.step()
        return total / steps, steps


def _weights(rows: Any, stage: Stage, n_labels: int) -> torch.Tensor:
    """Loss weights (n,) of mean 1: what drawing rows more or less often does in a fine-tune."""
    recipe = stage.recipe
    if recipe.balance == "class_weights":
        return torch.from_numpy(class_weights(rows, n_labels))[torch.tensor(rows["label"])].float()
    weights = drawing_weights(rows, recipe.balance, weights_of(recipe.mix))
    return torch.ones(len(rows)) if weights is None else torch.from_numpy(weights).float()


@torch.no_grad()
def _take_over(
    model: PreTrainedModel, n_labels: int, state: dict[str, torch.Tensor], mean: NDArray[Any], std: NDArray[Any]
) -> None:
    """Put the head into the model's last layer, the standardisation folded into it."""
    layer = last_linear(model, n_labels)
    assert layer is not None  # or there would be no features
    weight = state["weight"] / torch.from_numpy(std)
    layer.weight.copy_(weight)
    layer.bias.copy_(state["bias"] - weight @ torch.from_numpy(mean))
