"""Numbers that the environment gives are checked before a library reads them, whichever command it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from bonaface.environment import HUB_NUMBERS, check_numbers
from bonaface.errors import UsageError


@pytest.mark.parametrize("value", ["abc", "0", "1.5", "-3", "10s"])
@pytest.mark.parametrize("name", HUB_NUMBERS)
def test_a_wrong_number_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} is '{value}'"):
        check_numbers()


def test_an_empty_one_is_unset_and_a_number_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = HUB_NUMBERS
    monkeypatch.setenv(first, "")
    monkeypatch.setenv(second, "30")
    check_numbers()
    assert first not in os.environ
    assert os.environ[second] == "30"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "bonaface", "predict", "x.jpg", "--model", "user/name"],
        ["-m", "bonaface", "hub", "push", "run", "user/name"],
        ["-m", "hub", "push", "run", "user/name"],
        ["train_hf.py", "--data", "user/name"],
        ["app.py", "--model", "user/name"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_every_command_says_it_in_two_lines(command: list[str]) -> None:
    environment = {**os.environ, "HF_HUB_ETAG_TIMEOUT": "abc", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert "HF_HUB_ETAG_TIMEOUT is 'abc'" in lines[0]
