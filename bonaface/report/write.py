"""Figures become ``report/``: metrics.json, predictions.parquet, plots, report.html and report.md.

``metrics.json``, schema 2 (a number that is not defined is null; a change that breaks a reader raises the number):

- ``schema_version`` 2, ``labels`` (class order), ``real_label``
- ``conclusion`` and ``caveats``: the text of the first screen
- ``split``: the split that the headline figures are of, ``test`` where there is one
- ``figures``: {name: {value, low, high}}, names as in :func:`metrics.all_figures`, 95 % bootstrap intervals
  stratified by source (null where there is none); the counts, ``per_class`` and ``confusion_matrix`` unchanged
- ``splits``: {split: all its figures, without intervals}
- ``sources``: the rows of :func:`bonaface.stats.metrics.per_source`
- ``source_summary``: ``macro_auc``, ``macro_recall``, ``macro_fpr``, each source counting once, as {value, low, high}
  (plain numbers in schema 1), and the worst sources
- ``facts``: the ``details`` that the caller knows (model, data, versions, timing, broken files, audit ...), as given
- ``sections``: {key: data} of the sections that were added; an evaluation adds ``robustness`` (the rows of
  :func:`robustness.robustness_table`) and those of :mod:`sections`: ``thresholds``,
  ``calibration``, ``unfamiliar``, ``resembles``, ``coverage``

To add a section (robustness, calibration ...), make a :class:`bonaface.report.pages.Section` and hand it to
:func:`write_report`; its plots become PNG files, its data part of ``metrics.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bonaface.files import atomic_path, write_json, write_text
from bonaface.report.findings import conclude, key_figures, list_caveats, sources_seen
from bonaface.report.pages import (
    Block,
    Page,
    Plot,
    Section,
    jsonable,
    page_html,
    page_markdown,
)
from bonaface.report.sections import (
    DrawHeatMap,
    LoadThumbnail,
    decision_section,
    detail_sections,
    error_sections,
    figure_section,
    lead_plots,
    score_section,
    source_section,
    training_sections,
)
from bonaface.report.style import LIGHT, save_figure
from bonaface.stats import metrics
from bonaface.stats.intervals import Interval
from bonaface.stats.sources import metrics_by_source

SCHEMA_VERSION = 2


def write_report(
    folder: Path,
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    real_label: str,
    history: Sequence[Mapping[str, Any]] = (),
    details: Mapping[str, Any] | None = None,
    sections: Sequence[Section] = (),
    lead: Sequence[Block] = (),
    remarks: Sequence[str] = (),
    load_thumbnail: LoadThumbnail | None = None,
    heat_map: DrawHeatMap | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the report into ``folder/report`` and return the contents of its ``metrics.json``.

    ``predictions`` is the table of :mod:`bonaface.stats.predictions`, of one split or several; ``history`` a
    Trainer's ``log_history``. ``load_thumbnail`` turns a path of the table into an image for the gallery of errors; an
    image it cannot read (OSError, ValueError) is left blank. ``heat_map`` turns an image into its overlay. ``lead``
    adds blocks to the first screen, ``remarks`` sentences to its conclusion, ``sections`` what follows.

    Keys of ``details`` that the report speaks about, each optional: ``title``, ``model`` and ``data`` (where they are
    plain text, the subtitle), ``train_sources`` (names; by default those of the table's train split), ``caveats``
    (sentences), ``audit`` (mapping with ``verdict``, a sentence), ``broken`` (rows of path, reason, label, source).
    All but title and caveats are listed at the end, mappings by dotted names.
    """
    details = dict(details or {})
    report = Path(folder) / "report"
    report.mkdir(parents=True, exist_ok=True)
    found = _measure(predictions, labels, real_label, details, n_resamples, seed)
    page = Page(
        title=str(details.get("title") or "Detector report"),
        subtitle=" · ".join(str(details[key]) for key in ("model", "data") if isinstance(details.get(key), str)),
        conclusion=" ".join([found.conclusion, *filter(None, remarks)]),
        caveats=list_caveats(found.figures, found.sources, found.seen, details),
        key_figures=key_figures(found.figures, found.intervals),
        lead=[*lead_plots(found.rows, found.sources, real_label), *lead],
        sections=_sections(found, sections, history, details, load_thumbnail, heat_map),
    )
    result = jsonable(_contents(found, page, details, sections))
    write_predictions(report / "predictions.parquet", predictions)
    write_page(report, "report", page)
    write_json(report / "metrics.json", result)  # last: where it stands, the report is whole
    return result


@dataclass(frozen=True)
class _Found:
    """What a predictions table shows; all but ``splits`` of its headline split, whose table is ``rows``."""

    labels: Sequence[str]
    real_label: str
    n_resamples: int
    split: str
    rows: pd.DataFrame
    figures: metrics.Figures
    intervals: Mapping[str, Interval]
    sources: pd.DataFrame
    summary: metrics.Figures
    summary_intervals: Mapping[str, Interval]
    seen: str
    conclusion: str
    splits: Mapping[str, metrics.Figures]


def _measure(
    predictions: pd.DataFrame,
    labels: Sequence[str],
    real_label: str,
    details: Mapping[str, Any],
    n_resamples: int,
    seed: int,
) -> _Found:
    split, rows = headline_rows(predictions)
    figures = metrics.table_metrics(rows, labels, real_label)
    intervals = metrics.bootstrap(rows, real_label=real_label, n_resamples=n_resamples, seed=seed)
    sources = metrics.per_source(rows, real_label=real_label)
    summary = metrics.source_summary(sources)
    seen = sources_seen(predictions, rows, details)
    return _Found(
        labels=labels,
        real_label=real_label,
        n_resamples=n_resamples,
        split=split,
        rows=rows,
        figures=figures,
        intervals=intervals,
        sources=sources,
        summary=summary,
        summary_intervals=metrics_by_source(rows, real_label=real_label, n_resamples=min(n_resamples, 500), seed=seed),
        seen=seen,
        conclusion=conclude(split, figures, intervals, sources, summary, seen),
        splits={
            str(name): metrics.table_metrics(part, labels, real_label)
            for name, part in predictions.groupby("split", sort=False)
        },
    )


def _sections(
    found: _Found,
    more: Sequence[Section],
    history: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
    load_thumbnail: LoadThumbnail | None,
    heat_map: DrawHeatMap | None,
) -> list[Section]:
    return [
        source_section(found.sources, found.summary, found.summary_intervals),
        *error_sections(found.rows, found.real_label, load_thumbnail, heat_map),
        score_section(found.rows, found.real_label),
        decision_section(found.figures, found.labels),
        *more,
        *training_sections(history),
        figure_section(found.figures, found.intervals, found.splits, found.n_resamples),
        *detail_sections(details),
    ]


def _contents(found: _Found, page: Page, details: Mapping[str, Any], sections: Sequence[Section]) -> dict[str, Any]:
    """``metrics.json``, see this module's docstring."""
    return {
        "schema_version": SCHEMA_VERSION,
        "labels": list(found.labels),
        "real_label": found.real_label,
        "conclusion": page.conclusion,
        "caveats": page.caveats,
        "split": found.split,
        "figures": with_intervals(found.figures, found.intervals),
        "splits": found.splits,
        "sources": found.sources,
        "source_summary": with_intervals(found.summary, found.summary_intervals),
        "facts": details,
        "sections": {section.key: section.data for section in sections},
    }


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
    """The predictions table as parquet."""
    with atomic_path(path) as partial:
        predictions.to_parquet(partial, index=False)


def write_page(report: Path, name: str, page: Page) -> None:
    """The page as ``NAME.html`` and ``NAME.md``, and every plot of it as a PNG of its own name."""
    blocks = [*page.lead, *(block for section in page.sections for block in section.blocks)]
    plots = {block.name: block for block in blocks if isinstance(block, Plot)}
    for title, plot in plots.items():
        if not title.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"a plot's name is a file name of letters, digits, - and _, not {title!r}")
        save_figure(plot.draw(LIGHT), report / f"{title}.png")
    write_text(report / f"{name}.html", page_html(page))
    write_text(report / f"{name}.md", page_markdown(page))
