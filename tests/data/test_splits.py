"""Splits keep groups whole and every stratum's share, for any data; merging groups never tears one apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.data.splits import assign_splits, calibration_half, merge_groups, shortage

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}

tables = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=200)


@given(tables, st.integers(0, 2**32))
def test_no_group_is_in_two_splits_and_proportions_hold(table: list[tuple[str, int]], seed: int) -> None:
    strata, groups = [s for s, _ in table], [str(g) for _, g in table]
    splits = assign_splits(strata, strata, groups, FRACTIONS, seed)
    assert set(splits) <= set(FRACTIONS)
    for group in set(groups):
        assert len({split for split, g in zip(splits, groups, strict=True) if g == group}) == 1
    largest = max(Counter(groups).values())
    for name, share in FRACTIONS.items():
        assert abs(splits.count(name) - share * len(splits)) <= 2 * largest + len(set(strata))


@given(st.integers(7, 400), st.integers(0, 2**32))
def test_single_images_are_cut_to_the_row(n: int, seed: int) -> None:
    strata = ["a"] * n + ["b"] * (2 * n)
    splits = assign_splits(strata, strata, [str(i) for i in range(3 * n)], FRACTIONS, seed)
    for stratum in "ab":
        counts = Counter(split for split, s in zip(splits, strata, strict=True) if s == stratum)
        for name, share in FRACTIONS.items():
            assert abs(counts[name] - share * strata.count(stratum)) < 1.01


def test_the_seed_decides() -> None:
    groups = [str(i) for i in range(100)]
    ones = ["a"] * 100
    first = assign_splits(ones, ones, groups, FRACTIONS, 1)
    assert first == assign_splits(ones, ones, groups, FRACTIONS, 1)
    assert first != assign_splits(ones, ones, groups, FRACTIONS, 2)


@st.composite
def wild_rows(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """(label, source, group) of each row: any number of each, groups of any size, some across labels."""
    rows = []
    for label in "abc"[: draw(st.integers(1, 3))]:
        for number in range(draw(st.integers(1, 9))):
            group = draw(st.one_of(st.just(f"{label}{number}"), st.integers(0, 4).map(str)))
            source = draw(st.sampled_from(["s", "t", f"{label}{number}"]))
            rows += [(label, source, group)] * draw(st.one_of(st.integers(1, 3), st.integers(1, 40)))
    return rows


def can_cover(rows: list[tuple[str, str, str]], n_splits: int) -> bool:
    """Whether any way to deal the groups gives each split every label: all of them are tried."""
    kinds: dict[str, set[str]] = {}
    for label, _, group in rows:
        kinds.setdefault(group, set()).add(label)
    reached = {(frozenset(),) * n_splits}
    for kind in kinds.values():
        reached |= {
            tuple(sorted((*have[:i], have[i] | kind, *have[i + 1 :]), key=sorted))
            for have in reached
            for i in range(n_splits)
        }
    return (frozenset(label for label, _, _ in rows),) * n_splits in reached


@settings(deadline=None)
@given(wild_rows(), st.integers(0, 2**32), st.sampled_from([FRACTIONS, {"selects": 0.5, "certifies": 0.5}]))
def test_every_split_has_every_label_where_that_is_possible_at_all(rows, seed, fractions) -> None:
    labels, sources, groups = (list(column) for column in zip(*rows, strict=True))
    splits = assign_splits(labels, sources, groups, fractions, seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    covered = len(set(zip(labels, splits, strict=True))) == len(set(labels)) * len(fractions)
    assert covered == can_cover(rows, len(fractions))
    if shortage(labels, groups, list(fractions)):
        assert not covered
    elif all(len({label for label, _, g in rows if g == group}) == 1 for group in groups):
        assert covered


@given(st.integers(7, 300), st.integers(2, 300), st.integers(0, 2**32))
def test_sources_of_one_image_are_spread_as_their_label_is(n: int, other: int, seed: int) -> None:
    labels = ["real"] * n + ["fake"] * other
    names = [str(i) for i in range(n + other)]
    splits = assign_splits(labels, names, names, FRACTIONS, seed)
    counts = Counter(split for split, label in zip(splits, labels, strict=True) if label == "real")
    for name, share in FRACTIONS.items():
        assert abs(counts[name] - share * n) < 1.01


@given(st.integers(3, 6), st.integers(50, 300), st.integers(0, 2**32))
def test_a_rare_label_changes_nothing_for_the_other(few: int, many: int, seed: int) -> None:
    labels, names = ["real"] * few + ["fake"] * many, [str(i) for i in range(few + many)]
    splits = assign_splits(labels, labels, names, FRACTIONS, seed)
    for label, n in (("real", few), ("fake", many)):
        counts = Counter(split for split, own in zip(splits, labels, strict=True) if own == label)
        assert min(counts[name] for name in FRACTIONS) >= 1
        assert all(abs(counts[name] - share * n) < 1.61 for name, share in FRACTIONS.items())


def test_a_shortage_is_named_with_its_cause() -> None:
    splits = list(FRACTIONS)
    assert shortage(["real"] * 2 + ["fake"] * 9, list("abcdefghijk"), splits).startswith("2 real images cannot fill 3")
    labels = ["real"] * 8 + ["fake"] * 3
    assert "all 8 real images are in one group" in shortage(labels, ["v"] * 8 + list("abc"), splits)
    assert "the 8 real images are in 2 groups" in shortage(labels, list("vvvvwwwwabc"), splits)
    assert shortage(labels, list("vvvvwxxxabc"), splits) == ""


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=60))
def test_merged_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    first, second = [str(a) for a, _ in pairs], [str(b) for _, b in pairs]
    merged = merge_groups(first, second)
    n = len(pairs)
    linked = np.array([[first[i] == first[j] or second[i] == second[j] for j in range(n)] for i in range(n)], bool)
    for _ in range(n):
        linked = linked | (linked.astype(int) @ linked.astype(int) > 0)
    for i in range(n):
        for j in range(n):
            assert (merged[i] == merged[j]) == linked[i, j]


def rows_of(n: int, group_size: int = 1) -> Dataset:
    features = Features(
        {"label": ClassLabel(names=["fake", "real"]), "source": Value("string"), "group": Value("string")}
    )
    columns = {
        "label": [i % 2 for i in range(n)],
        "source": [f"s{i % 4}" for i in range(n)],
        "group": [f"g{i % 4}-{i // 4 // group_size}" for i in range(n)],
    }
    return Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("group_size", [1, 3])
def test_the_halves_share_nothing_and_look_alike(group_size: int) -> None:
    rows = rows_of(240, group_size)
    first, second = calibration_half(rows)
    assert len(first) + len(second) == 240
    assert not set(first["group"]) & set(second["group"])
    for half in (first, second):
        for source in ("s0", "s1", "s2", "s3"):
            assert abs(half["source"].count(source) - 30) <= group_size
    again = calibration_half(rows)
    assert first["group"] == again[0]["group"]
    assert calibration_half(rows, seed=1)[0]["group"] != first["group"]
