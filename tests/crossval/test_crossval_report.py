"""What the report of all folds makes of each fold's own figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bonaface.crossval.report import like_none
from bonaface.crossval.sections import shown_table
from bonaface.stats import metrics
from bonaface.stats.figures import ALL_FIGURES, NONE_FIGURES


def test_fakes_that_are_like_none_are_counted_for_known_and_for_unseen_sources() -> None:
    """Real images, and fakes of sources too small to be named, are neither."""
    table = pd.DataFrame(
        [("gan", "fake", 1.0), ("gan", "fake", 9.0), ("gan", "fake", 2.0), ("gan", "fake", 3.0), ("tiny", "fake", 9.0),
         ("new", "fake", 9.0), ("new", "fake", 5.0), ("new", "fake", 1.0), ("cam", "real", 9.0), ("web", "real", 9.0)],
        columns=["source", "label", "nearest_distance"],
    )  # fmt: skip
    told = {"on": True, "sources": ["gan"], "threshold": 5.0}
    facts = {"resembles": told, "train_sources": ["gan", "tiny", "cam"]}
    assert like_none(facts, table, table, "real") == {"none_known": 1 / 4, "none_unseen": pytest.approx(2 / 3)}
    for off in ({}, {"resembles": None}, {"resembles": told | {"on": False}}):
        assert np.isnan(list(like_none(off, table[["source"]], table, "real").values())).all()


@pytest.mark.parametrize("known", [0.1, np.nan])
def test_the_columns_are_shown_where_a_fold_can_tell(known: float) -> None:
    fold = {"title": "a", "small": False, "n_real": 60, "n_fake": 60, "auc_low": 0.7, "auc_high": 0.9, "held_out": {}}
    figures = dict.fromkeys((name for name in ALL_FIGURES), 0.8) | {"none_known": known, "none_unseen": known}
    folds = pd.DataFrame([fold | figures] * 2)
    summary = {name: metrics.over_folds(folds[name]) for name in ALL_FIGURES}
    shown = shown_table(folds, summary, fold | figures, wide=True)
    assert ({ALL_FIGURES[name].short for name in NONE_FIGURES} <= set(shown.columns)) == np.isfinite(known)
