"""A path that the system cannot use, wherever a user names one, ends in two short lines: no traceback, no flood."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import make_faces, make_image

from bonaface import Detector
from bonaface.cli.main import main
from bonaface.data.listing import list_data
from bonaface.errors import SystemRefusalError, UsageError, is_folder
from bonaface.training.recipe import read_recipe

PATHS = {
    "too long": "a" * 5000,
    "too deep": "a/" * 2500,
    "many words": "a b " * 1250,
    "through a file": "photo.png/x",
    "a link to itself": "loop",
    "control characters": "\x1b[31mred\n",
    "not UTF-8": os.fsdecode(b"x\xff"),
}
# With what a path may stand for as P; the first ones read it, the others write to it.
READING = (
    "audit P", "prepare P out", "export P --format onnx", "explain P", "crossval P", "train P", "train P.yaml",
    "train --data P --output_dir run", "train --data data --output_dir run --model P",
    "train --data data --output_dir run --prepare False --splits P",
    "train --data data --output_dir run --resume_from_checkpoint P",
    "evaluate --model P --data data --out out", "compare P P/x --data data --out out", "predict photo.png --model P",
    "predict photo.png --faces --yunet P", "app --model P", "hub card P", "hub pack P out", "hub push P user/name",
)  # fmt: skip
WRITING = ("sample P", "prepare data P", "hub pack data P", "train --data data --output_dir P")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_faces(tmp_path / "data", {"real/cam": 3, "fake/gan": 3})
    make_image(tmp_path / "photo.png")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("kind", PATHS)
def test_every_command_names_it_in_two_short_lines(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = READING if kind == "control characters" else (*READING, *WRITING)  # such a name may be new
    for command in commands:
        words = [word.replace("P", PATHS[kind]) if "P" in word else word for word in command.split()]
        monkeypatch.setattr(sys, "argv", ["bonaface", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        lines = capsys.readouterr().err.splitlines()
        assert caught.value.code == 2, command
        assert [line.partition(":")[0] for line in lines[-2:]] == ["error", "hint"], command
        assert len(lines) == 2, command
        assert max(map(len, lines)) < 650, command
        assert all(line.isprintable() for line in lines), command


@pytest.mark.usefixtures("place")
def test_data_below_a_name_that_is_not_utf8_are_refused_by_it() -> None:
    (bad := Path(PATHS["not UTF-8"])).mkdir()
    Path("data").rename(bad / "data")
    with pytest.raises(SystemRefusalError, match="not UTF-8"):
        list_data(bad / "data")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("command", ["predict", "provenance"])
def test_among_many_inputs_it_is_a_short_row(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in PATHS.values():
        monkeypatch.setattr(sys, "argv", ["bonaface", command, path])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        assert max(map(len, capsys.readouterr().out.splitlines())) < 500


@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 2500, "a\0b", "\ud800"])
def test_the_library_names_it_too(path: str) -> None:
    for use in (Detector.from_pretrained, list_data):
        with pytest.raises(UsageError) as caught:
            use(path)
        assert len(str(caught.value)) < 650
    if "\0" not in path and path.isascii():
        with pytest.raises(SystemRefusalError, match="file name too long"):
            is_folder(path)


@pytest.mark.parametrize("text", [r'"a\0b"', r'"\ud800"'])
@pytest.mark.parametrize("key", ["data", "output_dir", "model", "splits", "stages"])
def test_a_recipe_cannot_hide_one(tmp_path: Path, key: str, text: str) -> None:
    value = f"[{{name: one, schedule: {text}}}]" if key == "stages" else text
    (tmp_path / "r.yaml").write_text(f"{key}: {value}\n")
    with pytest.raises(UsageError, match="has a character that"):
        read_recipe([str(tmp_path / "r.yaml")])
