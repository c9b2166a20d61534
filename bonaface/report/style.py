"""How plots look: two themes, one canvas for all, and figures as files or ``data:`` addresses.

matplotlib's object interface, with no state of pyplot.
"""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bonaface.files import atomic_path

WIDTH, HEIGHT = 4.6, 3.9  # inches: text set at 9 pt stays readable when a phone shrinks the plot


@dataclass(frozen=True)
class Theme:
    """Colours of a plot: ``ink`` for text, ``faint`` for axes, ``cycle`` for curves without a class."""

    paper: str
    ink: str
    faint: str
    grid: str
    real: str
    fake: str
    cycle: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#1d2126", "#59616b", "#e4e7eb", "#0072b2", "#d55e00", ("#007f5f", "#a83c8a", "#8a6d00", "#5a5f99")
)
DARK = Theme(
    "#171a1f", "#e8eaed", "#a3abb5", "#30363d", "#56b4e9", "#f0953a", ("#3fc79a", "#df8fc1", "#d9c24a", "#a9aef0")
)


def clean_text(text: object, limit: int = 28) -> str:
    """Text that any font and file can hold: one line, unknown glyphs as U+FFFD, at most ``limit`` characters."""
    known = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    kept = []
    for character in str(text):
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp", "Cf"):
            kept.append(" ")
        else:
            kept.append(character if known.get_char_index(ord(character)) else "\ufffd")
    line = "".join(kept).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def canvas(
    theme: Theme, width: float = WIDTH, height: float = HEIGHT, rows: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    """A figure with one column of styled axes of the given relative heights, sharing x where there are several."""
    figure = Figure(figsize=(width, height), facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=list(rows))
    axes = list(grid[:, 0])
    for axis in axes:
        axis.set_facecolor(theme.paper)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(theme.grid)
        axis.tick_params(colors=theme.faint, labelsize=8.5, length=0, pad=5)
        axis.grid(color=theme.grid, linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def name_axes(axis: Axes, theme: Theme, x: str = "", y: str = "") -> None:
    """Label both axes."""
    axis.set_xlabel(x, color=theme.ink, fontsize=9)
    axis.set_ylabel(y, color=theme.ink, fontsize=9)


def legend(figure: Figure, theme: Theme) -> None:
    """A frameless legend above the axes, in as many columns as fit.

    Texts are taken literally, so a ``$`` in a name is a dollar.
    """
    handles, names = figure.axes[0].get_legend_handles_labels()
    longest = max(map(len, names), default=0)
    if len(names) == 3 and longest <= 13:
        columns = 3
    else:
        columns = 2 if len(names) <= 2 or longest <= 18 else 1
    drawn = figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        labelcolor=theme.ink,
        handlelength=1.4,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def note(axis: Axes, theme: Theme, text: str) -> None:
    """Say why there is nothing to draw."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=theme.faint, fontsize=9)


def curve_colours(theme: Theme, n: int) -> list[str]:
    """Colours of ``n`` curves that stand for no class."""
    return [theme.cycle[i % len(theme.cycle)] for i in range(n)]


def save_figure(figure: Figure, path: Path, *, dpi: int = 160) -> None:
    """Write a plot in the format of the path's suffix."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=dpi)


def figure_data_uri(figure: Figure) -> str:
    """The plot as an SVG ``data:`` address: sharp at any size, and as an image it can run no script."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
