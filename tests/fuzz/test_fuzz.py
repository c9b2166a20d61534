"""Readers of strangers' bytes keep their promise: on what once broke it, and on ten seconds of guided search each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from crashers import CRASHERS  # noqa: E402
from targets import TARGETS  # noqa: E402

SECONDS = os.environ.get("BONAFACE_FUZZ_SECONDS", "10")


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_are_read(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].read(seed)


@pytest.mark.parametrize(("name", "data"), CRASHERS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_once_broke_a_reader_no_longer_does(name: str, data: bytes) -> None:
    TARGETS[name].read(data)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of each target's search, after all of them."""
    folder = tmp_path_factory.mktemp("searched")
    subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), "--seconds", SECONDS, "--seed", "1"],
        cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=False,
    )  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_guided_search_finds_no_fault(name: str, searched: Path) -> None:
    log = (searched / name / "log").read_text(errors="replace")
    found = {path.name: path.read_bytes() for path in (searched / name).glob("*-*")}
    assert not found, log[-6000:]
    assert "Done " in log, log[-6000:]  # it ran until its time was over
