"""The parts of a network that training and inference treat apart: its head, its stem, its convolutions."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from bonaface.errors import UsageError
from bonaface.models.head import HiddenHeadForImageClassification

Model = TypeVar("Model", bound=nn.Module)


def last_linear(model: nn.Module, num_labels: int | None) -> nn.Linear | None:
    """The linear layer that gives the logits, or None where the last module that maps to them is not one."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers and layers[-1].out_features == num_labels else None


def head_of(model: PreTrainedModel) -> nn.Module:
    """The part that is ours: the last linear layer, or the whole head where it has a hidden layer.

    Raises:
        UsageError: the logits do not come from a linear layer.
    """
    if isinstance(model, HiddenHeadForImageClassification):
        return model.head
    found = last_linear(model, model.config.num_labels)
    if found is None:
        raise UsageError(f"{type(model).__name__} has no linear classifier", "choose another model")
    return found


def move(model: Model, **to: Any) -> Model:
    """``model.to(**to)``, whose signature transformers hides from type checkers."""
    return model.to(**to)


def is_convolutional(model: nn.Module) -> bool:
    """Whether channels_last pays: more convolutions than a patch embedding has."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 2


def stem(model: nn.Module) -> nn.Conv2d:
    """The first convolution that sees the three colour channels."""
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3)


@torch.no_grad()
def project_high_pass(conv: nn.Conv2d) -> None:
    """Make a strided stem blind to the mean of every 2x2 pixel block, in place.

    With an even stride, each kernel tap always meets the same phase of the 2x2 grid, so "subtract from every pixel the
    mean of its block" in front of the convolution is the same as an orthogonal projection of its kernel: subtract from
    every tap the mean of its own block; taps whose block leaves the kernel become zero. Projecting after each optimiser
    step (projected gradient descent) trains a residual detector whose weights are those of a stock architecture.

    Raises:
        UsageError: the stride is odd, so that the phase changes from one output to the next.
    """
    if any(stride % 2 for stride in conv.stride):
        raise UsageError(f"a high-pass stem needs an even stride, not {conv.stride}", "choose another model")
    weight = conv.weight
    top, left = (int(pad) % 2 for pad in conv.padding)
    height, width = ((side - start) // 2 * 2 for side, start in zip(weight.shape[2:], (top, left), strict=True))
    blocks = weight[:, :, top : top + height, left : left + width].clone()
    means = nn.functional.avg_pool2d(blocks, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    weight.zero_()
    weight[:, :, top : top + height, left : left + width] = blocks - means
