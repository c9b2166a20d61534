"""All folds of a cross-validation as one report: ``OUT/report``.

Beside what :func:`write.write_report` writes of all test images together (``metrics.json`` and the rest)
there are ``crossval.md`` and ``crossval.json``, and ``predictions.parquet`` has a column ``fold``. An image that
several folds test (a real source may be held out more than once) has a row for each.

``crossval.json``, schema 1 (an undefined number is null; a change that breaks a reader raises the schema number):

- ``schema_version`` 1, ``kind`` (one of :data:`bonaface.data.folds.KINDS`), ``labels``, ``real_label``, ``conclusion``
  (words), ``kept`` (whether the folds' runs are still there)
- ``folds``: rows of ``name``, ``title``, ``folder``, ``held_out`` {fake: […], real: […]} (empty where images were
  dealt), ``n``, ``n_real``, ``n_fake``, ``left_out`` (group is elsewhere), ``small`` (under 50 images on a side:
  never named as the worst), ``minutes``, and of the test: ``auc`` with ``auc_low`` and ``auc_high`` (DeLong, 95 %),
  ``accuracy``, ``recall``, ``fpr``, ``ece``, ``tpr_at_5pct_fpr``, by the fold's own band ``band_recall``,
  ``band_fpr``, ``uncertain``, ``band_error`` (see :func:`bonaface.stats.metrics.verdict_figures`); and
  ``unfamiliar_auroc``: how well the distance to the training data tells the test images from the calibration images;
  ``none_known`` and ``none_unseen``: the share of calibration fakes from sources with a mean, and of test fakes from
  sources not in training, that are like no known source (see :mod:`bonaface.inference.resembles`)
- ``over_folds``: {figure: {mean, sd, n}}, every fold counting once
- ``worst``: the row of the worst fold by AUC, null where all are small
- ``pooled``: the same figures of all test images together; the scores are of different models, so the AUC is usually
  a little lower than the mean
- ``families``: where families were left out, those of :func:`family_figures.family_figures`; else null
- ``unseen``: where sources were left out, :class:`bonaface.models.facts.UnseenWorth`: what verdicts on them are worth,
  each fold's by calibration on the others; else null
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bonaface.crossval.family_figures import family_figures, family_sentence
from bonaface.crossval.sections import auc_span, conclude, fold_section, lead_plots, shown_table
from bonaface.data.folds import FOLDS, Fold
from bonaface.data.listing import Listing, image_bytes
from bonaface.errors import UsageError
from bonaface.files import write_json, write_text
from bonaface.imaging.images import decode_image
from bonaface.inference.unfamiliar import unfamiliar_auroc
from bonaface.parquet import read_parquet
from bonaface.report.findings import worth_in_words
from bonaface.report.pages import (
    Page,
    Table,
    cell,
    jsonable,
    page_markdown,
)
from bonaface.report.sections import LoadThumbnail
from bonaface.report.write import write_report
from bonaface.stats import metrics
from bonaface.stats.figures import BAND_FIGURES, NONE_FIGURES, UNFAMILIAR
from bonaface.stats.intervals import auc_interval
from bonaface.training.calibrate import unseen_worth

SCHEMA_VERSION = 1
MODEL_FIGURES = (*BAND_FIGURES, UNFAMILIAR, *NONE_FIGURES)  # of models that have what they need
FOLD_FIGURES = ("auc", "accuracy", "recall", "fpr", "ece", "tpr_at_5pct_fpr")


@dataclass(frozen=True)
class FoldRun:
    """A fold and the finished run folder of its training."""

    fold: Fold
    folder: Path

    def rows(self, split: str) -> pd.DataFrame:
        """The run's predictions of a split. Raises UsageError where there are none."""
        try:
            rows = read_parquet(self.folder / "report" / "predictions.parquet")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"cannot read the predictions of the fold {self.fold.name}: {error}",
                f"delete {self.folder} and give the same command again to retrain it",
            ) from error
        rows = rows[rows["split"] == split].reset_index(drop=True)
        rows.insert(1, "fold", self.fold.name)
        return rows

    def facts(self) -> dict[str, Any]:
        """What its report says of the training and the model."""
        return dict(json.loads((self.folder / "report" / "metrics.json").read_text(encoding="utf-8"))["facts"])

    def minutes(self) -> float:
        """How long its training and evaluation took."""
        return float(self.facts().get("minutes", np.nan))


def write_crossval_report(
    out: Path,
    runs: Sequence[FoldRun],
    listing: Listing,
    *,
    kind: str,
    details: Mapping[str, Any],
    families: Mapping[str, Sequence[str]] | None = None,
    kept: bool = True,
) -> dict[str, Any]:
    """Write ``out/report`` and return the contents of its ``crossval.json``, which is written last.

    ``details`` are those of :func:`bonaface.report.write.write_report`; thumbnails come from the ``listing``.
    ``families`` (name -> its sources) were left out whole.
    """
    labels, real = listing.labels, listing.real_label
    tests = [run.rows("test") for run in runs]
    pooled = pd.concat(tests, ignore_index=True)
    found = _measure(runs, tests, pooled, labels, real, families)
    worth = unseen_worth(pooled, labels, labels.index(real)) if kind != FOLDS else None
    folds, summary, worst, together = (found[key] for key in ("folds", "over_folds", "worst", "pooled"))
    finding = conclude(kind, folds, summary, worst)
    sentences = [finding, f"Pooled over all test images: AUC {cell(together['auc'])} {auc_span(together)}."]
    if found["families"]:
        sentences.append(family_sentence(found["families"]))
    told = worth_in_words(worth)
    if told:
        sentences.append(told)
    conclusion = " ".join(sentences)
    result = {"schema_version": SCHEMA_VERSION, "kind": kind, "labels": labels, "real_label": real}
    result |= {"conclusion": conclusion, "kept": kept, **found}
    result["unseen"] = asdict(worth) if worth else None
    section = fold_section(result, told)
    # Where whole sources were left out, no model was trained on the sources that it was tested on.
    seen = sorted(set(pooled["source"])) if kind == FOLDS else ["the other sources of each fold"]
    write_report(
        out,
        pooled,
        labels=labels,
        real_label=real,
        details=dict(details) | {"train_sources": seen, "folds": len(folds), "kind": kind},
        sections=[section],
        lead=[*lead_plots(folds, tests, real, summary, worst), Table(shown_table(folds, summary, together))],
        remarks=[finding],
        load_thumbnail=_thumbnails(listing),
    )
    report = Path(out) / "report"
    page = Page(str(details.get("title", "")), "", conclusion, [], [], [], [section])
    write_text(report / "crossval.md", page_markdown(page))
    result = jsonable(result)
    write_json(report / "crossval.json", result)
    return result


def _measure(
    runs: Sequence[FoldRun],
    tests: Sequence[pd.DataFrame],
    pooled: pd.DataFrame,
    labels: Sequence[str],
    real_label: str,
    families: Mapping[str, Sequence[str]] | None,
) -> dict[str, Any]:
    """The figures of ``crossval.json``."""
    folds = fold_table(runs, tests, labels, real_label)
    large = folds[~folds["small"] & folds["auc"].notna()].sort_values("auc", kind="stable")
    return {
        "folds": folds,
        "over_folds": {name: metrics.over_folds(folds[name]) for name in (*FOLD_FIGURES, *MODEL_FIGURES)},
        "worst": {str(key): value for key, value in large.iloc[0].items()} if len(large) else None,
        "pooled": fold_figures(pooled, labels, real_label),
        "families": family_figures(pooled, families, real_label) if families else None,
    }


def fold_figures(rows: pd.DataFrame, labels: Sequence[str], real_label: str) -> dict[str, Any]:
    """The figures of one fold's test, or of all: see this module's docstring."""
    fake = (rows["label"] != real_label).to_numpy()
    known = metrics.table_metrics(rows, labels, real_label)
    auc, interval = auc_interval(fake, rows["p_fake"].to_numpy(float))
    figures = {name: known[name] for name in ("n", "n_real", "n_fake", *FOLD_FIGURES)}
    figures |= {"auc": auc, "auc_low": interval.low, "auc_high": interval.high}
    has_band = "verdict" in rows and rows["verdict"].notna().all()
    return figures | (
        metrics.verdict_figures(fake, rows["verdict"]) if has_band else dict.fromkeys(BAND_FIGURES, float("nan"))
    )


def fold_table(
    runs: Sequence[FoldRun], tests: Sequence[pd.DataFrame], labels: Sequence[str], real_label: str
) -> pd.DataFrame:
    """One row per fold: see this module's docstring."""
    rows = []
    for run, test in zip(runs, tests, strict=True):
        figures = fold_figures(test, labels, real_label)
        rows.append(
            {
                "name": run.fold.name,
                "title": run.fold.title,
                "folder": run.folder.parent.name,
                "held_out": {side: list(sources) for side, sources in run.fold.held_out.items()},
                "left_out": run.fold.left_out,
                "small": min(figures["n_real"], figures["n_fake"]) < metrics.WORST_MIN_IMAGES,
                "minutes": run.minutes(),
                **figures,
                UNFAMILIAR: unseen_auroc(run.rows("calibration"), test),
                **like_none(run.facts(), run.rows("calibration"), test, real_label),
            }
        )
    return pd.DataFrame(rows)


def unseen_auroc(seen: pd.DataFrame, unseen: pd.DataFrame) -> float:
    """How well the distance separates the test images from those of the training sources; NaN without one."""
    if not all("distance" in rows and len(rows) for rows in (seen, unseen)):
        return float("nan")
    return unfamiliar_auroc(seen["distance"], unseen["distance"])[0]


def like_none(facts: Mapping[str, Any], seen: pd.DataFrame, unseen: pd.DataFrame, real_label: str) -> dict[str, float]:
    """The shares of ``NONE_FIGURES``; NaN where the model cannot tell what fakes resemble, or without such fakes."""
    told = facts.get("resembles") or {}
    if not told.get("on"):
        return dict.fromkeys(NONE_FIGURES, float("nan"))
    known = seen["source"].isin(told["sources"])
    new = ~unseen["source"].isin(facts.get("train_sources") or told["sources"])
    return {
        name: float((rows["nearest_distance"][kept & (rows["label"] != real_label)] >= told["threshold"]).mean())
        for name, rows, kept in (("none_known", seen, known), ("none_unseen", unseen, new))
    }


def _thumbnails(listing: Listing) -> LoadThumbnail:
    places = {path: i for i, path in enumerate(listing.rows["path"])}

    def load(path: str) -> Image.Image:
        return decode_image(image_bytes(listing.rows[places[path]]["image"]), name=path)

    return load
