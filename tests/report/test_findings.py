"""The report's words: what was seen in training, what is weak, what cannot be said; never praise for a coin's throw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bonaface.report import findings
from bonaface.stats import metrics

LABELS = ["fake", "real"]


def predictions(n: int = 240, shift: float = 2.0, seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    p = 1 / (1 + np.exp(-rng.normal(size=n) - shift * (0.5 - truth)))
    columns = {"source": [f"{LABELS[t]}-{i // 2 % 2}" for i, t in enumerate(truth)], "split": "test"} | columns
    return metrics.predictions_frame(
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
        (["fake-0", "fake-1", "real-0", "real-1"], "It says nothing about generators it never saw.", True),
        (["fake-0", "real-0"], "saw only some", False),
        (["other"], "never saw in training", False),
        (None, "not recorded", False),
    ],
)
def test_it_says_whether_the_sources_were_seen(trained: list[str] | None, expected: str, caveat: bool) -> None:
    conclusion, caveats = words(predictions(), **({} if trained is None else {"train_sources": trained}))
    assert expected in conclusion
    assert ("same sources" in caveats) == caveat


def test_the_train_split_tells_which_sources_were_seen() -> None:
    frame = predictions(split=["train" if i // 4 % 2 else "test" for i in range(240)])
    assert "On 120 test images, from 4 sources that it saw in training," in words(frame)[0]
    unnamed = predictions(source="", split=["train" if i // 4 % 2 else "test" for i in range(240)])
    assert "not recorded" in words(unnamed)[0]


def test_the_figures_in_the_words_are_the_figures() -> None:
    frame = predictions()
    figures = metrics.table_metrics(frame, LABELS, "real")
    low, high = metrics.bootstrap(frame, ["auc"], real_label="real", n_resamples=100)["auc"]
    conclusion, _ = words(frame)
    assert f"separates real from AI-generated with AUC {figures['auc']:.2f} ({low:.2f}–{high:.2f})" in conclusion
    assert f"finds {100 * figures['recall']:.1f}\N{NO-BREAK SPACE}% of the fakes" in conclusion
    assert f"calls {100 * figures['fpr']:.1f}\N{NO-BREAK SPACE}% of the real images fake" in conclusion
    table = metrics.per_source(frame, real_label="real")
    worst = table[~table["is_real"]].sort_values("auc").iloc[0]
    assert f"those of {worst['source']}: AUC {worst['auc']:.2f}" in conclusion


def test_a_coins_throw_is_not_praised_and_a_wrong_order_is_named() -> None:
    assert "cannot be shown to tell real from AI-generated" in words(predictions(shift=0.0))[0]
    assert "the wrong way round" in words(predictions(shift=-2.0))[0]


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
