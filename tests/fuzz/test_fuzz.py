"""Readers of strangers' bytes keep their promise: on what once broke it, and on 10 seconds of guided search each."""

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


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_guided_search_finds_no_fault(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), name, "--seconds", SECONDS, "--seed", "1"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    found = {path.name: path.read_bytes() for path in tmp_path.glob("*-*")}
    assert done.returncode == 0, f"{found}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
