"""How robust a detector is: every degradation at every strength, as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bonaface.evaluation.scores import CLEAN, Variant
from bonaface.imaging.degradations import DEGRADATIONS
from bonaface.inference.calibration import uncalibrated
from bonaface.models.facts import ModelFacts
from bonaface.report import plots
from bonaface.report.pages import Block, Plot, Section, Table
from bonaface.stats import metrics
from bonaface.stats.certificates import Band, verdicts
from bonaface.stats.figures import FIGURES, percent
from bonaface.stats.intervals import auc_interval, clopper_pearson
from bonaface.stats.probabilities import fake_probability

FloatArray = NDArray[np.float64]


def all_variants(quick: bool = False) -> list[Variant]:
    """The image itself, then every degradation at every strength; ``quick``: only mildest and strongest."""
    variants = [CLEAN]
    for degradation in DEGRADATIONS.values():
        strengths = degradation.strengths
        variants += [Variant(degradation.name, s) for s in ((strengths[0], strengths[-1]) if quick else strengths)]
    return variants


def robustness_table(
    is_fake: NDArray[np.bool_],
    scores: FloatArray,
    variants: Sequence[Variant],
    *,
    real_index: int,
    facts: ModelFacts,
) -> pd.DataFrame:
    """One row per variant: ``scores`` are probabilities (n, variants, classes) of n images, ``is_fake`` bool (n,).

    Columns: ``degradation`` ("" for the image itself), ``strength``, ``unit``; ``auc``, ``auc_low``, ``auc_high``
    (DeLong); ``recall`` and ``fpr`` by the most likely label with their Clopper-Pearson bounds ``…_low``, ``…_high``;
    ``ece`` and ``ece_before`` (without calibration); ``uncertain`` (share inside the stored band), ``missed`` (share
    of fakes called real by the band) and ``accused`` (share of reals called fake by it). NaN where not defined.
    """
    rows = []
    for place, variant in enumerate(variants):
        probabilities = scores[:, place]
        p = fake_probability(probabilities, real_index)
        called = probabilities.argmax(axis=1) != real_index
        auc, (auc_low, auc_high) = auc_interval(is_fake, p)
        unit = DEGRADATIONS[variant.degradation].unit if variant.degradation else ""
        row: dict[str, Any] = {"degradation": variant.degradation, "strength": variant.strength, "unit": unit}
        row |= {"auc": auc, "auc_low": auc_low, "auc_high": auc_high}
        for name, among in (("recall", is_fake), ("fpr", ~is_fake)):
            hits, n = int(called[among].sum()), int(among.sum())
            low, high = clopper_pearson(hits, n)
            row |= {name: hits / n if n else np.nan, f"{name}_low": float(low), f"{name}_high": float(high)}
        row["ece"] = metrics.binary_figures(is_fake, p)["ece"]
        before = uncalibrated(probabilities, facts.calibration)
        row["ece_before"] = (
            np.nan if before is None else metrics.binary_figures(is_fake, fake_probability(before, real_index))["ece"]
        )
        rows.append(row | _by_band(is_fake, p, facts.band))
    return pd.DataFrame(rows)


def _by_band(is_fake: NDArray[np.bool_], p: FloatArray, band: Band | None) -> dict[str, float]:
    if band is None:
        return dict.fromkeys(("uncertain", "missed", "accused"), np.nan)
    called = verdicts(p, band)

    def share(verdict: str, among: NDArray[np.bool_]) -> float:
        return float((called[among] == verdict).mean()) if among.any() else np.nan

    everything = np.ones(len(p), dtype=bool)
    return {
        "uncertain": share("uncertain", everything),
        "missed": share("real", is_fake),
        "accused": share("fake", ~is_fake),
    }


def worst_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Each degradation's row with the lowest AUC, worst first."""
    degraded = table[(table["degradation"] != "") & table["auc"].notna()]
    worst = degraded.loc[degraded.groupby("degradation")["auc"].idxmin()]
    return worst.sort_values("auc", kind="stable", ignore_index=True)


def robustness_remark(table: pd.DataFrame) -> str:
    """What lowers the AUC most and what raises false positives most, in words; empty without figures."""
    worst = worst_rows(table)
    if worst.empty:
        return ""
    clean, row = table.iloc[0], worst.iloc[0]
    harm = "No degradation changes its AUC much."
    if row["auc"] < clean["auc"] - 0.005:
        harm = (
            f"The degradation that lowers its AUC most is {describe(row)}: {row['auc']:.2f} instead of "
            f"{clean['auc']:.2f}."
        )
    worst_fpr = table.iloc[int(table["fpr"].argmax())]
    if worst_fpr["fpr"] > clean["fpr"] + 0.02:
        harm += f" Under {describe(worst_fpr)}, it calls {percent(worst_fpr['fpr'])} of the real images fake."
    return harm


def describe(row: Mapping[str, Any] | pd.Series) -> str:
    """A degradation in words: ``jpeg (JPEG quality 30)``."""
    return f"{row['degradation']} ({row['unit']} {row['strength']:g})" if row["degradation"] else "none"


def robustness_lead(table: pd.DataFrame) -> list[Block]:
    """The first screen's plot."""
    if worst_rows(table).empty:
        return []
    return [
        Plot(
            "robustness",
            "AUC under each degradation, from mild (small dot) to strong (large dot); the line is the undegraded AUC.",
            lambda theme: plots.degradation_overview(table, theme=theme),
        )
    ]


def robustness_section(table: pd.DataFrame) -> Section:
    """Curves for each degradation, and the table."""
    names = [name for name in dict.fromkeys(table["degradation"]) if name]
    blocks: list[Block] = [
        "Every image is degraded before the detector’s own preprocessing and scored again. Strengths go from mild to "
        "strong; “none” is the image itself. Fakes found and false positives are by the most likely label, with 95 % "
        "intervals."
    ]
    for name in names:
        part = table[table["degradation"].isin(["", name])]
        blocks.append(
            Plot(
                f"robust_{name}",
                f"{name.capitalize()}, by {part['unit'].iloc[-1]}.",
                lambda theme, part=part: plots.degradation_curves(part, theme=theme),  # type: ignore[misc]
            )
        )
    shown = table[["auc", "recall", "fpr", "ece", "uncertain"]].dropna(axis=1, how="all")
    shown.insert(0, "strength", [f"{r.unit} {r.strength:g}" if r.degradation else "" for r in table.itertuples()])
    shown.insert(0, "degradation", table["degradation"].replace("", "none"))
    names_shown = {key: FIGURES[key].short for key in ("auc", "recall", "fpr", "ece")}
    blocks.append(Table(shown.rename(columns=names_shown), f"All degradations ({len(table) - 1})", folded=True))
    worst = worst_rows(table)
    worst_table = pd.DataFrame(
        {
            "degradation": [describe(row) for _, row in worst.iterrows()],
            "AUC": worst["auc"],
            "change": worst["auc"] - table["auc"].iloc[0],
            "fakes found": worst["recall"],
            FIGURES["fpr"].short: worst["fpr"],
        }
    )
    blocks.insert(1, Table(worst_table, "Each degradation at its worst strength"))
    return Section("robustness", "Under degradation", blocks, data=table, brief=True)
