"""A data set on the Hub and back: the same bytes, labels, sources, groups and splits, and a card of its faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from conftest import ROOT, make_faces
from hub_runs import environment, go_online
from hub_server import HubServer, hub_server
from huggingface_hub import DatasetCard

from bonaface.data.dataset import load_data
from bonaface.data.listing import list_data
from bonaface.errors import UsageError
from bonaface.hub.dataset import push_dataset, write_shards

AGAIN = """
import json, sys
from bonaface.data.dataset import load_data
found = {}
for name in sys.argv[1:]:
    data = load_data(name)
    groups = {row["path"]: row["group"] for rows in data.splits.values() for row in rows.remove_columns("image")}
    found[name] = {"fingerprint": data.fingerprint, "labels": data.labels, "groups": groups}
print(json.dumps(found))
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        go_online(monkeypatch, server, tmp_path / "cache")
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 24, "fake/g|an": 12, "fake/sd": 12})
    (root / "real/cam/broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def with_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits, groups and sources by a metadata file."""
    root = make_faces(tmp_path_factory.mktemp("named"), {"real/a": 12, "fake/b": 12})
    lines = ["file_name,label,source,group,split,family"]
    for label, source in (("real", "a"), ("fake", "b")):
        for i in range(12):
            split = ("train", "validation", "test")[i % 3]
            lines.append(f"{label}/{source}/{i:03d}.png,{label},{source},person {i % 3},{split},one")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_there_and_back_again(hub: HubServer, folder: Path, with_splits: Path, tmp_path: Path) -> None:
    """Training on the Hub's copy, in a process of its own, sees the same data: fingerprint, class order, groups."""
    push_dataset(str(folder), "user/plain", fast=True)
    push_dataset(str(with_splits), "user/named", private=True, fast=True)
    assert hub.repo("user/named", "dataset").private
    command = [sys.executable, "-c", AGAIN, "user/plain@main", "user/named"]
    env = environment(hub, tmp_path / "home")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, source in (("user/plain@main", folder), ("user/named", with_splits)):
        data = load_data(source)
        rows = {row["path"]: row["group"] for part in data.splits.values() for row in part.remove_columns("image")}
        assert found[name] == {"fingerprint": data.fingerprint, "labels": data.labels, "groups": rows}


def test_the_card_tells_counts_audit_and_what_was_left_out(hub: HubServer, folder: Path) -> None:
    push_dataset(str(folder), "user/plain", license="cc-by-4.0", fast=True)
    card = DatasetCard(hub.repo("user/plain", "dataset").files()["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.task_categories == ["image-classification"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert "| train | fake | g\\|an | 12 |" in card.text
    assert "1 file was left out" in card.text
    assert "file facts (format, size, JPEG tables) |" in card.text
    assert str(folder) not in card.content


def test_nothing_new_is_no_commit_and_an_edited_card_stays(hub: HubServer, folder: Path) -> None:
    first = push_dataset(str(folder), "user/plain", fast=True)
    assert push_dataset(str(folder), "user/plain", fast=True).changed == ()
    repo = hub.repo("user/plain", "dataset")
    repo.edit(README_md=repo.files()["README.md"].decode() + "\n## Thanks\n\nTo all.\n")
    assert push_dataset(str(folder), "user/plain", fast=True).commit != first.commit
    assert "To all." in repo.files()["README.md"].decode()
    assert hub.commits_asked() == 1


def test_large_sets_are_cut_into_files_that_datasets_puts_together(folder: Path, tmp_path: Path) -> None:
    listing = list_data(folder)
    shards = write_shards(listing, tmp_path, shard_bytes=1)
    assert [path.name for path in shards] == ["train-00000-of-00001.parquet"]  # fewer rows than one row group
    big = listing.rows.select([i % len(listing.rows) for i in range(250)])
    listing.rows = big
    (tmp_path / "big").mkdir()
    shards = write_shards(listing, tmp_path / "big", shard_bytes=1)
    assert [path.name for path in shards] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    files = {"train": [str(path) for path in shards]}
    back = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "c"))["train"]
    assert back["label"] == big["label"]
    assert isinstance(back.features["image"], datasets.Image)
    assert isinstance(back.features["label"], datasets.ClassLabel)


def test_what_is_no_data_set_is_said_before_anything_is_sent(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images found"):
        push_dataset(str(tmp_path), "user/plain")
    assert not [request for request in hub.log if "whoami" not in request]
