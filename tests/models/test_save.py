"""A model stored as 8-bit floats: a quarter of the size, loaded by stock transformers as float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

from bonaface.models.load import load_model
from bonaface.models.save import FLOAT8, LOSS, float8_state, save_model

LABELS = ["fake", "real"]


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "vit", "convnext"])
def test_it_is_a_quarter_of_the_size_and_a_stock_pipeline_loads_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, processor = load_model(name, LABELS, image_size=32, from_scratch=True)
    for folder, float8 in ((tmp_path / "wide", False), (tmp_path / "narrow", True)):
        save_model(folder, model, processor, float8=float8)
    wide, narrow = (tmp_path / place / "model.safetensors" for place in ("wide", "narrow"))
    assert narrow.stat().st_size < 0.28 * wide.stat().st_size
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "narrow")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1 / 16, atol=2**-10)
    classify = pipeline("image-classification", model=str(tmp_path / "narrow"))
    assert {row["label"] for row in classify(Image.new("RGB", (40, 40)))} == set(LABELS)


def test_what_was_rounded_once_is_stored_exactly_and_the_classifier_always(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, processor = load_model("timm/vit_tiny_patch16_224", LABELS, image_size=32, from_scratch=True)
    save_model(tmp_path / "once", model, processor, float8=True)
    once, _ = load_model(str(tmp_path / "once"), LABELS)
    torch.nn.init.normal_(once.timm_model.head.weight)  # a training goes on
    save_model(tmp_path / "twice", once, processor, float8=True)
    twice, _ = load_model(str(tmp_path / "twice"), LABELS)
    for key, value in twice.state_dict().items():
        assert torch.equal(value, once.state_dict()[key]), key
    stored = load_file(tmp_path / "twice" / "model.safetensors")
    assert stored["timm_model.head.weight"].dtype == torch.float32
    assert stored["timm_model.blocks.0.mlp.fc1.weight"].dtype == FLOAT8[0]
    assert stored["timm_model.blocks.0.norm1.weight"].dtype == torch.float32


def test_indices_stay_and_weights_of_any_size_are_kept(tmp_path: Path) -> None:
    """In the first format, what is below 0.001 is 0 and what is above 448 is NaN, without a word."""
    model, processor = load_model("timm/swin_tiny_patch4_window7_224", LABELS, image_size=64, from_scratch=True)
    network = model.timm_model
    network.register_buffer("index", torch.arange(600).view(2, 300))
    perceptron = network.layers[0].blocks[0].mlp
    for layer, factor in ((perceptron.fc1, 1e-2), (perceptron.fc2, 1e5)):
        torch.nn.init.normal_(layer.weight, std=factor * 0.02)
    torch.nn.init.normal_(network.layers[0].blocks[1].mlp.fc1.weight, std=1e6)
    state = float8_state(model)
    assert torch.equal(state["timm_model.index"], network.index)
    kinds = [
        state[f"timm_model.layers.0.blocks.{layer}.weight"].dtype
        for layer in ("0.mlp.fc1", "0.mlp.fc2", "1.mlp.fc1", "1.mlp.fc2")
    ]
    assert kinds == [FLOAT8[1], FLOAT8[1], torch.bfloat16, FLOAT8[0]]
    save_model(tmp_path / "model", model, processor, float8=True)
    loaded, _ = load_model(str(tmp_path / "model"), LABELS)
    for name, after in loaded.state_dict().items():
        before = model.state_dict()[name].float()
        assert (after - before).norm() <= LOSS * before.norm(), name


def test_weights_that_are_not_finite_stay_so_that_they_are_seen() -> None:
    model, _ = load_model("vit", LABELS, image_size=32, from_scratch=True)
    name, weight = next((name, weight) for name, weight in model.named_parameters() if weight.ndim == 2)
    weight.data[0, 0] = float("inf")
    assert torch.isinf(float8_state(model)[name].float()).any()
