"""CLIP's image tower for timm: the same numbers from the other implementation's names, and from 8-bit ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from onnxruntime.quantization import quantize_dynamic
from transformers import CLIPVisionConfig, CLIPVisionModel

from bonaface.models.clip import for_timm, from_quantised

DEPTH, WIDTH, SIDE = 2, 64, 32


@pytest.fixture(scope="module")
def tower() -> CLIPVisionModel:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE,
        patch_size=16,
    )  # fmt: skip
    model = CLIPVisionModel(config).eval()
    for tensor in model.parameters():  # no two alike: the exporter keeps equal ones once
        torch.nn.init.normal_(tensor, std=0.05)
    return model


def named(tower: CLIPVisionModel) -> dict[str, torch.Tensor]:
    """The weights as the checkpoints of CLIP name them."""
    state = {name.removeprefix("vision_model."): tensor for name, tensor in tower.state_dict().items()}
    return {f"vision_model.{name}": tensor for name, tensor in state.items()}


def test_timms_first_blocks_give_what_the_towers_layers_give(tower: CLIPVisionModel) -> None:
    network = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224", pretrained=False, num_classes=0, embed_dim=WIDTH, num_heads=4,
        depth=DEPTH, img_size=SIDE,
    ).eval()  # fmt: skip
    network.load_state_dict(for_timm(named(tower), DEPTH))
    network.norm = torch.nn.Identity()
    pixels = torch.randn(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        expected = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[DEPTH]
        assert torch.allclose(network.forward_features(pixels), expected, atol=1e-5)


def test_eight_bits_become_floats_again(tower: CLIPVisionModel, tmp_path: Path) -> None:
    """Each weight within a step of its scale, and all that was never quantised as it was."""

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision_model = getattr(tower, "vision_model", tower)

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.vision_model(pixel_values=pixel_values).last_hidden_state

    file, small = tmp_path / "tower.onnx", tmp_path / "tower.int8.onnx"
    torch.onnx.export(Whole(), (torch.randn(1, 3, SIDE, SIDE),), str(file), dynamo=False, input_names=["pixel_values"])
    quantize_dynamic(file, small, op_types_to_quantize=["MatMul"], per_channel=True)
    found, expected = from_quantised(small), named(tower)
    missing = {name for name in expected if "position_ids" not in name} - set(found)
    assert missing <= {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}  # not run here
    for name, tensor in found.items():
        if tensor.ndim == 2 and ".layers." in name:
            step = (expected[name].abs().amax(1) / 127).max()
            assert (tensor - expected[name]).abs().max() <= 1.5 * step, name
        else:
            assert torch.equal(tensor, expected[name]), name
