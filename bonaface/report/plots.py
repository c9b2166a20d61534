"""The one place where figures become plots, in the style and themes of :mod:`bonaface.report.style`.

Every function returns a ``matplotlib.figure.Figure`` with one message, narrow enough to be read on a phone. Real is
blue and fake is orange everywhere, and nothing else is (Okabe and Ito's palette, which colour-blind readers can tell
apart). Labels and source names are untrusted: they are cleaned and never read as mathtext.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from bonaface.report.style import LIGHT, WIDTH, Theme, canvas, clean_text, curve_colours, legend, name_axes, note


def roc_curve(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, log: bool = False, theme: Theme = LIGHT) -> Figure:
    """ROC curves of models: name -> (is_fake bool (n,), p_fake (n,)). ``log`` spreads out low false-positive rates."""
    figure, (axis,) = canvas(theme)
    chance = np.linspace(0, 1, 500)
    axis.plot(chance, chance, color=theme.faint, linewidth=1, linestyle=(0, (3, 3)))
    smallest = 0.1
    for (name, (truth, p_fake)), colour in zip(curves.items(), curve_colours(theme, len(curves)), strict=True):
        fake = np.asarray(truth, dtype=bool)
        if fake.all() or not fake.any():
            continue
        fpr, tpr, _ = sk.roc_curve(fake, np.asarray(p_fake))
        smallest = min(smallest, 1 / (~fake).sum())
        if log:  # a step curve: what holds just below the first false positive holds down to the axis' end
            fpr, tpr = np.repeat(fpr, 2)[1:], np.repeat(tpr, 2)[:-1]
        auc = sk.roc_auc_score(fake, np.asarray(p_fake))
        axis.plot(fpr, tpr, color=colour, linewidth=2, label=f"{clean_text(name)}  AUC {auc:.3f}".strip())
        if len(curves) == 1:
            axis.fill_between(fpr, tpr, color=colour, alpha=0.08, linewidth=0)
    axis.set_ylim(0, 1.01)
    axis.set_xlim((10 ** np.floor(np.log10(smallest)), 1) if log else (-0.005, 1))
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
        axis.minorticks_off()
    else:
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    name_axes(axis, theme, "real images called fake" + (" (log scale)" if log else ""), "fakes found")
    if axis.get_legend_handles_labels()[0]:
        legend(figure, theme)
    else:
        note(axis, theme, "needs real and fake images")
    return figure


def learning_curves(
    history: Sequence[Mapping[str, Any]], names: Mapping[str, str], *, y: str, theme: Theme = LIGHT
) -> Figure:
    """Curves over epochs from a Trainer's ``log_history``: ``names`` maps a key of its entries to the curve's name.

    Stages that start again at epoch 0 are put one after the other.
    """
    figure, (axis,) = canvas(theme, height=3.3)
    epochs = _running_epochs(history)
    for (key, name), colour in zip(names.items(), curve_colours(theme, len(names)), strict=True):
        points = [
            (x, row[key]) for x, row in zip(epochs, history, strict=True) if isinstance(row.get(key), int | float)
        ]
        if points:
            marker = "o" if len(points) <= 60 else ""
            axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, marker=marker, markersize=3, label=name)
    name_axes(axis, theme, "epoch", y)
    if axis.get_legend_handles_labels()[0]:
        legend(figure, theme)
    else:
        note(axis, theme, "no data logged")
    return figure


def _running_epochs(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Epochs that never fall back: a later stage goes on where the one before it ended."""
    done, last, running = 0.0, 0.0, []
    for row in history:
        epoch = float(row.get("epoch", last))
        if epoch < last:
            done += last
        last = epoch
        running.append(done + epoch)
    return running


def confusion_matrix(matrix: ArrayLike, labels: Sequence[str], *, theme: Theme = LIGHT) -> Figure:
    """Counts (k, k), rows true and columns called; each cell also as a share of its row, which is its colour."""
    counts = np.asarray(matrix, dtype=float)
    k = len(labels)
    side = max(3.4, 0.62 * k + 1.2)
    figure, (axis,) = canvas(theme, width=max(WIDTH, side), height=side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shades = LinearSegmentedColormap.from_list("shares", [theme.paper, theme.cycle[0]])
    axis.imshow(shares, cmap=shades, vmin=0, vmax=1)
    for row in range(k):
        for column in range(k):
            share = shares[row, column]
            dark_cell = share > 0.55
            colour = ("#ffffff" if theme is LIGHT else "#0b0d10") if dark_cell else theme.ink
            text = f"{counts[row, column]:,.0f}\n{share:.0%}" if k <= 8 else f"{share:.0%}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if k <= 6 else 7)
    names = [clean_text(label, 14) for label in labels]
    axis.set_xticks(range(k), names, parse_math=False, rotation=0 if k <= 3 else 40, ha="center" if k <= 3 else "right")
    axis.set_yticks(range(k), names, parse_math=False)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    name_axes(axis, theme, "most likely label", "true label")
    return figure


def source_bars(table: pd.DataFrame, *, value: str = "called_fake", theme: Theme = LIGHT) -> Figure:
    """One row a source of ``metrics.per_source``'s table, with its 95 % interval.

    ``value``: ``called_fake`` draws the share of each source called fake as bars (reals should be near 0, fakes near
    100 %); ``auc`` draws each source's AUC against the other class as dots.
    """
    rows = table.iloc[::-1]
    figure, (axis,) = canvas(theme, height=max(1.9, 0.34 * len(rows) + 1.1))
    colours = [theme.real if real else theme.fake for real in rows["is_real"]]
    places = np.arange(len(rows))
    if value == "auc":
        values, low, high = (rows[name].to_numpy(float) for name in ("auc", "auc_low", "auc_high"))
        axis.scatter(values, places, c=colours, s=36, zorder=3, clip_on=False)
        axis.set_xlim(np.floor(10 * np.nanmin(low, initial=0.9)) / 10, 1)
    else:
        values = rows["recall"].fillna(rows["fpr"]).to_numpy(float)
        low, high = rows["rate_low"].to_numpy(float), rows["rate_high"].to_numpy(float)
        axis.barh(places, values, color=colours, height=0.62, alpha=0.9)
        axis.set_xlim(0, 1)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    strokes = colours if value == "auc" else theme.ink
    axis.hlines(places, low, high, colors=strokes, linewidth=1.6)
    names = [f"{clean_text(row.source, 22) or '(no source)'}  {row.n}" for row in rows.itertuples()]
    axis.set_yticks(places, names, parse_math=False, color=theme.ink)
    axis.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    axis.grid(False, axis="y")
    for name, colour in (("real", theme.real), ("fake", theme.fake)):
        axis.scatter([], [], c=colour, s=36, marker="s", label=name)
    name_axes(axis, theme, "AUC against all images of the other class" if value == "auc" else "share called fake")
    legend(figure, theme)
    return figure


def score_histogram(
    is_fake: ArrayLike,
    p_fake: ArrayLike,
    *,
    bins: int = 40,
    theme: Theme = LIGHT,
) -> Figure:
    """The distribution of the scores of real and of fake images over [0, 1]."""
    figure, (axis,) = canvas(theme, height=3.3)
    fake, p = np.asarray(is_fake, dtype=bool), np.asarray(p_fake, dtype=float)
    for name, colour, kept in (("real", theme.real, ~fake), ("fake", theme.fake, fake)):
        if kept.any():
            shares, edges = np.histogram(p[kept], bins=bins, range=(0, 1))
            axis.stairs(shares / kept.sum(), edges, color=colour, alpha=0.25, fill=True)
            axis.stairs(shares / kept.sum(), edges, color=colour, linewidth=1.6, label=f"{name}  {kept.sum():,}")
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    name_axes(axis, theme, "score: probability of being fake", "share of images")
    if len(p):
        legend(figure, theme)
    else:
        note(axis, theme, "no images")
    return figure


def reliability_diagram(bins: pd.DataFrame, *, theme: Theme = LIGHT) -> Figure:
    """Scores against outcomes: ``metrics.reliability``'s bins above, the number of images in each below."""
    figure, (axis, below) = canvas(theme, height=4.3, rows=(4, 1))
    axis.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (3, 3)))
    axis.vlines(bins["mean_p_fake"], bins["mean_p_fake"], bins["share_fake"], colors=theme.faint, linewidth=1)
    axis.plot(bins["mean_p_fake"], bins["share_fake"], color=theme.cycle[0], linewidth=1.8, marker="o", markersize=5)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.02, 1.02)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    name_axes(axis, theme, y="share that was fake")
    below.bar(bins["mean_p_fake"], bins["n"], width=0.045, color=theme.faint, alpha=0.6)
    below.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    name_axes(below, theme, "score: probability of being fake", "images")
    return figure


def degradation_overview(table: pd.DataFrame, *, theme: Theme = LIGHT) -> Figure:
    """One row a degradation of ``robustness.robustness_table``: AUCs as dots, mild (small) to strong (large)."""
    degraded = table[(table["degradation"] != "") & table["auc"].notna()]
    clean = float(table["auc"].iloc[0])
    order = degraded.groupby("degradation")["auc"].min().sort_values(ascending=False, kind="stable").index
    figure, (axis,) = canvas(theme, height=max(1.9, 0.27 * len(order) + 0.9))
    for place, name in enumerate(order):
        values = degraded.loc[degraded["degradation"] == name, "auc"].to_numpy(float)
        axis.hlines(place, min(*values, clean), max(*values, clean), color=theme.cycle[0], linewidth=1.4, alpha=0.5)
        axis.scatter(values, np.full(len(values), place), s=np.linspace(12, 46, len(values)), color=theme.cycle[0])
    axis.axvline(clean, color=theme.faint, linewidth=1, linestyle=(0, (3, 3)))
    axis.set_yticks(range(len(order)), [clean_text(name) for name in order], parse_math=False, color=theme.ink)
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.grid(False, axis="y")
    name_axes(axis, theme, "AUC")
    return figure


def degradation_curves(rows: pd.DataFrame, *, theme: Theme = LIGHT) -> Figure:
    """AUC, fakes found and false positives along one degradation: the undegraded row, then its strengths."""
    figure, (axis,) = canvas(theme, height=2.9)
    places = np.arange(len(rows))
    curves = (
        ("auc", "AUC", theme.cycle[0]),
        ("recall", "fakes found", theme.fake),
        ("fpr", "false positives", theme.real),
    )
    for key, name, colour in curves:
        values, low, high = (rows[column].to_numpy(float) for column in (key, f"{key}_low", f"{key}_high"))
        axis.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
        axis.plot(places, values, color=colour, linewidth=1.8, marker="o", markersize=4, label=name)
    axis.set_xticks(places, ["none", *(f"{strength:g}" for strength in rows["strength"].iloc[1:])])
    axis.set_ylim(-0.02, 1.02)
    name_axes(axis, theme, str(rows["unit"].iloc[-1]))
    legend(figure, theme)
    return figure


def line_chart(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x: str,
    y: str,
    theme: Theme = LIGHT,
    y_range: tuple[float, float] | None = None,
) -> Figure:
    """Plain named lines (x values or categories, y values), for curves of robustness and the like."""
    figure, (axis,) = canvas(theme, height=3.3)
    for (name, (across, up)), colour in zip(lines.items(), curve_colours(theme, len(lines)), strict=True):
        axis.plot(
            np.asarray(across),
            np.asarray(up),
            color=colour,
            linewidth=1.8,
            marker="o",
            markersize=3.5,
            label=clean_text(name),
        )
    if y_range:
        axis.set_ylim(*y_range)
    name_axes(axis, theme, x, y)
    if len(lines) > 1:
        legend(figure, theme)
    return figure


def fact_histogram(real: np.ndarray, fake: np.ndarray, name: str, *, theme: Theme = LIGHT) -> Figure:
    """The distribution of one number over the real and fake images, as shares of each; the outer 1 % is left out."""
    figure, (axis,) = canvas(theme, height=3.0)
    known = np.concatenate([real, fake])
    low, high = np.nanpercentile(known, (0.5, 99.5)) if np.isfinite(known).any() else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, 41)
    for label, colour, part in (("real", theme.real, real), ("fake", theme.fake, fake)):
        shares = np.histogram(part[np.isfinite(part)], edges)[0] / max(len(part), 1)
        axis.stairs(shares, edges, color=colour, alpha=0.25, fill=True)
        axis.stairs(shares, edges, color=colour, linewidth=1.6, label=label)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    name_axes(axis, theme, name, "share of images")
    legend(figure, theme)
    return figure
