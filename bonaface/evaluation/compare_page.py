"""A comparison of models in words, tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bonaface.report import plots, style
from bonaface.report.pages import Block, KeyFigure, Page, Plot, Section, Table, cell, plain
from bonaface.stats.figures import FIGURES, amount, span
from bonaface.stats.intervals import FloatArray, Interval

COMPARED = ("auc", "accuracy", "recall", "fpr", "tpr_at_1pct_fpr", "eer", "brier", "ece")


def conclude_comparison(n: int, pairs: Sequence[Mapping[str, Any]]) -> str:
    """The conclusion in words: which of two models ranks better, and whether that could be chance."""
    sentences = [f"On the same {n:,} images:"]
    for pair in pairs:
        auc, accuracy = pair["auc"], pair["accuracy"]
        first, second = plain(pair["first"]), plain(pair["second"])
        if not np.isfinite(auc["difference"]):
            sentences.append(f"{first} and {second} cannot be compared by AUC, which needs real and fake images.")
            continue
        better, worse = (first, second) if auc["difference"] >= 0 else (second, first)
        size = (
            f"AUC {max(auc['auc_first'], auc['auc_second']):.3f} against {min(auc['auc_first'], auc['auc_second']):.3f}"
        )
        test = f"DeLong’s test p = {cell(auc['p_value'])}"
        if auc["p_value"] < 0.05:
            sentences.append(f"{better} ranks better than {worse}: {size} ({test}).")
        else:
            sentences.append(f"no difference in ranking can be shown between {first} and {second}: {size} ({test}).")
        sentences.append(
            f"Only {first} is right on {accuracy['only_first']:,}, only {second} on {accuracy['only_second']:,} "
            f"(McNemar’s test p = {cell(accuracy['p_value'])})."
        )
    return " ".join(sentences)


def comparison_page(
    origin: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    degraded: Mapping[str, pd.DataFrame],
    caveats: Sequence[str],
    real: str,
) -> Page:
    """The page of models compared on the same images."""
    curves = {
        name: ((table["label"] != real).to_numpy(), table["p_fake"].to_numpy(float)) for name, table in tables.items()
    }
    lead: list[Block] = [
        Plot("compare_roc", "Fakes found against false positives.", lambda theme: plots.roc_curve(curves, theme=theme)),
        Plot(
            "compare_roc_log",
            "The same with a logarithmic false-positive rate.",
            lambda theme: plots.roc_curve(curves, log=True, theme=theme),
        ),
    ]
    models = pd.DataFrame([{"model": name} | _cells(row, COMPARED) for name, row in figures.items()])
    sections = [
        Section("models", "Models", ["Figures with 95 % bootstrap intervals.", Table(models)], brief=True),
        Section(
            "pairs",
            "Pairs",
            [
                "First minus second on the same images, with the 95 % interval of the paired bootstrap; p-values of "
                "DeLong’s test of the AUCs and McNemar’s test of the accuracies. With many models, some p-values fall "
                "below 0.05 by chance.",
                Table(_pair_table(pairs)),
            ],
            brief=True,
        ),
    ]
    if degraded:
        sections.append(_robustness(degraded))
    n = len(next(iter(tables.values())))
    tiles = [KeyFigure(name, amount("auc", row["auc"]["value"]), _span("auc", row["auc"]), "AUC")
             for name, row in figures.items()]  # fmt: skip
    return Page("Comparison", origin, conclude_comparison(n, pairs), list(caveats), tiles, lead, sections)


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = []
    for pair in pairs:
        row = {"first": pair["first"], "second": pair["second"]}
        row |= _cells(pair["differences"], ("auc", "accuracy", "recall", "fpr"))
        rows.append(row | {"p (AUC)": pair["auc"]["p_value"], "p (accuracy)": pair["accuracy"]["p_value"]})
    return pd.DataFrame(rows)


def _span(name: str, figure: Mapping[str, float]) -> str:
    return span(name, Interval(figure["low"], figure["high"]))


def _cells(row: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> dict[str, str]:
    """Heading -> value and interval, for the figures of ``keys``."""
    return {FIGURES[key].short: f"{amount(key, row[key]['value'])} {_span(key, row[key])}".strip() for key in keys}


def _robustness(degraded: Mapping[str, pd.DataFrame]) -> Section:
    first = next(iter(degraded.values()))
    curves: list[Block] = []
    for name in [name for name in dict.fromkeys(first["degradation"]) if name]:
        part = first["degradation"].isin(["", name])
        steps = ["none", *(f"{strength:g}" for strength in first.loc[part, "strength"].iloc[1:])]
        lines = {model: (steps, table.loc[part, "auc"].to_numpy(float)) for model, table in degraded.items()}
        unit = str(first.loc[part, "unit"].iloc[-1])
        curves.append(
            Plot(
                f"compare_{name}",
                f"AUC under {name}, from mild to strong.",
                _auc_curves(lines, unit),
            )
        )
    return Section("robustness", "Under degradation", curves)


def _auc_curves(lines: Mapping[str, tuple[list[str], FloatArray]], unit: str) -> Callable[[style.Theme], Figure]:
    lowest = min(float(np.nanmin(values, initial=0.5)) for _, values in lines.values())
    return lambda theme: plots.line_chart(lines, x=unit, y="AUC", y_range=(lowest - 0.02, 1.02), theme=theme)
