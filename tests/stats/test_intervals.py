"""Intervals and tests: exact bounds and DeLong against published examples and brute force, the bootstrap's draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from bonaface.errors import UsageError
from bonaface.stats import intervals
from bonaface.stats.intervals import (
    LOW_FPRS,
    auc_interval,
    bootstrap_samples,
    clopper_pearson,
    delong,
    delong_test,
    equal_error_rate,
    mcnemar,
    resample_weights,
    weighted_curves,
)

# DeLong, DeLong and Clarke-Pearson (1988), the 43 complete cases as printed in the SAS/STAT User's Guide, PROC
# LOGISTIC, "Comparing Receiver Operating Characteristic Curves": albumin, total protein, K-G score, outcome.
OVARIAN_TEXT = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
    3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0
    2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1
    3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0
    3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
    3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""
OVARIAN = np.fromstring(OVARIAN_TEXT, sep=" ").reshape(-1, 4)

# Scores on a coarse grid, so that ties are the rule.
coarse = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40)


def brute_force_delong(fake: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition: every pair of a fake and a real image, components by row and column."""
    x, y = scores[:, fake], scores[:, ~fake]
    psi = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    v10, v01 = psi.mean(axis=2), psi.mean(axis=1)
    m = len(scores)
    s10, s01 = np.cov(v10).reshape(m, m), np.cov(v01).reshape(m, m)
    return psi.mean(axis=(1, 2)), s10 / x.shape[1] + s01 / y.shape[1]


def test_delong_gives_the_published_areas_errors_and_tests() -> None:
    albumin, protein, kg, outcome = OVARIAN.T
    better, kg = outcome == 1, 10 - kg
    areas, covariance = delong(better, np.stack([albumin, kg, protein]))
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    first = delong_test(better, albumin, kg)
    assert (first["difference"], first["low"], first["high"]) == pytest.approx((0.0108, -0.1761, 0.1976), abs=5e-5)
    assert first["p_value"] == pytest.approx(0.9102, abs=5e-5)
    second = delong_test(better, protein, kg)
    assert (second["difference"], second["p_value"]) == pytest.approx((-0.0780, 0.4561), abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(coarse)
def test_delong_equals_its_definition_with_ties(rows: list[tuple[bool, int, int]]) -> None:
    fake, first, second = (np.array(column) for column in zip(*rows, strict=True))
    areas, covariance = delong(fake, np.stack([first, second]))
    if fake.sum() < 2 or (~fake).sum() < 2:
        assert np.isnan(covariance).all()
        return
    expected_areas, expected_covariance = brute_force_delong(fake, np.stack([first, second]).astype(float))
    np.testing.assert_allclose(areas, expected_areas, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-12)
    assert areas[0] == pytest.approx(sk.roc_auc_score(fake, first), abs=1e-12)


def test_delong_of_one_model_against_itself_finds_no_difference() -> None:
    fake = np.arange(20) % 2 == 0
    scores = np.linspace(0, 1, 20)
    assert delong_test(fake, scores, scores)["p_value"] == 1.0


def test_auc_interval_covers_and_is_honest_about_perfect_separation() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1.2 / np.sqrt(2))
    fake = np.repeat([True, False], [40, 60])
    hits = 0
    for _ in range(300):
        _, (low, high) = auc_interval(fake, rng.normal(size=100) + 1.2 * fake)
        hits += low <= truth <= high
    assert 0.915 <= hits / 300 <= 0.985
    auc, (low, high) = auc_interval(np.repeat([True, False], [10, 30]), np.repeat([1.0, 0.0], [10, 30]))
    assert (auc, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 10))
    auc, (low, high) = auc_interval([True, True], [0.1, 0.2])
    assert np.isnan([auc, low, high]).all()


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17:857, table I, method 5; 5 of 25: Conover (1999)
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
        (5, 25, 0.068, 0.407),
    ],
)
def test_clopper_pearson_gives_the_published_bounds(hits: int, n: int, low: float, high: float) -> None:
    digits = 5e-4 if n == 25 else 5e-5
    assert clopper_pearson(hits, n) == pytest.approx((low, high), abs=digits)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99])
)
def test_clopper_pearson_equals_scipys_exact_interval(counts: tuple[int, int], confidence: float) -> None:
    hits, n = counts
    for side, alternative in (("two-sided", "two-sided"), ("upper", "less"), ("lower", "greater")):
        expected = stats.binomtest(hits, n, alternative=alternative).proportion_ci(confidence, method="exact")
        assert clopper_pearson(hits, n, confidence=confidence, side=side) == pytest.approx(tuple(expected), abs=1e-9)


def test_clopper_pearson_takes_arrays_no_trials_and_says_no_to_nonsense() -> None:
    low, high = clopper_pearson([0, 5, 0], [10, 10, 0])
    assert low.shape == high.shape == (3,)
    assert (low[2], high[2]) == (0.0, 1.0)
    assert clopper_pearson(0, 299, side="upper").high <= 0.01 < clopper_pearson(0, 298, side="upper").high
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson([1, 3], [2, 2])
    with pytest.raises(ValueError, match="side"):
        clopper_pearson(1, 2, side="both")


def test_mcnemar_is_the_binomial_test_of_the_images_they_disagree_on() -> None:
    first = np.array([True] * 40 + [True] * 8 + [False] * 2 + [False] * 10)
    second = np.array([True] * 40 + [False] * 8 + [True] * 2 + [False] * 10)
    result = mcnemar(first, second)
    assert (result["only_first"], result["only_second"]) == (8, 2)
    assert result["difference"] == pytest.approx(6 / 60)
    assert result["p_value"] == pytest.approx(2 * stats.binom.cdf(2, 10, 0.5))
    assert mcnemar(first, first)["p_value"] == 1.0


def test_the_equal_error_rate_lies_where_the_lines_between_the_points_cross() -> None:
    fpr, tpr = np.array([[0, 0.2, 1], [0, 0.25, 1], [0, 0, 1]]), np.array([[0, 0.6, 1], [0, 0.75, 1], [0, 1, 1]])
    assert equal_error_rate(fpr, tpr) == pytest.approx([1 / 3, 0.25, 0.0])


def test_resamples_come_in_blocks_that_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_BLOCK", 100)
    assert [len(block) for block in resample_weights(["a"] * 16, 20, seed=0)] == [6, 6, 6, 2]
    assert [len(block) for block in resample_weights(["a"] * 101, 2, seed=0)] == [1, 1]
    assert [block.shape for block in resample_weights([], 2, seed=0)] == [(2, 0)]


def test_resamples_keep_every_stratum_its_size_and_repeat_with_the_seed() -> None:
    strata = np.array(["b"] * 7 + ["a"] * 3 + ["b"] * 5 + ["c"])
    weights = np.concatenate(list(resample_weights(strata, 50, seed=3)))
    assert weights.shape == (50, 16)
    for name in "abc":
        assert (weights[:, strata == name].sum(axis=1) == (strata == name).sum()).all()
    assert (weights == np.concatenate(list(resample_weights(strata, 50, seed=3)))).all()
    assert (weights != np.concatenate(list(resample_weights(strata, 50, seed=4)))).any()


@settings(deadline=None, max_examples=40)
@given(coarse, st.integers(0, 2**32 - 1))
def test_weighted_curves_equal_scikit_learn_on_the_drawn_images(rows: list[tuple[bool, int, int]], seed: int) -> None:
    """A weight of three must mean exactly what three copies of the image would."""
    fake, grid, _ = (np.array(column) for column in zip(*rows, strict=True))
    scores = grid / 6
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(fake))).astype(float)
    found = weighted_curves(fake, scores, weights)
    for row, counts in enumerate(weights.astype(int)):
        y, p = np.repeat(fake, counts), np.repeat(scores, counts)
        if not len(y) or y.all() or not y.any():
            assert np.isnan([values[row] for values in found.values()]).all()
            continue
        fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
        assert found["auc"][row] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
        assert found["average_precision"][row] == pytest.approx(sk.average_precision_score(y, p), abs=1e-12)
        for name, limit in LOW_FPRS.items():
            assert found[name][row] == pytest.approx(tpr[fpr <= limit].max(), abs=1e-12)
        # The equal error rate solves 1 - TPR = FPR on the straight lines between the points of the curve.
        eer = found["eer"][row]
        gap = (1 - tpr) - fpr
        crossing = np.flatnonzero(gap <= 0)[0]
        assert fpr[max(crossing - 1, 0)] - 1e-12 <= eer <= fpr[crossing] + 1e-12
        assert 1 - tpr[crossing] - 1e-12 <= eer <= 1 - tpr[max(crossing - 1, 0)] + 1e-12


def test_an_operating_point_is_the_rate_that_its_name_says() -> None:
    assert list(LOW_FPRS) == [f"tpr_at_{rate * 100:g}pct_fpr" for rate in LOW_FPRS.values()]


def test_bootstrap_names_a_figure_it_does_not_know() -> None:
    one = np.array([True])
    with pytest.raises(UsageError, match="hue") as error:
        bootstrap_samples(one, [0.5], ["f"], ["f"], [0], called_fake=one, figures=["auc", "hue"])
    assert "auc" in error.value.hint
