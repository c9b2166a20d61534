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
DrawHeatMap = Callable[[Image.Image], Image.Image]
MOST_SOURCES = 30  # in a plot; the tables list all
SHOWN_EACH, SHOWN_SOURCES = 5, 12  # images of a source, and sources, in a gallery
LEARNING_CURVES = (
    ("loss", "Loss by epoch.", "loss", {"loss": "training", "eval_loss": "validation"}),
    (
        "accuracy",
        "Accuracy and AUC by epoch.",
        "accuracy, AUC",
        {
            "train_accuracy": "training accuracy",
            "eval_accuracy": "validation accuracy",
            "eval_auc": "validation AUC",
        },
    ),
)


def _truth_and_scores(rows: pd.DataFrame, real_label: str) -> tuple[np.ndarray, np.ndarray]:
    return (rows["label"] != real_label).to_numpy(), rows["p_fake"].to_numpy(dtype=float)


def lead_plots(rows: pd.DataFrame, sources: pd.DataFrame, real_label: str) -> list[Block]:
    """The first screen's plots: the ROC curve, what each source was called, and the calibration of the scores."""
    pair = _truth_and_scores(rows, real_label)
    return [
        Plot(
            "roc",
            "Fakes found against false positives, at every threshold.",
            lambda theme: plots.roc_curve({"": pair}, theme=theme),
        ),
        Plot(
            "sources",
            "For each source, the number of images and the share called fake, with its 95 % interval.",
            lambda theme: plots.source_bars(sources.head(MOST_SOURCES), theme=theme),
        ),
        Plot(
            "reliability",
            "Reliability: the share of fakes among images with a given score; below, the number of images.",
            lambda theme: plots.reliability_diagram(metrics.reliability(*pair), theme=theme),
        ),
    ]


def source_section(
    sources: pd.DataFrame, summary: metrics.Figures, intervals: Mapping[str, Interval] | None = None
) -> Section:
    """Figures by source; ``intervals`` of the means over sources."""

    def mean(name: str, figure: str) -> str:
        return f"{amount(figure, summary[name])} {span(figure, (intervals or {}).get(name))}".strip()

    text = (
        "Each fake source is compared with all real images, each real source with all fakes. Counting every source "
        f"once, the fake sources have a mean AUC of {mean('macro_auc', 'auc')} and a mean share found of "
        f"{mean('macro_recall', 'recall')}; the real sources have a mean false-positive rate of "
        f"{mean('macro_fpr', 'fpr')}."
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
    by_auc = Plot(
        "sources_auc",
        "AUC of each source with its 95 % interval (DeLong).",
        lambda theme: plots.source_bars(sources.head(MOST_SOURCES), value="auc", theme=theme),
    )
    return Section("sources", "By source", [text, by_auc, Table(table)], brief=True)


def error_sections(
    rows: pd.DataFrame,
    real_label: str,
    load_thumbnail: LoadThumbnail | None,
    heat_map: DrawHeatMap | None = None,
) -> list[Section]:
    """The most confident mistakes of the sources with most of them; nothing without a way to load images."""
    fake, p = _truth_and_scores(rows, real_label)
    missed = fake != (rows["prediction"] != real_label).to_numpy()
    if load_thumbnail is None or not missed.any():
        return []
    wrong = rows[missed].assign(gap=np.abs(p - fake)[missed])
    totals = rows.groupby(["label", "source"]).size().to_dict()
    galleries = [
        Gallery(
            thumbnails(part.nlargest(SHOWN_EACH, "gap"), load_thumbnail, heat_map),
            f"{_source_name(source, label)}: {len(part):,} of {totals[label, source]:,} "
            + ("called fake" if label == real_label else "called real"),
        )
        for (label, source), part in _largest_first(wrong)[:SHOWN_SOURCES]
    ]
    text = f"{missed.sum():,} of {len(rows):,} images were misclassified. The most confident mistakes, by source:"
    return [Section("errors", "Confident mistakes", [text, *galleries])]


def uncertain_sections(
    rows: pd.DataFrame,
    load_thumbnail: LoadThumbnail | None,
    heat_map: DrawHeatMap | None = None,
    middle: float = 0.5,
) -> list[Section]:
    """The images whose scores are nearest to ``middle``, by source; nothing without a way to load images."""
    if load_thumbnail is None or rows.empty:
        return []
    near = rows.assign(gap=(rows["p_fake"] - middle).abs()).nsmallest(SHOWN_EACH * SHOWN_SOURCES, "gap")
    galleries = [
        Gallery(thumbnails(part.nsmallest(SHOWN_EACH, "gap"), load_thumbnail, heat_map), _source_name(source, label))
        for (label, source), part in _largest_first(near)[:SHOWN_SOURCES]
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
    """A thumbnail of each row of a predictions table and, where there is one, its heat map below it."""
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
    """The distribution of the scores, and what they mean."""
    fake, p = _truth_and_scores(rows, real_label)
    return Section(
        "scores",
        "Scores",
        [
            "A score is the detector’s probability that an image is fake. If the scores are calibrated, 80 % of the "
            "images that score 80 % are fake, and the reliability curve follows the diagonal. This depends on the "
            f"share of fakes among the images, here {percent(np.mean(fake) if len(fake) else np.nan)}.",
            Plot(
                "scores",
                "Scores of real and fake images.",
                lambda theme: plots.score_histogram(fake, p, theme=theme),
            ),
            Plot(
                "roc_log",
                "The ROC curve with a logarithmic false-positive rate.",
                lambda theme: plots.roc_curve({"": (fake, p)}, log=True, theme=theme),
            ),
        ],
    )


def decision_section(figures: metrics.Figures, labels: Sequence[str]) -> Section:
    """The most likely label against the true one."""
    table = pd.DataFrame([{"label": label} | row for label, row in figures["per_class"].items()])
    table = table.rename(columns={"f1": "F1", "support": "images"})
    confusion = Plot(
        "confusion",
        "True label (rows) and most likely label (columns), with shares of each row.",
        lambda theme: plots.confusion_matrix(figures["confusion_matrix"], labels, theme=theme),
    )
    return Section("decisions", "Labels", [confusion, Table(table)])


def training_sections(history: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Learning curves, if there was a training."""
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
    """Every figure with its interval, then by split."""
    none = Interval(np.nan, np.nan)
    rows = [
        {"figure": name, "value": figures[name], **intervals.get(name, none)._asdict(), "meaning": known.meaning}
        for name, known in FIGURES.items()
    ]
    text = (
        f"Low and high are the limits of 95 % of {n_resamples:,} bootstrap resamples, drawn within each source: how "
        "far the figures would vary with other images from the same sources."
    )
    blocks: list[Block] = [text, Table(pd.DataFrame(rows))]
    if len(splits) > 1:
        shown = ["n", *KEY_FIGURES, "log_loss"]
        table = pd.DataFrame(
            [{"split": name or "all"} | {key: part[key] for key in shown} for name, part in splits.items()]
        )
        blocks.append(Table(table.rename(columns={"n": "images"}), "By split"))
    return Section("figures", "All figures", blocks)


def detail_sections(details: Mapping[str, Any]) -> list[Section]:
    """How the figures came about: the details as given, and the files that could not be read."""
    blocks: list[Block] = []
    rest = {key: value for key, value in details.items() if key not in ("title", "caveats", "broken")}
    rows = [{"fact": name, "value": value} for name, value in flatten(rest)]
    if rows:
        blocks.append(Table(pd.DataFrame(rows, dtype=object)))
    if details.get("broken"):
        broken = pd.DataFrame(jsonable(details["broken"]))
        blocks.append(Table(broken, f"Files that could not be read ({len(broken):,})", folded=True))
    return [Section("facts", "Details", blocks)] if blocks else []


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
