"""``make detector``: from a folder of face crops to the packed model, with every command that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, make_faces, make_image
from safetensors import safe_open
from transformers import AutoConfig

from bonaface.inference.detector import Detector
from bonaface.models.load import load_model
from bonaface.models.save import save_model

MINIATURE = (
    "--model whole --image_size 32 --resize 40 --num_train_epochs 1 --robustness none"
    " --per_device_train_batch_size 8 --compile False --use_cpu True --bf16 False --dataloader_num_workers 0"
)


@pytest.mark.slow
def test_make_detector_packs_a_model_calibrated_on_left_out_families(tmp_path: Path) -> None:
    for name in ("Makefile", "recipes", "train_hf.py", "hub"):  # what the run writes lies beside them
        (tmp_path / name).symlink_to(ROOT / name)
    real, fake = ("canon", "nikon", "sony", "pixel", "leica"), ("stylegan", "flux", "sdxl", "dalle", "midjourney")
    families = {f"{label}/{name}": 8 for label, names in (("real", real), ("fake", fake)) for name in names}
    make_faces(tmp_path / "crops", families)
    save_model(tmp_path / "whole", *load_model("timm/vit_tiny_patch16_224", ["fake", "real"], from_scratch=True))
    done = subprocess.run(
        ["make", "detector", "DATA=crops", "FOLDS=2", f"FLAGS={MINIATURE}", f"VENV={sys.prefix}"]
        + ["PRUNING=--blocks 2 --units 64 --views 32", "-o", f"{sys.prefix}/.runtime"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "models" / "bonaface-small"
    metrics = json.loads((tmp_path / "runs" / "bonaface-small-unseen" / "report" / "crossval.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"{metrics['families']['auc']:.3f}" in card
    assert "license: cc-by-nc-4.0" in card
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    detector = Detector.from_pretrained(folder)
    assert detector.facts.unseen.folds == 2  # what its scores and its band were calibrated on
    assert detector.facts.unseen.n == 80
    assert AutoConfig.from_pretrained(folder).model_args["depth"] == 2
    assert "F8_E4M3" in stored_types(folder / "model.safetensors")
    (result,) = detector(make_image(tmp_path / "new.png", 1))
    assert result.verdict in {"real", "fake", "uncertain"}


def stored_types(file: Path) -> set[str]:
    with safe_open(file, "pt") as weights:
        return {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - it is no dictionary


def test_the_larger_one_is_made_by_the_same_commands() -> None:
    """From the whole blocks: without pruning, and without 8-bit weights."""
    said = [
        subprocess.run(
            ["make", "--dry-run", "detector", "DATA=crops", f"SIZE={size}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for size in ("small", "large")
    ]  # fmt: skip
    start = " --model runs/bonaface-pruned --float8 True"
    assert said[0].count(start) == 2
    small = "".join(line for line in said[0].splitlines(keepends=True) if "bonaface prune" not in line)
    assert small != said[0]
    assert said[1] == small.replace(start, " ").replace("-small", "-large")
