"""Figures become ``report/``: metrics.json, predictions.parquet, plots, report.html and report.md.

``metrics.json``, schema 1 (a number that is not defined is null; a change that breaks a reader raises the number):

- ``schema_version`` 1, ``labels`` (class order), ``real_label``
- ``conclusion`` and ``caveats``: the words of the first screen
- ``split``: the split that the headline figures are of, ``test`` where there is one
- ``figures``: {name: {value, low, high}}, names as in :func:`bonafide.metrics.all_figures`, 95 % bootstrap intervals
  stratified by source (null where there is none); the counts, ``per_class`` and ``confusion_matrix`` as they are
- ``splits``: {split: all its figures, without intervals}
- ``sources``: the rows of :func:`bonafide.metrics.per_source`; ``source_summary``: macro means and the worst source
- ``facts``: what the caller knows (model, data, versions, timing, broken files, audit ...), as given
- ``sections``: {key: data} of the sections that were added

To add a section (robustness, calibration ...), make a :class:`bonafide.pages.Section` and hand it to
:func:`write_report`; its pictures become PNG files, its data part of ``metrics.json``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from . import metrics, plots
from .findings import (
    KEY_FIGURES,
    MEANINGS,
    amount,
    conclude,
    key_figures,
    list_caveats,
    sources_seen,
    span,
)
from .intervals import Interval
from .pages import (
    Block,
    Gallery,
    Page,
    Picture,
    Section,
    Table,
    Thumbnail,
    cell,
    jsonable,
    page_html,
    page_markdown,
    write_file,
    write_json,
)

SCHEMA_VERSION = 1
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


def write_report(
    folder: Path,
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    real_label: str,
    history: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
    sections: Sequence[Section] = (),
    lead: Sequence[Block] = (),
    load_thumbnail: Callable[[str], Image.Image] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the report into ``folder/report`` and return the contents of its ``metrics.json``.

    ``predictions`` is the table of :func:`bonafide.metrics.predictions_frame`, of one split or several; ``history`` a
    Trainer's ``log_history``. ``load_thumbnail`` turns a path of the table into a picture for the gallery of errors; a
    picture it cannot read (OSError, ValueError) is left blank. ``lead`` adds blocks to the first screen, ``sections``
    to what follows.

    Keys of ``facts`` that the report speaks about, each optional: ``title``, ``model`` and ``data`` (where they are
    plain text, the subtitle), ``train_sources`` (names; without it the table's train split tells), ``caveats``
    (sentences), ``audit`` (mapping with ``verdict``, a sentence), ``broken`` (rows of path, reason, label, source).
    All but title and caveats are listed at the end, mappings by dotted names.
    """
    facts = dict(facts or {})
    report = Path(folder) / "report"
    report.mkdir(parents=True, exist_ok=True)
    split, rows = headline_rows(predictions)
    figures = metrics.table_metrics(rows, labels, real_label)
    intervals = metrics.bootstrap(rows, real_label=real_label, n_resamples=n_resamples, seed=seed)
    sources = metrics.per_source(rows, real_label=real_label)
    summary = metrics.source_summary(sources)
    seen = sources_seen(predictions, rows, facts)
    conclusion = conclude(split, figures, intervals, sources, summary, seen)
    splits = {
        str(name): metrics.table_metrics(part, labels, real_label)
        for name, part in predictions.groupby("split", sort=False)
    }
    caveats = list_caveats(figures, sources, seen, facts)
    page = Page(
        title=str(facts.get("title") or "Detector report"),
        subtitle=" · ".join(str(facts[key]) for key in ("model", "data") if isinstance(facts.get(key), str)),
        conclusion=conclusion,
        caveats=caveats,
        key_figures=key_figures(figures, intervals),
        lead=[*lead_pictures(rows, sources, real_label), *lead],
        sections=[
            source_section(sources, summary),
            *error_sections(rows, real_label, load_thumbnail),
            score_section(rows, real_label),
            decision_section(figures, labels),
            *sections,
            *training_sections(history),
            figure_section(figures, intervals, splits, n_resamples),
            *fact_sections(facts),
        ],
    )
    result = jsonable(
        {
            "schema_version": SCHEMA_VERSION,
            "labels": list(labels),
            "real_label": real_label,
            "conclusion": conclusion,
            "caveats": caveats,
            "split": split,
            "figures": with_intervals(figures, intervals),
            "splits": splits,
            "sources": sources,
            "source_summary": summary,
            "facts": facts,
            "sections": {section.key: section.data for section in sections},
        }
    )
    write_predictions(report / "predictions.parquet", predictions)
    write_pictures(report, page)
    write_file(report / "report.html", page_html(page))
    write_file(report / "report.md", page_markdown(page))
    write_json(report / "metrics.json", result)  # last: where it stands, the report is whole
    return result


def headline_rows(predictions: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The split that a report speaks about first (test, else validation, else the last one named) and its rows."""
    names = list(dict.fromkeys(predictions["split"]))
    split = next((name for name in ("test", "validation") if name in names), names[-1] if names else "")
    return split, predictions[predictions["split"] == split].reset_index(drop=True)


def with_intervals(figures: metrics.Figures, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Each number as {value, low, high}; counts and tables as they are."""
    return {
        name: dict(zip(("value", "low", "high"), (value, *intervals.get(name, (np.nan, np.nan))), strict=True))
        if isinstance(value, float)
        else value
        for name, value in figures.items()
    }


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """The predictions table as parquet, under a temporary name first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    predictions.to_parquet(temporary, index=False)
    temporary.replace(path)


def write_pictures(report: Path, page: Page) -> None:
    """Every picture of the page as a PNG of its name."""
    blocks = [*page.lead, *(block for section in page.sections for block in section.blocks)]
    pictures = {block.name: block for block in blocks if isinstance(block, Picture)}
    for name, picture in pictures.items():
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"a picture's name is a file name of letters, digits, - and _, not {name!r}")
        plots.save_figure(picture.draw(plots.LIGHT), report / f"{name}.png")


# --- sections ----------------------------------------------------------------------------------------------------


def _truth_and_scores(rows: pd.DataFrame, real_label: str) -> tuple[np.ndarray, np.ndarray]:
    return (rows["label"] != real_label).to_numpy(), rows["p_fake"].to_numpy(dtype=float)


def lead_pictures(rows: pd.DataFrame, sources: pd.DataFrame, real_label: str) -> list[Block]:
    """The first screen's pictures: the ROC curve, what each source was called, whether scores hold what they say."""
    pair = _truth_and_scores(rows, real_label)
    return [
        Picture(
            "roc",
            "Fakes found against false alarms, at every threshold.",
            lambda theme: plots.roc_curve({"": pair}, theme=theme),
        ),
        Picture(
            "sources",
            "Each source with the number of its images: the share called fake, with its 95 % interval.",
            lambda theme: plots.source_bars(sources.head(MOST_SOURCES), theme=theme),
        ),
        Picture(
            "reliability",
            "Reliability: of the images with a given score, the share that was fake; below, how many they are.",
            lambda theme: plots.reliability_diagram(metrics.reliability(*pair), theme=theme),
        ),
    ]


def source_section(sources: pd.DataFrame, summary: metrics.Figures) -> Section:
    """Every source for itself."""
    text = (
        "Each fake source against all real images, each real source against all fakes. Counting every source once, "
        f"the mean AUC of the fake sources is {cell(summary['macro_auc'])}, the mean share found "
        f"{amount('recall', summary['macro_recall'])}, and the mean false alarm rate of the real ones "
        f"{amount('fpr', summary['macro_fpr'])}."
    )
    rates = sources["recall"].fillna(sources["fpr"])
    table = sources[["source", "label"]].assign(images=sources["n"])
    table["AUC (95 %)"] = [
        f"{cell(auc)} {span('auc', Interval(low, high))}"
        for auc, low, high in zip(sources["auc"], sources["auc_low"], sources["auc_high"], strict=True)
    ]
    table["called fake (95 %)"] = [
        f"{amount('recall', rate)} {span('recall', Interval(low, high))}"
        for rate, low, high in zip(rates, sources["rate_low"], sources["rate_high"], strict=True)
    ]
    picture = Picture(
        "sources_auc",
        "AUC of each source with its 95 % interval (DeLong).",
        lambda theme: plots.source_bars(sources.head(MOST_SOURCES), value="auc", theme=theme),
    )
    return Section("sources", "Source by source", [text, picture, Table(table)], brief=True)


def error_sections(
    rows: pd.DataFrame,
    real_label: str,
    load_thumbnail: Callable[[str], Image.Image] | None,
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
    counts = wrong.groupby(["label", "source"]).size().sort_values(ascending=False, kind="stable").to_dict()
    galleries: list[Block] = []
    for (label, source), count in list(counts.items())[:sources]:
        part = wrong[(wrong["label"] == label) & (wrong["source"] == source)].nlargest(each, "gap")
        items = [
            _thumbnail(path, score, load_thumbnail) for path, score in zip(part["path"], part["p_fake"], strict=True)
        ]
        called = "called fake" if label == real_label else "called real"
        name = f"{source or 'no source'} ({label})"
        galleries.append(Gallery(items, f"{name}: {count:,} of {totals[label, source]:,} {called}"))
    text = (
        f"{missed.sum():,} of {len(rows):,} images were put on the wrong side. The most confident of them, by source:"
    )
    return [Section("errors", "Confident mistakes", [text, *galleries])]


def _thumbnail(path: str, p_fake: float, load_thumbnail: Callable[[str], Image.Image]) -> Thumbnail:
    try:
        image = load_thumbnail(path)
    except (OSError, ValueError):
        image = None
    return Thumbnail(image, f"score {p_fake:.3f}", path)


def score_section(rows: pd.DataFrame, real_label: str) -> Section:
    """Scores and whether they mean what they say."""
    fake, p = _truth_and_scores(rows, real_label)
    return Section(
        "scores",
        "Scores",
        [
            "A score is the detector’s probability that an image is fake. Of the images that score 80 %, 80 % should "
            "be fake: then the reliability curve lies on its diagonal. That depends on how many fakes there are among "
            f"the images, here {amount('recall', np.mean(fake) if len(fake) else np.nan)}.",
            Picture(
                "scores",
                "Scores of real and of fake images.",
                lambda theme: plots.score_histogram(fake, p, theme=theme),
            ),
            Picture(
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
    picture = Picture(
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
        Picture(
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
        {"figure": name, "value": figures[name], **intervals.get(name, none)._asdict(), "meaning": meaning}
        for name, meaning in MEANINGS.items()
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


def fact_sections(facts: Mapping[str, Any]) -> list[Section]:
    """What the figures were made from: the facts as given, and the files that could not be read."""
    blocks: list[Block] = []
    rest = {key: value for key, value in facts.items() if key not in ("title", "caveats", "broken")}
    rows = [{"fact": name, "value": value} for name, value in flatten(rest)]
    if rows:
        blocks.append(Table(pd.DataFrame(rows, dtype=object)))
    if facts.get("broken"):
        broken = pd.DataFrame(jsonable(facts["broken"]))
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
            rows.append((name, ", ".join(cell(item) for item in value)))
        else:
            rows.append((name, cell(value)))
    return rows
