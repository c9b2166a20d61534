"""The command line: quick help, readable answers, errors as two lines with their exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import get_type_hints

import pytest
from conftest import ROOT, make_faces
from typer.testing import CliRunner

from bonaface.cli.main import app, main
from bonaface.errors import UsageError

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_help_answers_in_under_a_second_and_names_every_command() -> None:
    """Whatever is slow (torch, transformers) must wait until a command runs; best of three on a busy machine."""
    times, output = [], ""
    for _ in range(3):
        started = time.monotonic()
        command = [sys.executable, "-m", "bonaface", "--help"]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        times.append(time.monotonic() - started)
    assert min(times) < 1
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(command: str) -> None:
    """No command without a docstring, no option without a help text."""
    output = run(command, "--help")
    assert len(output.splitlines()) > 8
    callback = next(c.callback for c in app.registered_commands if (c.name or c.callback.__name__) == command)
    assert callback.__doc__.strip().splitlines()[0] in " ".join(output.split())
    hints = get_type_hints(callback, include_extras=True)
    assert all(hint.__metadata__[0].help for name, hint in hints.items() if name not in ("context", "return"))


@pytest.mark.slow
def test_audit_of_a_leaky_set_exits_3_when_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_faces(tmp_path / "data", {"real/cam": 40}, size=(80, 80))
    make_faces(tmp_path / "data", {"fake/gan": 40}, size=(40, 40))
    result = CliRunner().invoke(app, ["audit", str(data), "--strict", "--out", str(tmp_path / "out")])
    assert result.exit_code == 3, result.output
    assert "leak" in result.output
    assert (tmp_path / "out" / "audit.html").is_file()
    assert CliRunner().invoke(app, ["audit", str(data)]).exit_code == 0


def test_prepare_and_sample_write_data_sets(tmp_path: Path) -> None:
    assert "24 images" in run("sample", str(tmp_path / "sample"), "--n", "24", "--size", "96")
    assert "24 of 24 files" in run(
        "prepare", str(tmp_path / "sample"), str(tmp_path / "out"), "--size", "64", "64", "--no-faces"
    )
    assert len(list((tmp_path / "out").glob("*/*/*.jpg"))) == 24


def test_a_usage_error_ends_with_two_lines_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["bonaface", "audit", str(tmp_path / "no" / "such" / "place")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines[-2:]] == ["error", "hint"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["sample", str(tmp_path / "file" / "sample"), "--n", "24", "--size", "96"])
    assert result.exit_code == 2
    assert f"error: cannot use {tmp_path / 'file'}" in result.output


def test_usage_errors_cross_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UsageError("what", "how", 3)))
    assert (str(error), error.hint, error.exit_code) == ("what", "how", 3)
