"""What benchmarks leave behind can be compared and made again: a ratio, the machine, a command without its paths."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import record

RESULTS = [path for path in (ROOT / "benchmarks" / "results").glob("*.json") if path.stem != "framing"]  # no speed


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_has_its_machine_and_a_ratio_that_it_explains(path: Path) -> None:
    story = json.loads(path.read_text(encoding="utf-8"))
    assert " cores of " in story["machine"]
    assert '"ratio":' in path.read_text(encoding="utf-8")
    assert story["ratio_means"]
    assert "/work" not in path.read_text(encoding="utf-8")


def test_a_recorded_run_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/x/speed.py", "faces", "--data", str(tmp_path), "--files", "8", "--out", str(tmp_path / "a.json")]
    monkeypatch.setattr(sys, "argv", words)
    story = record.record(tmp_path / "new" / "a.json", 1.23456, "ours / theirs", files=8)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == story
    assert story["command"] == "python benchmarks/speed.py faces --data DATA --files 8"
    assert (story["ratio"], story["ratio_means"], story["files"]) == (1.235, "ours / theirs", 8)
