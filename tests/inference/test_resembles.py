"""What a fake resembles: its own source where that is known, none of them where not, nothing where it is chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bonaface.errors import UsageError
from bonaface.inference.resembles import FILE, NAMED, Resembles, in_words
from bonaface.training.resemblance import FEWEST_IMAGES, Fakes, fit_resembles

WIDTH = 12
SOURCES = ("gan_a", "gan_b", "gan_c", "gan_d")


def drawn(n: int, seed: int, *, apart: float = 4.0, sources: tuple[str, ...] = SOURCES) -> Fakes:
    """n features of each source around a place of its own, ``apart`` standard deviations from those of the others."""
    rng = np.random.default_rng(seed)
    places = apart * np.eye(WIDTH)[: len(sources)] + 10 * np.eye(WIDTH)[-1]
    names = np.repeat(sources, n)
    return Fakes(np.repeat(places, n, axis=0) + rng.normal(0, 0.5, (len(names), WIDTH)), names)


def fitted(apart: float = 4.0, **options: int) -> tuple[Resembles, object]:
    parts = [drawn(options.get("n", 40), seed, apart=apart) for seed in (0, 1, 2)]
    found = fit_resembles(*parts)
    assert found is not None
    return found


def test_a_known_source_is_recognised_and_an_unseen_one_is_like_none() -> None:
    found, facts = fitted()
    known = drawn(50, 9)
    right = [names[:1] == (source,) for names, source in zip(found.named(known.features), known.sources, strict=True)]
    assert np.mean(right) > 0.85
    unseen = drawn(50, 9, sources=(*SOURCES, *"efgh", "unseen")).of(["unseen"])
    none = [not names for names in found.named(unseen.features)]
    assert np.mean(none) > 0.7
    assert facts.on
    assert 0.25 < facts.accuracy_low < facts.accuracy <= facts.accuracy_high
    assert facts.chance == 0.25
    assert facts.none_known < 0.2 < 0.6 < facts.none_left_out
    assert facts.auc_low > 0.8


def test_the_nearest_source_comes_first_and_only_near_ones_are_named() -> None:
    found, _ = fitted()
    features = drawn(30, 5).features
    for names, distances in zip(found.named(features), found.distances(features), strict=True):
        near = sorted((d, name) for d, name in zip(distances, found.names, strict=True) if d < found.threshold)
        assert names == tuple(name for _, name in near[:NAMED])
    assert replace(found, threshold=-1e9).named(features) == [()] * len(features)
    assert in_words(("a", "b")) == "most like a, b"
    assert in_words(()).startswith("like none")


@pytest.mark.parametrize("seed", range(5))
def test_where_features_say_nothing_it_is_off(seed: int) -> None:
    """Leaving out a mean must not look like a greater distance by itself."""
    parts = [drawn(60, 10 * seed + i, apart=0.0) for i in range(3)]
    found = fit_resembles(*parts)
    assert found is not None
    facts = found[1]
    assert facts.accuracy_low <= facts.chance + 0.02
    assert abs(facts.auc - 0.5) < 0.1
    assert not facts.on


def test_one_large_source_is_no_knowledge() -> None:
    """Always naming the source of nine in ten images is right nine times in ten."""
    parts = [drawn(20, seed, apart=0.0) for seed in (0, 1, 2)]
    large = [Fakes(np.tile(part.of(["gan_a"]).features, (20, 1)), ["gan_a"] * 400) for part in parts]
    joined = [
        Fakes(np.concatenate([a.features, b.features]), np.concatenate([a.sources, b.sources]))
        for a, b in zip(parts, large, strict=True)
    ]
    found = fit_resembles(*joined)
    assert found is not None
    assert found[1].chance > 0.8
    assert not found[1].on


def test_small_sources_are_left_out_and_too_few_give_nothing() -> None:
    parts = [drawn(40, seed, sources=(*SOURCES, "small")) for seed in (0, 1, 2)]
    names = np.asarray(parts[0].sources)
    kept = np.flatnonzero((names != "small") | (np.cumsum(names == "small") < FEWEST_IMAGES))
    training = Fakes(parts[0].features[kept], names[kept])
    found = fit_resembles(training, *parts[1:])
    assert found is not None
    assert found[0].names == SOURCES
    assert found[1].n == 40 * len(SOURCES)
    assert fit_resembles(training.of(SOURCES[:2]), *parts[1:]) is None
    assert fit_resembles(training, parts[1].of(["small"]), parts[2]) is None
    assert fit_resembles(training, parts[1], parts[2].of([])) is None


def test_it_comes_back_as_it_was_without_any_image(tmp_path: Path) -> None:
    found, facts = fitted()
    found.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    again = Resembles.load(tmp_path, facts)
    features = drawn(9, 3).features
    assert again is not None
    assert again.named(features) == found.named(features)
    assert found.means.shape == (4, 3)  # means and directions: whatever the number of images
    assert found.projection.shape == (WIDTH, 3)
    assert Resembles.load(tmp_path, None) is None
    assert Resembles.load(tmp_path, replace(facts, on=False)) is None
    assert Resembles.load(tmp_path / "none", facts) is None
    with pytest.raises(UsageError, match="does not belong"):
        Resembles.load(tmp_path, replace(facts, sources=SOURCES[:2]))
