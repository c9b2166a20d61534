"""Every file below a folder is found once a name, whatever links lead where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bonaface.imaging.inputs import find_inputs
from bonaface.imaging.walk import LOOP, is_no_data, walk_files


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def found(root: Path) -> dict[str, str]:
    return {path: problem.split(":")[0] for path, problem in walk_files(root)}


def test_links_are_followed_under_their_own_names(tmp_path: Path) -> None:
    write(tmp_path, "store/sub/x.txt", "data/a.txt")
    (tmp_path / "data/one").symlink_to(tmp_path / "store")
    (tmp_path / "data/two").symlink_to("../store/sub")
    (tmp_path / "data/b.txt").symlink_to("a.txt")
    assert found(tmp_path / "data") == dict.fromkeys(["a.txt", "b.txt", "one/sub/x.txt", "two/x.txt"], "")


def test_loops_end_and_are_named(tmp_path: Path) -> None:
    """To the folder itself, to one that holds it, to each other through links, and to nothing but itself."""
    write(tmp_path, "data/a/x.txt", "data/b/y.txt", "other/z.txt")
    (tmp_path / "data/a/top").symlink_to("..")
    (tmp_path / "data/a/whole_disk").symlink_to("/")
    (tmp_path / "data/a/to_b").symlink_to("../b")
    (tmp_path / "data/b/to_a").symlink_to("../a")
    (tmp_path / "data/out").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path)
    (tmp_path / "data/self").symlink_to("self")
    problems = {path: problem for path, problem in found(tmp_path / "data").items() if problem}
    assert problems == {
        "self": "broken link",
        "a/top": LOOP,
        "a/whole_disk": LOOP,
        "a/to_b/to_a": LOOP,
        "b/to_a/to_b": LOOP,
        "b/to_a/top": LOOP,
        "b/to_a/whole_disk": LOOP,
        "out/back": LOOP,
    }
    assert {path for path, problem in found(tmp_path / "data").items() if not problem} == {
        "a/x.txt", "a/to_b/y.txt", "b/y.txt", "b/to_a/x.txt", "out/z.txt",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [".git", ".Trash-1000", "._x.jpg", "@eaDir", "@EADIR", "$RECYCLE.BIN", "System Volume Information", "__MACOSX",
     "lost+found", "LOST.DIR", "Thumbs.db", "desktop.ini", "#recycle", "__pycache__", "thumbnails", ".thumbnails",
     "@__thumb", ".DS_Store", ".ipynb_checkpoints", "~$list.xlsx", "RECYCLE.BIN", "FOUND.001", "__MACOSX (1)",
     "@SynoResource", "iPod Photo Cache", "Catalog Previews.lrdata", "Thumbs copy", "venv"],
)  # fmt: skip
def test_what_systems_and_tools_leave_is_no_data(tmp_path: Path, name: str) -> None:
    assert is_no_data(name)
    write(tmp_path, "real/x.jpg", f"real/{name}/x.jpg", f"{name}/y.jpg")
    assert found(tmp_path) == {"real/x.jpg": ""}
    assert list(find_inputs([tmp_path])) == list(find_inputs([f"{tmp_path}/**/*.jpg"])) == [f"{tmp_path}/real/x.jpg"]


def test_a_folder_that_is_named_itself_is_walked_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path, ".cache/set/x.jpg")
    assert list(find_inputs([tmp_path / ".cache/set"])) == [f"{tmp_path}/.cache/set/x.jpg"]
    assert list(find_inputs([f"{tmp_path}/.cache/set/*"])) == [f"{tmp_path}/.cache/set/x.jpg"]


def test_inputs_behind_links_count_and_those_that_lead_nowhere_get_their_row(tmp_path: Path) -> None:
    write(tmp_path, "store/x.jpg", "data/y.jpg", "data/notes.txt")
    (tmp_path / "data/far").symlink_to("../store")
    (tmp_path / "data/gone").symlink_to("nobody")
    names = [os.path.relpath(path, tmp_path / "data") for path in find_inputs([tmp_path / "data"])]
    assert names == ["gone", "y.jpg", "far/x.jpg"]
