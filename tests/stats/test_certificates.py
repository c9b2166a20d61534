"""What is promised with 95 % confidence is broken by at most 5 % of calibration sets; few images promise nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bonaface.stats.certificates import (
    Band,
    allowed_errors,
    certified_threshold,
    images_needed,
    share_fake_among_called,
    thresholds,
    too_few,
    uncertain_band,
    verdicts,
)
from bonaface.stats.intervals import clopper_pearson
from bonaface.stats.metrics import threshold_at_fpr


def pool(n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of fakes and reals that overlap, with many ties at 0 and 1, as saturated networks give them."""
    rng = np.random.default_rng(seed)
    fake = np.arange(n) % 2 == 0
    p = 1 / (1 + np.exp(-3 * rng.normal(loc=np.where(fake, 1.2, -1.2))))
    return np.round(p, 3), fake


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 59), (0.01, 299), (0.005, 598)])
def test_how_many_images_a_promise_takes(rate: float, needed: int) -> None:
    assert images_needed(rate) == needed
    assert allowed_errors(needed, rate) == 0
    assert allowed_errors(needed - 1, rate) == -1
    assert certified_threshold(np.linspace(0, 1, needed - 1), rate) is None
    assert certified_threshold(np.linspace(0, 1, needed), rate) == np.nextafter(1.0, 2.0)


def test_one_image_proves_what_it_can() -> None:
    assert allowed_errors(1, 0.96) == allowed_errors(1, 0.95) == 0
    assert allowed_errors(1, 0.94) == allowed_errors(0, 0.96) == -1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.floats(0.001, 0.5))
def test_one_more_error_would_not_be_proof(n: int, rate: float) -> None:
    k = allowed_errors(n, rate)
    assert k == -1 or stats.binomtest(k, n, rate, alternative="less").pvalue <= 0.05 + 1e-12
    assert stats.binomtest(k + 1, n, rate, alternative="less").pvalue > 0.05 - 1e-12


def test_promises_hold() -> None:
    """400 calibration sets drawn from a pool, whose own error is the truth; the naive threshold breaks its word."""
    p, fake = pool()
    reals, fakes = p[~fake], p[fake]
    rng = np.random.default_rng(1)
    broken = dict.fromkeys(("high", "low", "threshold", "naive"), 0)
    trials = 400
    for _ in range(trials):
        part = rng.integers(0, len(p), 300)
        band = uncertain_band(p[part], fake[part])
        assert band.certified
        broken["high"] += (reals >= band.high).mean() > 0.05
        broken["low"] += (fakes <= band.low).mean() > 0.05
        row = thresholds(p[part][~fake[part]], [0.05])[0]
        broken["threshold"] += (reals >= row.threshold).mean() > 0.05
        broken["naive"] += (reals >= threshold_at_fpr(p[part][~fake[part]], 0.05)).mean() > 0.05
    limit = stats.binom.ppf(0.999, trials, 0.05)
    assert max(broken["high"], broken["low"], broken["threshold"]) <= limit
    assert broken["naive"] > 0.3 * trials


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from("ab")), max_size=300),
    st.sampled_from([0.05, 0.2]),
)
def test_the_band_is_sound_whatever_the_scores_are(rows: list[tuple[float, bool, str]], delta: float) -> None:
    p, fake = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], dtype=bool)
    sources = [f"{'fake' if r[1] else 'real'}-{r[2]}" for r in rows]
    band = uncertain_band(p, fake, delta=delta, sources=sources)
    assert np.isfinite([band.low, band.high]).all()
    assert band.low < band.high
    called = verdicts(p, band)
    parts = [~fake, fake, *(np.array(sources, dtype=object) == name for name in set(sources))]
    for part in parts:
        if not part.any():
            continue
        wrong = "real" if fake[part][0] else "fake"
        errors, allowed = int((called[part] == wrong).sum()), allowed_errors(int(part.sum()), delta)
        if allowed >= 0:
            assert errors <= allowed
    assert band.certified == (allowed_errors(int((~fake).sum()), delta) >= 0 <= allowed_errors(int(fake.sum()), delta))


def test_a_perfect_detector_needs_no_band() -> None:
    p, fake = np.repeat([0.1, 0.9], 100), np.repeat([False, True], 100)
    band = uncertain_band(p, fake)
    assert band.certified
    assert (verdicts(p, band) == np.where(fake, "fake", "real")).all()
    assert verdicts([0.49999, 0.5], band).tolist() == ["real", "fake"]


def test_edges_that_meet_are_one_cut() -> None:
    """A score that is both an edge below and an edge above would be called real and fake at once."""
    middle = np.nextafter(0.5, 1.0)
    p, fake = np.repeat([0.5, np.nextafter(middle, 1.0)], 100), np.repeat([False, True], 100)
    band = uncertain_band(p, fake)
    assert band.low < band.high
    assert (verdicts(p, band) == np.where(fake, "fake", "real")).all()


@pytest.mark.parametrize(("n_real", "n_fake"), [(100, 58), (58, 100)])
def test_a_band_is_certified_on_both_sides_or_not_at_all(n_real: int, n_fake: int) -> None:
    p, fake = np.repeat([0.1, 0.9], [n_real, n_fake]), np.repeat([False, True], [n_real, n_fake])
    band = uncertain_band(p, fake)
    assert not band.certified
    assert (band.n_real, band.n_fake) == (n_real, n_fake)
    assert f"not certifiable with 58 {'fake' if n_fake == 58 else 'real'} images (at least 59" in band.note
    whole = uncertain_band(np.repeat([0.1, 0.9], 100), np.repeat([False, True], 100), delta=0.1, confidence=0.9)
    note = whole.note.replace("\N{NO-BREAK SPACE}", " ")
    assert note.startswith("at most 10 % of real images are called fake, and at most 10 % of fakes real")
    assert note.endswith("with 90 % confidence each")


def test_each_source_has_its_row_and_its_own_certificate() -> None:
    names = ["cam"] * 59 + ["phone"] * 58 + ["gan"] * 60
    p, fake = np.repeat([0.1, 0.2, 0.9], [59, 58, 60]), np.repeat([False, False, True], [59, 58, 60])
    rows = uncertain_band(p, fake, sources=names).sources
    found = [(row.source, row.is_real, row.n, row.errors, row.certified) for row in rows]
    assert found == [("gan", False, 60, 0, True), ("cam", True, 59, 0, True), ("phone", True, 58, 0, False)]
    wrong = np.where(np.isin(np.arange(400), [0, 1, 200]), 1 - np.repeat([0.1, 0.9], 200), np.repeat([0.1, 0.9], 200))
    rows = uncertain_band(wrong, np.repeat([False, True], 200), sources=["cam"] * 200 + ["gan"] * 200).sources
    assert [(row.source, row.errors) for row in rows] == [("gan", 1), ("cam", 2)]


def test_a_source_is_promised_for_itself_and_not_for_the_others() -> None:
    """Of three sources the hard one alone, drowned among the others, sets the edge."""
    rng = np.random.default_rng(0)
    hard, easy = rng.uniform(0.4, 0.6, 100), rng.uniform(0, 0.1, 2000)
    p, names = np.concatenate([hard, easy]), ["hard"] * 100 + ["easy"] * 1000 + ["calm"] * 1000
    band = uncertain_band(
        np.append(p, np.ones(100)), np.repeat([False, True], [2100, 100]), sources=[*names, *["gan"] * 100]
    )
    assert (hard >= band.high).sum() <= allowed_errors(100, 0.05)


def test_without_real_images_nothing_is_called_fake() -> None:
    band = uncertain_band(np.linspace(0, 1, 100), np.ones(100, dtype=bool))
    assert band.high == np.nextafter(1.0, 2.0)


def test_a_threshold_keeps_the_confidence_that_it_is_asked_for() -> None:
    real = np.linspace(0, 0.9, 400)
    (row,) = thresholds(real, [0.05], confidence=0.8)
    assert row.threshold == certified_threshold(real, 0.05, 0.8) < certified_threshold(real, 0.05, 0.95)
    errors = int((real >= row.threshold).sum())
    assert row.fpr_upper == clopper_pearson(errors, 400, confidence=0.8, side="upper").high
    assert "at most 5" in row.note
    assert "80" in row.note.split("with")[1]
    (reached,) = thresholds(real, [0.05], p_fake=[row.threshold, 0.0], confidence=0.8)
    assert reached.tpr == 0.5


def test_the_edges_of_a_band_have_a_verdict() -> None:
    band = Band(0.3, 0.7)
    assert verdicts([0.3, 0.31, 0.69, 0.7], band).tolist() == ["real", "uncertain", "uncertain", "fake"]


def test_a_hard_source_widens_the_band_only_where_it_is_large_enough() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(0, 0.3, 500), rng.uniform(0.2, 0.8, 80), rng.uniform(0.7, 1, 500)])
    fake = np.repeat([False, True], [580, 500])
    names = ["easy"] * 500 + ["hard"] * 80 + ["gen"] * 500
    alone, both = uncertain_band(p, fake), uncertain_band(p, fake, sources=names)
    assert "each source with at least 59 images" in both.note
    assert "each source" not in alone.note
    assert both.high > alone.high
    few = np.r_[0:520, 580:1080]
    small = uncertain_band(p[few], fake[few], sources=[names[i] for i in few])
    assert small.high < both.high
    rows = {row.source: row for row in small.sources}
    assert rows["easy"].certified
    assert not rows["hard"].certified


def test_thresholds_say_what_they_are_worth() -> None:
    p, fake = pool(4000)
    rows = thresholds(p[~fake], p_fake=p[fake])
    assert [(row.fpr, row.certified) for row in rows] == [(0.005, True), (0.01, True), (0.05, True)]
    for row in rows:
        errors = (p[~fake] >= row.threshold).sum()
        assert stats.binomtest(int(errors), 2000).proportion_ci(0.9).high == pytest.approx(row.fpr_upper)
        assert row.fpr_upper <= row.fpr
        assert row.tpr == (p[fake] >= row.threshold).mean()
    few = thresholds(p[~fake][:100])
    assert [row.threshold is None for row in few] == [True, True, False]
    assert "not certifiable" in few[0].note
    assert "598" in few[0].note
    assert too_few(10, 0.05) == few[0].note.replace("100 real", "10 real").replace("598", "59")
    assert thresholds([])[0].certified is False


def test_the_base_rate_decides_what_an_alarm_means() -> None:
    """The textbook case: 1 in 100 is fake, 90 % are found, 9 % of the rest are accused."""
    assert share_fake_among_called(0.9, 0.09, prior=0.01) == pytest.approx(0.009 / (0.009 + 0.0891))
    assert share_fake_among_called(0.9, 0.09) == pytest.approx(0.9 / 0.99)
    assert np.isnan(share_fake_among_called(0.0, 0.0))
