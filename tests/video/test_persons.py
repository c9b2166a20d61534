"""A person's score is no more certain than the frames', however many there are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonaface.video.persons import Person, Sighting

LOW, HIGH = 0.3, 0.8
scores = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def person(p: Sequence[float], far: Sequence[bool] = ()) -> Person:
    """With frames of these scores; ``far`` ones are unlike the training data."""
    strange = [*far, *[False] * (len(p) - len(far))]
    return Person(
        1,
        tuple(
            Sighting(float(i), None, score, {"fake": score, "real": 1 - score}, verdict(score, unlike), unlike)
            for i, (score, unlike) in enumerate(zip(p, strange, strict=True))
        ),
    )


def verdict(score: float, unlike: bool = False) -> str:
    return "uncertain" if unlike or LOW < score < HIGH else "real" if score <= LOW else "fake"


@given(st.floats(0, 1), st.integers(1, 200), st.booleans())
def test_a_frame_repeated_is_that_frame(score: float, n: int, unlike: bool) -> None:
    found = person([score] * n, [unlike] * n)
    assert found.p_fake == score
    assert found.verdict == verdict(score, unlike)
    assert found.outside_band == (verdict(score, unlike) != "uncertain")


@given(scores, st.integers(2, 5))
def test_repeating_all_frames_changes_nothing(p: list[float], n: int) -> None:
    once, often = person(p), person(p * n)
    assert once.p_fake == often.p_fake
    assert once.verdict == often.verdict
    assert once.outside_band == pytest.approx(often.outside_band)


@given(scores)
def test_at_least_half_of_the_frames_are_as_sure(p: list[float]) -> None:
    """So nobody gets a verdict that most of the frames do not give."""
    found = person(p)
    assert 2 * sum(score >= found.p_fake for score in p) >= len(p)
    assert 2 * sum(score <= found.p_fake for score in p) >= len(p)
    if found.verdict != "uncertain":
        assert 2 * sum(verdict(score) == found.verdict for score in p) >= len(p)


def test_two_in_the_middle_that_disagree_give_no_verdict() -> None:
    assert person([0.1, 0.5]).verdict == "uncertain"
    assert person([0.5, 0.9]).p_fake == 0.5
    assert person([0.1, 0.2, 0.25, 0.9]).p_fake == 0.25


def test_some_bad_frames_do_not_matter() -> None:
    assert person([0.9] * 6 + [0.01] * 5).verdict == "fake"
    assert person([0.9] * 6 + [0.5] * 6).verdict == "uncertain"


def test_frames_unlike_the_training_data_do_not_count_until_they_are_half() -> None:
    mixed = person([0.99, 0.99, 0.1, 0.1, 0.1], [True, True])
    assert (mixed.p_fake, mixed.verdict) == (0.1, "real")
    assert mixed.outside_band == 0.6
    assert person([0.99, 0.99, 0.1, 0.1], [True, True]).verdict == "uncertain"


def test_the_telling_frames_are_the_extremes_and_the_middle() -> None:
    assert [s.p_fake for s in person([0.4, 0.9, 0.1, 0.5, 0.6]).telling] == [0.9, 0.5, 0.1]
    assert len(person([0.4]).telling) == 1
