"""A report's findings in words: on what, how well, where it is weakest, and what that does not say."""

from __future__ import annotations

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
        decided.append(f"finds {percent(figures['recall'])} of the fakes")
    if figures["n_real"]:
        decided.append(f"calls {percent(figures['fpr'])} of the real images fake")
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
        KeyFigure(
            FIGURES[name].name, amount(name, figures[name]), span(name, intervals.get(name)), FIGURES[name].meaning
        )
        for name in KEY_FIGURES
    ]


def worth_in_words(worth: UnseenWorth | None) -> str:
    """What calibration on unseen sources is worth, as a sentence; "" for a model that has none."""
    if worth is None:
        return ""
    called = (
        f"it gave a verdict on {percent(worth.coverage)} of the images, and {percent(worth.wrong)} of those were wrong"
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
        f"{words} Most often about {hardest.source} ({hardest.label}): {percent(hardest.wrong)} of its "
        "images got a wrong verdict."
    )
