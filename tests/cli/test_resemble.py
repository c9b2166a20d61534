"""What a training learns of its generators is added to a run that was trained before; its scores stay as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny import SIZES, TINTS, tinted, tinted_data, tiny_run
from typer.testing import CliRunner

from bonaface.cli.main import app
from bonaface.cli.resemble import add_resemblance
from bonaface.errors import UsageError
from bonaface.inference.detector import Detector
from bonaface.inference.resembles import FILE


def test_a_run_learns_it_later_from_the_same_images_only(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tinted_data(tmp_path / "data"))
    learned = Detector.from_pretrained(run).facts.resembles
    config = json.loads((run / "config.json").read_text())
    del config["bonaface"]["resembles"]
    (run / "config.json").write_text(json.dumps(config))
    (run / FILE).unlink()
    recipe = {"data": ["faces"], "prepare": False, "audit": False, "model": "resnet", **SIZES}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    before = (run / "model.safetensors").read_bytes()

    shutil.copytree(tmp_path / "data", tmp_path / "fewer")
    (tmp_path / "fewer" / "real" / "a" / "000.png").unlink()
    with pytest.raises(UsageError, match="was not trained on"):
        add_resemblance(run, str(tmp_path / "fewer"))
    with pytest.raises(UsageError, match="is not a run"):
        add_resemblance(tmp_path / "data", None)
    assert json.loads((run / "config.json").read_text()) == config

    result = CliRunner().invoke(app, ["resemble", str(run), "--data", str(tmp_path / "data")])
    assert result.exit_code == 0, result.output
    assert "most like: on." in result.output
    detector = Detector.from_pretrained(run)
    assert detector.facts.resembles.sources == learned.sources
    assert detector.facts.resembles.n == learned.n
    assert (run / "model.safetensors").read_bytes() == before
    (found,) = detector([tinted(90_000, TINTS["sdxl"])])
    assert found.resembles == ("sdxl",)
