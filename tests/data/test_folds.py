"""Folds keep what they promise, for any data: every image tested once, copies together, left-out sources unseen."""

from __future__ import annotations

import itertools

import datasets
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bonaface.data.folds import (
    family_units,
    folder_names,
    image_table,
    k_folds,
    leave_families_out,
    leave_one_out,
    source_units,
)
from bonaface.data.listing import Listing
from bonaface.errors import UsageError

SOURCES = {"real": ("cam", "phone", "scan"), "fake": ("gan", "sd", "flux")}


def images_of(counts: dict[tuple[str, str], int], groups: list[int] | None = None) -> pd.DataFrame:
    """So many images of each (label, source); ``groups`` are drawn on in turn, each image by itself without them."""
    rows = [(label, source, i) for (label, source), n in counts.items() for i in range(n)]
    table = pd.DataFrame(rows, columns=["label", "source", "i"], dtype=object)
    table["path"] = [f"{label}/{source}/{i}.png" for label, source, i in rows]
    table["group"] = (
        [f"g{group}" for group in itertools.islice(itertools.cycle(groups), len(rows))] if groups else table["path"]
    )
    table["is_real"], table["family"] = table["label"] == "real", table["source"]
    return table


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    counts = {(label, s): draw(st.integers(4, 30)) for label, names in SOURCES.items() for s in names}
    groups = draw(st.one_of(st.none(), st.lists(st.integers(0, 60), min_size=40, max_size=80)))
    return images_of(counts, groups)


def check_fold(images: pd.DataFrame, fold) -> dict[str, pd.DataFrame]:
    """No group in two splits, all labels in each; the images of each split."""
    merged = fold.table.merge(images, on="path", validate="one_to_one")
    assert len(merged) + fold.left_out == len(images)
    assert (merged.groupby("group")["split"].nunique() == 1).all()
    parts = {split: merged[merged["split"] == split] for split in ("train", "validation", "test")}
    assert all(set(part["label"]) == {"real", "fake"} for part in parts.values())
    return parts


@settings(deadline=None, max_examples=40)
@given(tables(), st.integers(2, 6), st.integers(0, 2**32))
def test_every_image_is_tested_once_and_groups_stay_whole(images: pd.DataFrame, k: int, seed: int) -> None:
    try:
        folds = k_folds(images, k, 0.2, seed)
    except UsageError:
        assume(False)
    tested = [path for fold in folds for path in check_fold(images, fold)["test"]["path"]]
    assert sorted(tested) == sorted(images["path"])


@settings(deadline=None, max_examples=40)
@given(tables(), st.integers(0, 2**32))
def test_left_out_sources_are_unseen_and_each_is_left_out(images: pd.DataFrame, seed: int) -> None:
    try:
        folds = leave_one_out(images, source_units(images), 0.2, seed)
    except UsageError:
        assume(False)
    assert [fold.name for fold in folds] == ["flux", "gan", "sd"]
    for fold in folds:
        parts = check_fold(images, fold)
        held = set(fold.held_out["fake"]) | set(fold.held_out["real"])
        assert set(parts["test"]["source"]) <= held
        assert not held & (set(parts["train"]["source"]) | set(parts["validation"]["source"]))
        within = images["source"].isin(held)
        spanning = images["group"].isin(set(images["group"][within]) & set(images["group"][~within]))
        assert len(parts["test"]) == within.sum() or spanning.any()
    assert [fold.held_out["real"] for fold in folds] == [["cam"], ["phone"], ["scan"]]


def test_folds_are_spread_evenly_over_label_and_source() -> None:
    images = images_of({("real", "cam"): 100, ("real", "phone"): 50, ("fake", "gan"): 75})
    for fold in k_folds(images, 5, 0.15, 1):
        assert check_fold(images, fold)["test"]["source"].value_counts().to_dict() == {
            "cam": 20,
            "phone": 10,
            "gan": 15,
        }


def test_many_sources_of_one_image_do_not_crowd_into_the_first_fold() -> None:
    images = images_of({("real", "cam"): 40, **{("fake", f"gen{i:02d}"): 1 for i in range(40)}})
    folds = k_folds(images, 4, 0.2, 0)
    assert [(check_fold(images, fold)["test"]["label"] == "fake").sum() for fold in folds] == [10, 10, 10, 10]


def test_the_seed_decides() -> None:
    images = images_of({("real", "cam"): 40, ("fake", "gan"): 40})
    first, same, other = (k_folds(images, 2, 0.2, seed)[0].table for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.equals(other)


def test_real_sources_in_turn_when_there_are_fewer_and_several_when_there_are_more() -> None:
    few = images_of({("real", "a"): 9, ("real", "b"): 9, **{("fake", name): 9 for name in "vwxyz"}})
    folds = leave_one_out(few, source_units(few), 0.3, 0)
    assert [fold.held_out["real"] for fold in folds] == [["a"], ["b"], ["a"], ["b"], ["a"]]
    many = images_of({("fake", "x"): 9, ("fake", "y"): 9, **{("real", name): 9 for name in "abcde"}})
    folds = leave_one_out(many, source_units(many), 0.3, 0)
    assert [fold.held_out["real"] for fold in folds] == [["a", "c", "e"], ["b", "d"]]


def test_copies_of_a_test_image_are_left_out_of_training() -> None:
    images = images_of({("real", "a"): 10, ("real", "b"): 10, ("fake", "x"): 10, ("fake", "y"): 10})
    copies = ["fake/x/0.png", "fake/y/0.png", "fake/y/1.png"]
    images.loc[images["path"].isin(copies), "group"] = "one picture"
    first, second = leave_one_out(images, source_units(images), 0.3, 0)
    assert (first.left_out, second.left_out) == (2, 1)
    assert not set(first.table["path"]) & set(copies[1:])


def test_persons_that_all_sources_share_leave_something_to_train_on() -> None:
    """As in FaceForensics++, where each generator has all the videos: a person is tested or trained on, never both."""
    images = images_of({(label, source): 40 for label, names in SOURCES.items() for source in names})
    images["group"] = [f"person {i % 20}" for i in images["i"]]
    for fold in leave_one_out(images, source_units(images), 0.2, 0):
        parts = check_fold(images, fold)
        held = set(fold.held_out["fake"]) | set(fold.held_out["real"])
        assert set(parts["test"]["source"]) == held
        assert len(parts["test"]) == 40
        assert len(parts["train"]) + len(parts["validation"]) == 4 * 20


FAMILIES = images_of({("real", "a"): 9, ("real", "b"): 9, **{("fake", n): 9 for n in ("flux_dev", "flux_pro", "gan")}})


def test_families_by_pattern_and_by_column() -> None:
    expected = {"a": ["a"], "b": ["b"], "flux": ["flux_dev", "flux_pro"], "gan": ["gan"]}
    assert family_units(FAMILIES, {"flux": ["flux_*"]}) == expected
    column = FAMILIES.assign(family=[source.split("_")[0] for source in FAMILIES["source"]])
    assert family_units(column, None) == expected
    folds = leave_one_out(FAMILIES, expected, 0.3, 0, "family")
    assert [fold.title for fold in folds] == ["flux / a", "gan / b"]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(2, 40), min_size=5, max_size=9),
    st.lists(st.integers(2, 40), min_size=3, max_size=9),
    st.integers(2, 3),
)
def test_families_stay_whole_on_both_sides_and_every_image_is_tested_once(
    real: list[int], fake: list[int], k: int
) -> None:
    """However unlike their sizes: no family in training and test of a fold; the folds' tests are of a size."""
    counts = {("real", f"r{i}"): n for i, n in enumerate(real)} | {("fake", f"f{i}"): n for i, n in enumerate(fake)}
    images = images_of(counts)
    images["family"] = [
        source if source.startswith("f") else f"maker{int(source[1]) // 2}" for source in images["source"]
    ]
    folds = leave_families_out(images, family_units(images, None), k, 0.3, 0)
    tested = []
    for fold in folds:
        parts = check_fold(images, fold)
        assert not set(parts["test"]["family"]) & {*parts["train"]["family"], *parts["validation"]["family"]}
        tested += list(parts["test"]["path"])
    assert sorted(tested) == sorted(images["path"])
    largest = images.groupby(["is_real", "family"]).size()
    for kind in (False, True):
        sizes = [int((check_fold(images, fold)["test"]["is_real"] == kind).sum()) for fold in folds]
        assert max(sizes) - min(sizes) <= largest[kind].max()


def test_more_folds_than_families_are_refused() -> None:
    with pytest.raises(UsageError, match="needs 3 real families, but the data has 2") as caught:
        leave_families_out(FAMILIES, family_units(FAMILIES, None), 3, 0.3, 0)
    assert caught.value.hint == "use 2"


@pytest.mark.parametrize(
    ("families", "message", "hint"),
    [
        ({"flux": ["flux_dv"]}, "flux names flux_dv", "did you mean flux_dev"),
        ({"flux": ["zz*"]}, r"names zz\*", "its sources are: a, b"),
        ({"one": ["gan"], "two": ["g*"]}, "gan is in two families, one and two", "keep it in one"),
    ],
)
def test_families_that_do_not_fit_are_named(families: dict, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        family_units(FAMILIES, families)
    assert hint in caught.value.hint


def test_a_source_of_two_families_in_the_data_is_refused() -> None:
    images = FAMILIES.assign(family=[str(i % 2) for i in range(len(FAMILIES))])
    with pytest.raises(UsageError, match="is in two families"):
        family_units(images, None)


def test_more_folds_than_groups_are_refused() -> None:
    copies = images_of({("real", "cam"): 60, ("fake", "gan"): 60})
    copies.loc[copies["source"] == "gan", "group"] = [f"g{i % 3}" for i in range(60)]
    with pytest.raises(UsageError, match=r"--folds 4 is more than .* the label fake has: 3") as caught:
        k_folds(copies, 4, 0.2, 0)
    assert caught.value.hint == "use at most --folds 3"
    many = pd.concat([copies, images_of({("fake", "sd"): 30})], ignore_index=True)
    with pytest.raises(UsageError, match="the source gan has: 3"):
        k_folds(many, 4, 0.2, 0)
    with pytest.raises(UsageError, match="is too few to compare"):
        k_folds(many, 1, 0.2, 0)
    two = images_of({("real", "cam"): 30, ("fake", "gan"): 2})
    why = r"1 fake image cannot fill 2 splits: train, validation"
    with pytest.raises(UsageError, match=rf"its (train|validation) split would have no image labelled fake \({why}\)"):
        k_folds(two, 2, 0.2, 0)


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_one_source_on_a_side_cannot_be_left_out(kind: str) -> None:
    counts = {("real", "a"): 9, ("fake", "x"): 9, ("fake" if kind == "real" else "real", "z"): 9}
    images = images_of(counts)
    with pytest.raises(UsageError, match=f"needs two {kind} sources, but the data has 1"):
        leave_one_out(images, source_units(images), 0.3, 0)


def test_three_labels_cannot_leave_a_source_out() -> None:
    images = images_of({("real", "a"): 9, ("gan", "x"): 9, ("diffusion", "y"): 9, ("real", "b"): 9})
    with pytest.raises(UsageError, match="one label for fakes"):
        leave_one_out(images, source_units(images), 0.3, 0)


@given(st.lists(st.text(max_size=8), max_size=12))
def test_folder_names_are_safe_and_differ(names: list[str]) -> None:
    made = folder_names(names)
    assert len({name.casefold() for name in made}) == len(names)
    assert all(
        name and set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") for name in made
    )


def test_a_listing_gives_its_families_and_merged_groups() -> None:
    rows = datasets.Dataset.from_dict(
        {
            "path": ["a", "b", "c"],
            "source": ["x", "y", "cam"],
            "group": ["a", "b", "c"],
            "label": [0, 0, 1],
            "family": ["gan", "", None],
        }
    )
    table = image_table(Listing(rows, ["fake", "real"], "real", [], "data"), {"a": "copy", "b": "copy"})
    assert list(table["family"]) == ["gan", "y", "cam"]
    assert table["group"][0] == table["group"][1] != table["group"][2]
    assert list(table["is_real"]) == [False, False, True]
