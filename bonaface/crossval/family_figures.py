"""Figures over left-out families of very different sizes: a thousand images in one, three in another.

Pooled over images, the largest family dominates; in a mean over families, three images weigh as much as a thousand.
So each image counts n^-1/2, n the size of its family, both classes alike. Families of :data:`SHOWN` images and more
are also shown each for itself, against all images of the other class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bonaface.report.pages import cell
from bonaface.stats.figures import percent

SHOWN = 40
RESAMPLES = 500


def family_weights(fake: NDArray[np.bool_], family: NDArray[np.object_]) -> NDArray[np.float64]:
    """Weight n^-1/2 of each image's family, float64 (n,), mean 1, the same total for both classes."""
    keys = pd.Series(list(zip(fake.tolist(), family.tolist(), strict=True)))
    weights: NDArray[np.float64] = 1 / np.sqrt(keys.map(keys.value_counts()).to_numpy(np.float64))
    for kind in (False, True):
        weights[fake == kind] *= len(fake) / 2 / weights[fake == kind].sum()
    return weights


def family_figures(rows: pd.DataFrame, families: Mapping[str, Sequence[str]], real_label: str) -> dict[str, Any]:
    """Weighted AUC with its interval, and a row for each large family.

    Args:
        rows: predictions of left-out images: label, source, p_fake.
        families: name -> its sources.

    Returns:
        ``auc``, ``auc_low``, ``auc_high`` (95 %, bootstrap over families), ``rows`` of ``family``, ``fake``, ``n``,
        ``auc`` (against the other class), ``called_fake`` (share of p_fake above 1/2); ``worst``, the row of lowest
        AUC, null where no family has :data:`SHOWN` images.
    """
    owner = {source: name for name, own in families.items() for source in own}
    fake = (rows["label"] != real_label).to_numpy(bool)
    family = np.array([owner.get(source, source) for source in rows["source"]], dtype=object)
    p = rows["p_fake"].to_numpy(np.float64)
    weights = family_weights(fake, family)
    low, high = _bootstrap(fake, family, p, weights)
    found = []
    for kind, name in sorted(set(zip(fake.tolist(), family.tolist(), strict=True))):
        own = (fake == kind) & (family == name)
        if own.sum() >= SHOWN:
            seen = own | (fake != kind)
            auc = roc_auc_score(fake[seen], p[seen], sample_weight=weights[seen])
            row = {"family": name, "fake": kind, "n": int(own.sum()), "auc": float(auc)}
            found.append({**row, "called_fake": float((p[own] > 0.5).mean())})
    auc = float(roc_auc_score(fake, p, sample_weight=weights))
    worst = min(found, key=lambda row: row["auc"], default=None)
    return {"auc": auc, "auc_low": low, "auc_high": high, "rows": found, "worst": worst}


def _bootstrap(
    fake: NDArray[np.bool_], family: NDArray[np.object_], p: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """95 % interval of the weighted AUC when families are resampled, each class separately; seeded."""
    rng = np.random.default_rng(0)
    numbers = {kind: pd.factorize(family[fake == kind]) for kind in (False, True)}
    drawn = []
    for _ in range(RESAMPLES):
        times = np.zeros(len(fake))
        for kind, (place, names) in numbers.items():
            times[fake == kind] = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[place]
        drawn.append(roc_auc_score(fake, p, sample_weight=weights * times))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def family_sentence(figures: Mapping[str, Any]) -> str:
    """The weighted AUC, and the hardest family, in words."""
    text = (
        f"With each family weighted by the square root of its size: AUC {cell(figures['auc'])} "
        f"({cell(figures['auc_low'])}–{cell(figures['auc_high'])}, resampling families)."
    )
    worst = figures["worst"]
    if worst is None:
        return text
    side = "generated" if worst["fake"] else "real"
    lowest = f"{worst['family']} ({side}) is the hardest: AUC {cell(worst['auc'])}"
    return f"{text} Of the families with at least {SHOWN} images, {lowest}."


def shown_families(figures: Mapping[str, Any]) -> pd.DataFrame:
    """The families' rows for a reader, worst first."""
    rows = sorted(figures["rows"], key=lambda row: row["auc"])
    shown = [
        {
            "family": row["family"],
            "class": "generated" if row["fake"] else "real",
            "images": cell(row["n"]),
            "AUC against the other class": cell(row["auc"]),
            "called fake": percent(row["called_fake"]),
        }
        for row in rows
    ]
    return pd.DataFrame(shown, columns=["family", "class", "images", "AUC against the other class", "called fake"])
