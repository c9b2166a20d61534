"""Logits and features; and the products of linear layers, by whoever makes them fastest."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bonaface.inference.forward import forward, with_fast_products
from bonaface.models.load import load_model
from bonaface.models.parts import last_linear

ONEDNN = "mkldnn::_linear_pointwise"


def test_a_last_layer_that_is_not_the_head_has_no_features() -> None:
    """The last linear layer counts only where its output is the logits: folding would be wrong elsewhere."""
    torch.manual_seed(0)
    model, _ = load_model("resnet", ["fake", "real"], image_size=32)
    pixels = torch.randn(2, 3, 32, 32)
    logits, features = forward(model.eval(), pixels)
    with torch.inference_mode():
        assert torch.allclose(last_linear(model, 2)(features), logits)
    model.classifier = nn.Sequential(model.classifier, nn.LayerNorm(2))
    assert forward(model.eval(), pixels)[1] is None


def operations(model: nn.Module, pixels: torch.Tensor) -> set[str]:
    """Names of what PyTorch does in one pass."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model(pixel_values=pixels)
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("name", ["vit", "convnext", "timm/vit_tiny_patch16_224"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fast_products_give_the_same_logits_from_the_same_weights(
    name: str, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    stock = load_model(name, ["fake", "real"], image_size=32, from_scratch=True)[0].eval()
    fast = with_fast_products(copy.deepcopy(stock))
    pixels = torch.randn(3, 3, 32, 32).to(memory_format=memory_format)
    with torch.inference_mode():
        np.testing.assert_allclose(fast(pixel_values=pixels).logits, stock(pixel_values=pixels).logits, atol=1e-5)
        assert ONEDNN in operations(fast, pixels)
        assert ONEDNN not in operations(stock, pixels)
    assert fast.state_dict().keys() == stock.state_dict().keys()


def test_fast_products_are_for_inference_in_float32_alone() -> None:
    """Heat maps need gradients, an exported network operations that others know, and bfloat16 is oneDNN's already."""
    model = with_fast_products(load_model("vit", ["fake", "real"], image_size=32)[0].eval())
    pixels = torch.randn(2, 3, 32, 32, requires_grad=True)
    model(pixel_values=pixels).logits.sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    with torch.no_grad():
        assert ONEDNN not in operations(model, pixels)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert ONEDNN not in operations(model, pixels)
        assert model(pixel_values=pixels).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(5,), (0, 5), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_fast_products_of_any_shape(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4, bias=bias)
    rows = torch.randn(shape)
    with torch.inference_mode():
        expected = layer(rows)
        torch.testing.assert_close(with_fast_products(layer)(rows), expected)
        turned = torch.randn(5, 3).T  # rows that do not lie one behind the other
        torch.testing.assert_close(layer(turned), nn.functional.linear(turned, layer.weight, layer.bias))
