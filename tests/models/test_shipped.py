"""The detector that comes with the project: small, clean, loadable by anyone, and used where no other is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from huggingface_hub import ModelCard
from PIL import Image
from transformers import pipeline

from bonaface.data.sample import SampleSpec, make_image
from bonaface.errors import UsageError
from bonaface.inference.detector import Detector
from bonaface.models.facts import ModelFacts
from bonaface.models.shipped import SHIPPED, named_or_shipped, shipped_model

MODEL = ROOT / SHIPPED


def portraits(folder: Path, n: int = 4) -> list[Path]:
    files = []
    for i in range(n):
        name, encoded = make_image(SampleSpec(n, size=160, seed=0), i)[:2]
        files.append(folder / Path(name).name)
        files[-1].write_bytes(encoded)
    return files


def test_it_is_small_and_holds_nothing_but_our_own() -> None:
    """Weights of 25 MB at most, no pickle, no image of the training data, no place of the machine that made it."""
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert (MODEL / "model.safetensors").stat().st_size <= 25e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".yaml", ".md", ".png", ".parquet", ".html"}
    for path in files:
        if path.suffix in {".json", ".yaml", ".md", ".html"}:
            text = path.read_text(encoding="utf-8")
            assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "/Users/", str(ROOT))), path
    report = MODEL / "report" / "report.html"
    assert not report.exists() or "data:image/jpeg" not in report.read_text(encoding="utf-8")


def test_the_stock_pipeline_and_the_detector_agree_on_it(tmp_path: Path) -> None:
    stock = pipeline("image-classification", model=str(MODEL))
    detector = Detector.from_pretrained(MODEL)
    for path in portraits(tmp_path):
        with Image.open(path) as image:
            image = image.convert("RGB")
            theirs = {row["label"]: row["score"] for row in stock(image)}
            (ours,) = detector([image], faces=False)
        assert ours.p_fake == pytest.approx(theirs["fake"], abs=1e-4)


def test_band_and_thresholds_come_from_sources_that_it_was_not_trained_on() -> None:
    facts = ModelFacts.from_block(json.loads((MODEL / "config.json").read_text(encoding="utf-8"))["bonaface"])
    assert "left out of training" in facts.judged_on
    assert facts.band.low < facts.band.high
    assert facts.unseen.n == facts.calibration.n > 3000
    assert [row.fpr for row in facts.thresholds] == [0.005, 0.01, 0.05]
    recipe = yaml.safe_load((ROOT / "recipes" / "detector.yaml").read_text(encoding="utf-8"))
    said = yaml.safe_load((MODEL / "recipe.yaml").read_text(encoding="utf-8"))
    told = ("image_size", "augmentation", "head_only", "head_block", "num_train_epochs", "learning_rate", "mixup")
    assert {key: said[key] for key in told} == {key: recipe[key] for key in told}
    assert said["float8"]


def test_its_card_says_what_it_must_not_be_used_for() -> None:
    card = ModelCard.load(MODEL / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.base_model == "openai/clip-vit-base-patch16"
    assert card.data.pipeline_tag == "image-classification"
    assert "unseen" in card.text.lower()
    assert "research only" in card.text


@pytest.mark.slow
def test_predict_uses_it_where_no_model_is_named(tmp_path: Path) -> None:
    files = portraits(tmp_path)
    command = [sys.executable, "-m", "bonaface", "predict", *map(str, files), "--out", str(tmp_path / "scores.jsonl")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[transformers]" not in done.stderr  # no line of the libraries below
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * len(files)
    assert all(0 <= row["p_fake"] <= 1 and np.isfinite(row["p_fake"]) for row in rows)
    assert {row["verdict"] for row in rows} <= {"real", "fake", "uncertain"}


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named_or_shipped("mine") == "mine"
    assert named_or_shipped(None) == str(MODEL)
    monkeypatch.setattr("bonaface.resources.INSTALLED", tmp_path)
    assert shipped_model() is None
    with pytest.raises(UsageError, match="no model was given"):
        named_or_shipped(None)
