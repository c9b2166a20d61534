"""Tensors -> logits and penultimate features, in float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from bonaface.models.features import LastLayer
from bonaface.models.parts import Model


class Outputs(NamedTuple):
    """A model's outputs for n images."""

    logits: NDArray[Any]  # (n, classes); float64 of rows, float32 of an engine
    features: NDArray[np.float32] | None  # (n, width): the input of the last layer; None where that is not linear


class _Linear(nn.Linear):
    """Multiplies float32 matrices by oneDNN on a CPU when nothing is to be learned from it.

    PyTorch gives them to MKL, which on AMD's cores takes two to three times as long (docs/inference.md). In bfloat16 it
    asks oneDNN by itself.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        plain = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if plain and torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu") and input.numel():
            return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return super().forward(input)


def with_fast_products(model: Model) -> Model:
    """The same model, with the same weights, whose linear layers ask oneDNN in inference mode where torch has it."""
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = _Linear
    return model


@torch.inference_mode()
def forward(model: PreTrainedModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits (n, classes) and penultimate features (n, width) or None, as :meth:`LastLayer.run` finds them."""
    layer = LastLayer(model)
    try:
        return layer.run(pixels)
    finally:
        layer.remove()
