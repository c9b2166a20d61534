"""A high-pass stem is blind to the mean of every block of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bonaface.errors import UsageError
from bonaface.models.parts import project_high_pass


def residual(pixels: torch.Tensor) -> torch.Tensor:
    """Every pixel minus the mean of its 2x2 block."""
    means = nn.functional.avg_pool2d(pixels, 2)
    return pixels - means.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("kernel", [(4, 4, 0), (16, 16, 0), (7, 2, 3), (3, 2, 1), (6, 2, 2)])
def test_a_projected_stem_sees_only_the_residual(kernel: tuple[int, int, int]) -> None:
    """A stock convolution on the image equals the same convolution on the residual: it folds exactly."""
    size, stride, padding = kernel
    conv = nn.Conv2d(3, 5, size, stride, padding, dtype=torch.float64)
    project_high_pass(conv)
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(conv(pixels), conv(residual(pixels)), atol=1e-12)
    assert conv.weight.abs().sum() > 0
    once = conv.weight.clone()
    project_high_pass(conv)
    assert torch.allclose(conv.weight, once, atol=1e-15)


def test_an_odd_stride_cannot_be_high_pass() -> None:
    with pytest.raises(UsageError, match="even stride"):
        project_high_pass(nn.Conv2d(3, 4, 3, stride=1))
