"""A packed run is what a push would publish, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_runs import SECRET_PLACE, small_run

from bonaface.errors import UsageError
from bonaface.hub.pack import pack_model
from bonaface.hub.push import model_files


def test_it_holds_what_a_push_would_publish_and_nothing_else(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    (run / "README.md").write_text(f"trained on {SECRET_PLACE}\n")
    out = pack_model(run, tmp_path / "models" / "mine")
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert set(files) == {*model_files(run), "README.md"}
    assert not [name for name in files if "checkpoint" in name or name.endswith((".pt", ".bin", ".pkl"))]
    for path in files.values():
        assert str(SECRET_PLACE).encode() not in path.read_bytes()
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert not list(out.parent.glob(".*"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="already exists"):
        pack_model(run, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"
    with pytest.raises(UsageError, match="not a model folder"):
        pack_model(tmp_path / "out", tmp_path / "other")
    assert not (tmp_path / "other").exists()
