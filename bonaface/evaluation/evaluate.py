"""A detector on the images of a data set: every figure with its interval, by source, clean and degraded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from bonaface.data.dataset import FaceData
from bonaface.data.rows import BrokenFile, left_out
from bonaface.errors import UsageError
from bonaface.evaluation.data import align, evaluation_data, load_detector, predictions_of, shared_labels, with_labels
from bonaface.evaluation.options import EvaluationOptions
from bonaface.evaluation.resemblance import resembles_section
from bonaface.evaluation.robustness import (
    all_variants,
    robustness_lead,
    robustness_remark,
    robustness_section,
    robustness_table,
)
from bonaface.evaluation.scores import CLEAN, Scored, Variant, score_images
from bonaface.evaluation.sections import (
    calibration_section,
    coverage_section,
    dataset_section,
    decision_rows,
    threshold_section,
    unfamiliar_section,
)
from bonaface.imaging.faces import FaceDetector
from bonaface.inference.detector import Detector
from bonaface.inference.engines import TorchEngine
from bonaface.inference.explain import explain
from bonaface.models.facts import ModelFacts
from bonaface.report.pages import Block, Section
from bonaface.report.sections import DrawHeatMap, uncertain_sections
from bonaface.report.write import headline_rows, write_report
from bonaface.stats.certificates import Band, verdicts
from bonaface.stats.figures import percent

FloatArray = NDArray[np.float64]
EVALUATED = ("validation", "calibration", "test")


def evaluate(
    detector: Detector,
    data: FaceData,
    out: str | Path,
    options: EvaluationOptions,
    *,
    splits: Sequence[str] | None = None,
    fakes: Sequence[str] | None = None,
    heat_map: DrawHeatMap | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a data set, write ``out/report`` (see :func:`write.write_report`) and return its metrics.json.

    Args:
        splits: those scored, by default all of validation, calibration and test that there are (or the only one).
            Degradations, decisions and errors are of the one that the report speaks about: the test.
        fakes: the model's labels that count as fake (see :func:`load_detector`).
        heat_map: draws what the score of an image depends on, for the galleries; see :func:`heat_map_overlays`.
        history, details: of the training, as in ``write_report``.
    """
    started = time.monotonic()
    fakes = fakes or [label for label in detector.labels if label != detector.real_label]
    data = with_labels(data, shared_labels(data, [detector])[0])
    heat_map = heat_map or heat_map_overlays(detector)
    finder = FaceDetector(options.yunet) if options.faces else None
    names = splits or [name for name in data.splits if name in EVALUATED] or list(data.splits)
    headline = headline_rows(pd.DataFrame({"split": names}))[0]
    judged = {name: _judge(detector, data, name, fakes, options, finder, headline=name == headline) for name in names}
    shown = judged[headline]
    sections, lead, remarks = _findings(shown, detector, data, options.prior)
    sections += uncertain_sections(shown.table, data.load_image, heat_map, _middle(detector.facts.band))
    sections.append(coverage_section(len(shown.table), [*data.broken, *shown.broken], shown.faceless))
    broken = [*data.broken, *(file for split in judged.values() for file in split.broken)]
    minutes = round((time.monotonic() - started) / 60, 2)
    return write_report(
        Path(out),
        pd.concat([split.table for split in judged.values()], ignore_index=True),
        labels=data.labels,
        real_label=data.real_label,
        history=history,
        details=dict(details or {}) | {"broken": [asdict(file) for file in broken], "minutes_of_scoring": minutes},
        sections=sections,
        lead=lead,
        remarks=remarks,
        load_thumbnail=data.load_image,
        heat_map=heat_map,
        n_resamples=options.n_resamples,
        seed=options.seed,
    )


@dataclass(frozen=True)
class _JudgedSplit:
    table: pd.DataFrame  # predictions
    scores: FloatArray  # (n, variants, classes)
    variants: Sequence[Variant]
    broken: list[BrokenFile]
    faceless: list[str] | None  # paths; None if no face was looked for


def _judge(
    detector: Detector,
    data: FaceData,
    split: str,
    fakes: Sequence[str],
    options: EvaluationOptions,
    finder: FaceDetector | None,
    *,
    headline: bool,
) -> _JudgedSplit:
    """Score a split; the one of the headline also under degradation and for faces."""
    rows = data.splits[split]
    variants = all_variants(options.quick) if headline and options.robustness else [CLEAN]
    has_face = (lambda image: bool(finder.detect(image))) if headline and finder else None
    scored = score_images(
        rows,
        [detector],
        variants=variants,
        has_face=has_face,
        batch_size=options.batch_size,
        threads=options.threads,
        title=f"scoring {split}".strip(),
    )
    refuse_unread(data, split, scored)
    scores = align(scored.probabilities[0][scored.readable], detector, fakes, data.labels, data.real_label)
    table = predictions_of(rows.select(scored.readable), scores[:, 0], data, split)
    return _JudgedSplit(
        _with_verdicts(table, detector, scored),
        scores,
        variants,
        unreadable(data, split, scored),
        sorted(rows[i]["path"] for i in scored.faceless) if has_face else None,
    )


def _findings(
    shown: _JudgedSplit, detector: Detector, data: FaceData, prior: float
) -> tuple[list[Section], list[Block], list[str]]:
    """Sections, plots and sentences of one split."""
    rows, scores, facts = shown.table, shown.scores, detector.facts
    fake = (rows["label"] != data.real_label).to_numpy()
    decisions = decision_rows(rows, data.real_label, facts, prior)
    sections, lead, remarks = [threshold_section(decisions, facts, prior)], [], [_band_remark(decisions, facts)]
    if len(shown.variants) > 1 and len(rows):
        table = robustness_table(fake, scores, shown.variants, real_index=data.real_index, facts=facts)
        sections.append(robustness_section(table))
        lead, remarks = robustness_lead(table), [*remarks, robustness_remark(table)]
    sections.append(calibration_section(fake, scores[:, 0], data.real_index, facts.calibration, scores[:, 1:]))
    if "distance" in rows and facts.unfamiliar is not None:
        sections.append(unfamiliar_section(rows, facts.unfamiliar))
    if "nearest_source" in rows and facts.resembles is not None and fake.any():
        sections.append(resembles_section(rows[fake], facts.resembles, facts.trained_on))
    if "dataset" in rows:
        sections.insert(0, dataset_section(rows, data.labels, data.real_label))
    return sections, lead, remarks


def heat_map_overlays(detector: Detector) -> DrawHeatMap | None:
    """What the score of an image depends on, drawn over it; None for a network that does not run in torch."""
    if not isinstance(detector.engine, TorchEngine):
        return None

    def draw(image: Image.Image) -> Image.Image:
        return explain(detector, image, faces=False, test=False).overlay()

    return draw


def unreadable(data: FaceData, split: str, scored: Scored) -> list[BrokenFile]:
    """The files of a split that could not be scored."""
    found = []
    for i, reason in sorted(scored.errors.items()):
        row = data.splits[split][i]
        found.append(BrokenFile(row["path"], reason, data.labels[row["label"]], row["source"]))
    return found


def refuse_unread(data: FaceData, split: str, scored: Scored) -> None:
    """Raise UsageError where not one file of a split could be scored."""
    if not len(scored.readable):
        broken = [*unreadable(data, split, scored), *data.broken]
        raise UsageError(f"no image in {data.origin} could be read: {left_out(broken)}", "fix or replace these files")


def _with_verdicts(predictions: pd.DataFrame, detector: Detector, scored: Scored) -> pd.DataFrame:
    """The predictions table with ``distance``, ``nearest_…`` and ``verdict``, if the model provides them."""
    features, band = scored.features[0], detector.facts.band
    if detector.unfamiliar is not None and features is not None:
        predictions["distance"] = detector.unfamiliar.distance(features[scored.readable])
    if detector.resembles is not None and features is not None:
        distances = detector.resembles.distances(features[scored.readable])
        predictions["nearest_source"] = np.array(detector.resembles.names, dtype=object)[distances.argmin(axis=1)]
        predictions["nearest_distance"] = distances.min(axis=1)
    if band is not None:
        called = verdicts(predictions["p_fake"], band)
        if "distance" in predictions:
            assert detector.unfamiliar is not None
            called = np.where(predictions["distance"] > detector.unfamiliar.threshold, "uncertain", called)
        predictions["verdict"] = called
    return predictions


def _middle(band: Band | None) -> float:
    return float(np.clip((band.low + band.high) / 2, 0, 1)) if band else 0.5


def _band_remark(decisions: pd.DataFrame, facts: ModelFacts) -> str:
    row = decisions.iloc[-1]
    if (
        facts.band is None
        or row["rule"] != "band"
        or not np.isfinite([row["fpr"], row["missed"], row["uncertain"]]).all()
    ):
        return ""
    low, high = facts.band.low, facts.band.high
    reasons = [f"scores from {low:.2f} to {high:.2f}"] if round(low, 2) < round(high, 2) else []
    reasons += ["images unlike the training data"] if facts.unfamiliar else []
    where = f" ({' and '.join(reasons)})" if reasons else ""
    return (
        f"By its uncertainty band, it gives no verdict on {percent(row['uncertain'])} of the images{where}, calls "
        f"{percent(row['fpr'])} of the real ones fake and {percent(row['missed'])} of the fakes real."
    )


def run_evaluate_command(model: str, data: str, out: str, options: EvaluationOptions) -> None:
    """``python -m bonaface evaluate``: score, write the report, print the verdict.

    Raises:
        UsageError: as :func:`load_detector` and :func:`evaluation_data`.
    """
    detector, fakes = load_detector(model, options)
    images, caveats = evaluation_data(data, options, facts=detector.facts, folder=detector.folder)
    if images.units:
        print(f"folders: {images.units}")
    details: dict[str, Any] = {"title": f"{Path(model).name or model} on {images.origin}", "model": model, "data": data}
    details["caveats"] = caveats
    if trained := detector.facts.trained_on:
        details["train_sources"] = trained
    metrics = evaluate(detector, images.limited(options.limit), out, options, fakes=fakes, details=details)
    print(f"{metrics['conclusion']}\n\nreport  {Path(out) / 'report' / 'report.html'}")
