"""The predictions table: a row an image, with its truth and the probability of every label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bonaface.stats.intervals import FloatArray
from bonaface.stats.probabilities import checked_scores, fake_probability, probability_columns


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
