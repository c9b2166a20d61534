"""Do a few cheap facts tell the classes apart? A cross-validated classifier, and in words what it relies on.

If a small tree ensemble can separate the classes by file size, a detector trained on these files can do so too, and
will then fail on files from elsewhere (Grommelt et al. 2024, "Fake or JPEG? Revealing common biases in generated
image detection datasets").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from bonaface.stats.figures import percent
from bonaface.stats.intervals import auc_interval

FOLDS = 5
TELLING = 0.6  # AUC from which one fact alone is worth naming


@dataclass(frozen=True)
class Clue:
    """One fact that tells the classes apart: its AUC on its own, and what the difference is, in words."""

    name: str
    auc: float
    text: str


@dataclass(frozen=True)
class Leak:
    """How well facts alone separate real from fake: out-of-fold AUC in [0, 1] with its 95 % interval (DeLong).

    Attributes:
        sources: one row a source: source, label, is_real, n, auc, auc_low, auc_high; each against all of the other
            class.
        clues: the most telling facts, the best first.
        is_fake: bool (n,), as given.
        scores: out-of-fold probability of being fake, float64 (n,).
        why_not: why there is no figure (all of them are NaN then), else "".
    """

    auc: float
    low: float
    high: float
    n: int
    sources: pd.DataFrame
    is_fake: NDArray[np.bool_] = field(repr=False)
    scores: NDArray[np.float64] = field(repr=False)
    clues: list[Clue] = field(default_factory=list)
    why_not: str = ""


def measure_leak(
    facts: pd.DataFrame,
    is_fake: ArrayLike,
    sources: Sequence[str],
    groups: Sequence[str],
    names: Mapping[str, str],
    *,
    seed: int = 0,
) -> Leak:
    """Cross-validate a classifier on facts (n rows; numbers, booleans or words) and name those that it relies on.

    Args:
        is_fake: bool (n,).
        sources: the source of each row.
        groups: rows of one group stay in one fold.
        names: column -> the words for it; a unit follows a comma ("width, px"). Other columns are used but not named.
    """
    fake, source = np.asarray(is_fake, dtype=bool), np.asarray(sources, dtype=object)
    folds = _folds(fake, np.asarray(groups, dtype=object), seed)
    if isinstance(folds, str):
        nothing = np.full(len(fake), np.nan)
        return Leak(np.nan, np.nan, np.nan, len(fake), _by_source(fake, source, nothing), fake, nothing, why_not=folds)
    columns = {name: _encode(facts[name]) for name in facts.columns}
    tree = DecisionTreeClassifier(max_depth=6, min_samples_leaf=max(3, len(fake) // 200), random_state=seed)
    with threadpool_limits(1):  # so few rows are fitted faster by one thread than by several that wait for each other
        scores = _out_of_fold(np.hstack(list(columns.values())), fake, folds, _boosting(len(fake), seed))
        alone = {name: auc_interval(fake, _out_of_fold(columns[name], fake, folds, tree))[0] for name in names}
    auc, interval = auc_interval(fake, scores)
    telling = [name for name in names if alone[name] >= TELLING]
    clues = [Clue(name, float(alone[name]), describe(facts[name], fake, names[name])) for name in telling]
    clues.sort(key=lambda clue: (-round(clue.auc, 2), -_effect(columns[clue.name], fake)))
    return Leak(auc, interval.low, interval.high, len(fake), _by_source(fake, source, scores), fake, scores, clues)


def describe(values: pd.Series, is_fake: NDArray[np.bool_], name: str) -> str:
    """How a fact differs between the classes: its commonest values, or for a measure its median and quartiles."""
    name, _, unit = name.partition(", ")
    unit = f" {unit}" if unit else ""
    parts = [values[is_fake], values[~is_fake]]
    if pd.api.types.is_bool_dtype(values):
        fake, real = (percent(part.mean(), 0) for part in parts)
        return f"{name}: {fake} of the fake images, {real} of the real ones"
    shares = [part.value_counts(normalize=True, dropna=False) for part in parts]
    if not pd.api.types.is_numeric_dtype(values) or shares[0].sub(shares[1], fill_value=0).abs().max() >= 0.1:
        fake, real = (_commonest(share, unit) for share in shares)
        return f"{name}: fake images are {fake}, real ones {real}"
    low, middle, high = ([_value(np.nanpercentile(part.astype(float), q)) for part in parts] for q in (25, 50, 75))
    return (
        f"{name}: fake images {middle[0]}{unit} (quartiles {low[0]} to {high[0]}), "
        f"real ones {middle[1]}{unit} ({low[1]} to {high[1]})"
    )


def _commonest(shares: pd.Series, unit: str) -> str:
    """The values that make up most of a class, each with its share: ``456 px (36 %) or 512 px (29 %)``."""
    listed = shares[shares >= 0.1].head(3)
    if not len(listed):
        return "mixed"
    if listed.iloc[0] > 0.995:
        return _value(listed.index[0], unit)
    return " or ".join(f"{_value(value, unit)} ({percent(share, 0)})" for value, share in listed.items())


def _value(value: object, unit: str = "") -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "none"
    if isinstance(value, int | float | np.number):
        number = float(value)
        return (f"{number:,.0f}" if abs(number) >= 1000 or number == round(number) else f"{number:.3g}") + unit
    return str(value)


def _folds(fake: NDArray[np.bool_], groups: NDArray[np.object_], seed: int) -> list[tuple[NDArray, NDArray]] | str:
    """Train and test rows of each fold, or the reason why there are none."""
    fewest = min((len(set(groups[fake == kind])) for kind in (False, True)), default=0)
    if fewest < 2 * FOLDS:
        return f"one class has only {fewest} images (near duplicates count once), too few to measure"
    if len(set(groups)) == len(groups):
        return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(fake, fake))
    return list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(fake, fake, groups))


def _boosting(n: int, seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, min_samples_leaf=int(np.clip(n // 40, 3, 20)), random_state=seed
    )


def _out_of_fold(
    values: NDArray[np.float64], fake: NDArray[np.bool_], folds: list[tuple[NDArray, NDArray]], model: Any
) -> NDArray[np.float64]:
    scores = np.zeros(len(fake))
    for train, test in folds:
        scores[test] = model.fit(values[train], fake[train]).predict_proba(values[test])[:, 1]
    return scores


def _encode(values: pd.Series) -> NDArray[np.float64]:
    """A column as numbers (n, k): words one-hot, a missing number as one that nothing else has."""
    if pd.api.types.is_numeric_dtype(values):
        return np.asarray(values.astype(float).fillna(-1e9), dtype=np.float64)[:, None]
    return np.asarray(pd.get_dummies(values.astype("string").fillna("none")), dtype=np.float64)


def _effect(values: NDArray[np.float64], fake: NDArray[np.bool_]) -> float:
    """How far apart the classes' means are, in spreads within a class: what is named first where AUCs are alike."""
    scaled = values / np.maximum(values.std(axis=0), 1e-12)
    means, spreads = ([f(scaled[kind], axis=0) for kind in (fake, ~fake)] for f in (np.mean, np.std))
    return float((np.abs(means[0] - means[1]) / (0.05 + (spreads[0] + spreads[1]) / 2)).max())


def _by_source(fake: NDArray[np.bool_], source: NDArray[np.object_], scores: NDArray[np.float64]) -> pd.DataFrame:
    rows = []
    for is_fake, name in sorted(set(zip(fake.tolist(), source, strict=True))):
        chosen = (fake == is_fake) & (source == name)
        kept = chosen | (fake != is_fake)
        known = np.isfinite(scores[kept]).all()
        auc, interval = auc_interval(fake[kept], scores[kept]) if known else (np.nan, (np.nan, np.nan))
        label = "fake" if is_fake else "real"
        rows.append((name, label, not is_fake, int(chosen.sum()), auc, interval[0], interval[1]))
    return pd.DataFrame(rows, columns=["source", "label", "is_real", "n", "auc", "auc_low", "auc_high"])
