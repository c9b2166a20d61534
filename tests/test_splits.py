"""Splits keep groups whole and every stratum's share, for any data; merging groups never tears one apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bonafide.splits import assign_splits, merge_groups

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}

tables = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=200)


@given(tables, st.integers(0, 2**32))
def test_no_group_is_in_two_splits_and_proportions_hold(table: list[tuple[str, int]], seed: int) -> None:
    strata, groups = [s for s, _ in table], [str(g) for _, g in table]
    splits = assign_splits(strata, groups, FRACTIONS, seed)
    assert set(splits) <= set(FRACTIONS)
    for group in set(groups):
        assert len({split for split, g in zip(splits, groups, strict=True) if g == group}) == 1
    largest = max(Counter(groups).values())
    for name, share in FRACTIONS.items():
        assert abs(splits.count(name) - share * len(splits)) <= 2 * largest + len(set(strata))


@given(st.integers(7, 400), st.integers(0, 2**32))
def test_single_images_are_cut_to_the_row(n: int, seed: int) -> None:
    strata = ["a"] * n + ["b"] * (2 * n)
    splits = assign_splits(strata, [str(i) for i in range(3 * n)], FRACTIONS, seed)
    for stratum in "ab":
        counts = Counter(split for split, s in zip(splits, strata, strict=True) if s == stratum)
        for name, share in FRACTIONS.items():
            assert abs(counts[name] - share * strata.count(stratum)) < 1.01


def test_the_seed_decides() -> None:
    groups = [str(i) for i in range(100)]
    first = assign_splits(["a"] * 100, groups, FRACTIONS, 1)
    assert first == assign_splits(["a"] * 100, groups, FRACTIONS, 1)
    assert first != assign_splits(["a"] * 100, groups, FRACTIONS, 2)


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
