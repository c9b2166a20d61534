"""A report's findings in words: on what data, how good, where weakest, and what the figures do not show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bonaface.models.drawings import MEANING, only_drawings
from bonaface.models.facts import UnseenWorth
from bonaface.report.pages import KeyFigure, plain
from bonaface.stats import metrics
from bonaface.stats.figures import FIGURES, KEY_FIGURES, amount, percent, span
from bonaface.stats.intervals import Interval


def sources_seen(predictions: pd.DataFrame, rows: pd.DataFrame, details: Mapping[str, Any]) -> str:
    """Was the detector trained on the sources it is tested on? ``all``, ``some``, ``none`` or ``unknown``."""
    trained = details.get("train_sources")
    if trained is None:
        trained = predictions.loc[predictions["split"] == "train", "source"]
    known, judged = {str(name) for name in trained} - {""}, set(rows["source"]) - {""}
    if not known or not judged:
        return "unknown"
    if judged <= known:
        return "all"
    return "some" if judged & known else "none"


def conclude(
    split: str,
    figures: metrics.Figures,
    intervals: Mapping[str, Interval],
    sources: pd.DataFrame,
    summary: metrics.Figures,
    seen: str,
) -> str:
    """The conclusion in words: on what data, how good, where weakest, and what the figures do not show."""
    if not figures["n"]:
        return "No image was scored, so nothing can be said about this detector."
    judged = sources["source"].nunique()
    some = f"{judged} sources" if judged > 1 else "a source"
    origin = {
        "all": f" from {some} in its training data,",
        "some": f" from {some}, of which only some are in its training data,",
        "none": f" from {some} outside its training data,",
        "unknown": "",
    }[seen]
    begin = f"On {figures['n']:,} {split + ' ' if split else ''}images{origin} the detector"
    decided = []
    if figures["n_fake"]:
        decided.append(f"finds {percent(figures['recall'])} of the fakes")
    if figures["n_real"]:
        decided.append(f"calls {percent(figures['fpr'])} of the real images fake")
    if not figures["n_real"] or not figures["n_fake"]:
        missing = "real" if not figures["n_real"] else "AI-generated"
        return f"{begin} {decided[0]}. There were no {missing} images, so it is unknown whether it can tell them apart."
    ranking = _ranking(figures["auc"], intervals["auc"])
    sentences = [f"{begin} {ranking}.", f"By its most likely label, it {' and '.join(decided)}."]
    worst = summary["worst_fake"]
    if worst and (~sources["is_real"].astype(bool)).sum() > 1:
        sentences.append(
            f"The hardest fakes are from {plain(worst['source']) or 'unnamed sources'}: AUC {worst['auc']:.2f}."
        )
    sentences.append(
        {
            "all": "These figures say nothing about unseen generators.",
            "some": "The figures by source show known and unseen sources separately.",
            "none": "Other generators may be easier or harder.",
            "unknown": "Its training sources are not recorded, so the figures may not hold for other sources.",
        }[seen]
    )
    return " ".join(sentences)


def _ranking(value: float, interval: Interval) -> str:
    low, high = interval
    if math.isnan(low):
        return f"ranks real and AI-generated images with AUC {value:.2f}, on too few images per source for an interval"
    auc = f"AUC {value:.2f} ({low:.2f}–{high:.2f})"
    if high < 0.5:
        return f"ranks real and AI-generated images the wrong way round: {auc}"
    if low <= 0.5:
        return f"cannot be shown to separate real from AI-generated images: {auc}, where 0.50 is guessing"
    return f"separates real from AI-generated images with {auc}"


def list_caveats(figures: metrics.Figures, sources: pd.DataFrame, seen: str, details: Mapping[str, Any]) -> list[str]:
    """What a reader must know to interpret the figures."""
    caveats = [plain(text) for text in details.get("caveats") or []]
    if only_drawings(details.get("train_sources") or []):
        caveats.insert(0, MEANING)
    if seen == "all":
        caveats.append(
            "Training and test images come from the same sources. What distinguishes a source (framing, light, "
            "compression) can be mistaken for what distinguishes fakes; only sources held out of training show the "
            "difference."
        )
    if 0 < figures["n_real"] < 299:
        caveats.append(
            f"With {figures['n_real']:,} real images, a false-positive rate of 1 % cannot be certified (that takes 299 "
            "without a false positive); figures at low false-positive rates are rough."
        )
    if small := int((sources["n"] < metrics.WORST_MIN_IMAGES).sum()):
        caveats.append(
            f"{small} of {len(sources)} sources have fewer than {metrics.WORST_MIN_IMAGES} images: their figures are "
            "mostly noise, and none of them is named the hardest."
        )
    audit = details.get("audit")
    if isinstance(audit, Mapping) and audit.get("verdict"):
        caveats.append(f"Audit of the data: {plain(audit['verdict'])}")
    if broken := len(details.get("broken") or []):
        caveats.append(f"{broken:,} {'file' if broken == 1 else 'files'} could not be read and were left out.")
    return caveats


def key_figures(figures: metrics.Figures, intervals: Mapping[str, Interval]) -> list[KeyFigure]:
    """The tiles of the first screen."""
    return [
        KeyFigure(
            FIGURES[name].name, amount(name, figures[name]), span(name, intervals.get(name)), FIGURES[name].meaning
        )
        for name in KEY_FIGURES
    ]


def worth_in_words(worth: UnseenWorth | None) -> str:
    """How well calibration on unseen sources works, as a sentence; "" for a model that has none."""
    if worth is None:
        return ""
    called = (
        f"it gave a verdict on {percent(worth.coverage)} of the images, of which {percent(worth.wrong)} were wrong"
        if worth.wrong is not None
        else "it gave no verdict at all"
    )
    words = (
        f"With each of {worth.folds} folds of unseen sources judged by a calibration on the others, "
        f"{called}; the calibration error is {worth.ece:.3f} ({worth.ece_before:.3f} before)."
    )
    hardest = worth.hardest
    if not hardest or not hardest.wrong:
        return words
    return (
        f"{words} It is worst on {hardest.source} ({hardest.label}), where {percent(hardest.wrong)} of the "
        "images get a wrong verdict."
    )
