"""A head on kept features: only the last layer learns, and the model itself is what was judged."""

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
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.rows import run_rows
from bonaface.models.load import load_model
from bonaface.models.parts import last_linear
from bonaface.training.checkpoints import LOG
from bonaface.training.head_training import kept_outputs, train_head
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
    names = sorted(path.name.split("-")[0] for path in Path("features").rglob("*.npy"))
    assert names == ["000", "001", "eval", "eval"]  # two drawn views, and the plain one of both splits
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


def test_kept_features_and_the_last_layer_give_the_networks_outputs(
    network: Any, data: FaceData, tmp_path: Path
) -> None:
    model, processor = network
    train_head(model, processor, data, stage_of(), lambda _: None, tmp_path)
    rows = data.splits["calibration"]
    found = kept_outputs(model, processor, stage_of(), tmp_path)("", rows)
    expected = run_rows(model, ImageRows(rows, EvalTransform(processor)))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-5)


@pytest.mark.slow
def test_a_run_calibrates_on_what_it_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The saved model, loaded again, finds the features that its training kept."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    tiny_data(root)
    flags = ["--data", str(root), "--prepare", "False", "--audit", "False", "--model", "resnet", "--image_size", "32"]
    monkeypatch.setattr("bonaface.cli.train.outputs_of", lambda *_, **__: pytest.fail("the network ran again"))
    train_hf.main([*FLAGS, *flags, "--robustness", "none", "--output_dir", str(tmp_path / "run")])
    assert len(list((tmp_path / "features").iterdir())) == 1
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["bonaface"]["calibration"]["folded"]
