"""A block that reads kept tokens: what was trained on them is what the whole network gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_data
from transformers import pipeline

from bonaface.data.dataset import FaceData
from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.rows import run_rows
from bonaface.models.load import load_model
from bonaface.models.save import float8_state
from bonaface.training.head_training import kept_outputs, train_head
from bonaface.training.heads import BlockHead, read_by_last_layer, tokens
from bonaface.training.options import Stage
from bonaface.training.recipe import read_recipe

FLAGS = ["--head_only", "2", "--head_block", "--augmentation", "light", "--num_train_epochs", "6", "--bf16", "False"]
FLAGS += ["--learning_rate", "0.002", "--mixup", "0.2", "--use_cpu", "True", "--dataloader_num_workers", "0"]
NAME = "timm/vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    return load_model(NAME, ["fake", "real"], image_size=32, from_scratch=True)


def stage_of(*flags: str) -> Stage:
    recipe, args, _ = read_recipe([*FLAGS, *flags])
    return Stage("head", recipe, args)


@torch.inference_mode()
def test_the_folded_block_gives_the_heads_own_logits(network: Any) -> None:
    model = network[0].eval()
    pixels, read = torch.randn(5, 3, 32, 32), []
    handle = model.timm_model.blocks[-1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model(pixel_values=pixels)
    handle.remove()
    features = tokens(model, read[0])
    head = BlockHead(model.timm_model.blocks[-1], features[None].numpy(), 2).eval()
    torch.nn.init.normal_(head.second.weight, std=0.1)
    torch.nn.init.normal_(head.last.weight)
    head.fold_into(model)
    assert torch.allclose(model(pixel_values=pixels).logits, head(features), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_folded_block_survives_eight_bits(network: Any) -> None:
    """What it adds to a class token of small numbers is small too, and was all 0 in the first of the 8-bit formats."""
    model = network[0].eval()
    features = torch.randn(64, 2 * 192) * 0.05
    head = BlockHead(model.timm_model.blocks[-1], features[None].numpy(), 2).eval()
    torch.nn.init.normal_(head.second.weight, std=0.02)
    torch.nn.init.normal_(head.last.weight)
    head.fold_into(model)
    exact = model.timm_model.head(read_by_last_layer(model, features))
    model.load_state_dict({name: value.float() for name, value in float8_state(model).items()})
    rounded = model.timm_model.head(read_by_last_layer(model, features))
    assert (rounded - exact).std() < 0.03 * exact.std()
    torch.nn.init.zeros_(model.timm_model.blocks[-1].mlp.fc2.weight)
    without = model.timm_model.head(read_by_last_layer(model, features))
    assert (without - exact).std() > 0.1 * exact.std()  # it is what the layer adds that survives


def test_the_block_learns_and_what_it_reads_stays(network: Any, data: FaceData, tmp_path: Path) -> None:
    model, processor = network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    log = train_head(model, processor, data, stage_of(), lambda _: None, tmp_path)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("timm_model.blocks.11.", "timm_model.norm.", "timm_model.head.")) for name in changed)
    best = max(row["eval_auc"] for row in log if "eval_auc" in row)
    assert best > 0.8
    rows = data.splits["validation"]
    logits = run_rows(model, ImageRows(rows, EvalTransform(processor))).logits
    fake = np.array(rows["label"]) == data.labels.index("fake")
    ranked = np.argsort(logits @ [1, -1])
    assert fake[ranked[-5:]].all()  # the network itself, not only its log


def test_the_stock_pipeline_loads_what_a_block_became(network: Any, data: FaceData, tmp_path: Path) -> None:
    model, processor = network
    train_head(model, processor, data, stage_of("--num_train_epochs", "1"), lambda _: None, tmp_path / "features")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    image = data.splits["validation"][0]["image"]
    rows = data.splits["validation"].select([0])
    own = torch.from_numpy(run_rows(model, ImageRows(rows, EvalTransform(processor))).logits).softmax(1)[0]
    image = rows[0]["image"]
    scores = pipeline("image-classification", model=str(tmp_path / "model"), device="cpu")(
        image if hasattr(image, "convert") else image["path"]
    )
    assert {row["label"]: row["score"] for row in scores} == pytest.approx(
        dict(zip(data.labels, own.tolist(), strict=True)), abs=2e-2
    )


def test_precision_is_part_of_what_is_kept(data: FaceData, tmp_path: Path) -> None:
    for flag in ("True", "False"):
        torch.manual_seed(0)
        model, processor = load_model(NAME, ["fake", "real"], image_size=32, from_scratch=True)
        stage = stage_of("--bf16", flag, "--num_train_epochs", "1")
        train_head(model, processor, data, stage, lambda _: None, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_networks_are_refused(data: FaceData, tmp_path: Path) -> None:
    model, processor = load_model("resnet", ["fake", "real"], image_size=32)
    with pytest.raises(UsageError, match="vision transformer"):
        train_head(model, processor, data, stage_of(), lambda _: None, tmp_path)


def test_a_block_without_kept_features_is_refused() -> None:
    with pytest.raises(UsageError, match="head_only"):
        read_recipe(["--head_block"])


def test_kept_tokens_and_the_last_block_give_the_networks_outputs(
    network: Any, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = network
    stage = stage_of()
    train_head(model, processor, data, stage, lambda _: None, tmp_path)
    outputs = kept_outputs(model, processor, stage, tmp_path)
    rows = data.splits["calibration"]
    found, expected = outputs("", rows), run_rows(model, ImageRows(rows, EvalTransform(processor)))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-3)
    assert found.logits.dtype == expected.logits.dtype
    monkeypatch.setattr("bonaface.training.head_training._tokens_of", lambda *_: pytest.fail("it was kept"))
    for split in ("train", "validation", "calibration"):
        outputs("", data.splits[split])
