"""Plots of a cross-validation's folds; see :mod:`bonaface.report.plots`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from bonaface.report.style import LIGHT, Theme, canvas, clean_text, legend, name_axes


def fold_dots(folds: pd.DataFrame, *, mean: float, sd: float, theme: Theme = LIGHT) -> Figure:
    """AUC of each fold with its 95 % interval, and the mean with one standard deviation to either side.

    ``folds`` has the columns ``title``, ``auc``, ``auc_low``, ``auc_high`` and ``small`` (bool: too few images to judge
    by, drawn hollow).
    """
    rows = folds.iloc[::-1]
    figure, (axis,) = canvas(theme, height=max(1.9, 0.34 * len(rows) + 1.1))
    places, colour = np.arange(len(rows)), theme.cycle[0]
    if np.isfinite(mean):
        if np.isfinite(sd):
            axis.axvspan(mean - sd, min(mean + sd, 1), color=theme.faint, alpha=0.14, linewidth=0)
        axis.axvline(mean, color=theme.faint, linewidth=1, linestyle=(0, (3, 3)))
    axis.hlines(places, rows["auc_low"].to_numpy(float), rows["auc_high"].to_numpy(float), colors=colour, linewidth=1.6)
    fill = [theme.paper if small else colour for small in rows["small"]]
    axis.scatter(rows["auc"].to_numpy(float), places, c=fill, edgecolors=colour, linewidths=1.4, s=36, zorder=3)
    least = np.nanmin([*rows["auc_low"].to_numpy(float), 0.9])
    axis.set_xlim(np.floor(10 * least) / 10, 1.005)
    axis.set_yticks(places, [clean_text(title, 36) for title in rows["title"]], parse_math=False, color=theme.ink)
    axis.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    axis.grid(False, axis="y")
    name_axes(axis, theme, "AUC of the fold")
    return figure


def fold_roc_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    pooled: tuple[ArrayLike, ArrayLike],
    *,
    worst: str | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """ROC curves of all folds, thin, with the worst one and the pooled one named; as in :func:`roc_curve`."""
    figure, (axis,) = canvas(theme)
    axis.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (3, 3)))
    others = [name for name in curves if name != worst]
    lines = [(curves[name], theme.faint, 0.9, "other folds" if worst else "folds") for name in others]
    if worst is not None:
        lines.append((curves[worst], theme.cycle[1], 1.8, f"worst: {clean_text(worst, 36)}"))
    lines.append((pooled, theme.cycle[0], 2.2, "pooled"))
    named: set[str] = set()
    for (truth, p_fake), colour, width, name in lines:
        fake = np.asarray(truth, dtype=bool)
        if fake.all() or not fake.any():
            continue
        fpr, tpr, _ = sk.roc_curve(fake, np.asarray(p_fake))
        axis.plot(fpr, tpr, color=colour, linewidth=width, label=None if name in named else name)
        named.add(name)
    axis.set_ylim(0, 1.01)
    axis.set_xlim(-0.005, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    name_axes(axis, theme, "real images called fake", "fakes found")
    if named:
        legend(figure, theme)
    return figure
