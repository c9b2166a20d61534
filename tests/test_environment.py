"""Numbers that the environment gives are checked before a library reads them, whichever command it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from bonaface.environment import HEADERS, HUB_NUMBERS, check_hub, check_numbers
from bonaface.errors import UsageError


@pytest.mark.parametrize("value", ["abc", "0", "1.5", "-3", "10s"])
@pytest.mark.parametrize("name", HUB_NUMBERS)
def test_a_wrong_number_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} is '{value}'"):
        check_hub()


@pytest.mark.parametrize(
    "value", ["nonsense", "http://[", "https://", "ftp://host", "http://host:port", "https://h:99999"]
)
def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The Hub's client cannot even be imported with some of them."""
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(UsageError, match=r"HF_ENDPOINT is .* not an address"):
        check_hub()


@pytest.mark.parametrize("value", ["", "https://hub.example", "http://127.0.0.1:8080/", "http://[::1]:80/path"])
def test_an_address_is_left(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    check_hub()


@pytest.mark.parametrize("name", HEADERS)
def test_what_no_request_can_carry_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hf_s\N{LATIN SMALL LETTER E WITH ACUTE}cret")
    with pytest.raises(UsageError, match=name) as caught:
        check_hub()
    assert "cret" not in str(caught.value)


def test_an_empty_one_is_unset_and_a_number_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = HUB_NUMBERS
    monkeypatch.setenv(first, "")
    monkeypatch.setenv(second, "30")
    check_numbers(HUB_NUMBERS)
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
