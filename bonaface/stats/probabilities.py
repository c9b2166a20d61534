"""The probabilities of an image's labels, and what they say together: p_fake."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bonaface.stats.intervals import FloatArray


def probability_columns(labels: Sequence[str]) -> list[str]:
    """The table's column of each label's probability, in class order: ``p_<label>``.

    With two classes, ``p_fake`` of a class named ``fake`` is the same number as the table's ``p_fake``. With more,
    where it is not, that class's column gets a trailing underscore.
    """
    clash = len(labels) > 2
    return [f"p_{label}_" if clash and label == "fake" else f"p_{label}" for label in labels]


def fake_probability(scores: ArrayLike, real_index: int) -> FloatArray:
    """Probabilities (n, k) -> p_fake float64 (n,) in [0, 1]; ValueError where they are not probabilities."""
    rows = checked_scores(scores)
    if not -rows.shape[1] <= real_index < rows.shape[1]:
        raise ValueError(f"there is no class {real_index} among {rows.shape[1]}")
    return np.clip(np.delete(rows, real_index, axis=1).sum(axis=1), 0.0, 1.0)


def checked_scores(scores: ArrayLike) -> FloatArray:
    """Probabilities (n, k) as float64; ValueError where they are not probabilities."""
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ValueError(f"scores must have the shape (images, classes >= 2), not {rows.shape}")
    # bf16 softmax rows are off by up to a hundredth; logits are off by far more.
    if not np.isfinite(rows).all() or (rows < 0).any() or (np.abs(rows.sum(axis=1) - 1) > 0.02).any():
        raise ValueError("scores must be probabilities: finite, not negative, each row with the sum 1")
    return rows
