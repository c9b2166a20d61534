"""The figures' names, meanings and formats, the same in every report, card and page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bonaface.stats.intervals import Interval  # with SciPy

NO_VALUE = "–"


class Figure(NamedTuple):
    """A figure's name as a title and as a column's heading, its meaning, and whether it is a share, in per cent."""

    name: str
    short: str
    meaning: str
    is_share: bool = False


FIGURES = {
    "auc": Figure("AUC", "AUC", "chance that a random fake scores above a random real image; 0.5 is guessing"),
    "recall": Figure("Fakes found", "fakes found", "share of fakes called fake", True),
    "fpr": Figure("False-positive rate", "false-positive rate", "share of real images called fake", True),
    "accuracy": Figure("Accuracy", "accuracy", "share of images whose most likely label is right", True),
    "balanced_accuracy": Figure("Balanced accuracy", "balanced accuracy", "accuracy averaged over the labels", True),
    "eer": Figure(
        "Equal error rate", "EER", "error rate where false positives and missed fakes are equally frequent", True
    ),
    "average_precision": Figure(
        "Average precision", "average precision", "area under precision and recall, fake being the positive class"
    ),
    **{
        f"tpr_at_{share}pct_fpr": Figure(
            f"Fakes found at {share} % FPR",
            f"TPR at {share} % FPR",
            f"fakes found when {share} % of the real images may be called fake",
            True,
        )
        for share in ("0.5", "1", "5")
    },
    "brier": Figure("Brier score", "Brier", "mean squared error of the score"),
    "ece": Figure(
        "Expected calibration error",
        "ECE",
        "mean gap between score and outcome, 15 bins of equal width; 0 is calibrated",
    ),
    "log_loss": Figure("Log loss", "log loss", "mean negative log-probability of the true label, in nats"),
}
KEY_FIGURES = ("auc", "recall", "fpr", "balanced_accuracy", "tpr_at_1pct_fpr", "ece")  # the first a reader meets
BAND_FIGURES = {
    "band_recall": Figure("Fakes found by the band", "recall by band", "share of fakes above the band", True),
    "band_fpr": Figure("False positives by the band", "FPR by band", "share of real images above the band", True),
    "uncertain": Figure("Uncertain", "uncertain", "share of images without a verdict", True),
    "band_error": Figure("Wrong verdicts", "wrong verdicts", "share of the verdicts that are wrong", True),
}
UNFAMILIAR = "unfamiliar_auroc"
NONE_FIGURES = {
    f"none_{name}": Figure(
        f"{name.capitalize()} fakes like none",
        f"{name} fakes like none",
        f"share of fakes from {name} sources that are like none of the known ones",
        True,
    )
    for name in ("known", "unseen")
}
ALL_FIGURES = {
    **FIGURES,
    **BAND_FIGURES,
    **NONE_FIGURES,
    UNFAMILIAR: Figure(
        "Unlike the training data, AUROC", "unlike training, AUROC", "how well the distance separates unseen sources"
    ),
}


def percent(share: float | None, digits: int | None = 1) -> str:
    """``94.0 %``, with a no-break space; a dash for None and NaN.

    Whole per cents (``digits`` 0) are never 0 % or 100 % of a share that is not quite that. With None as ``digits``,
    for levels that someone chose, as many as there are: ``5 %``, ``0.5 %``.
    """
    if share is None or not math.isfinite(share):
        return NO_VALUE
    if digits == 0 and 0 < share < 0.01:
        return "under 1\N{NO-BREAK SPACE}%"
    if digits == 0 and 0.99 < share < 1:
        return "over 99\N{NO-BREAK SPACE}%"
    number = f"{100 * share:g}" if digits is None else f"{100 * share:.{digits}f}"
    return f"{number}\N{NO-BREAK SPACE}%"


def amount(name: str, value: float | None) -> str:
    """A figure's value as shown to a reader: shares in per cent, the rest to three decimals."""
    if ALL_FIGURES[name].is_share:
        return percent(value)
    return NO_VALUE if value is None or not math.isfinite(value) else f"{value:.3f}"


def span(name: str, interval: Interval | None) -> str:
    """``(low–high)``, empty where there is no interval."""
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    scale, digits = (100, 1) if ALL_FIGURES[name].is_share else (1, 3)
    return f"({scale * interval.low:.{digits}f}–{scale * interval.high:.{digits}f})"
