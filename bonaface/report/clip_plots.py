"""Plots of clips: the scores of persons over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bonaface.report.style import LIGHT, Theme, canvas, curve_colours, legend, name_axes

WIDE, LOW = 7.2, 3.2  # inches: time runs to the right


def score_timeline(
    persons: Mapping[str, tuple[Sequence[float], Sequence[float], float]],
    duration: float,
    band: tuple[float, float] | None,
    *,
    theme: Theme = LIGHT,
) -> Figure:
    """Scores over a clip: a dot for each frame, a line at each person's own score, and the band's edges.

    Args:
        persons: name -> (seconds, p_fake of the frames, p_fake of the person).
        duration: of the clip in seconds.
        band: up to the first is real, from the second on fake.
        theme: light or dark.
    """
    figure, (axis,) = canvas(theme, WIDE, LOW)
    if band is not None:
        axis.axhspan(-0.03, band[0], color=theme.real, alpha=0.1, linewidth=0)
        axis.axhspan(band[1], 1.03, color=theme.fake, alpha=0.1, linewidth=0)
    for (name, (times, scores, score)), colour in zip(persons.items(), curve_colours(theme, len(persons)), strict=True):
        axis.plot(times, scores, "o", color=colour, markersize=4, alpha=0.8, label=name)
        axis.hlines(score, min(times), max(max(times), min(times) + duration / 100), color=colour, linewidth=2.2)
    axis.set_xlim(-duration / 50, max(duration * 1.02, 1e-3))
    axis.set_ylim(-0.03, 1.03)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    name_axes(axis, theme, "time", "score for fake")
    legend(figure, theme)
    return figure


def clock(seconds: float) -> str:
    """``1:02:03``, ``2:03``, or ``4.5 s`` below ten seconds."""
    if 0 <= seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
