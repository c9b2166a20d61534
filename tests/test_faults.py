"""Commands in trouble: stopped, without room, in a folder that takes no writes, beside another one; nothing is lost.

``docs/reliability.md`` says what happens, fault by fault, and names these tests. Disks that are full and folders that
are read-only are real: a file system of the test's own, mounted where only the command sees it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import ROOT, make_faces
from forked import Done, command, read_only, run, small_disk
from served import run_folder

from bonaface import files
from bonaface.files import locked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONAFACE_YUNET", "")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"real/a": 12, "real/b": 12, "fake/x": 12, "fake/y": 12}
    return make_faces(tmp_path_factory.mktemp("data"), counts, size=(64, 64))


def told(done: Done) -> str:
    """The error of a command that failed as commands do: two lines, no traceback."""
    assert done.code == 2, done.said
    assert "Traceback" not in done.said
    lines = [line for line in done.said.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(lines) == 2, done.said
    return lines[0]


def half_written(folder: Path) -> list[str]:
    """Files under temporary names."""
    return [str(path) for path in folder.rglob("*") if ".partial" in path.name or path.name.startswith("tmp")]


def writing(name: str, data: Path, out: Path) -> list[str]:
    """A command that writes to ``out``."""
    model = str(run_folder())
    return {
        "predict": ["predict", str(data), "--model", model, "--no-faces", "--out", str(out / "scores.csv")],
        "audit": ["audit", str(data), "--out", str(out)],
        "prepare": ["prepare", str(data), str(out / "copies"), "--no-faces", "--workers", "1"],
        "evaluate": [
            "evaluate", "--model", model, "--data", str(data), "--out", str(out), "--split", "all", "--no-robustness",
        ],
        "pack": ["hub", "pack", model, str(out / "packed")],
        "train": [
            "train", "--data", str(data), "--model", "resnet", "--output_dir", str(out / "run"), "--image_size", "32",
            "--num_train_epochs", "1", "--robustness", "none", "--prepare", "False", "--disable_tqdm", "True",
            "--dataloader_num_workers", "0",
        ],
        "crossval": ["crossval", "--data", str(data), "--folds", "2", "--out", str(out / "cv")],
    }[name]  # fmt: skip


ROOM = {"predict": "4k", "audit": "16k", "prepare": "48k", "evaluate": "64k", "pack": "64k", "train": "64k"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ROOM)
def test_a_full_disk_is_named_and_no_file_is_half_there(name: str, data: Path, out: Path, tmp_path: Path) -> None:
    """What is on the disk afterwards is looked at by the command's own process, which alone sees it."""
    after = tmp_path / "after"
    disk = small_disk(out, ROOM[name])
    said = told(run(writing(name, data, out), tmp_path / "log", disk, partial(shutil.copytree, out, after)))
    assert "no space left on d" in said
    assert str(out) in said
    assert half_written(after) == []
    for whole in ("scores.csv", "audit.json", "copies/prepare.json", "report/metrics.json", "packed"):
        assert not (after / whole).exists()


@pytest.mark.parametrize("name", [*ROOM, "crossval"])
def test_a_folder_that_takes_no_writes_is_named_and_nothing_is_begun(
    name: str, data: Path, out: Path, tmp_path: Path
) -> None:
    said = told(run(writing(name, data, out), tmp_path / "log", read_only(out)))
    assert str(out) in said
    assert "read-only" in said.lower()
    assert list(out.iterdir()) == []


def stopped(process: BaseProcess, number: int, ready: Callable[[], bool], log: Path) -> int | None:
    """Send a command a signal as soon as it is ready, and give its exit code."""
    until = time.monotonic() + 200
    while not ready():
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", ["predict", "prepare"])
def test_a_command_that_was_stopped_resumes(name: str, number: int, tmp_path: Path) -> None:
    """SIGTERM ends it with one line and 143; after either, the same command ends with what there would have been."""
    many = make_faces(tmp_path / "many", {"real/a": 60, "fake/x": 60}, size=(500, 500))
    results, log = [], tmp_path / "log"
    for folder in ("stopped", "whole"):
        place = tmp_path / folder
        place.mkdir()
        words = writing(name, many, place)
        if folder == "stopped":
            journal = {"predict": place / ".scores.csv.journal", "prepare": place / "copies/.prepare/journal.jsonl"}
            lines = journal[name]

            def begun(lines: Path = lines) -> bool:
                return lines.is_file() and lines.read_bytes().count(b"\n") > 5

            code = stopped(command(words, log), number, begun, log)
            assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
            if number == signal.SIGTERM:
                assert log.read_text().strip().endswith("stopped")
            assert not (place / "scores.csv").exists()
        assert run(words, log).code == 0
        results.append({path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()})
    assert results[0] == results[1]


def test_a_training_that_is_told_to_stop_says_so_and_leaves_no_workers(data: Path, tmp_path: Path) -> None:
    words = writing("train", data, tmp_path)
    words[words.index("--num_train_epochs") + 1] = "500"
    words[words.index("--dataloader_num_workers") + 1] = "2"
    log = tmp_path / "log"
    code = stopped(
        command([*words, "--logging_steps", "1"], log),
        signal.SIGTERM,
        lambda: log.is_file() and "loss" in log.read_text(),
        log,
    )
    assert code == 143, log.read_text()
    assert "Traceback" not in log.read_text()
    assert log.read_text().strip().endswith("stopped")
    with locked(tmp_path / "run", patience=20):  # its workers, which share its lock, are gone too
        pass
    assert half_written(tmp_path / "run") == []


def impatient() -> None:
    files.ORPHANS = 0.1


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_two_commands_on_one_folder_are_kept_apart(name: str, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / {"train": "run", "prepare": "copies"}[name]
    folder.mkdir()
    with locked(folder):
        done = run(writing(name, data, tmp_path), tmp_path / "log", impatient)
    assert re.search(r"another process is (training in|preparing) ", told(done))
    assert not [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".jpg", ".yaml")]


@pytest.mark.parametrize("name", ["audit", "evaluate"])
def test_two_audits_or_evaluations_in_one_folder_leave_whole_files(
    name: str, data: Path, out: Path, tmp_path: Path
) -> None:
    """Each file is one command's, whole: the later one's."""
    both = [command(writing(name, data, out), tmp_path / f"log{i}") for i in range(2)]
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0], (tmp_path / "log0").read_text()
    assert run(writing(name, data, tmp_path / "alone"), tmp_path / "log").code == 0
    files, alone = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (out, tmp_path / "alone")
    )
    assert files == alone
    assert half_written(out) == []


def test_no_duration_is_taken_from_a_clock_that_may_jump() -> None:
    for path in (ROOT / "bonaface").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\btime\.time\(\)|\bdatetime\.now\(\)|\.utcnow\(", text), path


@pytest.mark.parametrize("kind", ["vanishes", "is cut", "becomes another"])
@pytest.mark.parametrize("name", ["predict", "audit", "prepare", "evaluate"])
def test_a_file_that_changes_after_the_listing_is_counted_and_stops_nothing(
    name: str, kind: str, data: Path, out: Path, tmp_path: Path
) -> None:
    """A link to a file that is gone, half of it, and text: as if each had happened between listing and reading."""
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    victim = copy / "real/a/000.png"
    whole = victim.read_bytes()
    victim.unlink()
    if kind == "vanishes":
        victim.symlink_to(tmp_path / "gone.png")
    else:
        victim.write_bytes(whole[: len(whole) // 2] if kind == "is cut" else b"text, and no longer an image")
    done = run(writing(name, copy, out), tmp_path / "log")
    assert done.code == 0, done.said
    written = "".join(p.read_text(errors="replace") for p in out.rglob("*") if p.suffix in (".csv", ".json", ".md"))
    assert "000.png" in written + done.said
