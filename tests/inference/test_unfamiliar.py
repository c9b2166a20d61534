"""The distance to the training data: what it measures, what its threshold is worth, how it is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from bonaface.inference.unfamiliar import FILE, Unfamiliar, fit_unfamiliar, unfamiliar_auroc


def cloud(n: int, centre: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)) + np.eye(8)[0] * 4 + np.eye(8)[1] * centre


def test_the_distance_is_that_of_the_kth_neighbour() -> None:
    bank, rows = cloud(300), cloud(50, seed=1)
    found = fit_unfamiliar(bank, rows, neighbour=7)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (bank, rows)]
    expected = NearestNeighbors(n_neighbors=7).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    np.testing.assert_allclose(found.distance(rows), expected, atol=1e-3)


def test_the_threshold_keeps_its_share_of_further_images() -> None:
    """The mean over many draws: 90 % of familiar images stay within, at the least."""
    kept = []
    for seed in range(60):
        found = fit_unfamiliar(cloud(200, seed=seed), cloud(49, seed=1000 + seed), quantile=0.9)
        kept.append((found.distance(cloud(200, seed=2000 + seed)) <= found.threshold).mean())
    assert 0.89 < np.mean(kept) < 0.95


def test_few_images_say_what_they_are_worth() -> None:
    rows = cloud(9, seed=1)
    found = fit_unfamiliar(cloud(50), rows, quantile=0.99)
    assert found.quantile == pytest.approx(0.9)
    assert found.threshold == found.distance(rows).max()
    assert fit_unfamiliar(cloud(50), cloud(99, seed=1)).quantile == 0.99
    with pytest.raises(ValueError, match="needs features"):
        fit_unfamiliar(cloud(50), cloud(0))


def test_other_sources_are_further_away() -> None:
    found = fit_unfamiliar(cloud(300), cloud(100, seed=1))
    near, far = found.distance(cloud(100, seed=2)), found.distance(cloud(100, centre=6, seed=3))
    auroc, interval = unfamiliar_auroc(near, far)
    assert auroc > 0.95
    assert interval.low < auroc < interval.high
    assert unfamiliar_auroc(near, near)[0] == pytest.approx(0.5)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    found = fit_unfamiliar(cloud(300), cloud(100, seed=1))
    found.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    facts = found.facts()
    again = Unfamiliar.load(tmp_path, facts)
    assert again is not None
    assert (again.distance(cloud(9)) == found.distance(cloud(9))).all()
    assert again.threshold == found.threshold
    assert Unfamiliar.load(tmp_path, replace(facts, file="../../elsewhere")) is not None
    assert Unfamiliar.load(tmp_path, None) is None
    assert Unfamiliar.load(tmp_path / "none", facts) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.floats(0, 1e20))
def test_any_features_give_a_distance(m: int, n: int, width: int, scale: float) -> None:
    rng = np.random.default_rng(m * 31 + n)
    found = fit_unfamiliar(scale * rng.normal(size=(m, width)), scale * rng.normal(size=(n, width)))
    distance = found.distance(scale * rng.normal(size=(5, width)))
    assert np.isfinite(distance).all()
    assert (distance >= 0).all()
    assert (distance <= 2.001).all()
