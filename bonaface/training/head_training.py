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

from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.inference.forward import run_rows
from bonaface.models.parts import head_of, last_linear
from bonaface.training.balance import loss_weights
from bonaface.training.head_fit import HeadFit
from bonaface.training.options import Stage
from bonaface.training.trainer import metrics_function
from bonaface.training.view_cache import FOLDER, ViewCache

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
    is. The epoch with the best validation AUC is kept. Raises UsageError where the logits do not come from a linear
    layer.
    """
    recipe, args = stage.recipe, stage.args
    assert recipe.head_only is not None
    rows, validation = data.splits["train"], data.splits["validation"]
    if recipe.max_train_samples:
        rows = balanced_subset(rows, recipe.max_train_samples, args.seed)
    cache = feature_cache(model, processor, stage, folder)
    views = np.stack([view.whole() for view in cache.drawn(rows, recipe.head_only)])
    held_out = cache.plain(validation).whole()
    say(f"head: {len(rows):,} images, {recipe.head_only} views of each, {views.shape[2]} features in {folder}")
    mean, std = views.mean((0, 1)), views.std((0, 1)) + 1e-6
    views = (views - mean) / std
    labels = torch.tensor(rows["label"])
    weights = loss_weights(rows, stage.recipe, len(data.labels))
    figures = metrics_function(data.labels, data.real_label)
    layer, history = nn.Linear(views.shape[2], len(data.labels)), History()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    head = HeadFit(
        nn.Sequential(nn.Dropout(recipe.head_dropout), layer), len(data.labels), rate=args.learning_rate,
        decay=args.weight_decay, epochs=int(args.num_train_epochs), mixup=recipe.mixup,
        smoothing=args.label_smoothing_factor, seed=args.seed,
    )  # fmt: skip
    best: tuple[float, dict[str, torch.Tensor]] = (-np.inf, {})
    for epoch in range(1, int(args.num_train_epochs) + 1):
        loss, steps = head.epoch(views, labels, weights)
        with torch.inference_mode():
            logits = layer(torch.from_numpy((held_out - mean) / std)).numpy()
        evaluated = figures(EvalPrediction(predictions=logits, label_ids=np.array(validation["label"])))
        place = {"epoch": float(epoch), "step": steps * epoch}
        history += [{"loss": loss, **place}, {f"eval_{name}": value for name, value in evaluated.items()} | place]
        if evaluated["auc"] > best[0]:
            best = evaluated["auc"], {name: value.clone() for name, value in layer.state_dict().items()}
    _take_over(model, len(data.labels), best[1], mean, std)
    say(f"head: best validation AUC {best[0]:.4f}")
    return history


def feature_cache(
    model: PreTrainedModel, processor: BaseImageProcessor, stage: Stage, folder: Path = FOLDER
) -> ViewCache:
    """The input of the last layer, float32 (n, width), for views of images."""
    head = {id(parameter) for parameter in head_of(model).parameters()}
    body = [(name, value) for name, value in model.state_dict(keep_vars=True).items() if id(value) not in head]

    def run(rows: ImageRows) -> NDArray[np.float32]:
        features = run_rows(model, rows, workers=stage.args.dataloader_num_workers, title="features").features
        if features is None:
            raise UsageError(f"{type(model).__name__} has no linear classifier", "leave head_only out")
        return features

    return ViewCache(body, processor, stage.recipe.augmentation, stage.args.seed, run, folder)


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
