"""The one place where a score becomes a figure.

Whatever the number of classes, binary figures ask one question: real or not? ``p_fake`` is the sum of the
probabilities of all labels that are not the real one. An image is *called fake* when its most likely label is not the
real one, or, where a threshold is named, when ``p_fake >= threshold``. A figure that is not defined (an AUC with one
class, anything of no images) is NaN here and ``null`` in files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

from bonaface.stats.intervals import (
    BOOTSTRAP_FIGURES,
    ECE_BINS,
    LOW_FPRS,
    FloatArray,
    Interval,
    auc_interval,
    bootstrap_samples,
    clopper_pearson,
    ece_bins,
    equal_error_rate,
)
from bonaface.stats.predictions import score_matrix
from bonaface.stats.probabilities import checked_scores, fake_probability

BINARY_FIGURES = ("auc", "average_precision", "eer", *LOW_FPRS, "brier", "ece")
WORST_MIN_IMAGES = 50
"""A source with fewer images is listed, but never named as the worst: its figure is mostly chance."""

SOURCE_COLUMNS = ["source", "label", "is_real", "n", "auc", "auc_low", "auc_high"]
SOURCE_COLUMNS += ["recall", "fpr", "rate_low", "rate_high"]
Figures = dict[str, Any]


def binary_figures(is_fake: ArrayLike, p_fake: ArrayLike) -> dict[str, float]:
    """Figures of real against not real. ``is_fake`` bool (n,), ``p_fake`` in [0, 1] (n,).

    ``auc``, ``average_precision`` (fake is the positive class), ``eer`` (equal error rate, linear between ROC points),
    ``tpr_at_<x>pct_fpr`` (largest share of fakes found at a threshold that calls at most x % of the reals fake),
    ``brier`` (mean squared error of p_fake) and ``ece`` (expected calibration error of p_fake, 15 bins of equal width).
    """
    fake, p = np.asarray(is_fake, dtype=bool), np.asarray(p_fake, dtype=np.float64)
    figures = dict.fromkeys(BINARY_FIGURES, float("nan"))
    if not len(fake):
        return figures
    figures["brier"] = float(np.mean((p - fake) ** 2))
    figures["ece"] = float(np.abs(np.bincount(ece_bins(p), p - fake, ECE_BINS)).sum() / len(p))
    if fake.all() or not fake.any():
        return figures
    fpr, tpr, _ = sk.roc_curve(fake, p, drop_intermediate=False)
    figures["auc"] = float(sk.roc_auc_score(fake, p))
    figures["average_precision"] = float(sk.average_precision_score(fake, p))
    figures["eer"] = float(equal_error_rate(fpr, tpr))
    for name, limit in LOW_FPRS.items():
        figures[name] = float(tpr[fpr <= limit + 1e-12].max())
    return figures


def all_figures(truth: ArrayLike, scores: ArrayLike, *, labels: Sequence[str], real_index: int) -> Figures:
    """Every figure of n images: ``truth`` class numbers (n,), ``scores`` probabilities (n, k) in class order.

    Counts ``n``, ``n_real``, ``n_fake``; by argmax ``accuracy``, ``balanced_accuracy`` (mean recall of the classes
    present), ``recall`` (share of fakes called fake), ``fpr`` (share of reals called fake), ``per_class`` {label:
    precision, recall, f1, support} and ``confusion_matrix`` (rows true, columns predicted, class order); ``log_loss``
    over all classes (nats); then :func:`binary_figures`.
    """
    rows, true = checked_scores(scores), np.asarray(truth, dtype=np.int64)
    if len(rows) != len(true):
        raise ValueError(f"{len(true)} true labels for {len(rows)} rows of scores")
    classes, called = np.arange(len(labels)), rows.argmax(axis=1)
    is_fake, called_fake = true != real_index, called != real_index
    matrix = sk.confusion_matrix(true, called, labels=classes) if len(true) else np.zeros((len(labels),) * 2, int)
    figures: Figures = {"n": len(true), "n_real": int((~is_fake).sum()), "n_fake": int(is_fake.sum())}
    figures["accuracy"] = _mean(true == called)
    figures["balanced_accuracy"] = _mean([_mean(called[true == c] == c) for c in np.unique(true)])
    figures["recall"], figures["fpr"] = _mean(called_fake[is_fake]), _mean(called_fake[~is_fake])
    figures["log_loss"] = float("nan")
    if len(true):
        figures["log_loss"] = float(sk.log_loss(true, rows / rows.sum(axis=1, keepdims=True), labels=classes))
    figures |= binary_figures(is_fake, fake_probability(rows, real_index))
    figures["per_class"] = _per_class(true, called, labels)
    figures["confusion_matrix"] = matrix.tolist()
    return figures


def _mean(values: ArrayLike) -> float:
    array = np.asarray(values, dtype=float)
    return float(array.mean()) if array.size else float("nan")


def _per_class(true: NDArray[np.int64], called: NDArray[np.int64], labels: Sequence[str]) -> Figures:
    table = np.full((4, len(labels)), np.nan)
    table[3] = 0
    if len(true):
        table = np.array(
            sk.precision_recall_fscore_support(true, called, labels=np.arange(len(labels)), zero_division=np.nan)
        )
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for label, p, r, f, s in zip(labels, *table, strict=True)
    }


class FaceMetrics(evaluate.Metric):
    """:func:`all_figures` as an ``evaluate.Metric``: ``compute(references=class numbers, predictions=probabilities)``.

    It is defined here because ``evaluate.load`` fetches code from the Hub. Batches may be added with ``add_batch``.
    ``labels`` are in the order of class numbers; ``options`` are those of ``evaluate.Metric``.
    """

    def __init__(self, labels: Sequence[str], real_label: str, **options: Any) -> None:
        self.labels, self.real_index = list(labels), list(labels).index(real_label)
        options.setdefault("keep_in_memory", options.get("num_process", 1) == 1)
        super().__init__(**options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Figures of a classifier of real and generated images.",
            citation="",
            inputs_description="references: class numbers; predictions: the probabilities of all classes.",
            features=datasets.Features(
                predictions=datasets.Sequence(datasets.Value("float64")), references=datasets.Value("int64")
            ),
        )

    def _compute(self, *, predictions: ArrayLike = (), references: ArrayLike = (), **_: Any) -> Figures:
        return all_figures(references, predictions, labels=self.labels, real_index=self.real_index)


def scalars(figures: Figures) -> dict[str, float]:
    """The figures that are single numbers, for a Trainer's log: without the counts, tables and matrix."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}


def table_metrics(predictions: pd.DataFrame, labels: Sequence[str], real_label: str) -> Figures:
    """:func:`all_figures` of a predictions table (see :func:`predictions_frame`)."""
    labels = list(labels)
    truth = pd.Index(labels).get_indexer(pd.Index(predictions["label"]))
    if (truth < 0).any():
        raise ValueError(f"the table has labels that are not among {', '.join(labels)}")
    return all_figures(truth, score_matrix(predictions, labels), labels=labels, real_index=labels.index(real_label))


def bootstrap(
    predictions: pd.DataFrame,
    figures: Sequence[str] = BOOTSTRAP_FIGURES,
    *,
    real_label: str,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of a predictions table's figures, images drawn again within each (label, source).

    They say how far the figures would move with other images of *these* sources, nothing about other sources. Where
    all resamples agree because nothing was wrong, the exact binomial bound stands in for an interval of no width, or
    NaN where there is none.
    """
    samples = table_samples(predictions, figures, real_label=real_label, n_resamples=n_resamples, seed=seed)
    fake = (predictions["label"] != real_label).to_numpy()
    smaller = int(min(fake.sum(), (~fake).sum()))
    sizes = {"accuracy": len(fake), "recall": int(fake.sum()), "fpr": int((~fake).sum())}
    sizes["balanced_accuracy"] = int(predictions["label"].value_counts().min()) if len(fake) else 0
    sizes |= dict.fromkeys(("auc", "eer", *LOW_FPRS), smaller)
    intervals = {}
    for name, values in samples.items():
        low, high = np.quantile(values, [0.025, 0.975])
        if high - low < 1e-9:
            perfect = name in sizes and min(abs(low), abs(low - 1)) < 1e-9
            low, high = clopper_pearson(round(low) * sizes[name], sizes[name]) if perfect else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high))
    return intervals


def table_samples(
    predictions: pd.DataFrame, figures: Sequence[str], *, real_label: str, n_resamples: int = 1000, seed: int = 0
) -> dict[str, FloatArray]:
    """The bootstrap's resampled figures themselves: figure -> (n_resamples,).

    For two models with the same rows in the same order and the same seed the draws are the same, so the difference of
    their samples is the paired bootstrap.
    """
    strata = predictions.groupby(["label", "source"], sort=True).ngroup()
    return bootstrap_samples(
        (predictions["label"] != real_label).to_numpy(),
        predictions["p_fake"].to_numpy(),
        predictions["label"].to_numpy(dtype=str),
        predictions["prediction"].to_numpy(dtype=str),
        strata.to_numpy(),
        called_fake=(predictions["prediction"] != real_label).to_numpy(),
        figures=figures,
        n_resamples=n_resamples,
        seed=seed,
    )


def per_source(predictions: pd.DataFrame, *, real_label: str, threshold: float | None = None) -> pd.DataFrame:
    """A row for each (label, source): every fake source against all the reals given, every real one against all fakes.

    Columns: ``source``, ``label``, ``is_real``, ``n``, ``auc`` with ``auc_low``/``auc_high`` (DeLong, 95 %),
    ``recall`` (fakes called fake; NaN for reals) or ``fpr`` (reals called fake; NaN for fakes), and
    ``rate_low``/``rate_high``, the Clopper-Pearson bounds of whichever of the two there is. Hand it one split.
    Reals come first, then by AUC, worst first.
    """
    fake = (predictions["label"] != real_label).to_numpy()
    p = predictions["p_fake"].to_numpy(dtype=float)
    called = (predictions["prediction"] != real_label).to_numpy() if threshold is None else p >= threshold
    rows = []
    labels, sources = predictions["label"].to_numpy(dtype=object), predictions["source"].to_numpy(dtype=object)
    for label, source in sorted(set(zip(labels, sources, strict=True))):
        index, is_real = np.flatnonzero((labels == label) & (sources == source)), label == real_label
        against = np.concatenate([index, np.flatnonzero(fake if is_real else ~fake)])
        auc, (auc_low, auc_high) = auc_interval(fake[against], p[against])
        hits, n = int(called[index].sum()), len(index)
        low, high = clopper_pearson(hits, n)
        rows.append(
            {
                "source": source,
                "label": label,
                "is_real": is_real,
                "n": n,
                "auc": auc,
                "auc_low": auc_low,
                "auc_high": auc_high,
                "recall": np.nan if is_real else hits / n,
                "fpr": hits / n if is_real else np.nan,
                "rate_low": float(low),
                "rate_high": float(high),
            }
        )
    table = pd.DataFrame(rows, columns=SOURCE_COLUMNS)
    return table.sort_values(["is_real", "auc", "source"], ascending=[False, True, True], ignore_index=True)


def source_summary(table: pd.DataFrame) -> Figures:
    """Macro means over the sources of :func:`per_source`, each source counting once, and the worst ones.

    ``macro_auc`` and ``macro_recall`` over fake sources, ``macro_fpr`` over real ones; ``worst_fake`` (lowest AUC) and
    ``worst_real`` (highest FPR) as {source, label, n, auc, recall or fpr}, None without a source of
    :data:`WORST_MIN_IMAGES`.
    """
    is_real = table["is_real"].astype(bool)
    real, fake = table[is_real], table[~is_real]

    def worst(rows: pd.DataFrame, by: str, rate: str) -> Figures | None:
        rows = rows[(rows["n"] >= WORST_MIN_IMAGES) & rows[by].notna()]
        if rows.empty:
            return None
        row = rows.sort_values(by, ascending=by != "fpr").iloc[0]
        figures = {"auc": float(row["auc"]), rate: float(row[rate])}
        return {"source": str(row["source"]), "label": str(row["label"]), "n": int(row["n"])} | figures

    return {
        "macro_auc": _mean(fake["auc"].dropna()),
        "macro_recall": _mean(fake["recall"]),
        "macro_fpr": _mean(real["fpr"]),
        "worst_fake": worst(fake, "auc", "recall"),
        "worst_real": worst(real, "fpr", "fpr"),
    }


def verdict_figures(is_fake: ArrayLike, verdicts: ArrayLike) -> dict[str, float]:
    """The verdicts ``real``, ``fake`` or ``uncertain`` of n images, as shares in [0, 1].

    ``band_recall`` (fakes called fake), ``band_fpr`` (reals called fake), ``uncertain`` (images without a verdict) and
    ``band_error`` (images on the wrong side, of those with a verdict).
    """
    fake, called = np.asarray(is_fake, dtype=bool), np.asarray(verdicts, dtype=str)
    decided = called != "uncertain"
    return {
        "band_recall": _mean(called[fake] == "fake"),
        "band_fpr": _mean(called[~fake] == "fake"),
        "uncertain": _mean(~decided),
        "band_error": _mean((called == "fake")[decided] != fake[decided]),
    }


def over_folds(values: ArrayLike) -> Figures:
    """``mean`` and sample standard deviation (``sd``, n - 1) of one figure over the ``n`` folds that have it.

    The folds share most of their training images, so the deviation shows how much a figure varies with what is tested
    and is no standard error: there is no unbiased one (Bengio and Grandvalet 2004, JMLR 5:1089).
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    return {"mean": _mean(known), "sd": float(known.std(ddof=1)) if len(known) > 1 else float("nan"), "n": len(known)}


def reliability(is_fake: ArrayLike, p_fake: ArrayLike) -> pd.DataFrame:
    """The ECE's bins that are not empty, for a reliability diagram: ``mean_p_fake``, ``share_fake``, ``n``."""
    fake, p = np.asarray(is_fake, dtype=float), np.asarray(p_fake, dtype=np.float64)
    table = pd.DataFrame({"bin": ece_bins(p), "mean_p_fake": p, "share_fake": fake, "n": 1})
    return table.groupby("bin").agg({"mean_p_fake": "mean", "share_fake": "mean", "n": "sum"}).reset_index(drop=True)


def ece_by_chance(p_fake: ArrayLike, *, draws: int = 1000) -> tuple[float, float]:
    """The calibration error that perfectly calibrated scores show on so few images: its mean and 95 % quantile.

    Labels are drawn from the scores themselves, ``p_fake`` in [0, 1] (n,), and ECE's bins taken as ever: what stays
    is the estimator's own bias, which falls with the number of images (consistency resampling, Bröcker and Smith 2007,
    section 3; the bias: Roelofs et al. 2022, figure 1). NaN without images.
    """
    p = np.asarray(p_fake, dtype=np.float64)
    if not len(p):
        return float("nan"), float("nan")
    rng, bins = np.random.default_rng(0), ece_bins(p)
    found = [np.abs(np.bincount(bins, p - (rng.random(len(p)) < p), ECE_BINS)).sum() / len(p) for _ in range(draws)]
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def threshold_at_fpr(p_real: ArrayLike, fpr: float) -> float:
    """The lowest threshold that calls at most the share ``fpr`` of these real images fake (``p >= threshold``).

    ``p_real`` (n,), the p_fake of real images. The float just above the first score that must stay real; above 1 where
    nothing may be called fake. ValueError without images.
    """
    scores = np.sort(np.asarray(p_real, dtype=np.float64))[::-1]
    if not len(scores):
        raise ValueError("a threshold needs real images")
    allowed = int(np.floor(fpr * len(scores) + 1e-9))
    return 0.0 if allowed >= len(scores) else float(np.nextafter(scores[allowed], np.inf))
