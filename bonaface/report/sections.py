"""The sections that every report has: sources, mistakes, scores, labels, training, figures, facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bonaface.report import plots
from bonaface.report.pages import Block, Gallery, Plot, Section, Table, Thumbnail, cell, jsonable
from bonaface.stats import metrics
from bonaface.stats.figures import FIGURES, KEY_FIGURES, amount, percent, span
from bonaface.stats.intervals import Interval

LoadThumbnail = Callable[[str], Image.Image]
DrawHeatMap = Callable[[Image.Image], Image.Image | None]
MOST_SOURCES = 30  # in a picture; the tables list all
LEARNING_CURVES = (
    ("loss", "Loss by epoch.", "loss", {"loss": "training", "eval_loss": "validation"}),
    (
        "accuracy",
        "Accuracy and AUC by epoch.",
        "share right, AUC",
        {
            "train_accuracy": "training accuracy",
            "eval_accuracy": "validation accuracy",
            "eval_auc": "validation AUC",
        },
    ),
)


def _truth_and_scores(rows: pd.DataFrame, real_label: str) -> tuple[np.ndarray, np.ndarray]:
    return (rows["label"] != real_label).to_numpy(), rows["p_fake"].to_numpy(dtype=float)


def lead_pictures(rows: pd.DataFrame, sources: pd.DataFrame, real_label: str) -> list[Block]:
    """The first screen's pictures: the ROC curve, what each source was called, whether scores hold what they say."""
    pair = _truth_and_scores(rows, real_label)
    return [
        Plot(
            "roc",
            "Fakes found against false alarms, at every threshold.",
            lambda theme: plots.roc_curve({"": pair}, theme=theme),
        ),
        Plot(
            "sources",
            "Each source with the number of its images: the share called fake, with its 95 % interval.",
            lambda theme: plots.source_bars(sources.head(MOST_SOURCES), theme=theme),
        ),
        Plot(
            "reliability",
            "Reliability: of the images with a given score, the share that was fake; below, how many they are.",
            lambda theme: plots.reliability_diagram(metrics.reliability(*pair), theme=theme),
        ),
    ]


def source_section(
    sources: pd.DataFrame, summary: metrics.Figures, intervals: Mapping[str, Interval] | None = None
) -> Section:
    """Every source for itself; ``intervals`` of the means over sources."""

    def mean(name: str, figure: str) -> str:
        return f"{amount(figure, summary[name])} {span(figure, (intervals or {}).get(name))}".strip()

    text = (
        "Each fake source against all real images, each real source against all fakes. Counting every source once, "
        f"the mean AUC of the fake sources is {mean('macro_auc', 'auc')}, the mean share found "
        f"{mean('macro_recall', 'recall')}, and the mean false alarm rate of the real ones {mean('macro_fpr', 'fpr')}."
    )
    rates = sources["recall"].fillna(sources["fpr"])
    table = sources[["source", "label"]].assign(images=sources["n"])
    table["AUC (95 %)"] = [
        f"{cell(auc)} {span('auc', Interval(low, high))}"
        for auc, low, high in zip(sources["auc"], sources["auc_low"], sources["auc_high"], strict=True)
    ]
    table["called fake (95 %)"] = [
        f"{percent(rate)} {span('recall', Interval(low, high))}"
        for rate, low, high in zip(rates, sources["rate_low"], sources["rate_high"], strict=True)
    ]
    picture = Plot(
        "sources_auc",
        "AUC of each source with its 95 % interval (DeLong).",
        lambda theme: plots.source_bars(sources.head(MOST_SOURCES), value="auc", theme=theme),
    )
    return Section("sources", "Source by source", [text, picture, Table(table)], brief=True)


def error_sections(
    rows: pd.DataFrame,
    real_label: str,
    load_thumbnail: LoadThumbnail | None,
    heat_map: DrawHeatMap | None = None,
    each: int = 5,
    sources: int = 12,
) -> list[Section]:
    """The most confident mistakes of the sources with most of them; nothing without a way to load pictures."""
    fake, p = _truth_and_scores(rows, real_label)
    missed = fake != (rows["prediction"] != real_label).to_numpy()
    if load_thumbnail is None or not missed.any():
        return []
    wrong = rows[missed].assign(gap=np.abs(p - fake)[missed])
    totals = rows.groupby(["label", "source"]).size().to_dict()
    galleries = [
        Gallery(
            thumbnails(part.nlargest(each, "gap"), load_thumbnail, heat_map),
            f"{_source_name(source, label)}: {len(part):,} of {totals[label, source]:,} "
            + ("called fake" if label == real_label else "called real"),
        )
        for (label, source), part in _largest_first(wrong)[:sources]
    ]
    text = (
        f"{missed.sum():,} of {len(rows):,} images were put on the wrong side. The most confident of them, by source:"
    )
    return [Section("errors", "Confident mistakes", [text, *galleries])]


def uncertain_sections(
    rows: pd.DataFrame,
    load_thumbnail: LoadThumbnail | None,
    heat_map: DrawHeatMap | None = None,
    middle: float = 0.5,
    each: int = 5,
    sources: int = 12,
) -> list[Section]:
    """The images whose scores lie nearest to ``middle``, by source; nothing without a way to load pictures."""
    if load_thumbnail is None or rows.empty:
        return []
    near = rows.assign(gap=(rows["p_fake"] - middle).abs()).nsmallest(each * sources, "gap")
    galleries = [
        Gallery(thumbnails(part.nsmallest(each, "gap"), load_thumbnail, heat_map), _source_name(source, label))
        for (label, source), part in _largest_first(near)[:sources]
    ]
    text = f"The images with scores nearest to {middle:.2f}, by source; the sources with most of them come first."
    return [Section("uncertain", "Least certain", [text, *galleries])]


def _largest_first(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    parts = {(str(label), str(source)): part for (label, source), part in rows.groupby(["label", "source"])}
    return sorted(parts.items(), key=lambda item: -len(item[1]))


def _source_name(source: str, label: str) -> str:
    return f"{source or 'no source'} ({label})"


def thumbnails(
    rows: pd.DataFrame, load_thumbnail: LoadThumbnail, heat_map: DrawHeatMap | None = None
) -> list[Thumbnail]:
    """A small picture of each row of a predictions table and, where there is one, its heat map below it."""
    items = []
    for path, score in zip(rows["path"], rows["p_fake"], strict=True):
        try:
            image = load_thumbnail(path)
        except (OSError, ValueError):
            image = None
        heat = heat_map(image) if heat_map is not None and image is not None else None
        items.append(Thumbnail(image, f"score {score:.3f}", path, heat))
    return items


def score_section(rows: pd.DataFrame, real_label: str) -> Section:
    """Scores and whether they mean what they say."""
    fake, p = _truth_and_scores(rows, real_label)
    return Section(
        "scores",
        "Scores",
        [
            "A score is the detector’s probability that an image is fake. Of the images that score 80 %, 80 % should "
            "be fake: then the reliability curve lies on its diagonal. That depends on how many fakes there are among "
            f"the images, here {percent(np.mean(fake) if len(fake) else np.nan)}.",
            Plot(
                "scores",
                "Scores of real and of fake images.",
                lambda theme: plots.score_histogram(fake, p, theme=theme),
            ),
            Plot(
                "roc_log",
                "The ROC curve again, with the rare false alarms spread out.",
                lambda theme: plots.roc_curve({"": (fake, p)}, log=True, theme=theme),
            ),
        ],
    )


def decision_section(figures: metrics.Figures, labels: Sequence[str]) -> Section:
    """The label that an image is given against its own."""
    table = pd.DataFrame([{"label": label} | row for label, row in figures["per_class"].items()])
    table = table.rename(columns={"f1": "F1", "support": "images"})
    picture = Plot(
        "confusion",
        "True label (rows) and likeliest label (columns), with shares of each row.",
        lambda theme: plots.confusion_matrix(figures["confusion_matrix"], labels, theme=theme),
    )
    return Section("decisions", "Labels", [picture, Table(table)])


def training_sections(history: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Learning curves, where there was a training."""
    if not history:
        return []
    curves: list[Block] = [
        Plot(
            name,
            caption,
            lambda theme, names=names, y=y: plots.learning_curves(history, names, y=y, theme=theme),  # type: ignore[misc]
        )
        for name, caption, y, names in LEARNING_CURVES
    ]
    return [Section("training", "Training", curves)]


def figure_section(
    figures: metrics.Figures,
    intervals: Mapping[str, Interval],
    splits: Mapping[str, metrics.Figures],
    n_resamples: int,
) -> Section:
    """Every figure with its interval, then split by split."""
    none = Interval(np.nan, np.nan)
    rows = [
        {"figure": name, "value": figures[name], **intervals.get(name, none)._asdict(), "meaning": known.meaning}
        for name, known in FIGURES.items()
    ]
    text = (
        f"Low and high hold 95 % of {n_resamples:,} bootstrap resamples, drawn within each source: how far the figures "
        "would move with other images of these same sources."
    )
    blocks: list[Block] = [text, Table(pd.DataFrame(rows))]
    if len(splits) > 1:
        shown = ["n", *KEY_FIGURES, "log_loss"]
        table = pd.DataFrame(
            [{"split": name or "all"} | {key: part[key] for key in shown} for name, part in splits.items()]
        )
        blocks.append(Table(table.rename(columns={"n": "images"}), "Split by split"))
    return Section("figures", "All figures", blocks)


def detail_sections(details: Mapping[str, Any]) -> list[Section]:
    """What the figures were made from: the details as given, and the files that could not be read."""
    blocks: list[Block] = []
    rest = {key: value for key, value in details.items() if key not in ("title", "caveats", "broken")}
    rows = [{"fact": name, "value": value} for name, value in flatten(rest)]
    if rows:
        blocks.append(Table(pd.DataFrame(rows, dtype=object)))
    if details.get("broken"):
        broken = pd.DataFrame(jsonable(details["broken"]))
        blocks.append(Table(broken, f"Files that could not be read ({len(broken):,})", folded=True))
    return [Section("facts", "What this was made from", blocks)] if blocks else []


def flatten(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (dotted name, text) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in jsonable(facts).items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += flatten(value, f"{name}.")
        elif isinstance(value, list):
            rows.append((name, ", ".join(map(fact_text, value))))
        else:
            rows.append((name, fact_text(value)))
    return rows


def fact_text(value: Any) -> str:
    """A fact as text: settings such as a learning rate keep their digits, lists of mappings stay JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else cell(value)
