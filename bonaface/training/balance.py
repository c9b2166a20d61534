"""How often the training draws a row, and how much a row's loss counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from bonaface.data.dataset import class_weights, sampling_weights
from bonaface.training.options import Recipe, weights_of


def drawing_weights(rows: Dataset, balance: str, mix: dict[str, float]) -> np.ndarray | None:
    """How often each row is drawn: `balance` inside each data set, `mix` between them; None for each row once."""
    inner = balance if balance in ("label", "source", "source_root") else "none"
    if "dataset" not in rows.column_names or not mix:
        return None if inner == "none" else sampling_weights(rows, inner)
    owners = np.array(rows["dataset"], dtype=object)
    weights = np.zeros(len(rows))
    for name, share in mix.items():
        mine = np.flatnonzero(owners == name)
        own = sampling_weights(rows.select(mine), inner)
        weights[mine] = own / own.sum() * share
    return weights * len(rows) / weights.sum()


def loss_weights(rows: Any, recipe: Recipe, n_labels: int) -> torch.Tensor:
    """Loss weights (n,) of mean 1: what drawing rows more or less often does in a fine-tune."""
    if recipe.balance == "class_weights":
        return torch.from_numpy(class_weights(rows, n_labels))[torch.tensor(rows["label"])].float()
    weights = drawing_weights(rows, recipe.balance, weights_of(recipe.mix))
    return torch.ones(len(rows)) if weights is None else torch.from_numpy(weights).float()
