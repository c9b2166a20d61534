"""A figure is written the same everywhere, and no rounding makes a certainty of it."""

import math

import pytest

from bonaface.stats import figures, metrics
from bonaface.stats.intervals import Interval


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.9404, 1, "94.0 %"),
        (0.9404, 0, "94 %"),
        (0.0, 0, "0 %"),
        (0.004, 0, "under 1 %"),
        (0.996, 0, "over 99 %"),
        (0.01, 0, "1 %"),
        (0.99, 0, "99 %"),
        (1.0, 0, "100 %"),
        (0.005, None, "0.5 %"),
        (0.05, None, "5 %"),
        (None, 1, "–"),
        (math.nan, 0, "–"),
    ],
)
def test_shares_in_percent(share: float | None, digits: int | None, text: str) -> None:
    assert figures.percent(share, digits) == text.replace(" %", "\N{NO-BREAK SPACE}%")


def test_amounts_and_spans_know_which_figures_are_shares() -> None:
    assert figures.amount("recall", 0.9404) == "94.0\N{NO-BREAK SPACE}%"
    assert all(figure.is_share for figure in figures.BAND_FIGURES.values())
    assert figures.amount("auc", 0.9404) == "0.940"
    assert figures.amount("auc", float("nan")) == figures.amount("ece", None) == "–"
    assert figures.span("auc", None) == figures.span("auc", Interval(math.nan, 1)) == ""
    assert figures.span("recall", Interval(0.5, 0.75)) == "(50.0–75.0)"
    assert figures.span("brier", Interval(0.5, 0.75)) == "(0.500–0.750)"


def test_every_figure_that_is_computed_has_a_name() -> None:
    computed = metrics.all_figures([0, 1], [[0.9, 0.1], [0.2, 0.8]], labels=["real", "fake"], real_index=0)
    named = {name for name in metrics.scalars(computed) if not name.startswith("n")}
    assert named == set(figures.FIGURES)
    assert set(metrics.verdict_figures([True, False], ["fake", "real"])) <= set(figures.ALL_FIGURES)
