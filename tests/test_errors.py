"""What the system refuses, and Ctrl-C, end a command with a line or two that name the place, never a traceback."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors import SafetensorError

from bonaface.errors import DivergedError, SystemRefusalError, UnknownNameError, UsageError, usage_errors_exit, writing


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def torch_save_fails() -> None:
    """As torch.save does on a full disk: its own error, without a number, met while another one is on its way."""
    try:
        raise RuntimeError("basic_ios::clear: iostream error")
    except RuntimeError:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534") from None


def raised(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "work",
    [
        raised(full()),
        raised(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")),
        raised(RuntimeError("(sqlite3.OperationalError) database or disk is full")),
        raised(OSError(errno.EDQUOT, "Disk quota exceeded")),
        torch_save_fails,
    ],
    ids=["write", "safetensors", "sqlite", "quota", "torch.save"],
)
def test_a_full_disk_is_named_with_the_place_whoever_met_it(
    work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonaface.errors.shutil.disk_usage", lambda place: Room)
    with pytest.raises(SystemRefusalError, match="no space left on disk") as caught, writing(tmp_path / "out"):
        work()
    assert str(tmp_path / "out") in str(caught.value)
    assert "same command" in caught.value.hint


class Room:
    free = 0


def test_a_full_device_ends_with_two_lines(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught, usage_errors_exit():
        Path("/dev/full").write_text("x")
    assert caught.value.code == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "hint"]


def test_torch_says_so_of_a_real_full_device() -> None:
    with pytest.raises(SystemRefusalError, match="no space left"), writing("/dev"):
        torch.save(torch.zeros(1_000_000), "/dev/full")


def test_an_unknown_backend_for_plots_stops_no_command(tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "nonsense", "PYTHONPATH": str(ROOT)}
    program = "from bonaface.errors import usage_errors_exit\nwith usage_errors_exit():\n import bonaface.report.plots"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)


def test_a_place_that_may_not_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit), usage_errors_exit():
        (tmp_path / "file" / "below").mkdir()
    assert f"cannot use {tmp_path / 'file' / 'below'}: not a directory" in capsys.readouterr().err


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    """A mistake of ours keeps its traceback."""
    for error in (KeyError("x"), FileNotFoundError(errno.ENOENT, "No such file", "x"), ValueError("full")):
        with pytest.raises(type(error)), usage_errors_exit(), writing(tmp_path):
            raise error


def test_errors_cross_process_borders() -> None:
    for error in (
        DivergedError("a"),
        UnknownNameError("a", "b", "c"),
        SystemRefusalError("a", "b"),
        UsageError("a", "b", 3),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    "command",
    [["train_hf.py"], ["-m", "bonaface", "sample"], ["-m", "hub", "card"]],
    ids=lambda command: command[-1],
)
def test_ctrl_c_is_one_line_and_130(command: list[str], tmp_path: Path) -> None:
    """While torch is imported and afterwards: a command waits here until it is interrupted."""
    os.mkfifo(tmp_path / "recipe.yaml")  # reading it waits for a writer
    os.mkfifo(tmp_path / "config.json")
    words = {"train_hf.py": [tmp_path / "recipe.yaml"], "sample": [tmp_path / "s", "--n", "40000"], "card": [tmp_path]}
    heard = ["env", "--default-signal=INT"]  # what a shell starts in the background ignores Ctrl-C
    process = subprocess.Popen(
        [*heard, sys.executable, *command, *words[command[-1]]], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        until, mapped = time.monotonic() + 60, Path(f"/proc/{process.pid}/maps")
        library = "numpy" if command[-1] == "sample" else "libtorch"
        while library not in mapped.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    finally:
        process.kill()  # one that a signal did not end would run on after the tests
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1] == "stopped"


TERMINATED = """
import os, signal, sys, time
from bonaface.errors import usage_errors_exit
from bonaface.files import atomic_path
with usage_errors_exit(), atomic_path(sys.argv[1]) as partial:
    partial.write_text("half")
    worker = os.fork()
    if not worker:
        time.sleep(60)
        os._exit(0)
    os.kill(worker, signal.SIGTERM)
    print("worker", os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
    time.sleep(60)
"""


def test_sigterm_is_one_line_and_143_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A worker, which was born with the handler, ends at once as it would without."""
    command = [sys.executable, "-c", TERMINATED, str(tmp_path / "file")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"worker {-signal.SIGTERM}\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == "stopped\n"
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_a_fork_leaves_the_signals_that_are_held_as_they_were() -> None:
    """A program that imports us and holds SIGTERM for a while keeps holding it, and so does its fork."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        worker = os.fork()
        if not worker:
            os._exit(signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, []))
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
