"""Several models on the same images: do they differ, and by how much?

``compare.json``, schema 1: ``labels``, ``real_label``, ``models`` (names in the order given), ``n``, ``unreadable``,
``figures`` {model: {figure: {value, low, high}}}, ``pairs`` (rows of first, second and :func:`paired`'s results) and
``robustness`` {model: rows of :func:`bonaface.evaluation.robustness.robustness_table`} or null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bonaface.data.dataset import FaceData
from bonaface.errors import UsageError
from bonaface.evaluation.compare_page import COMPARED, comparison_page, conclude_comparison
from bonaface.evaluation.data import align, evaluation_data, load_detector, predictions_of, shared_labels, with_labels
from bonaface.evaluation.evaluate import refuse_unread, unreadable
from bonaface.evaluation.options import EvaluationOptions
from bonaface.evaluation.robustness import all_variants, robustness_table
from bonaface.evaluation.scores import CLEAN, Scored, Variant, score_images
from bonaface.files import write_json
from bonaface.inference.detector import Detector
from bonaface.report.pages import (
    jsonable,
)
from bonaface.report.write import with_intervals, write_page, write_predictions
from bonaface.stats import metrics
from bonaface.stats.intervals import delong_test, mcnemar

SCHEMA_VERSION = 1


def paired(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    labels: Sequence[str],
    real_label: str,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """First minus second on the same images: two predictions tables with the same rows in the same order.

    ``auc``: :func:`delong_test`; ``accuracy``: :func:`mcnemar`; ``differences``: {figure: {value, low, high}}, the 95 %
    percentile interval of the paired bootstrap, both models on the same resamples drawn within (label, source).

    Raises:
        ValueError: the tables are not of the same images.
    """
    if not first[["path", "label"]].equals(second[["path", "label"]]):
        raise ValueError("the two tables must have the same images in the same order")
    tables = (first, second)
    values = [metrics.table_metrics(table, labels, real_label) for table in tables]
    draws = [
        metrics.table_samples(table, COMPARED, real_label=real_label, n_resamples=n_resamples, seed=seed)
        for table in tables
    ]
    differences = {}
    for name in COMPARED:
        low, high = np.quantile(draws[0][name] - draws[1][name], [0.025, 0.975])
        differences[name] = {"value": values[0][name] - values[1][name], "low": float(low), "high": float(high)}
    fake = (first["label"] != real_label).to_numpy()
    return {
        "auc": delong_test(fake, first["p_fake"].to_numpy(), second["p_fake"].to_numpy()),
        "accuracy": mcnemar(*((table["prediction"] == table["label"]).to_numpy() for table in tables)),
        "differences": differences,
    }


def compare(
    detectors: Mapping[str, Detector],
    data: FaceData,
    out: str | Path,
    options: EvaluationOptions,
    *,
    fakes: Mapping[str, Sequence[str]] | None = None,
    caveats: Sequence[str] = (),
) -> dict[str, Any]:
    """Judge two or more models (by name) on the one split of ``data``, each image decoded once for all of them.

    Writes ``out/report/`` with compare.json, compare.html, compare.md, the plots and one predictions table per model,
    and returns the contents of compare.json. ``fakes`` maps a model to its labels that count as fake.
    """
    models = list(detectors.values())
    labels, real = shared_labels(data, models)
    data = with_labels(data, labels)
    (split, rows), *more = data.splits.items()
    if more:
        raise ValueError("compare takes data of one split")
    variants = all_variants(options.quick) if options.robustness else [CLEAN]
    scored = score_images(
        rows, models, variants=variants, batch_size=options.batch_size, threads=options.threads, title="comparing"
    )
    refuse_unread(data, split, scored)
    tables, degraded = _tables(detectors, data, scored, variants, fakes or {})
    figures = {name: _figures(table, labels, real, options) for name, table in tables.items()}
    pairs = _pairs(tables, labels, real, options)
    broken = [*data.broken, *unreadable(data, split, scored)]
    notes = [*caveats, *([f"{len(broken)} files could not be read and were left out."] if broken else [])]
    report = Path(out) / "report"
    report.mkdir(parents=True, exist_ok=True)
    for i, table in enumerate(tables.values(), start=1):
        write_predictions(report / f"predictions_{i}.parquet", table)
    write_page(report, "compare", comparison_page(data.origin, tables, figures, pairs, degraded, notes, real))
    result = {
        "schema_version": SCHEMA_VERSION,
        "labels": labels,
        "real_label": real,
        "models": list(tables),
        "n": len(scored.readable),
        "unreadable": [asdict(file) for file in broken],
        "figures": figures,
        "pairs": pairs,
        "robustness": degraded or None,
    }
    result = jsonable(result)
    write_json(report / "compare.json", result)  # last: where it stands, the comparison is whole
    return result


def _tables(
    detectors: Mapping[str, Detector],
    data: FaceData,
    scored: Scored,
    variants: Sequence[Variant],
    fakes: Mapping[str, Sequence[str]],
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Each model's predictions table, and its figures under degradation where there is any."""
    ((split, rows),) = data.splits.items()
    kept, real = rows.select(scored.readable), data.real_label
    tables: dict[str, pd.DataFrame] = {}
    degraded: dict[str, pd.DataFrame] = {}
    for (name, detector), probabilities in zip(detectors.items(), scored.probabilities, strict=True):
        mine = fakes.get(name) or [label for label in detector.labels if label != detector.real_label]
        scores = align(probabilities[scored.readable], detector, mine, data.labels, real)
        tables[name] = predictions_of(kept, scores[:, 0], data, split)
        if len(variants) > 1:
            fake = (tables[name]["label"] != real).to_numpy()
            index = data.labels.index(real)
            degraded[name] = robustness_table(fake, scores, variants, real_index=index, facts=detector.facts)
    return tables, degraded


def _pairs(
    tables: Mapping[str, pd.DataFrame], labels: Sequence[str], real: str, options: EvaluationOptions
) -> list[dict[str, Any]]:
    how: dict[str, Any] = {"labels": labels, "real_label": real}
    how |= {"n_resamples": options.n_resamples, "seed": options.seed}
    return [{"first": a, "second": b} | paired(tables[a], tables[b], **how) for a, b in combinations(tables, 2)]


def _figures(table: pd.DataFrame, labels: Sequence[str], real: str, options: EvaluationOptions) -> dict[str, Any]:
    values = metrics.table_metrics(table, labels, real)
    intervals = metrics.bootstrap(table, COMPARED, real_label=real, n_resamples=options.n_resamples, seed=options.seed)
    return with_intervals({key: values[key] for key in COMPARED}, intervals)


def run_compare_command(models: Sequence[str], data: str, out: str, options: EvaluationOptions) -> None:
    """``python -m bonaface compare``: two or more models on the same images.

    ``real_label`` and ``fake_label`` are for the models that have such a label; the others' are found by name. With
    ``split="auto"`` only images that all models may be tested on count: a model trained on this data leaves out
    what it was trained on.

    Raises:
        UsageError: fewer than two models, or as :func:`bonaface.evaluation.evaluate.run_evaluate_command`.
    """
    if len(set(models)) < 2:
        raise UsageError("compare needs at least two models", "name them one after the other: compare --data D M1 M2")
    loaded = {name: _load(name, options) for name in dict.fromkeys(models)}
    found, caveats = [], []
    for name, (detector, _) in loaded.items():
        images, notes = evaluation_data(data, options, facts=detector.facts, folder=detector.folder)
        found.append(images)
        caveats += [f"{name}: {note}" for note in notes]
    detectors = {name: detector for name, (detector, _) in loaded.items()}
    fakes = {name: labels for name, (_, labels) in loaded.items()}
    result = compare(detectors, _in_all(found).limited(options.limit), out, options, fakes=fakes, caveats=caveats)
    print(f"{conclude_comparison(result['n'], result['pairs'])}\n\nreport  {Path(out) / 'report' / 'compare.html'}")


def _in_all(found: Sequence[FaceData]) -> FaceData:
    """The first data, with only those images that are in all."""
    rows = [next(iter(data.splits.values())) for data in found]
    paths = set(rows[0]["path"]).intersection(*(part["path"] for part in rows[1:]))
    if not paths:
        raise UsageError("no image can be used for all of these models", "choose data that none was trained on")
    kept = rows[0].select([i for i, path in enumerate(rows[0]["path"]) if path in paths])
    return found[0].with_splits({next(iter(found[0].splits)): kept})


def _load(name: str, options: EvaluationOptions) -> tuple[Detector, list[str]]:
    """A label that only another of the models has is left out for this one."""
    try:
        return load_detector(name, options)
    except UsageError:
        if options.real_label is None and options.fake_label is None:
            raise
        return load_detector(name, replace(options, real_label=None, fake_label=None))
