"""A head on kept features: what is kept is what is computed, a kill changes nothing, and only the last layer learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_data

import train_hf
from bonaface.data.dataset import FaceData, sampling_weights
from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.transforms import EvalTransform, sample_seed
from bonaface.inference.forward import forward, run_rows
from bonaface.models.load import last_linear, load_model
from bonaface.training import frozen_features
from bonaface.training.checkpoints import LOG
from bonaface.training.frozen_features import DrawnViews, feature_key
from bonaface.training.head_training import train_head
from bonaface.training.options import Stage
from bonaface.training.recipe import read_recipe

FLAGS = ["--head_only", "2", "--augmentation", "light", "--balance", "source_root", "--num_train_epochs", "6"]
FLAGS += ["--learning_rate", "0.02", "--mixup", "0.2", "--use_cpu", "True", "--dataloader_num_workers", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    return load_model("resnet", ["fake", "real"], image_size=32)


def stage_of(*flags: str) -> Stage:
    recipe, args, _ = read_recipe([*FLAGS, *flags])
    return Stage("head", recipe, args)


def features(network: Any, data: FaceData, folder: Path) -> np.ndarray:
    model, processor = network
    return frozen_features.frozen_features(
        model, processor, data.splits["train"], data.fingerprint, augmentation="light", views=2, seed=3, folder=folder
    )


def test_kept_features_are_those_of_the_drawn_views(
    network: Any, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_features, "BLOCK", 16)
    kept = features(network, data, tmp_path)
    again = features(network, data, tmp_path)
    model, processor = network
    rows, transform = data.splits["train"], DrawnViews(processor, "light")
    drawn = ImageRows(rows.select(range(16, 32)), transform, sample_seed(3, 1, 1))
    pixels = torch.stack([drawn[i]["pixel_values"] for i in range(16)])
    _, expected = forward(model.eval(), pixels)
    assert kept.shape[:2] == (2, len(rows))
    np.testing.assert_allclose(kept[1, 16:32], expected, atol=1e-5)
    np.testing.assert_array_equal(kept, again)
    assert not np.allclose(kept[0], kept[1])


def test_a_kill_loses_one_block_and_changes_nothing(
    network: Any, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_features, "BLOCK", 16)
    whole = features(network, data, tmp_path / "whole")
    calls: list[int] = []

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_rows(*args, **kwargs)

    monkeypatch.setattr(frozen_features, "run_rows", dying)
    with pytest.raises(KeyboardInterrupt):
        features(network, data, tmp_path / "killed")
    (half := next((tmp_path / "killed").rglob("*.npy"))).write_bytes(half.read_bytes()[:50])
    calls[:] = [1] * 10
    np.testing.assert_array_equal(features(network, data, tmp_path / "killed"), whole)
    blocks = 2 * -(-len(data.splits["train"]) // 16)
    assert len(calls) - 10 == blocks - 1  # one of the two finished ones was damaged


def test_the_key_follows_the_body_the_data_and_the_views_but_not_the_head(network: Any, data: FaceData) -> None:
    model, processor = network
    rows = data.splits["train"]

    def key(rows: Any = rows, fingerprint: str = "f", augmentation: str = "light", seed: int = 0) -> str:
        return feature_key(model, processor, rows, fingerprint, augmentation, seed)

    first = key()
    with torch.no_grad():
        last_linear(model, 2).weight.add_(1)
    assert key() == first
    others = {key(fingerprint="g"), key(augmentation="robust"), key(seed=1), key(rows.select(range(5)))}
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert len({first, *others, key()}) == 6


def test_the_head_learns_and_the_body_stays(network: Any, data: FaceData, tmp_path: Path) -> None:
    model, processor = network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    log = train_head(model, processor, data, stage_of(), lambda _: None, tmp_path)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    aucs = [row["eval_auc"] for row in log if "eval_auc" in row]
    assert len(aucs) == 6
    assert max(aucs) > 0.8
    rows = data.splits["validation"]
    logits = run_rows(model, ImageRows(rows, EvalTransform(processor))).logits
    fake = np.array(rows["label"]) == data.labels.index("fake")
    ranked = np.argsort(logits @ [1, -1])
    assert fake[ranked[-5:]].all()  # the model itself, not only its log


def test_a_seed_gives_one_head(data: FaceData, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model, processor = load_model("resnet", ["fake", "real"], image_size=32)
        train_head(model, processor, data, stage_of(), lambda _: None, tmp_path)
        found.append(last_linear(model, 2).weight.detach().clone())
    assert torch.equal(*found)


def test_the_main_job_trains_a_head_then_everything(
    data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = [{"name": "head", "head_only": 2, "num_train_epochs": 2}, {"name": "all", "num_train_epochs": 1}]
    Path("two.yaml").write_text(json.dumps({"stages": stages, "model": "resnet", "image_size": 32, "prepare": False}))
    train_hf.main([
        "two.yaml", "--data", data.origin, "--audit", "False", "--robustness", "none",
        "--use_cpu", "True", "--bf16", "False", "--dataloader_num_workers", "0", "--disable_tqdm", "True",
        "--output_dir", "run", "--keep_checkpoints",
    ])  # fmt: skip
    assert len(list(Path("features").rglob("*.npy"))) == 2
    logs = [json.loads(Path("run/checkpoints", stage, LOG).read_text()) for stage in ("1-head", "2-all")]
    assert [sum("eval_auc" in row for row in log) for log in logs] == [2, 1]


@pytest.mark.parametrize("flags", [["--lora_rank", "2"], ["--cutmix", "0.5"], ["--head_hidden_size", "8"]])
def test_what_a_head_alone_cannot_have_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError, match="head_only"):
        read_recipe([*FLAGS, *flags])


def test_a_source_weighs_the_root_of_its_size(data: FaceData) -> None:
    rows = data.splits["train"]
    sources = np.array(rows["source"])
    few = [np.flatnonzero(sources == name)[:n] for name, n in {"a": 9, "b": 4, "x": 1, "y": 4}.items()]
    part = rows.select(np.concatenate(few))
    weights = sampling_weights(part, "source_root")
    total = {name: weights[np.array(part["source"]) == name].sum() for name in "abxy"}
    assert total["a"] / total["b"] == pytest.approx(1.5)
    assert total["y"] / total["x"] == pytest.approx(2)
    assert total["a"] + total["b"] == pytest.approx(total["x"] + total["y"])
