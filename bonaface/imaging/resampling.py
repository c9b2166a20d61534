"""Pillow's resampling for a whole batch on any device, as two matrix products an image.

A GPU outruns the cores that feed it: resizing is half of what a loading worker does, and multiplying an (out, in)
matrix of kernel weights with the image is what a GPU does best. Images of several sizes share a batch, each in the
corner of a canvas; each has weights of its own, so nothing else of the canvas enters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL.Image import Resampling

# Pillow's kernels (Resample.c): how far they reach, in pixels of the coarser side, and their weights there.
_KERNELS: dict[Resampling, tuple[float, Callable[[torch.Tensor], torch.Tensor]]] = {
    Resampling.BILINEAR: (1.0, lambda x: (1 - x.abs()).clamp(min=0)),
    Resampling.HAMMING: (1.0, lambda x: torch.sinc(x) * (0.54 + 0.46 * torch.cos(torch.pi * x)) * (x.abs() < 1)),
    Resampling.BICUBIC: (2.0, lambda x: _cubic(x.abs(), -0.5)),
    Resampling.LANCZOS: (3.0, lambda x: torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3)),
}
CAN_RESIZE = frozenset(_KERNELS)


def _cubic(x: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' cubic convolution (1981)."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resize_matrices(sizes: torch.Tensor, width: int, out: int, kernel: Resampling) -> torch.Tensor:
    """The weights that bring ``sizes[i]`` pixels, the first of a row of ``width``, to ``out`` pixels.

    Args:
        sizes: int (n,), from 1 to ``width``.

    Returns:
        float32 (n, out, width); rows sum to 1.
    """
    reach, weight = _KERNELS[kernel]
    scale = (sizes.double() / out).view(-1, 1, 1)
    stretch = scale.clamp(min=1)  # a kernel is widened where the image shrinks, never narrowed
    centre = (torch.arange(out, device=sizes.device, dtype=torch.float64) + 0.5).view(1, -1, 1) * scale
    pixel = torch.arange(width, device=sizes.device, dtype=torch.float64).view(1, 1, -1)
    # Pillow takes the whole pixels within reach, their bounds rounded, and none beyond the image.
    first = (centre - reach * stretch + 0.5).floor().clamp(min=0)
    end = torch.minimum((centre + reach * stretch + 0.5).floor(), sizes.view(-1, 1, 1).double())
    weights = weight((pixel + 0.5 - centre) / stretch) * ((pixel >= first) & (pixel < end))
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def resize_batch(levels: torch.Tensor, sizes: torch.Tensor, out: Sequence[int], kernel: Resampling) -> torch.Tensor:
    """Resize the images in the top left corners of a batch of canvases.

    Args:
        levels: uint8 (n, channels, H, W).
        sizes: int (n, 2): height and width of each image on its canvas, on the same device.
        out: height and width to make of them.

    Returns:
        float32 (n, channels, *out), whole levels from 0 to 255: Pillow's, give or take one (two in noise).
    """
    across = resize_matrices(sizes[:, 1], levels.shape[3], out[1], kernel)
    down = resize_matrices(sizes[:, 0], levels.shape[2], out[0], kernel)
    rows = (levels.float() @ across.transpose(1, 2).unsqueeze(1)).round().clamp(0, 255)  # Pillow rounds in between
    return (down.unsqueeze(1) @ rows).round().clamp(0, 255)
