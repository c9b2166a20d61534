"""Every recipe that ships runs from its first stage to its report: in miniature, from scratch, without network."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, make_faces
from sklearn.metrics import roc_auc_score

from bonaface.cli import train

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
# The recipe's own network where it is small enough for a test; else the tiny one.
NETWORKS = {
    "detector": "timm/vit_tiny_patch16_224",
    "detector-lite0": "lite0",
    "cnn_scratch": "cnn",
    "resnet18": "timm/resnet18",
    "faces": "resnet",
    "sample": "resnet",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 24, "fake/gan": 12, "fake/sd": 12})


@pytest.mark.slow
@pytest.mark.usefixtures("plots_not_rendered")
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_in_miniature(
    path: Path, folder: Path, tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # features of frozen networks are kept in the working directory
    network = NETWORKS.get(path.stem, tiny_model)
    data = [str(folder)]
    if path.stem == "resnet50_two_stage":
        data = [f"{name}={folder}" for name in ("low_res", "high_res", "held_out")]
    train.main([
        str(path), "--data", *data, "--model", network, "--from_scratch", "--image_size", "32", "--resize", "40",
        "--prepare", "False", "--audit", "False", "--num_train_epochs", "1", "--per_device_train_batch_size", "8",
        "--weight_decay", "0.01", "--robustness", "none", "--compile", "False", "--use_cpu", "True",
        "--bf16", "False", "--dataloader_num_workers", "0", "--disable_tqdm", "True",
        "--output_dir", str(tmp_path / "run"), "--keep_checkpoints",
    ])  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    table = pd.read_parquet(tmp_path / "run" / "report" / "predictions.parquet")
    table = table[table["split"] == "test"]
    assert metrics["figures"]["n"] == len(table) >= 4
    assert metrics["figures"]["auc"]["value"] == pytest.approx(roc_auc_score(table["label"] == "fake", table["p_fake"]))
    stages = yaml.safe_load(path.read_text()).get("stages", [{"name": "train"}])
    trained = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert trained == [f"{i}-{stage['name']}" for i, stage in enumerate(stages, 1)]
    assert {"precision", "recall", "f1"} <= set(metrics["figures"]["per_class"]["fake"])
    assert metrics["figures"]["confusion_matrix"]
    report = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "Accuracy and AUC by epoch" in report
    if path.stem == "resnet50_two_stage":
        assert {row["dataset"] for row in metrics["sections"]["datasets"]} == {"all", "low_res", "high_res", "held_out"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_gives_a_reason_for_every_choice(path: Path) -> None:
    """Each line that chooses a number or a method says why, or stands under a line that does."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum("#" in line for line in lines) >= len(yaml.safe_load("\n".join(lines))) / 2
    assert path.stem in (ROOT / "recipes" / "README.md").read_text()
