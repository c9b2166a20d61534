"""How far a figure can be trusted: exact bounds, DeLong, McNemar and the bootstrap, on plain arrays.

Conventions: ``is_fake`` is a bool array, True for the positive class; a higher score means "more likely fake"; an
image is called fake at threshold t when its score is >= t. Every interval is two-sided, 95 % unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bonaface.errors import UsageError

FloatArray = NDArray[np.float64]
ECE_BINS = 15
LOW_FPRS = {"tpr_at_0.5pct_fpr": 0.005, "tpr_at_1pct_fpr": 0.01, "tpr_at_5pct_fpr": 0.05}
"""The operating points that matter in practice: figure name -> share of real images called fake."""

_MEANS = ("accuracy", "balanced_accuracy", "recall", "fpr", "brier")
_CURVES = ("auc", "average_precision", "eer", *LOW_FPRS)
BOOTSTRAP_FIGURES = (*_MEANS, *_CURVES, "ece")
_BLOCK = 4_000_000  # resamples x images held at once: some 32 MB an array


class Interval(NamedTuple):
    """Lower and upper bound: floats, or arrays for arrays of counts."""

    low: Any
    high: Any


def clopper_pearson(
    successes: ArrayLike, trials: ArrayLike, *, confidence: float = 0.95, side: str = "two-sided"
) -> Interval:
    """The exact binomial interval (Clopper and Pearson 1934, Biometrika 26:404).

    ``successes`` and ``trials`` are counts, numbers or arrays (which broadcast; the bounds are arrays then). ``side``
    is ``two-sided``, ``upper`` (the lower bound is 0) or ``lower`` (the upper bound is 1); a one-sided bound spends
    the whole error there. No trials: (0, 1).
    """
    if side not in ("two-sided", "upper", "lower"):
        raise ValueError(f"side must be two-sided, upper or lower, not {side!r}")
    k, n = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    if np.any((k < 0) | (k > n)):
        raise ValueError("successes must be between 0 and trials")
    tail = (1 - confidence) / (2 if side == "two-sided" else 1)
    with np.errstate(invalid="ignore"):
        low = np.where((k == 0) | (side == "upper"), 0.0, stats.beta.ppf(tail, k, n - k + 1))
        high = np.where((k == n) | (side == "lower"), 1.0, stats.beta.isf(tail, k + 1, n - k))
    return Interval(low[()], high[()])


def delong(is_fake: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """AUCs and their covariance (DeLong et al. 1988) by midranks in O(n log n) (Sun and Xu 2014, IEEE SPL 21:1389).

    ``is_fake`` bool (n,), ``scores`` (n,) or (m, n): m models on the same images. Returns AUCs (m,) and their
    covariance (m, m). One class with fewer than two images leaves its part of the covariance NaN; an empty one the AUC.
    """
    fake = np.asarray(is_fake, dtype=bool)
    rows = np.atleast_2d(np.asarray(scores, dtype=float))
    n_fake, n_real = int(fake.sum()), int((~fake).sum())
    if not n_fake or not n_real:
        return np.full(len(rows), np.nan), np.full((len(rows), len(rows)), np.nan)
    ranks = stats.rankdata(rows, axis=1)
    # Structural components: of each fake the share of reals below it, of each real the share of fakes above it.
    above = (ranks[:, fake] - stats.rankdata(rows[:, fake], axis=1)) / n_real
    below = 1 - (ranks[:, ~fake] - stats.rankdata(rows[:, ~fake], axis=1)) / n_fake
    covariance = _covariance(above) / n_fake + _covariance(below) / n_real
    return above.mean(axis=1), covariance


def _covariance(components: FloatArray) -> FloatArray:
    """Sample covariance of the rows, (m, m) even for one row; NaN for fewer than two columns."""
    if components.shape[1] < 2:
        return np.full((len(components), len(components)), np.nan)
    return np.cov(components).reshape(len(components), len(components))


def auc_interval(is_fake: ArrayLike, scores: ArrayLike) -> tuple[float, Interval]:
    """AUC of one model with its 95 % DeLong interval on the logit scale, which stays inside (0, 1).

    Perfect separation has no DeLong variance: there the exact bound for min(reals, fakes) disjoint pairs of one
    real and one fake, all in order, takes its place. NaN throughout where a class is missing.
    """
    areas, covariance = delong(is_fake, scores)
    auc, variance = float(areas[0]), float(covariance[0, 0])
    fake = np.asarray(is_fake, dtype=bool)
    pairs = int(min(fake.sum(), (~fake).sum()))
    if not pairs:
        return auc, Interval(np.nan, np.nan)
    if auc in (0.0, 1.0) or not variance > 0:
        bound = clopper_pearson(pairs * auc, pairs)
        return auc, Interval(float(bound.low), float(bound.high))
    spread = stats.norm.isf(0.025) * np.sqrt(variance) / (auc * (1 - auc))
    logit = np.log(auc / (1 - auc))
    return auc, Interval(float(_sigmoid(logit - spread)), float(_sigmoid(logit + spread)))


def _sigmoid(value: float) -> float:
    return float(0.5 * (1 + np.tanh(value / 2)))  # tanh does not overflow


def delong_test(is_fake: ArrayLike, first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Do two models differ in AUC on the same images? The paired two-sided z test of DeLong et al. (1988).

    Returns ``auc_first``, ``auc_second``, ``difference`` (first less second), ``low`` and ``high`` (95 %), ``z`` and
    ``p_value`` (1 where the two rank alike).
    """
    areas, covariance = delong(is_fake, np.stack([np.asarray(first), np.asarray(second)]))
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = np.sqrt(max(variance, 0.0)) if np.isfinite(variance) else np.nan
    if error > 1e-12 or np.isnan(error):
        z = difference / error
    else:
        z = 0.0 if abs(difference) < 1e-12 else float(np.copysign(np.inf, difference))
    margin = stats.norm.isf(0.025) * error
    return {
        "auc_first": float(areas[0]),
        "auc_second": float(areas[1]),
        "difference": difference,
        "low": float(difference - margin),
        "high": float(difference + margin),
        "z": float(z),
        "p_value": float(2 * stats.norm.sf(abs(z))),
    }


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> dict[str, float]:
    """Do two models differ in accuracy on the same images? McNemar's test (1947) in its exact binomial form.

    Takes two bool arrays (n,): which images each model got right. Returns ``only_first`` and ``only_second`` (images
    that one alone got right), ``difference`` of accuracies and the two-sided ``p_value``.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    p_value = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    difference = (only_first - only_second) / len(first) if len(first) else np.nan
    return {
        "only_first": only_first,
        "only_second": only_second,
        "difference": float(difference),
        "p_value": float(p_value),
    }


def resample_weights(strata: ArrayLike, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Blocks (b, n) of bootstrap weights: how often each image was drawn, with replacement within its stratum.

    The same strata and seed give the same draws, so two models can be compared pairwise on the same resamples.
    """
    codes = np.unique(np.asarray(strata), return_inverse=True)[1]
    n = len(codes)
    members = [np.flatnonzero(codes == code) for code in range(codes.max(initial=-1) + 1)]
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(n, 1))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        offsets = np.arange(size)[:, None] * n
        drawn = [(rows[rng.integers(0, len(rows), (size, len(rows)))] + offsets).ravel() for rows in members]
        flat = np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)
        yield np.bincount(flat, minlength=size * n).reshape(size, n).astype(np.float64)


def bootstrap_samples(
    is_fake: ArrayLike,
    p_fake: ArrayLike,
    truth: ArrayLike,
    called: ArrayLike,
    strata: ArrayLike,
    *,
    called_fake: ArrayLike,
    figures: Sequence[str] = BOOTSTRAP_FIGURES,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Every figure on every stratified resample: figure -> (n_resamples,) (Efron and Tibshirani 1993, ch. 8).

    All arrays have one entry an image: ``is_fake`` and ``called_fake`` bool, ``p_fake`` in [0, 1], ``truth`` and
    ``called`` the true and the predicted label, ``strata`` the group within which images are drawn again (a stratum
    must not mix labels, so that the class sizes stay). Figures that need both classes are NaN where one is missing.
    """
    if unknown := sorted(set(figures) - set(BOOTSTRAP_FIGURES)):
        raise UsageError(
            f"no bootstrap for the figures {', '.join(unknown)}", f"choose among {', '.join(BOOTSTRAP_FIGURES)}"
        )
    fake, scores = np.asarray(is_fake, dtype=bool), np.asarray(p_fake, dtype=float)
    if not len(fake):
        return {name: np.full(n_resamples, np.nan) for name in figures}
    right = np.asarray(truth) == np.asarray(called)
    means = _mean_terms(fake, scores, np.asarray(truth), right, np.asarray(called_fake, dtype=bool))
    excess = np.zeros((len(fake), ECE_BINS))
    excess[np.arange(len(fake)), ece_bins(scores)] = (scores - fake) / len(fake)
    blocks: list[dict[str, FloatArray]] = []
    for weights in resample_weights(strata, n_resamples, seed):
        values = {name: weights @ means[name] for name in figures if name in means}
        if "ece" in figures:
            values["ece"] = np.abs(weights @ excess).sum(axis=1)
        if set(figures) & set(_CURVES):
            values |= weighted_curves(fake, scores, weights)
        blocks.append(values)
    return {name: np.concatenate([block[name] for block in blocks]) for name in figures}


def _mean_terms(
    fake: NDArray[np.bool_],
    scores: FloatArray,
    truth: NDArray[Any],
    right: NDArray[np.bool_],
    called: NDArray[np.bool_],
) -> dict[str, FloatArray]:
    """Figures that are means: what each image adds to the sum, class sizes being fixed by the strata."""

    def share(hit: NDArray[Any], among: NDArray[np.bool_] | None = None) -> FloatArray:
        size = len(hit) if among is None else int(among.sum())
        kept = hit.astype(float) if among is None else (hit & among).astype(float)
        return kept / size if size else np.full(len(hit), np.nan)

    classes, codes, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    return {
        "accuracy": share(right),
        "balanced_accuracy": right / (sizes[codes] * len(classes)),
        "recall": share(called, fake),
        "fpr": share(called, ~fake),
        "brier": share((scores - fake) ** 2),
    }


def ece_bins(p_fake: FloatArray) -> NDArray[np.int64]:
    """Which of the 15 equal-width bins of [0, 1] a score falls in; a score on an edge belongs to the lower bin."""
    return np.searchsorted(np.linspace(0, 1, ECE_BINS + 1)[1:-1], p_fake).astype(np.int64)


def weighted_curves(fake: NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Rank figures for b weightings of the same n images: weights (b, n) -> each figure (b,), ties sharing a step."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    weights = weights[:, order]
    tp = np.pad(np.cumsum(weights * fake[order], axis=1)[:, ends], ((0, 0), (1, 0)))  # (b, thresholds + 1)
    fp = np.pad(np.cumsum(weights * ~fake[order], axis=1)[:, ends], ((0, 0), (1, 0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr, fpr = tp / tp[:, -1:], fp / fp[:, -1:]
        step = np.diff(tpr, axis=1)
        precision = np.nan_to_num(tp[:, 1:] / (tp + fp)[:, 1:])
        area = (np.diff(fpr, axis=1) * (tpr[:, 1:] - step / 2)).sum(axis=1)
    both = np.isfinite(tpr[:, -1]) & np.isfinite(fpr[:, -1])
    figures = {
        "auc": area,
        "average_precision": np.where(np.isfinite(tpr[:, -1]), (step * precision).sum(axis=1), np.nan),
        "eer": equal_error_rate(np.nan_to_num(fpr), np.nan_to_num(tpr, nan=1.0)),
    }
    rows = np.arange(len(weights))
    for name, limit in LOW_FPRS.items():
        figures[name] = tpr[rows, np.maximum((fpr <= limit + 1e-12).sum(axis=1) - 1, 0)]
    return {name: np.where(both, values, np.nan) for name, values in figures.items()}


def equal_error_rate(fpr: FloatArray, tpr: FloatArray) -> FloatArray:
    """Where the share of reals called fake equals that of fakes called real, linear between ROC points.

    ``fpr`` and ``tpr`` (..., points) rise from 0 to 1 along the last axis.
    """
    gap = 1 - tpr - fpr  # falls from 1 to -1
    after = np.argmax(gap <= 0, axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    high, low = np.take_along_axis(gap, before, -1), np.take_along_axis(gap, after, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.nan_to_num(high / (high - low))
    start, stop = np.take_along_axis(fpr, before, -1), np.take_along_axis(fpr, after, -1)
    return (start + part * (stop - start))[..., 0]
