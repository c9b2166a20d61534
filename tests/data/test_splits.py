"""Splits keep groups whole and every stratum's share, for any data; merging groups never tears one apart."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.data import splits as splits_module
from bonaface.data.splits import _set_aside, assign_splits, calibration_half, merge_groups, shortage

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


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60), st.randoms())
def test_the_order_of_the_rows_decides_nothing(table: list[tuple[str, int]], random: Random) -> None:
    """Files are listed in another order on another file system; who trains on what must not change."""
    shuffled = random.sample(table, len(table))
    homes = []
    for rows in (table, shuffled):
        labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
        homes.append(dict(zip(groups, assign_splits(labels, labels, groups, FRACTIONS, 5), strict=True)))
    assert homes[0] == homes[1]


@given(st.integers(0, 2**32))
def test_a_large_group_goes_first_so_that_single_images_even_out_what_it_leaves(seed: int) -> None:
    groups = ["video"] * 60 + [str(i) for i in range(40)]
    splits = assign_splits(["a"] * 100, ["s"] * 100, groups, FRACTIONS, seed)
    assert Counter(splits) == {"train": 70, "validation": 15, "test": 15}


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


@given(st.integers(20, 60), st.integers(0, 2**32))
def test_sources_too_small_for_every_split_are_spread_together(n: int, seed: int) -> None:
    sources, names = [str(i // 2) for i in range(2 * n)], [str(i) for i in range(2 * n)]
    counts = Counter(assign_splits(["real"] * 2 * n, sources, names, FRACTIONS, seed))
    assert all(abs(counts[name] - share * 2 * n) < 1.01 for name, share in FRACTIONS.items())


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_a_source_just_large_enough_is_spread_for_itself(n: int, seed: int) -> None:
    sources, names = [str(i // 2) for i in range(2 * n)], [str(i) for i in range(2 * n)]
    halves = assign_splits(["real"] * 2 * n, sources, names, {"selects": 0.5, "certifies": 0.5}, seed)
    assert len(set(zip(sources, halves, strict=True))) == 2 * n


def test_nothing_is_set_aside_where_every_split_gets_every_label_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits_module, "_set_aside", None)
    labels, names = ["real", "fake"] * 50, [str(i) for i in range(100)]
    assert set(assign_splits(labels, labels, names, FRACTIONS, 0)) == set(FRACTIONS)


# Groups by their labels. Whoever takes the smallest for one split may lack some for the other, and must turn back.
TANGLED = {"1": "bb", "2": "abb", "3": "ac", "4": "c", "5": "aa", "6": "b"}


def set_aside() -> dict[str, str]:
    rows = [(label, group) for group, labels in TANGLED.items() for label in labels]
    members = {group: [i for i, row in enumerate(rows) if row[1] == group] for group in TANGLED}
    order = sorted(TANGLED, key=lambda group: -len(members[group]))
    return _set_aside(order, members, [label for label, _ in rows], ["one", "two"])


def test_groups_set_aside_are_few_and_small_and_what_led_nowhere_is_not_among_them() -> None:
    assert set_aside() == {**dict.fromkeys("456", "one"), **dict.fromkeys("13", "two")}


def test_the_search_for_groups_to_set_aside_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many labels it could take for ever; then none are, and the shares alone decide."""
    monkeypatch.setattr(splits_module, "MOST_STEPS", 2)
    assert set_aside() == {}


def test_a_shortage_is_named_with_its_cause() -> None:
    splits = list(FRACTIONS)
    assert shortage(["real"] * 2 + ["fake"] * 9, list("abcdefghijk"), splits).startswith("2 real images cannot fill 3")
    labels = ["real"] * 8 + ["fake"] * 3
    assert "all 8 real images are in one group" in shortage(labels, ["v"] * 8 + list("abc"), splits)
    assert "the 8 real images are in 2 groups" in shortage(labels, list("vvvvwwwwabc"), splits)
    assert shortage(labels, list("vvvvwxxxabc"), splits) == ""
    assert shortage(list("edcba"), list("12345"), splits).startswith("1 a image cannot fill")  # the first by name


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
