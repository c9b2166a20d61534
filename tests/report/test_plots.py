"""Images hold what they should, never fail on odd data, and treat labels as text; both themes can be read."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from bonaface.report import fold_plots, plots, style
from bonaface.stats import metrics
from bonaface.stats.predictions import predictions_frame

HOSTILE = r"$\frac{x$ <img src=x onerror=alert(1)>" + "\x00\u202e\udcff😀"
HISTORY = [
    {"loss": 0.7, "epoch": 0.5, "step": 5},
    {"eval_loss": 0.65, "eval_accuracy": 0.6, "epoch": 1.0, "step": 10},
    {"loss": 0.5, "epoch": 1.5, "step": 15},
    {"eval_loss": 0.55, "eval_accuracy": 0.7, "epoch": 2.0, "step": 20},
    {"train_runtime": 3.0, "train_loss": 0.6, "epoch": 2.0, "step": 20},
]


def scored(n: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fake = np.arange(n) % 2 == 0
    return fake, 1 / (1 + np.exp(-rng.normal(size=n) - 2 * fake + 1))


def sources(name: str = "cam") -> pd.DataFrame:
    fake, p = scored()
    frame = predictions_frame(
        np.stack([p, 1 - p], 1), (~fake).astype(int), labels=["fake", "real"], real_label="real",
        path=[str(i) for i in range(len(p))], source=[f"{name}{i % 4}" for i in range(len(p))],
    )  # fmt: skip
    return metrics.per_source(frame, real_label="real")


def folds() -> pd.DataFrame:
    rows = [
        ("gan", 0.9, 0.85, 0.95, False),
        (HOSTILE.replace("\udcff", ""), 0.7, 0.4, 0.9, True),
        ("sd", math.nan, math.nan, math.nan, False),
    ]
    return pd.DataFrame(rows, columns=["title", "auc", "auc_low", "auc_high", "small"])


DRAWINGS: dict[str, Callable[[style.Theme], Figure]] = {
    "roc": lambda theme: plots.roc_curve({"": scored()}, theme=theme),
    "folds": lambda theme: fold_plots.fold_dots(folds(), mean=0.8, sd=0.1, theme=theme),
    "folds roc": lambda theme: fold_plots.fold_roc_curves(
        {HOSTILE: scored(), "b": scored(seed=1)}, scored(), worst=HOSTILE, theme=theme
    ),
    "roc log": lambda theme: plots.roc_curve({HOSTILE: scored(), "b": scored(seed=1)}, log=True, theme=theme),
    "loss": lambda theme: plots.learning_curves(
        HISTORY, {"loss": "training", "eval_loss": "validation"}, y="", theme=theme
    ),
    "confusion": lambda theme: plots.confusion_matrix(
        [[3, 1, 0], [0, 0, 0], [1, 2, 9]], ["a", HOSTILE, "c"], theme=theme
    ),
    "bars": lambda theme: plots.source_bars(sources(HOSTILE), theme=theme),
    "dots": lambda theme: plots.source_bars(sources(), value="auc", theme=theme),
    "histogram": lambda theme: plots.score_histogram(*scored(), theme=theme),
    "reliability": lambda theme: plots.reliability_diagram(metrics.reliability(*scored()), theme=theme),
    "lines": lambda theme: plots.line_chart(
        {HOSTILE: ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}, x="x", y="y", theme=theme
    ),
}


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_plot_is_drawn_on_its_paper_with_hostile_names(name: str, theme: style.Theme, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = DRAWINGS[name](theme)
        style.save_figure(figure, tmp_path / "x.png", dpi=60)
        address = style.figure_data_uri(figure)
    with Image.open(tmp_path / "x.png") as image:
        corner = image.convert("RGB").getpixel((0, 0))
        assert corner == tuple(round(255 * c) for c in to_rgb(theme.paper))
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10
    head, body = address.split(",", 1)
    assert head == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(body))
    assert root.tag.endswith("svg")
    assert not [node for node in root.iter() if node.tag.endswith("script")]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.roc_curve({"": ([True, True], [0.1, 0.2])}),
        lambda: plots.roc_curve({"": ([], [])}, log=True),
        lambda: plots.roc_curve({"": ([True, False], [0.5, 0.5])}, log=True),
        lambda: plots.learning_curves([], {"loss": "training"}, y="loss"),
        lambda: plots.source_bars(sources()[:0]),
        lambda: plots.source_bars(sources()[:0], value="auc"),
        lambda: plots.source_bars(sources().assign(auc=math.nan, auc_low=math.nan, auc_high=math.nan), value="auc"),
        lambda: plots.score_histogram([], []),
        lambda: plots.reliability_diagram(metrics.reliability([], [])),
        lambda: plots.confusion_matrix(np.zeros((2, 2)), ["a", "b"]),
        lambda: plots.confusion_matrix(np.eye(12), [str(i) for i in range(12)]),
    ],
)
def test_missing_classes_and_empty_tables_still_give_a_plot(draw: Callable[[], Figure], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.save_figure(draw(), tmp_path / "x.png", dpi=50)
    assert (tmp_path / "x.png").stat().st_size > 500


def test_the_roc_curve_is_the_roc_curve() -> None:
    fake, p = scored()
    (axis,) = plots.roc_curve({"ours": (fake, p)}).axes
    x, y = axis.lines[1].get_data()
    assert np.trapezoid(y, x) == pytest.approx(metrics.binary_figures(fake, p)["auc"])


def test_each_fold_has_its_dot_and_the_worst_curve_its_name() -> None:
    figure = fold_plots.fold_dots(folds(), mean=0.8, sd=math.nan)
    dots = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(dots[:, 0], [math.nan, 0.7, 0.9])
    figure = fold_plots.fold_roc_curves({"a": scored(), "b": scored(seed=1), "c": scored(seed=2)}, scored(), worst="b")
    _, names = figure.axes[0].get_legend_handles_labels()
    assert names == ["other folds", "worst: b", "pooled"]


def test_the_log_curve_never_promises_more_than_the_steps() -> None:
    """Between two false positives the share found is that of the lower one; a slope would invent operating points."""
    (axis,) = plots.roc_curve({"": ([True, True, False, False], [0.9, 0.4, 0.6, 0.1])}, log=True).axes
    x, y = axis.lines[1].get_data()
    assert max(y[np.asarray(x) < 0.5]) == 0.5
    assert ((np.diff(x) == 0) | (np.diff(y) == 0)).all()


def test_learning_curves_hold_the_logged_points_and_stages_follow_each_other() -> None:
    stages = [*HISTORY, {"eval_loss": 0.4, "epoch": 1.0, "step": 10}]
    (axis,) = plots.learning_curves(stages, {"loss": "training", "eval_loss": "validation"}, y="loss").axes
    training, validation = axis.lines
    assert training.get_xydata().tolist() == [[0.5, 0.7], [1.5, 0.5]]
    assert validation.get_xydata().tolist() == [[1.0, 0.65], [2.0, 0.55], [3.0, 0.4]]


def test_text_is_cleaned_for_any_font_and_file() -> None:
    assert style.clean_text("a\x00b\nc\u202ed") == "a b c d"
    assert style.clean_text("\U0010ffff") == "\ufffd"
    assert style.clean_text("x" * 40) == "x" * 27 + "…"
    assert style.clean_text(" €_$x$ ") == "€_$x$"


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_contrast_meets_wcag(theme: style.Theme) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for the marks that carry meaning."""
    for colours, least in (((theme.ink, theme.faint), 4.5), ((theme.real, theme.fake, *theme.cycle), 3.0)):
        for colour in colours:
            low, high = sorted([luminance(colour), luminance(theme.paper)])
            assert (high + 0.05) / (low + 0.05) >= least, colour


def test_a_plot_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nope"):
        style.save_figure(Figure(), tmp_path / "x.nope")
    assert list(tmp_path.iterdir()) == []


def test_no_global_state_is_touched() -> None:
    """The app draws from several threads: nothing may be registered with pyplot."""
    import matplotlib.pyplot as plt

    plots.roc_curve({"": scored()})
    assert plt.get_fignums() == []
