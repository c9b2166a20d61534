"""Splits that are missing are made, those that are there are kept; subsets and weights are fair."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from conftest import make_faces

from bonaface.data.dataset import balanced_subset, class_weights, hold_out_calibration, load_data, sampling_weights
from bonaface.errors import UsageError

COUNTS = {"real/cam": 40, "real/phone": 20, "fake/gan": 40, "fake/diffusion": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("data"), COUNTS, size=(8, 8))


def test_missing_splits_are_made_by_label_and_source(folder: Path) -> None:
    data = load_data(folder)
    assert data.made_splits == ["train", "validation", "test"]
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 84, "validation": 18, "test": 18}
    for row in data.counts():
        share = {"train": 0.7, "validation": 0.15, "test": 0.15}[row["split"]]
        assert row["n"] == share * COUNTS[f"{row['label']}/{row['source']}"]
    assert data.splits["train"].column_names == ["image", "label", "source", "group", "path"]


def test_given_splits_are_kept_and_only_the_missing_cut_from_train(tmp_path: Path) -> None:
    make_faces(tmp_path, {"train/real": 20, "train/fake": 20, "test/real": 3, "test/fake": 3}, size=(8, 8))
    data = load_data(tmp_path)
    assert data.made_splits == ["validation"]
    assert len(data.splits["test"]) == 6
    assert len(data.splits["validation"]) == 6
    assert all(path.startswith("train/") for path in data.splits["validation"]["path"])


def test_groups_of_the_metadata_and_of_the_caller_stay_whole(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 30, "fake": 30}, size=(8, 8))
    lines = [f"{label}/{i:03d}.png,{label},p{i // 2}" for label in ("real", "fake") for i in range(30)]
    (tmp_path / "metadata.csv").write_text("file_name,label,group\n" + "\n".join(lines))
    near = {"real/000.png": "twin", "fake/029.png": "twin"}
    data = load_data(tmp_path, copies=near)
    where = {path: name for name, rows in data.splits.items() for path in rows["path"]}
    assert where["real/000.png"] == where["fake/029.png"] == where["real/001.png"] == where["fake/028.png"]
    homes = Counter(group for rows in data.splits.values() for group in set(rows["group"]))
    assert set(homes.values()) == {1}


def test_the_seed_decides_and_the_fingerprint_tells(folder: Path) -> None:
    first = load_data(folder, seed=1)
    assert first.fingerprint == load_data(folder, seed=1).fingerprint
    assert first.fingerprint != load_data(folder, seed=2).fingerprint


def test_no_split_to_train_on_and_a_split_without_a_class(tmp_path: Path) -> None:
    make_faces(tmp_path / "a", {"test/real": 2, "test/fake": 2}, size=(8, 8))
    with pytest.raises(UsageError, match="no split to train on"):
        load_data(tmp_path / "a")
    make_faces(tmp_path / "b", {"train/real": 9, "train/fake": 9, "test/real": 2}, size=(8, 8))
    with pytest.raises(UsageError, match=r"the split `test` of .* has no image labelled fake"):
        load_data(tmp_path / "b")


def test_a_subset_is_shared_out_over_labels_and_sources(folder: Path) -> None:
    train = load_data(folder).splits["train"]
    subset = balanced_subset(train, 40, seed=3)
    counts = Counter(zip(subset["label"], subset["source"], strict=True))
    assert counts == {(0, "diffusion"): 10, (0, "gan"): 10, (1, "cam"): 10, (1, "phone"): 10}
    counts = Counter(balanced_subset(train, 70, seed=3)["source"])
    assert counts == {"diffusion": 14, "gan": 21, "cam": 21, "phone": 14}  # the small ones give all they have
    assert len(balanced_subset(train, 10_000)) == len(train)


@pytest.mark.parametrize("balance", ["label", "source"])
def test_sampling_weights_even_out_what_they_name(tmp_path: Path, balance: str) -> None:
    make_faces(tmp_path, {"real/a": 40, "real/b": 10, "fake/c": 20, "fake/d": 20}, size=(8, 8))
    train = load_data(tmp_path).splits["train"]
    weights = sampling_weights(train, balance)
    assert weights.mean() == pytest.approx(1)
    by_label = np.bincount(train["label"], weights)
    assert by_label[0] == pytest.approx(by_label[1])
    if balance == "source":
        total = {s: sum(w for w, t in zip(weights, train["source"], strict=True) if t == s) for s in "abcd"}
        assert total["a"] == pytest.approx(total["b"])


def test_class_weights_make_classes_count_alike(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 40, "fake": 10}, size=(8, 8))
    train = load_data(tmp_path).splits["train"]
    weights = class_weights(train, 2)
    counts = np.bincount(train["label"])
    assert weights[0] * counts[0] == pytest.approx(weights[1] * counts[1])
    assert (weights * counts).sum() == pytest.approx(len(train))


def test_the_fingerprint_covers_what_the_files_hold(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 12, "fake": 12}, size=(8, 8))
    before = load_data(tmp_path).fingerprint
    (tmp_path / "fake/003.png").write_bytes((tmp_path / "real/003.png").read_bytes())
    assert load_data(tmp_path).fingerprint != before


def test_other_splits_make_other_data_and_leave_the_first_as_it_was(folder: Path) -> None:
    data = load_data(folder)
    before, path = data.fingerprint, data.splits["test"]["path"][0]
    assert data.load_image(path).size == (8, 8)
    half = hold_out_calibration(data)
    assert set(half.splits) == {"train", "validation", "calibration", "test"}
    assert set(half.splits["validation"]["path"]) | set(half.splits["calibration"]["path"]) == set(
        data.splits["validation"]["path"]
    )
    assert hold_out_calibration(half) is half  # never halved twice
    rest = data.with_splits({"test": data.splits["test"].select([1, 2])})
    assert len({before, half.fingerprint, rest.fingerprint}) == 3
    with pytest.raises(KeyError):
        rest.load_image(path)
    assert (set(data.splits), data.fingerprint) == ({"train", "validation", "test"}, before)
    with pytest.raises(FrozenInstanceError):
        data.splits = rest.splits  # type: ignore[misc]


def test_a_limit_holds_for_each_split(folder: Path) -> None:
    data = load_data(folder)
    assert data.limited(None) is data
    assert {name: len(rows) for name, rows in data.limited(10).splits.items()} == dict.fromkeys(data.splits, 10)
