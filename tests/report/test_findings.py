"""The report's words: what was seen in training, what is weak, what cannot be said; no praise for guessing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bonaface.models.drawings import FAKE, MEANING, REAL
from bonaface.models.facts import HardestSource, UnseenWorth
from bonaface.report import findings
from bonaface.stats import metrics
from bonaface.stats.predictions import predictions_frame

LABELS = ["fake", "real"]


def predictions(n: int = 240, shift: float = 2.0, seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    p = 1 / (1 + np.exp(-rng.normal(size=n) - shift * (0.5 - truth)))
    columns = {"source": [f"{LABELS[t]}-{i // 2 % 2}" for i, t in enumerate(truth)], "split": "test"} | columns
    return predictions_frame(
        np.stack([p, 1 - p], 1), truth, labels=LABELS, real_label="real", path=[str(i) for i in range(n)], **columns
    )


def words(frame: pd.DataFrame, **facts: Any) -> tuple[str, str]:
    """The conclusion and the caveats of a table's test split."""
    rows = frame[frame["split"] == "test"]
    figures = metrics.table_metrics(rows, LABELS, "real")
    intervals = metrics.bootstrap(rows, real_label="real", n_resamples=100)
    sources = metrics.per_source(rows, real_label="real")
    seen = findings.sources_seen(frame, rows, facts)
    summary = metrics.source_summary(sources)
    conclusion = findings.conclude("test", figures, intervals, sources, summary, seen)
    return conclusion, " ".join(findings.list_caveats(figures, sources, seen, facts))


@pytest.mark.parametrize(
    ("trained", "expected", "caveat"),
    [
        (["fake-0", "fake-1", "real-0", "real-1"], "These figures say nothing about unseen generators.", True),
        (["fake-0", "real-0"], "of which only some are in its training data", False),
        (["other"], "outside its training data", False),
        (None, "not recorded", False),
    ],
)
def test_it_says_whether_the_sources_were_seen(trained: list[str] | None, expected: str, caveat: bool) -> None:
    conclusion, caveats = words(predictions(), **({} if trained is None else {"train_sources": trained}))
    assert expected in conclusion
    assert ("same sources" in caveats) == caveat


def test_the_train_split_tells_which_sources_were_seen() -> None:
    frame = predictions(split=["train" if i // 4 % 2 else "test" for i in range(240)])
    assert "On 120 test images from 4 sources in its training data," in words(frame)[0]
    unnamed = predictions(source="", split=["train" if i // 4 % 2 else "test" for i in range(240)])
    assert "not recorded" in words(unnamed)[0]


def test_the_figures_in_the_words_are_the_figures() -> None:
    frame = predictions()
    figures = metrics.table_metrics(frame, LABELS, "real")
    low, high = metrics.bootstrap(frame, ["auc"], real_label="real", n_resamples=100)["auc"]
    conclusion, _ = words(frame)
    assert f"separates real from AI-generated images with AUC {figures['auc']:.2f} ({low:.2f}–{high:.2f})" in conclusion
    assert f"finds {100 * figures['recall']:.1f}\N{NO-BREAK SPACE}% of the fakes" in conclusion
    assert f"calls {100 * figures['fpr']:.1f}\N{NO-BREAK SPACE}% of the real images fake" in conclusion
    table = metrics.per_source(frame, real_label="real")
    worst = table[~table["is_real"]].sort_values("auc").iloc[0]
    assert f"from {worst['source']}: AUC {worst['auc']:.2f}" in conclusion


def test_guessing_is_not_praised_and_a_wrong_order_is_named() -> None:
    assert "cannot be shown to separate real from AI-generated images" in words(predictions(shift=0.0))[0]
    assert "the wrong way round" in words(predictions(shift=-2.0))[0]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (math.nan, math.nan, "AUC 0.70, on too few images per source for an interval"),
        (0.501, 0.9, "separates real from AI-generated images with AUC 0.70"),
        (0.5, 0.9, "cannot be shown to separate"),
        (0.1, 0.5, "cannot be shown to separate"),
        (0.1, 0.499, "the wrong way round"),
    ],
)
def test_an_interval_that_reaches_a_half_proves_nothing(low: float, high: float, verdict: str) -> None:
    frame = predictions()
    figures = metrics.table_metrics(frame, LABELS, "real") | {"auc": 0.7}
    sources = metrics.per_source(frame, real_label="real")
    summary = metrics.source_summary(sources)
    conclusion = findings.conclude("", figures, {"auc": findings.Interval(low, high)}, sources, summary, "unknown")
    assert conclusion.startswith("On 240 images the detector ")
    assert verdict in conclusion


@pytest.mark.parametrize(("n_real", "rough"), [(0, False), (1, True), (298, True), (299, False)])
def test_as_many_real_images_as_one_percent_takes_are_not_called_few(n_real: int, rough: bool) -> None:
    figures = metrics.table_metrics(predictions(), LABELS, "real") | {"n_real": n_real}
    caveats = findings.list_caveats(figures, metrics.per_source(predictions(), real_label="real"), "none", {})
    assert any("cannot be certified" in caveat for caveat in caveats) == rough


def test_one_class_and_no_images_are_said() -> None:
    frame = predictions()
    assert "There were no AI-generated images" in words(frame[frame["label"] == "real"])[0]
    assert "There were no real images" in words(frame[frame["label"] == "fake"])[0]
    assert "No image was scored" in words(frame[:0])[0]


def test_caveats_name_small_samples_broken_files_and_the_audit() -> None:
    _, caveats = words(
        predictions(80),
        broken=[{"path": "x.jpg"}],
        audit={"verdict": "File size alone separates them."},
        caveats=["Made by us."],
    )
    for part in ("Made by us.", "40 real images", "4 of 4 sources", "File size alone", "1 file could not be read"):
        assert part in caveats
    assert "could not be read" not in words(predictions(80))[1]


UNSEEN = UnseenWorth(n=200, folds=4, ece_before=0.08, ece=0.02, coverage=0.875, wrong=0.031, hardest=None)


@pytest.mark.parametrize(
    ("unseen", "parts", "absent"),
    [
        (
            {},
            [
                "4 folds",
                "87.5\N{NO-BREAK SPACE}% of the images, of which 3.1\N{NO-BREAK SPACE}% were wrong",
                "0.020 (0.080 before)",
            ],
            "worst on",
        ),
        ({"wrong": None}, ["it gave no verdict at all"], "worst on"),
        (
            {"hardest": HardestSource("gan", "fake", 50, 0.25)},
            ["worst on gan (fake), where 25.0\N{NO-BREAK SPACE}%"],
            "no verdict",
        ),
        ({"hardest": HardestSource("gan", "fake", 50, 0.0)}, ["87.5\N{NO-BREAK SPACE}%"], "worst on"),
    ],
)
def test_calibration_on_unseen_sources_in_words(unseen: dict[str, Any], parts: list[str], absent: str) -> None:
    words = findings.worth_in_words(replace(UNSEEN, **unseen))
    assert all(part in words for part in parts), words
    assert absent not in words


def test_without_calibration_on_unseen_sources_nothing_is_said_of_it() -> None:
    assert findings.worth_in_words(None) == ""


@pytest.mark.parametrize("trained", [[*REAL, *FAKE], ["cam", "gan"], []])
def test_a_detector_of_drawings_says_so_before_all_else(trained: list[str]) -> None:
    _, caveats = words(predictions(), train_sources=trained, caveats=["Made by us."])
    assert caveats.startswith(MEANING) == (trained == [*REAL, *FAKE])


@pytest.mark.parametrize(
    ("trained", "one", "two"),
    [
        (["gan", "sd"], " from a source in its training data, the", " from 2 sources in its training data, the"),
        (["x"], " from a source outside its training data, the", " from 2 sources outside its training data, the"),
    ],
)
def test_one_source_and_several_are_counted_and_only_one_of_several_is_the_hardest(
    trained: list[str], one: str, two: str
) -> None:
    single, several = (
        words(
            predictions(source=[names[t][i // 2 % 2] for i, t in enumerate(np.arange(240) % 2)]), train_sources=trained
        )
        for names in ((["gan", "gan"], ["gan", "gan"]), (["gan", "sd"], ["gan", "gan"]))
    )
    assert one in single[0]
    assert two in several[0]
    assert "hardest fakes" not in single[0]
    assert "hardest fakes" in several[0]


@pytest.mark.parametrize(("n", "small"), [(49, True), (50, False)])
def test_a_source_that_is_large_enough_to_be_the_worst_is_not_called_small(n: int, small: bool) -> None:
    figures = metrics.table_metrics(predictions(), LABELS, "real")
    sources = metrics.per_source(predictions(), real_label="real").assign(n=n)
    assert any("mostly noise" in caveat for caveat in findings.list_caveats(figures, sources, "none", {})) == small
