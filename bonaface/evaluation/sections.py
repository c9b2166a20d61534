"""The sections that an evaluation adds to a report: decisions, calibration, unfamiliar images, coverage.

Their data, in ``metrics.json`` under ``sections``:

- ``thresholds``: rows of rule, threshold (null where it is not one number), recall, fpr (called fake by that rule),
  missed (fakes called real), uncertain, each with ``…_low`` and ``…_high`` (Clopper-Pearson), and ``share_fake`` among
  those called fake at the base rate ``prior``
- ``calibration``: the model's own ``stored`` facts; ``ece_by_chance`` (mean) and ``ece_by_chance_95`` (quantile): what
  perfectly calibrated scores would have on as many images; ``ece_before``, ``ece_after`` of the clean images and
  ``ece_degraded_before``, ``ece_degraded_after`` of all degraded ones together (null where there is none)
- ``unfamiliar``: ``threshold``, rows of source, label, seen, n, beyond (share), and ``auroc`` {value, low, high} of
  unseen against seen sources (null without both)
- ``datasets``: of a model of several data sets: rows of dataset ("all" for the whole), n, auc with ``auc_low`` and
  ``auc_high`` (DeLong), accuracy, ece
- ``coverage``: ``files``, ``scored``, ``unreadable`` (rows of path, reason, label, source), ``faceless`` (paths; null
  where no face was searched for)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bonaface.data.dataset import BrokenFile
from bonaface.inference.calibration import uncalibrated
from bonaface.inference.unfamiliar import unfamiliar_auroc
from bonaface.models.facts import Calibration, ModelFacts, UnfamiliarFacts
from bonaface.report import plots
from bonaface.report.findings import worth_in_words
from bonaface.report.pages import Block, Plot, Section, Table, cell
from bonaface.stats import metrics
from bonaface.stats.certificates import PRIOR, Band, share_fake_among_called
from bonaface.stats.figures import FIGURES, percent, span
from bonaface.stats.intervals import Interval, auc_interval, clopper_pearson
from bonaface.stats.probabilities import fake_probability

FloatArray = NDArray[np.float64]


def dataset_section(rows: pd.DataFrame, labels: Sequence[str], real_label: str) -> Section:
    """Figures of each data set, and of all together; ``rows`` has a column ``dataset``."""
    parts = {"all": rows, **{str(name): part for name, part in rows.groupby("dataset", sort=True)}}
    table = []
    for name, part in parts.items():
        figures = metrics.table_metrics(part, labels, real_label)
        auc, interval = auc_interval(part["label"] != real_label, part["p_fake"])
        bounds = {"auc": auc, "auc_low": interval.low, "auc_high": interval.high}
        table.append({"dataset": name, "n": len(part), **bounds, **{key: figures[key] for key in ("accuracy", "ece")}})
    shown = pd.DataFrame(
        {
            "data set": [row["dataset"] for row in table],
            "images": [row["n"] for row in table],
            "AUC (95 %)": [f"{cell(r['auc'])} {span('auc', Interval(r['auc_low'], r['auc_high']))}" for r in table],
            "accuracy": [row["accuracy"] for row in table],
            "ECE": [row["ece"] for row in table],
        }
    )
    text = "The test images of each data set separately and of all together, with DeLong intervals."
    return Section("datasets", "By data set", [text, Table(shown)], data=table)


def decision_rows(rows: pd.DataFrame, real_label: str, facts: ModelFacts, prior: float = PRIOR) -> pd.DataFrame:
    """Figures by decision rule: the most likely label, each certified threshold, the band as the verdicts apply it.

    ``rows`` is a predictions table with a column ``verdict`` where the model has a band.
    """
    fake, p = (rows["label"] != real_label).to_numpy(), rows["p_fake"].to_numpy(float)
    most_likely = np.where(rows["prediction"] != real_label, "fake", "real")
    rules: list[tuple[str, float | None, Any]] = [("most likely label", None, most_likely)]
    for row in facts.thresholds:
        if row.threshold is not None:
            called = np.where(p >= row.threshold, "fake", "real")
            rules.append((f"false-positive rate ≤ {percent(row.fpr, None)}", row.threshold, called))
    if "verdict" in rows:
        rules.append(("band", None, rows["verdict"].to_numpy(dtype=str)))
    table = []
    for rule, threshold, called in rules:
        entry: dict[str, Any] = {"rule": rule, "threshold": threshold}
        shares = {"recall": ("fake", fake), "fpr": ("fake", ~fake), "missed": ("real", fake)}
        shares["uncertain"] = ("uncertain", np.ones(len(fake), dtype=bool))
        for name, (verdict, among) in shares.items():
            hits, n = int((called[among] == verdict).sum()), int(among.sum())
            low, high = clopper_pearson(hits, n)
            entry |= {name: hits / n if n else np.nan, f"{name}_low": float(low), f"{name}_high": float(high)}
        entry["share_fake"] = share_fake_among_called(entry["recall"], entry["fpr"], prior)
        table.append(entry | {"prior": prior})
    return pd.DataFrame(table)


def threshold_section(table: pd.DataFrame, facts: ModelFacts, prior: float = PRIOR) -> Section:
    """The rules compared, and what each guarantees."""
    shown = pd.DataFrame({"rule": table["rule"], "threshold": table["threshold"].astype(float)})
    names = {key: FIGURES[key].short for key in ("recall", "fpr")}
    names |= {"missed": "fakes called real", "uncertain": "no verdict"}
    for key, name in names.items():
        shown[name] = [
            f"{percent(value)} {span('recall', Interval(low, high))}".strip()
            for value, low, high in zip(table[key], table[f"{key}_low"], table[f"{key}_high"], strict=True)
        ]
    shown["fakes among images called fake"] = [percent(value) for value in table["share_fake"]]
    blocks: list[Block] = [
        f"Each rule on these images, with 95 % intervals. The last column assumes that {percent(prior)} of all images "
        "are fake (the base rate); the rarer fakes are, the more of the images called fake are real.",
        Table(shown),
    ]
    if band := facts.band:
        blocks.append(
            f"The uncertainty band: scores up to {cell(band.low)} are called real, scores from {cell(band.high)} fake; "
            f"between them there is no verdict. On {judged_on(facts)}: {band.note}. This holds for images drawn like "
            "those; the table shows the result on the images of this report."
        )
        if worth := worth_in_words(facts.unseen):
            blocks.append(worth)
        if band.sources:
            blocks.append(Table(_band_sources(band), "The band on each source of the calibration images", folded=True))
    else:
        blocks.append(
            "This model has no uncertainty band: its verdict is the most likely label, without any guarantee."
        )
    if stored := facts.thresholds:
        bounds = [np.nan if row.fpr_upper is None else row.fpr_upper for row in stored]
        guarantees = pd.DataFrame(
            {
                "false-positive rate at most": [percent(row.fpr, None) for row in stored],
                "threshold": np.array([row.threshold for row in stored], dtype=float),
                "upper bound": [percent(bound) for bound in bounds],
                "guarantee": [row.note for row in stored],
            }
        )
        blocks.append(Table(guarantees, f"Thresholds, chosen on {judged_on(facts)}"))
    return Section("thresholds", "Decisions", blocks, data=table, brief=True)


def judged_on(facts: ModelFacts) -> str:
    """What thresholds and band were chosen on."""
    return facts.judged_on or "the calibration images"


def _band_sources(band: Band) -> pd.DataFrame:
    rows = pd.DataFrame(band.sources)
    return pd.DataFrame(
        {
            "source": rows["source"],
            "class": np.where(rows["is_real"].astype(bool), "real", "fake"),
            "images": rows["n"],
            "wrong verdicts": rows["errors"],
            "guarantee": [
                f"≤ {percent(band.delta, None)}" if fine else "not certifiable" for fine in rows["certified"]
            ],
        }
    )


def calibration_section(
    is_fake: NDArray[np.bool_],
    scores: FloatArray,
    real_index: int,
    calibration: Calibration | None,
    degraded: FloatArray | None = None,
) -> Section:
    """Calibration error before and after calibration, on clean and on degraded images.

    ``scores`` are probabilities (n, classes), ``degraded`` (n, variants, classes) of the same images.
    """
    sets = {"clean": (is_fake, scores)}
    if degraded is not None and degraded.shape[1]:
        sets["degraded"] = (np.repeat(is_fake, degraded.shape[1]), degraded.reshape(-1, degraded.shape[2]))
    diagrams: list[Block] = []
    values: dict[str, float | None] = {}
    for kind, (truth, probabilities) in sets.items():
        stages = {"before": uncalibrated(probabilities, calibration), "after": probabilities}
        for stage, rows in stages.items():
            name = f"ece_{stage}" if kind == "clean" else f"ece_degraded_{stage}"
            values[name] = None
            if rows is None:
                continue
            p = fake_probability(rows, real_index)
            values[name] = metrics.binary_figures(truth, p)["ece"]
            when = f" {stage} calibration" if stages["before"] is not None else ""
            if (kind, stage) != ("clean", "after"):  # that one is on the first screen
                diagrams.append(_reliability(f"reliability_{kind}_{stage}", f"{kind.capitalize()}{when}", truth, p))
    chance, most = metrics.ece_by_chance(fake_probability(scores, real_index))
    values |= {"ece_by_chance": chance, "ece_by_chance_95": most}
    blocks: list[Block] = [_ece_sentences(values, len(scores)), *diagrams]
    if calibration is not None:
        share = calibration.share_fake
        blocks.insert(
            1,
            f"Temperature {calibration.temperature:.3f} and class biases, fitted on {calibration.n:,} images outside "
            f"the training data and {'folded into its last layer' if calibration.folded else 'stored separately'}. "
            + (f"The scores assume that {percent(share)} of the images are fake, as in that set." if share else ""),
        )
    return Section("calibration", "Calibration", blocks, data={"stored": calibration, **values}, brief=True)


def _ece_sentences(values: Mapping[str, float | None], n: int) -> str:
    text = f"ECE on the clean images: {cell(values['ece_after'])}"
    if values["ece_before"] is not None:
        text += f" ({cell(values['ece_before'])} before calibration)"
    if values.get("ece_degraded_after") is not None:
        text += f"; on all degraded images together: {cell(values['ece_degraded_after'])}"
        if values["ece_degraded_before"] is not None:
            text += f" ({cell(values['ece_degraded_before'])} before)"
    return (
        f"{text}. Perfectly calibrated scores would have an ECE of {cell(values['ece_by_chance'])} on these {n:,} "
        f"images by chance, and above {cell(values['ece_by_chance_95'])} one time in twenty."
    )


def _reliability(name: str, caption: str, truth: NDArray[np.bool_], p: FloatArray) -> Plot:
    bins = metrics.reliability(truth, p)
    return Plot(name, f"Reliability: {caption}.", lambda theme: plots.reliability_diagram(bins, theme=theme))


def unfamiliar_section(rows: pd.DataFrame, stored: UnfamiliarFacts) -> Section:
    """How far each source is from the training data; ``rows`` is a predictions table with a column ``distance``."""
    trained = set(stored.sources) - {""}
    table = (
        rows.assign(beyond=rows["distance"] > stored.threshold, seen=rows["source"].isin(trained))
        .groupby(["source", "label", "seen"], sort=True)
        .agg(n=("beyond", "size"), beyond=("beyond", "mean"), median=("distance", "median"))
        .reset_index()
        .sort_values("beyond", ascending=False, kind="stable", ignore_index=True)
    )
    seen = rows["source"].isin(trained).to_numpy()
    auroc = None
    text = (
        f"The distance of an image’s features to those of training images. Beyond {stored.threshold:.3f}, an image "
        f"gets no verdict; {percent(stored.quantile)} of familiar images stay within."
    )
    if seen.any() and not seen.all():
        value, interval = unfamiliar_auroc(rows["distance"][seen], rows["distance"][~seen])
        auroc = {"value": value, "low": interval.low, "high": interval.high}
        text += f" It separates unseen from known sources with AUROC {value:.3f}"
        text += f" {span('auc', interval)}."
    shown = table.rename(columns={"seen": "in training", "n": "images", "beyond": "share beyond", "median": "distance"})
    data = {"threshold": stored.threshold, "sources": table, "auroc": auroc}
    return Section("unfamiliar", "Unlike the training data", [text, Table(shown)], data=data, brief=True)


def coverage_section(scored: int, unreadable: Sequence[BrokenFile], faceless: Sequence[str] | None) -> Section:
    """How many files were scored."""
    files = scored + len(unreadable)
    text = f"{scored:,} of {files:,} files were scored, {len(unreadable):,} could not be read."
    if faceless is None:
        text += " The images were not searched for faces."
    else:
        text += f" No face was found in {len(faceless):,} of those scored; they count like the others."
    blocks: list[Block] = [text]
    rows = [asdict(file) for file in unreadable]
    if rows:
        blocks.append(Table(pd.DataFrame(rows), f"Unreadable ({len(rows):,})", folded=True))
    if faceless:
        blocks.append(Table(pd.DataFrame({"path": list(faceless)}), f"Without a face ({len(faceless):,})", folded=True))
    data = {"files": files, "scored": scored, "unreadable": rows}
    data["faceless"] = None if faceless is None else list(faceless)
    return Section("coverage", "Coverage", blocks, data=data, brief=True)
