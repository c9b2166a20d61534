"""Figures in which every source counts once, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bonaface.stats.intervals import FloatArray, Interval, resample_weights, weighted_curves


def metrics_by_source(
    predictions: pd.DataFrame, *, real_label: str, n_resamples: int = 500, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of ``macro_auc``, ``macro_recall`` and ``macro_fpr``; NaN where not defined.

    They are not defined either if every image of every source was called alike: resampling would show no spread, and to
    report none would be wrong.

    Images are drawn again within each source. The means are those of :func:`metrics.source_summary`: AUC and
    recall over the fake sources, FPR over the real ones. The sources themselves are taken as given: it says nothing
    about others.
    """
    fake = (predictions["label"] != real_label).to_numpy()
    called = (predictions["prediction"] != real_label).to_numpy(dtype=float)
    p = predictions["p_fake"].to_numpy(dtype=float)
    strata = predictions.groupby(["label", "source"], sort=True).ngroup().to_numpy()
    members = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    fakes, reals = [m for m in members if fake[m[0]]], [m for m in members if not fake[m[0]]]
    every_real = np.flatnonzero(~fake)
    samples: dict[str, list[FloatArray]] = {"macro_auc": [], "macro_recall": [], "macro_fpr": []}
    for weights in resample_weights(strata, n_resamples, seed):
        shares = {name: [weights[:, m] @ called[m] / len(m) for m in part] for name, part in
                  (("macro_recall", fakes), ("macro_fpr", reals))}  # fmt: skip
        shares["macro_auc"] = []
        for m in fakes if len(every_real) else []:
            both = np.concatenate([m, every_real])
            shares["macro_auc"].append(weighted_curves(fake[both], p[both], weights[:, both])["auc"])
        for name, parts in shares.items():
            if parts:
                samples[name].append(np.mean(parts, axis=0))
    return {name: _percentiles(np.concatenate(parts or [np.empty(0)])) for name, parts in samples.items()}


def _percentiles(values: FloatArray) -> Interval:
    if len(values) == 0 or np.ptp(values) == 0:
        return Interval(np.nan, np.nan)
    return Interval(*(float(bound) for bound in np.quantile(values, [0.025, 0.975])))
