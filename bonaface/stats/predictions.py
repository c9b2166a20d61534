"""The predictions table: a row an image, with its truth and the probability of every label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

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


def predictions_frame(
    scores: ArrayLike,
    truth: Sequence[str] | Sequence[int] | NDArray[Any],
    *,
    labels: Sequence[str],
    real_label: str,
    path: Sequence[str],
    source: Sequence[str] | str = "",
    group: Sequence[str] | str = "",
    split: Sequence[str] | str = "",
) -> pd.DataFrame:
    """The predictions table, a row an image: path, split, source, group, label, prediction, p_fake, p_<label>...

    ``scores`` (n, k) are probabilities in the order of ``labels``; ``truth`` the true labels, names or class numbers.
    """
    labels = list(labels)
    rows = checked_scores(scores)
    if rows.shape[1] != len(labels):
        raise ValueError(f"scores have {rows.shape[1]} columns for {len(labels)} labels")
    names = [labels[t] if isinstance(t, int | np.integer) else str(t) for t in truth]
    if unknown := sorted(set(names) - set(labels)):
        raise ValueError(f"unknown labels in truth: {', '.join(unknown)}")
    frame = pd.DataFrame({"path": [_utf8(name) for name in path]}, dtype=object)
    for name, values in (("split", split), ("source", source), ("group", group)):
        frame[name] = _utf8(values) if isinstance(values, str) else [_utf8(value) for value in values]
    frame["label"] = names
    frame["prediction"] = [labels[i] for i in rows.argmax(axis=1)] if len(rows) else []
    frame["p_fake"] = fake_probability(rows, labels.index(real_label))
    for column, values in zip(probability_columns(labels), rows.T, strict=True):
        if column not in frame:
            frame[column] = values
    text = ["path", "split", "source", "group", "label", "prediction"]
    return frame.astype(dict.fromkeys(text, "str"))


def _utf8(text: str) -> str:
    """Columns of text are UTF-8: of a file name that is not, the odd bytes become escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def score_matrix(predictions: pd.DataFrame, labels: Sequence[str]) -> FloatArray:
    """The probabilities of a predictions table, (n, k) in the order of ``labels``."""
    return predictions[probability_columns(labels)].to_numpy(dtype=np.float64)
