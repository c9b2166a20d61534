"""Files and folders appear whole or not at all, and nothing is left behind."""

import errno
import json
import math
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bonaface import files
from bonaface.files import locked
from bonaface.imaging.walk import first_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_keeps_its_line_ends(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    files.write_text(path, "ä,1\r\nb,2\n")
    assert path.read_bytes() == "ä,1\r\nb,2\n".encode()
    assert names(tmp_path) == ["table.csv"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "image.png"
    path.write_text("old")

    def save():
        with files.atomic_path(path) as partial:
            assert partial.suffix == ".png"  # image libraries choose the format by it
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["image.png"]


def test_what_a_killed_process_leaves_is_hidden(tmp_path):
    with files.atomic_path(tmp_path / "log") as partial, files.atomic_folder(tmp_path / "v1.0") as folder:
        partial.touch()
        assert first_file(tmp_path) is None
        assert {partial.name, folder.name} == set(names(tmp_path))


def test_the_unfinished_file_can_be_kept_out_of_the_folder(tmp_path):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    with files.atomic_path(out / "a.jpg", scratch) as partial:
        partial.write_bytes(b"half")
        assert (names(scratch), names(out)) == ([partial.name], [])
    assert (names(scratch), names(out)) == ([], ["a.jpg"])


def test_json_is_strict_and_takes_undecodable_paths(tmp_path):
    path = os.fsdecode(b"caf\xe9.jpg")
    files.write_json(tmp_path / "a.json", {"path": path, "name": "ä"})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"path": path, "name": "ä"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", math.nan)
    assert json.loads((tmp_path / "a.json").read_bytes())["name"] == "ä"


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_whole(tmp_path, exists):
    out = tmp_path / "model"
    if exists:
        out.mkdir()
    with files.atomic_folder(out) as partial:
        (partial / "config.json").write_text("{}")
        assert out.exists() == exists
    assert names(tmp_path) == ["model"]
    assert names(out) == ["config.json"]


def test_a_folder_with_files_is_not_replaced(tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "mine").write_text("mine")

    with pytest.raises(OSError), files.atomic_folder(out) as partial:
        (partial / "config.json").write_text("{}")
    assert names(tmp_path) == ["model"]
    assert names(out) == ["mine"]


def test_files_of_a_folder_are_replaced_after_all_were_written(tmp_path):
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "log.txt").write_text("log")
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "left.bin").write_text("of a killed process")
    with files.atomic_files(tmp_path) as partial:
        (partial / "config.json").write_text("new")
        assert (tmp_path / "config.json").read_text() == "old"
    assert names(tmp_path) == ["config.json", "log.txt"]
    assert (tmp_path / "config.json").read_text() == "new"


@pytest.mark.parametrize("content", [None, "{", "[1]", "\xff"])
def test_reading_json_that_is_not_there_or_damaged_finds_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    assert files.read_json(tmp_path / "a.json") == {}
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert files.read_json(tmp_path / "a.json") == {"a": 1}


def test_one_process_at_a_time_is_in_a_locked_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        started = time.monotonic()
        with pytest.raises(BlockingIOError), locked(tmp_path, patience=0.3):
            raise AssertionError("two at once")
        assert time.monotonic() - started >= 0.3  # the workers of one that was killed may need a while to end
    with locked(tmp_path, patience=0):
        pass
    with pytest.raises(FileNotFoundError), locked(tmp_path / "missing"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows does not fork")
def test_a_worker_that_lives_on_does_not_keep_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
    try:
        with locked(tmp_path, patience=0):
            pass
    finally:
        worker.kill()
        worker.join()


def test_where_folders_cannot_be_locked_the_work_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")  # as NFS says

    monkeypatch.setattr("bonaface.files.fcntl.flock", refuse)
    with locked(tmp_path):
        (tmp_path / "x").touch()
    assert (tmp_path / "x").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions for others")
@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_others_may_read_what_a_library_wrote_for_its_owner(tmp_path: Path, umask: int, expected: int) -> None:
    """safetensors makes files for their owner alone: an app that runs as another user could not load a model."""
    before = os.umask(umask)
    try:
        with files.atomic_path(tmp_path / "one.safetensors") as partial:
            save_file({"weight": np.zeros(2, np.float32)}, partial)
        with files.atomic_files(tmp_path / "some") as folder:
            save_file({"weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
        with files.atomic_folder(tmp_path / "all") as folder:
            (folder / "deep").mkdir()
            save_file({"weight": np.zeros(2, np.float32)}, folder / "deep" / "model.safetensors")
    finally:
        os.umask(before)
    found = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(found) == 3
    assert {oct(path.stat().st_mode & 0o777) for path in found} == {oct(expected)}
