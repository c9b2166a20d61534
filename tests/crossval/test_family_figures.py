"""Families of unlike sizes: none decides alone, and each large one has its own figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bonaface.crossval.family_figures import SHOWN, family_figures, family_weights, shown_families


def rows_of(families: dict[str, tuple[str, int, float]]) -> pd.DataFrame:
    """Name -> (label, images, mean score): one source a family, scores of a spread of 0.1."""
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"label": label, "source": name, "p_fake": np.clip(rng.normal(mean, 0.1, n), 0, 1)})
        for name, (label, n, mean) in families.items()
    ]
    return pd.concat(parts, ignore_index=True)


ROWS = rows_of(
    {
        "phones": ("real", 400, 0.2),
        "studio": ("real", SHOWN, 0.6),
        "gan": ("fake", 900, 0.8),
        "new": ("fake", SHOWN, 0.3),
        "tiny": ("fake", 3, 0.1),
    }
)
FAMILIES = {name: [name] for name in ("phones", "studio", "gan", "new", "tiny")}


def test_a_family_weighs_the_root_of_its_size_and_both_classes_alike() -> None:
    fake, family = (ROWS["label"] == "fake").to_numpy(), ROWS["source"].to_numpy()
    weights = family_weights(fake, family)
    total = {name: weights[family == name].sum() for name in FAMILIES}
    assert total["gan"] / total["new"] == pytest.approx((900 / SHOWN) ** 0.5)
    assert weights[fake].sum() == pytest.approx(weights[~fake].sum())


def test_what_the_largest_family_hides_shows_in_the_weighted_figure() -> None:
    from sklearn.metrics import roc_auc_score

    figures = family_figures(ROWS, FAMILIES, "real")
    assert figures["auc"] < roc_auc_score(ROWS["label"] == "fake", ROWS["p_fake"]) - 0.02
    assert figures["auc_low"] < figures["auc"] < figures["auc_high"]


def test_large_families_have_rows_small_ones_none_and_the_worst_is_named() -> None:
    figures = family_figures(ROWS, FAMILIES, "real")
    assert {row["family"] for row in figures["rows"]} == {"phones", "studio", "gan", "new"}
    assert figures["worst"]["family"] == "new"
    assert shown_families(figures)["family"].iloc[0] == "new"
    called = {row["family"]: row["called_fake"] for row in figures["rows"]}
    assert called["gan"] > 0.95
    assert called["new"] < 0.2


def test_families_join_their_sources() -> None:
    figures = family_figures(ROWS, {"polished": ["studio", "phones"], "gans": ["gan", "new"]}, "real")
    assert {row["family"]: row["n"] for row in figures["rows"]} == {"polished": 400 + SHOWN, "gans": 900 + SHOWN}
