"""``head_only``: the last layer alone, or with ``head_block`` the last block, on kept features of drawn views.

It takes minutes where a fine-tune takes hours.

Kornblith et al. (2019) and Kumar et al. (2022): on data unlike the training's, a linear head on good frozen features
often outperforms a fine-tune, and is a better start for one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, EvalPrediction, PreTrainedModel

from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.loading import Collator, ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.transforms import TrainTransform
from bonaface.inference.forward import Outputs, with_fast_products
from bonaface.inference.rows import OutputsOf, run_rows
from bonaface.models.parts import head_of, move
from bonaface.training.balance import loss_weights
from bonaface.training.frozen_blocks import input_of
from bonaface.training.head_fit import HeadFit
from bonaface.training.heads import BlockHead, LinearHead, read_by_last_layer, tokens, transformer_of
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
    """Train the last layer of ``model``, or its last block, in place; gives the log of epochs, as a Trainer's.

    The model keeps its architecture. The epoch with the best validation AUC is kept. Raises UsageError where the logits
    do not come from a linear layer, or with `head_block` where there is no such block.
    """
    recipe, args = stage.recipe, stage.args
    assert recipe.head_only is not None
    rows, validation = data.splits["train"], data.splits["validation"]
    if recipe.max_train_samples:
        rows = balanced_subset(rows, recipe.max_train_samples, args.seed)
    cache = feature_cache(model, processor, stage, folder)
    views = np.stack([view.whole() for view in (*cache.drawn(rows, recipe.head_only), cache.plain(rows))])
    held_out = torch.from_numpy(cache.plain(validation).whole())
    say(f"head: {len(rows):,} images, {len(views)} views of each, {views.shape[2]} features in {folder}")
    labels = torch.tensor(rows["label"])
    weights = loss_weights(rows, recipe, len(data.labels))
    figures = metrics_function(data.labels, data.real_label)
    torch.manual_seed(args.seed)
    head = (
        BlockHead(transformer_of(model).blocks[-1], views, len(data.labels))
        if recipe.head_block
        else LinearHead(views, len(data.labels), recipe.head_dropout)
    )
    fit = HeadFit(
        head, len(data.labels), rate=args.learning_rate, decay=args.weight_decay, epochs=int(args.num_train_epochs),
        mixup=recipe.mixup, smoothing=args.label_smoothing_factor, seed=args.seed,
    )  # fmt: skip
    best: tuple[float, dict[str, torch.Tensor]] = (-np.inf, {})
    history = History()
    for epoch in range(1, int(args.num_train_epochs) + 1):
        loss, steps = fit.epoch(views, labels, weights)
        with torch.inference_mode():
            logits = head(held_out).numpy()
        evaluated = figures(EvalPrediction(predictions=logits, label_ids=np.array(validation["label"])))
        place = {"epoch": float(epoch), "step": steps * epoch}
        history += [{"loss": loss, **place}, {f"eval_{name}": value for name, value in evaluated.items()} | place]
        if evaluated["auc"] > best[0]:
            best = evaluated["auc"], {name: value.clone() for name, value in head.state_dict().items()}
    head.load_state_dict(best[1])
    head.fold_into(model)
    say(f"head: best validation AUC {best[0]:.4f}")
    return history


def kept_outputs(
    model: PreTrainedModel, processor: BaseImageProcessor, stage: Stage, folder: Path = FOLDER
) -> OutputsOf:
    """A model's outputs for rows, by the head that `stage` trained and what its body made of the rows before."""
    cache = feature_cache(model, processor, stage, folder)

    @torch.inference_mode()
    def outputs(_: str, rows: Dataset) -> Outputs:
        features = torch.from_numpy(cache.plain(rows).whole()).to(model.device)
        if stage.recipe.head_block:
            features = read_by_last_layer(model.eval(), features)
        return Outputs(head_of(model)(features).double().cpu().numpy(), features.cpu().numpy())

    return outputs


def feature_cache(
    model: PreTrainedModel, processor: BaseImageProcessor, stage: Stage, folder: Path = FOLDER
) -> ViewCache:
    """What the head reads of views of images, float32 (n, width)."""
    learned = list(head_of(model).parameters())
    kind: list[tuple[str, torch.Tensor]] = []
    if stage.recipe.head_block:
        network = transformer_of(model)
        learned += [*network.blocks[-1].parameters(), *network.norm.parameters()]
        kind = [("head_block, views in bf16", torch.tensor(stage.args.bf16))]  # other features of the same weights
    known = {id(parameter) for parameter in learned}
    body = kind + [(name, value) for name, value in model.state_dict(keep_vars=True).items() if id(value) not in known]

    def run(rows: ImageRows) -> NDArray[np.float32]:
        if stage.recipe.head_block:
            return _tokens_of(model, rows, stage)
        features = run_rows(model, rows, workers=stage.args.dataloader_num_workers, title="features").features
        if features is None:
            raise UsageError(f"{type(model).__name__} has no linear classifier", "leave head_only out")
        return features

    return ViewCache(body, processor, stage.recipe.augmentation, stage.args.seed, run, folder)


@torch.inference_mode()
def _tokens_of(model: PreTrainedModel, rows: ImageRows, stage: Stage) -> NDArray[np.float32]:
    # The drawn views alone: what evaluation sees also calibrates the model, which runs in float32.
    bf16 = stage.args.bf16 and isinstance(rows.transform, TrainTransform)
    last = f"timm_model.blocks.{len(transformer_of(model).blocks) - 1}"
    model = with_fast_products(move(model, device=stage.args.device))
    found = []
    for batch in DataLoader(rows, 64, num_workers=stage.args.dataloader_num_workers, collate_fn=Collator(False)):
        pixels = batch["pixel_values"].to(stage.args.device)
        with torch.autocast(stage.args.device.type, torch.bfloat16, enabled=bf16):
            found.append(tokens(model, input_of(model, last, pixels)).cpu().numpy())
    return np.concatenate(found)
