"""Every form of data in the contract becomes the same columns, and every mistake a line that says how to mend it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import datasets
import pytest
from conftest import make_faces, make_image

from bonaface.data.dataset import load_data
from bonaface.data.listing import image_bytes, list_data
from bonaface.errors import UsageError
from bonaface.imaging.images import ImageError


def rows(listing) -> list[tuple[str, str, str, str]]:
    data = listing.rows
    return sorted(
        (path, listing.labels[label], source, split)
        for path, label, source, split in zip(data["path"], data["label"], data["source"], data["split"], strict=True)
    )


def test_label_folders_give_labels_and_the_next_level_sources(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real/camera": 2, "fake": 1, "fake/gen/deeper": 1})
    assert rows(list_data(tmp_path)) == [
        ("fake/000.png", "fake", "fake", ""),
        ("fake/gen/deeper/000.png", "fake", "gen", ""),
        ("real/camera/000.png", "real", "camera", ""),
        ("real/camera/001.png", "real", "camera", ""),
    ]


def test_a_source_named_like_a_split_stays_a_source(tmp_path: Path) -> None:
    """The stock image folder loader reads ``x_dev`` as a development split and keeps nothing else."""
    make_faces(tmp_path, {"real/ffhq": 3, "fake/x_dev": 2, "fake/train": 2})
    listing = list_data(tmp_path)
    assert len(listing.rows) == 7
    assert listing.labels == ["fake", "real"]
    assert set(listing.rows["source"]) == {"ffhq", "x_dev", "train"}
    assert set(listing.rows["split"]) == {""}


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Dev"])
def test_split_folders_under_any_usual_name(tmp_path: Path, name: str) -> None:
    make_faces(tmp_path, {"train/real": 1, "train/fake/gen": 1, f"{name}/real": 1, f"{name}/fake": 1})
    assert {row[3] for row in rows(list_data(tmp_path))} == {"train", "validation"}


def test_metadata_csv_says_label_source_group_and_split(tmp_path: Path) -> None:
    for i in range(3):
        make_image(tmp_path / "images" / f"{i}.png", i)
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,source,group,split,license\n"
        "images/0.png,photo,cam,person1,train,x\nimages/1.png,fake,gen,person1,test,x\nimages/2.png,fake,,,,x\n"
    )
    listing = list_data(tmp_path)
    assert rows(listing) == [
        ("images/0.png", "photo", "cam", "train"),
        ("images/1.png", "fake", "gen", "test"),
        ("images/2.png", "fake", "fake", ""),
    ]
    assert listing.real_label == "photo"
    assert list(listing.rows["group"]) == ["person1", "person1", "images/2.png"]


def test_a_family_is_kept_where_the_metadata_names_one(tmp_path: Path) -> None:
    for i in range(2):
        make_image(tmp_path / f"{i}.png", i)
    lines = ["file_name,label,source,family", "0.png,real,cam,", "1.png,fake,flux_dev,flux"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    assert list(list_data(tmp_path).rows["family"]) == ["", "flux"]
    (tmp_path / "metadata.csv").write_text("\n".join([*lines[:2], "1.png,fake,flux_dev,"]))
    assert "family" not in list_data(tmp_path).rows.column_names


def test_metadata_jsonl_in_every_split_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        lines = []
        for i, label in enumerate(("real", "fake")):
            make_image(tmp_path / split / f"{i}.png", i)
            lines.append(json.dumps({"file_name": f"{i}.png", "label": label, "source": label[0]}))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(lines))
    assert rows(list_data(tmp_path)) == [
        ("test/0.png", "real", "r", "test"),
        ("test/1.png", "fake", "f", "test"),
        ("train/0.png", "real", "r", "train"),
        ("train/1.png", "fake", "f", "train"),
    ]


def test_parquet_as_on_the_hub(tmp_path: Path) -> None:
    """The same loader reads a Hub id, so that embedded bytes and class names are what is tested here."""
    files = [make_image(tmp_path / "raw" / f"{i}.png", i) for i in range(4)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["0_real", "1_fake"]),
            "source": datasets.Value("string"),
        }
    )
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": f.read_bytes(), "path": None} for f in files],
            "label": [0, 1, 0, 1],
            "source": list("abcd"),
        },
        features=features,
    )
    for split in ("train", "test"):
        table.to_parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    listing = list_data(tmp_path / "hub")
    assert listing.labels == ["0_real", "1_fake"]
    assert listing.real_label == "0_real"
    assert sorted(listing.rows["split"]) == ["test"] * 4 + ["train"] * 4
    assert len(set(listing.rows["path"])) == 8
    assert image_bytes(listing.rows[0]["image"]) == files[0].read_bytes()


def test_images_stay_undecoded_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_faces(tmp_path / "data", {"real": 1, "fake": 1})
    monkeypatch.chdir(tmp_path)
    listing = list_data("data")
    monkeypatch.chdir("/")
    image = listing.rows[0]["image"]
    assert image["bytes"] is None
    assert image_bytes(image) == (tmp_path / "data" / listing.rows[0]["path"]).read_bytes()


def test_broken_files_are_listed_with_reason_and_left_out(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real/cam": 3, "fake/gen": 3})
    good = (tmp_path / "real/cam/000.png").read_bytes()
    (tmp_path / "real/cam/000.png").write_bytes(good[:-400])
    (tmp_path / "fake/gen/001.png").write_bytes(b"")
    (tmp_path / "fake/gen/002.png").write_text("<html>not found</html>")
    listing = list_data(tmp_path)
    assert len(listing.rows) == 3
    reasons = {file.path: file.reason for file in listing.broken}
    assert "truncated" in reasons["real/cam/000.png"]
    assert "empty" in reasons["fake/gen/001.png"]
    assert "wrong extension" in reasons["fake/gen/002.png"]
    assert {file.source for file in listing.broken} == {"cam", "gen"}


def test_a_listed_file_that_is_missing_or_outside_is_broken(tmp_path: Path) -> None:
    make_image(tmp_path / "secret.png")
    make_faces(tmp_path / "data", {"real": 1, "fake": 1})
    (tmp_path / "data" / "metadata.csv").write_text(
        "file_name,label\nreal/000.png,real\nfake/000.png,fake\ngone.png,real\n../secret.png,real\n"
    )
    listing = list_data(tmp_path / "data")
    assert len(listing.rows) == 2
    reasons = {file.path: file.reason for file in listing.broken}
    assert "missing" in reasons["gone.png"]
    assert reasons["../secret.png"] == "outside the data folder"


def test_files_that_the_metadata_does_not_name_are_listed(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 2, "fake": 2})
    (tmp_path / "metadata.csv").write_text("file_name,label\nreal/000.png,real\nfake/000.png,fake\n")
    listing = list_data(tmp_path)
    assert len(listing.rows) == 2
    assert {f.path: f.reason for f in listing.broken} == {
        "real/001.png": "not listed in the metadata",
        "fake/001.png": "not listed in the metadata",
    }


def test_a_file_name_that_is_not_utf8_is_listed(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 1, "fake": 1})
    (tmp_path / "real/000.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/real/bad\xff.png"))
    make_image(tmp_path / "real/good.png")
    listing = list_data(tmp_path)
    assert len(listing.rows) == 2
    assert listing.broken[0].reason == "file name is not UTF-8"
    listing.broken[0].path.encode()


def parquet(tmp_path: Path, features: datasets.Features | None, **columns: list) -> Path:
    table = datasets.Dataset.from_dict(columns, features=features)
    table.to_parquet(tmp_path / "hub" / "train.parquet")
    return tmp_path / "hub"


def test_parquet_of_other_writers_with_doubled_names_and_missing_images(tmp_path: Path) -> None:
    """A plain struct, the same name in every row, a row without an image: nothing is lost or mixed."""
    files = [make_image(tmp_path / f"{i}.png", i).read_bytes() for i in range(4)]
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    text = datasets.Value("string")
    root = parquet(
        tmp_path,
        datasets.Features({"image": struct, "label": text, "path": text}),
        image=[*({"bytes": b, "path": None} for b in files), None],
        label=["real", "fake", "real", "fake", "fake"],
        path=["same"] * 5,
    )
    listing = list_data(root)
    assert len(listing.rows) == 4
    assert len(set(listing.rows["path"])) == 4
    assert [image_bytes(row["image"]) for row in listing.rows] == files
    assert "no image" in listing.broken[0].reason


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 1, "fake": 1, ".cache": 1})
    (tmp_path / "real" / "._000.png").write_bytes(b"resource fork")
    assert len(list_data(tmp_path).rows) == 2


def test_files_that_are_no_images_by_their_names_are_counted(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 3, "fake": 3})
    for name in ("real/a.txt", "real/y0", "fake/x.jpeg_large", "fake/x.jpg ", "fake/t.parquet", "real/Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    expected = "5 files are not images by their names, such as fake/x.jpeg_large"
    assert list_data(tmp_path).passed_over == expected
    assert f"passed over {expected}" in load_data(tmp_path).describe()


def test_a_file_that_the_metadata_names_is_not_passed_over(tmp_path: Path) -> None:
    make_faces(tmp_path, {"a": 2})
    (tmp_path / "a/000.png").rename(tmp_path / "a/x")
    (tmp_path / "metadata.csv").write_text("file_name,label\na/x,real\na/001.png,fake\n")
    (tmp_path / "notes.md").write_text("x")
    assert list_data(tmp_path).passed_over == "1 file is not an image by its name, notes.md"


def test_a_class_that_is_missing_names_what_was_passed_over_there(tmp_path: Path) -> None:
    make_faces(tmp_path, {"fake/sdxl": 2, "real/Cache": 1, "real/.hidden": 1, "fake/.tmp": 1})
    (tmp_path / "fake/y").write_bytes(b"x")
    (tmp_path / "real/0").write_bytes(b"x")
    with pytest.raises(UsageError) as caught:
        list_data(tmp_path)
    assert str(caught.value).endswith(
        "only one class: fake; 2 files are not images by their names, such as real/0; "
        "skipped as hidden or a cache: real/.hidden, real/Cache"
    )


def test_label_order_of_a_checkpoint_is_kept(tmp_path: Path) -> None:
    make_faces(tmp_path, {"real": 1, "fake": 1})
    listing = list_data(tmp_path, label_order=["real", "fake"])
    assert listing.labels == ["real", "fake"]
    assert {listing.labels[row["label"]] for row in listing.rows if row["path"].startswith("real")} == {"real"}
    assert list_data(tmp_path, label_order=["cat", "dog"]).labels == ["fake", "real"]


def one_class(root: Path) -> None:
    make_faces(root, {"real": 2})


def nothing(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("no image here")


def no_label_folder(root: Path) -> None:
    make_faces(root, {"real": 1, "fake": 1})
    make_image(root / "loose.png")


def all_broken(root: Path) -> None:
    make_faces(root, {"real": 2, "fake": 1})
    (root / "fake/000.png").write_bytes(b"")


def mixed_splits(root: Path) -> None:
    make_faces(root, {"train/real": 1, "train/fake": 1, "extra/real": 1})


def row_without_label(root: Path) -> None:
    make_faces(root, {"real": 1})
    (root / "metadata.csv").write_text("file_name,label\nreal/000.png,\n")


def unknown_split(root: Path) -> None:
    make_faces(root, {"real": 1})
    (root / "metadata.csv").write_text("file_name,label,split\nreal/000.png,real,holdout\n")


def file_named_twice(root: Path) -> None:
    make_faces(root, {"real": 1})
    (root / "metadata.csv").write_text("file_name,label\nreal/000.png,real\nreal/000.png,fake\n")


def metadata_for_one_split_only(root: Path) -> None:
    make_faces(root, {"train/real": 1, "train/fake": 1, "test/real": 1, "test/fake": 1})
    (root / "train/metadata.csv").write_text("file_name,label\nreal/000.png,real\n")


def jsonl_of_lists(root: Path) -> None:
    make_faces(root, {"real": 1})
    (root / "metadata.jsonl").write_text("[1, 2]\n")


def one_label_in_two_spellings(root: Path) -> None:
    make_faces(root, {"Real": 1, "real": 1, "fake": 1})


def one_class_and_links_to_nothing(root: Path) -> None:
    make_faces(root, {"real": 2})
    (root / "fake").symlink_to(root.parent / "unmounted")


def all_named_outside(root: Path) -> None:
    root.mkdir()
    make_faces(root.parent / "store", {"real": 1, "fake": 1})
    rows = [f"{root.parent}/store/{label}/000.png,{label}" for label in ("real", "fake")]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))


def table_without_rows(root: Path) -> None:
    make_faces(root, {"real": 1})
    (root / "metadata.csv").write_text("file_name,label\n")


def only_links_to_nothing(root: Path) -> None:
    root.mkdir()
    (root / "real").symlink_to(root.parent / "unmounted")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (metadata_for_one_split_only, "some split folders have a metadata file, but test has none"),
        (jsonl_of_lists, "row 1 is not a JSON object"),
        (one_label_in_two_spellings, "spells one label in several ways: Real, real"),
        (one_class, "only one class: real"),
        (nothing, "no images found"),
        (no_label_folder, "loose.png is in no label folder"),
        (all_broken, "no readable image labelled fake in .*: 1 file was left out, the first: fake/000.png"),
        (one_class_and_links_to_nothing, "only one class: real; 1 file was left out, the first: fake.*broken link"),
        (all_named_outside, "no usable images in .*: 2 files were left out, the first: .*outside the data folder"),
        (table_without_rows, "no usable images in .*: 1 file was left out, the first: .*not listed in the metadata"),
        (only_links_to_nothing, "no images found in .*; 1 file was left out, the first: real.*broken link"),
        (mixed_splits, "mixes split folders"),
        (row_without_label, "row 1 has no label"),
        (unknown_split, "unknown split `holdout`"),
        (file_named_twice, "more than once"),
    ],
)
def test_mistakes_are_named_with_a_hint(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(UsageError, match=message) as caught:
        list_data(tmp_path / "data")
    assert caught.value.hint


def test_a_missing_folder_and_an_unreachable_hub_id(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data folder"):
        list_data(tmp_path / "nothing" / "here")
    with pytest.raises(UsageError, match="cannot load the data set someone/faces"):
        list_data("someone/faces")


def test_image_bytes_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        image_bytes({"bytes": None, "path": str(tmp_path / "gone.png")})
    assert caught.value.reason == "missing"


@pytest.mark.faces
def test_all_files_of_the_real_set_are_listed(faces_dir: Path) -> None:
    """imagefolder's own inference keeps those of one source, whose name it takes for a split."""
    listing = list_data(faces_dir, check="none")
    assert set(listing.rows["path"]) == {p.relative_to(faces_dir).as_posix() for p in faces_dir.glob("*/*/*.*")}
    assert listing.broken == []
    assert listing.labels == ["fake", "real"]
    assert "flux1_dev" in set(listing.rows["source"])


def test_an_unreadable_folder_is_no_silent_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_faces(tmp_path, {"real": 1, "fake/locked": 1})
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # tests may run as root, whom no permission stops
    with pytest.raises(UsageError, match=r"cannot read .*locked: permission denied"):
        list_data(tmp_path)


@pytest.mark.parametrize("check", ["full", "none"])
def test_linked_folders_and_files_are_read_under_their_names_in_the_data(tmp_path: Path, check: str) -> None:
    """As though they were copied there: two links to a folder give its files twice, a blob without suffix counts."""
    make_faces(tmp_path / "disk", {"real": 2, "fake": 2})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/real").symlink_to(tmp_path / "disk/real")
    make_faces(tmp_path / "data", {"fake/near": 1})
    (tmp_path / "data/fake/far").symlink_to(tmp_path / "disk/fake")
    (tmp_path / "data/fake/again").symlink_to("far")
    (tmp_path / "blob").write_bytes((tmp_path / "disk/real/000.png").read_bytes())
    (tmp_path / "data/fake/near/linked.png").symlink_to(tmp_path / "blob")
    (tmp_path / "data/fake/near/gone.png").symlink_to("nobody")
    (tmp_path / "data/fake/loop").symlink_to("..")
    (tmp_path / "link").symlink_to("data")
    listing = list_data(tmp_path / "link", check=check, groups="none")
    assert rows(listing) == [
        ("fake/again/000.png", "fake", "again", ""),
        ("fake/again/001.png", "fake", "again", ""),
        ("fake/far/000.png", "fake", "far", ""),
        ("fake/far/001.png", "fake", "far", ""),
        ("fake/near/000.png", "fake", "near", ""),
        ("fake/near/linked.png", "fake", "near", ""),
        ("real/000.png", "real", "real", ""),
        ("real/001.png", "real", "real", ""),
    ]
    assert {file.path: file.reason.split(":")[0] for file in listing.broken} == {
        "fake/loop": "link to a folder that contains it",
        "fake/near/gone.png": "broken link",
    }
    assert all(image_bytes(row["image"]) for row in listing.rows)


def test_a_snapshot_of_the_hub_is_a_folder_of_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshots" / "abc"
    lines = ["file_name,label"]
    for i, label in enumerate(["real", "fake"] * 2):
        make_image(tmp_path / f"{i}.png", i).rename(tmp_path / "blobs" / f"{i:040x}")
        (snapshot / "data").mkdir(parents=True, exist_ok=True)
        (snapshot / "data" / f"{i}.png").symlink_to(f"../../../blobs/{i:040x}")
        lines.append(f"data/{i}.png,{label}")
    (tmp_path / "blobs" / "table").write_text("\n".join(lines))
    (snapshot / "metadata.csv").symlink_to("../../blobs/table")
    listing = list_data(snapshot)
    assert (len(listing.rows), listing.broken) == (4, [])


@pytest.mark.parametrize(
    "folder", ["lost+found", "@eaDir", "$Recycle.Bin", "__MACOSX", ".ipynb_checkpoints", "__pycache__"]
)
def test_folders_that_are_no_data_are_passed_over_wherever_they_lie(tmp_path: Path, folder: str) -> None:
    make_faces(tmp_path, {"real": 1, "fake/gen": 1, folder: 1, f"fake/gen/{folder}": 1, f"real/{folder}/deep": 1})
    listing = list_data(tmp_path)
    assert [row[0] for row in rows(listing)] == ["fake/gen/000.png", "real/000.png"]
    assert listing.broken == []


def test_a_folder_of_the_system_that_nobody_may_read_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_faces(tmp_path, {"real": 1, "fake": 1, "lost+found": 1})
    scan = os.scandir

    def refuse(path: str) -> object:
        if "lost+found" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(list_data(tmp_path).rows) == 2


def test_generators_and_classes_above_the_label_are_sources(tmp_path: Path) -> None:
    make_faces(tmp_path, {"progan/cat/0_real": 1, "progan/cat/1_fake": 1, "biggan/0_real": 1, "biggan/1_fake": 1})
    assert rows(list_data(tmp_path)) == [
        ("biggan/0_real/000.png", "0_real", "biggan", ""),
        ("biggan/1_fake/000.png", "1_fake", "biggan", ""),
        ("progan/cat/0_real/000.png", "0_real", "progan/cat", ""),
        ("progan/cat/1_fake/000.png", "1_fake", "progan/cat", ""),
    ]


def test_parquet_behind_links_and_beside_leftovers(tmp_path: Path) -> None:
    """The loader follows no linked folder, and reads what a system left in the folder."""
    image = {"bytes": make_image(tmp_path / "x.png").read_bytes(), "path": None}
    table = datasets.Dataset.from_dict({"image": [image] * 2, "label": ["real", "fake"]})
    (tmp_path / "blobs").mkdir()
    table.to_parquet(tmp_path / "blobs" / "one")
    for name in ("train", "test"):
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / "store" / f"{name}-00000-of-00001.parquet").symlink_to("../blobs/one")
    table.to_parquet(tmp_path / "hub" / "@eaDir" / "train-0.parquet")
    (tmp_path / "hub" / "data").symlink_to("../store")
    listing = list_data(tmp_path / "hub")
    assert sorted(listing.rows["split"]) == ["test"] * 2 + ["train"] * 2
