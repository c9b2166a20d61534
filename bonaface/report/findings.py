"""A report's findings in words: on what, how well, where it is weakest, and what that does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bonaface.models.drawings import MEANING, only_drawings
from bonaface.models.facts import UnseenWorth
from bonaface.report.pages import KeyFigure, plain
from bonaface.stats import metrics
from bonaface.stats.intervals import Interval

MEANINGS = {
    "auc": "chance that a random fake scores above a random real image; 0.5 is a coin's throw",
    "recall": "fakes found: share of fakes called fake",
    "fpr": "false alarms: share of real images called fake",
    "accuracy": "share of images given their own label",
    "balanced_accuracy": "mean over the labels of the share given their own label",
    "eer": "error where false alarms and missed fakes are equally frequent",
    "average_precision": "area under precision and recall, fake being the positive class",
    "tpr_at_0.5pct_fpr": "fakes found when 0.5 % of the real images may be called fake",
    "tpr_at_1pct_fpr": "fakes found when 1 % of the real images may be called fake",
    "tpr_at_5pct_fpr": "fakes found when 5 % of the real images may be called fake",
    "brier": "mean squared error of the score",
    "ece": "mean gap between score and outcome, 15 bins of equal width; 0 is calibrated",
    "log_loss": "mean negative log-probability of the true label, in nats",
}
KEY_FIGURES = {
    "auc": ("AUC", "ranking of fakes above reals; 0.5 is a coin’s throw"),
    "recall": ("Fakes found", "share of fakes called fake"),
    "fpr": ("False alarms", "share of real images called fake"),
    "balanced_accuracy": ("Balanced accuracy", "mean over the labels"),
    "tpr_at_1pct_fpr": ("At 1 % false alarms", "fakes found when few real images may be accused"),
    "ece": ("Calibration error", "mean gap between score and outcome"),
}
SHARES = {"recall", "fpr", "accuracy", "balanced_accuracy", "eer", *metrics.LOW_FPRS}


def sources_seen(predictions: pd.DataFrame, rows: pd.DataFrame, details: Mapping[str, Any]) -> str:
    """Was the detector trained on the sources it is judged on? ``all``, ``some``, ``none`` or ``unknown``."""
    trained = details.get("train_sources")
    if trained is None:
        trained = predictions.loc[predictions["split"] == "train", "source"]
    known, judged = {str(name) for name in trained} - {""}, set(rows["source"]) - {""}
    if not known or not judged:
        return "unknown"
    if judged <= known:
        return "all"
    return "some" if judged & known else "none"


def amount(name: str, value: float) -> str:
    """A figure as a reader meets it: shares in percent, the rest to three decimals."""
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if name in SHARES else f"{value:.3f}"


def span(name: str, interval: Interval | None) -> str:
    """``(low–high)``, empty where there is no interval."""
    if interval is None or not np.isfinite(interval).all():
        return ""
    scale = 100 if name in SHARES else 1
    digits = 1 if name in SHARES else 3
    return f"({scale * interval.low:.{digits}f}–{scale * interval.high:.{digits}f})"


def conclude(
    split: str,
    figures: metrics.Figures,
    intervals: Mapping[str, Interval],
    sources: pd.DataFrame,
    summary: metrics.Figures,
    seen: str,
) -> str:
    """The verdict in words: on what, how well, where it is weakest, and what that does not say."""
    if not figures["n"]:
        return "No image was scored, so nothing can be said about this detector."
    judged = sources["source"].nunique()
    origin = {
        "all": f", from {judged} sources that it saw in training,"
        if judged > 1
        else ", from the source it saw in training,",
        "some": f", from {judged} sources of which it saw only some in training,",
        "none": f", from {judged} sources that it never saw in training,"
        if judged > 1
        else ", from a source it never saw in training,",
        "unknown": "",
    }[seen]
    begin = f"On {figures['n']:,} {split + ' ' if split else ''}images{origin} the detector"
    decided = []
    if figures["n_fake"]:
        decided.append(f"finds {amount('recall', figures['recall'])} of the fakes")
    if figures["n_real"]:
        decided.append(f"calls {amount('fpr', figures['fpr'])} of the real images fake")
    if not figures["n_real"] or not figures["n_fake"]:
        missing = "real" if not figures["n_real"] else "AI-generated"
        return f"{begin} {decided[0]}. There were no {missing} images, so whether it can tell them apart is not known."
    low, high = intervals["auc"]
    auc = f"AUC {figures['auc']:.2f} ({low:.2f}–{high:.2f})"
    if high < 0.5:
        verdict = f"ranks real and AI-generated images the wrong way round: {auc}"
    elif low <= 0.5:
        verdict = f"cannot be shown to tell real from AI-generated: {auc}, where 0.50 is a coin’s throw"
    else:
        verdict = f"separates real from AI-generated with {auc}"
    sentences = [f"{begin} {verdict}.", f"By its likeliest label it {' and '.join(decided)}."]
    worst = summary["worst_fake"]
    if worst and (~sources["is_real"].astype(bool)).sum() > 1:
        sentences.append(
            f"The hardest fakes are those of {plain(worst['source']) or 'unnamed sources'}: AUC {worst['auc']:.2f}."
        )
    sentences.append(
        {
            "all": "It says nothing about generators it never saw.",
            "some": "The figures by source tell the new ones apart.",
            "none": "Other generators may be easier or harder.",
            "unknown": "Which sources it was trained on is not recorded, so this need not hold for others.",
        }[seen]
    )
    return " ".join(sentences)


def list_caveats(figures: metrics.Figures, sources: pd.DataFrame, seen: str, details: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the figures."""
    caveats = [plain(text) for text in details.get("caveats") or []]
    if only_drawings(details.get("train_sources") or []):
        caveats.insert(0, MEANING)
    if seen == "all":
        caveats.append(
            "Training and test images come from the same sources. What sets a source apart (framing, light, "
            "compression) can pass for what sets fakes apart; only sources held out of training show the difference."
        )
    if 0 < figures["n_real"] < 299:
        caveats.append(
            f"With {figures['n_real']:,} real images a false alarm rate of 1 % cannot be certified (that takes 299 "
            "without a false alarm); figures at low false alarms are rough."
        )
    if small := int((sources["n"] < metrics.WORST_MIN_IMAGES).sum()):
        caveats.append(
            f"{small} of {len(sources)} sources have fewer than {metrics.WORST_MIN_IMAGES} images: their figures are "
            "mostly chance, and none of them is named the hardest."
        )
    audit = details.get("audit")
    if isinstance(audit, Mapping) and audit.get("verdict"):
        caveats.append(f"Audit of the data: {plain(audit['verdict'])}")
    if broken := len(details.get("broken") or []):
        caveats.append(f"{broken:,} {'file' if broken == 1 else 'files'} could not be read and took no part.")
    return caveats


def key_figures(figures: metrics.Figures, intervals: Mapping[str, Interval]) -> list[KeyFigure]:
    """The tiles of the first screen."""
    return [
        KeyFigure(title, amount(name, figures[name]), span(name, intervals.get(name)), meaning)
        for name, (title, meaning) in KEY_FIGURES.items()
    ]


def worth_in_words(worth: UnseenWorth | None) -> str:
    """What calibration on unseen sources is worth, as a sentence; "" for a model that has none."""
    if worth is None:
        return ""
    called = (
        f"it gave a verdict on {_percent(worth.coverage)} of the images, and {_percent(worth.wrong)} of those "
        "were wrong"
        if worth.wrong is not None
        else "it gave no verdict at all"
    )
    words = (
        f"Each of the {worth.folds} folds calibrated and judged by the images of the others, of other sources: "
        f"{called}; calibration error {worth.ece:.3f} ({worth.ece_before:.3f} before)."
    )
    hardest = worth.hardest
    if not hardest or not hardest.wrong:
        return words
    return (
        f"{words} Most often about {hardest.source} ({hardest.label}): {_percent(hardest.wrong)} of its "
        "images got a wrong verdict."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
