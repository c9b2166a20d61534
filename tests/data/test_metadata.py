"""A metadata file names files by any way that leads into the data folder; all others are counted with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import make_faces

from bonaface.data.listing import list_data
from bonaface.errors import UsageError


def listed(root: Path, *names: str, table: str = "metadata.csv") -> tuple[list[str], dict[str, str]]:
    """Paths listed, and those left out with their reason, for a table that names these files real and fake in turn."""
    lines = [f"{name},{('real', 'fake')[i % 2]}" for i, name in enumerate(names)]
    (root / table).write_text("\n".join(["file_name,label", *lines]))
    listing = list_data(root, check="none")
    return sorted(listing.rows["path"]), {file.path: file.reason for file in listing.broken}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two files, one of them behind a link, which is itself behind a link."""
    make_faces(tmp_path / "store", {"far": 1})
    make_faces(tmp_path / "data", {"near": 1})
    (tmp_path / "data/far").symlink_to("../store/far")
    (tmp_path / "here").symlink_to("data")
    return tmp_path / "here"


FILES = ["far/000.png", "near/000.png"]


@pytest.mark.parametrize(
    "names",
    [
        ("far/000.png", "near/000.png"),
        ("far\\000.png", ".\\near\\000.png"),
        (" far/000.png ", "./near/../near/000.png"),
        ("{root}/far/000.png", "{root}/near/000.png"),
        ("{root}/../store/far/000.png", "../data/near/000.png"),
        ("{real}/store/far/000.png", "{real}/data/near/000.png"),
    ],
)
def test_names_that_lead_inside(root: Path, names: tuple[str, str]) -> None:
    full = [name.format(root=root, real=os.path.realpath(root.parent)) for name in names]
    assert listed(root, *full) == (FILES, {})


def test_names_that_lead_outside_are_counted(root: Path) -> None:
    make_faces(root.parent, {"other": 1})
    outside = ["../other/000.png", f"{root.parent}/other/000.png", "C:\\faces\\x.png", "/gone.png"]
    paths, left_out = listed(root, *FILES, *outside)
    assert paths == FILES
    assert left_out == dict.fromkeys(outside, "outside the data folder")


@pytest.mark.parametrize("place", ["/home/somebody/faces/", "C:\\faces\\", "faces/"])
def test_a_file_under_another_machines_path_counts_once(root: Path, place: str) -> None:
    for name in ("near/8.png", "near/9.png", "unlisted.png"):
        (root / name).write_bytes((root / FILES[0]).read_bytes())
    paths, left_out = listed(root, *FILES, f"{place}near/8.png", f"{place}near/9.png")
    assert len(paths) + len(left_out) == 5
    assert [path for path, why in left_out.items() if "not listed" in why] == ["unlisted.png"]


def test_a_backslash_in_a_real_file_name_is_no_separator(root: Path) -> None:
    (root / "near/000.png").rename(root / "near\\000.png")
    assert listed(root, "far/000.png", "near\\000.png") == (["far/000.png", "near\\000.png"], {})


def test_a_named_link_that_leads_nowhere_is_counted_once(root: Path) -> None:
    (root / "near/gone.png").symlink_to("nobody")
    listed(root, *FILES, "near/gone.png")
    listing = list_data(root)
    assert [(file.path, file.reason.split(":")[0]) for file in listing.broken] == [("near/gone.png", "missing")]


@pytest.mark.parametrize("table", ["METADATA.CSV", "metadata.tsv"])
def test_other_spellings_of_the_file(root: Path, table: str) -> None:
    assert listed(root, *FILES, table=table) == (FILES, {})


def test_a_table_inside_the_only_folder(tmp_path: Path) -> None:
    """As an archive unpacks to; a folder of the system beside it does not count."""
    data = make_faces(tmp_path, {"set/a": 2, "__MACOSX/set/a": 2})
    (data / "set/metadata.csv").write_text("file_name,label,split\na/000.png,real,Train\na/001.png,fake, test \n")
    rows = list_data(data).rows
    assert list(zip(rows["path"], rows["split"], strict=True)) == [
        ("set/a/000.png", "train"),
        ("set/a/001.png", "test"),
    ]


def test_json_lines_with_capitals_and_names_that_are_no_utf8(root: Path) -> None:
    names = [*FILES, "\ud800.png"]
    lines = [json.dumps({"File_Name": name, "Label": ("real", "fake")[i % 2]}) for i, name in enumerate(names)]
    (root / "metadata.jsonl").write_text("\ufeff" + "\r\n".join(lines))
    listing = list_data(root)
    assert sorted(listing.rows["path"]) == FILES
    assert [(file.path, file.reason) for file in listing.broken] == [("?.png", "file name is not UTF-8")]


@pytest.mark.parametrize("column", ["file_name", "label", "source", "group"])
@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
def test_a_nul_is_refused_by_its_row(root: Path, table: str, column: str) -> None:
    """It would be in names of folders, and in labels that look alike."""
    good = {"file_name": "near/000.png", "label": "real", "source": "cam", "group": "a"}
    bad = {**good, "file_name": "far/000.png", "label": "fake"}
    bad[column] = bad[column][:2] + "\0" + bad[column][2:]
    rows = [good, bad]
    as_csv = "\n".join([",".join(good), *(",".join(row.values()) for row in rows)])
    (root / table).write_text(as_csv if table.endswith("csv") else "\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match=rf"row 2 has a control character in its {column}: .*U\+0000"):
        list_data(root, check="none")


@pytest.mark.parametrize("label", ["re\x07al", "real\u200b", "\x1b[31mreal"])
def test_other_control_characters_of_a_label_are_refused(root: Path, label: str) -> None:
    (root / "metadata.csv").write_text(f"file_name,label\nnear/000.png,{label}\nfar/000.png,fake\n")
    with pytest.raises(UsageError, match="row 1 has a control character in its label"):
        list_data(root, check="none")
