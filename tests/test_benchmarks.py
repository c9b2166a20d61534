"""What benchmarks leave behind can be compared and made again: a ratio, the machine, a command without its paths."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import face_features
import face_views
import record

ACCURACY = {"framing", "peers"}  # nothing in them is a speed
RESULTS = [path for path in (ROOT / "benchmarks" / "results").glob("*.json") if path.stem not in ACCURACY]


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


def test_the_harness_draws_its_own_views_and_the_librarys() -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(2)]
    points = np.full((2, 5, 2), np.nan)
    settings = face_views.ViewSettings(size=48)
    views = {
        name: face_features.maker(name, crops, points, settings)(1)
        for name in ("plain", "eval", "faces0", "faces1", "0", "1", "aligned80", *face_features.TESTS)
    }
    assert {view.shape for view in views.values()} == {(48, 48, 3)}
    assert {view.dtype for view in views.values()} == {np.dtype(np.uint8)}
    assert not np.array_equal(views["faces0"], views["faces1"])
    assert not np.array_equal(views["0"], views["1"])
    middle = crops[1][24:72, 24:72].astype(float)  # at its own resolution but for the resize to 64 px
    assert abs(views["eval"].mean() - middle.mean()) < 5
