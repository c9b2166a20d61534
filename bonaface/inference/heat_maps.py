"""Three ways to find which areas of an image point to the verdict.

``integrated_gradients`` (Sundararajan et al. 2017) adds up what each pixel contributes on the way from a blurred image
to the sharp one: its contributions sum to the difference of the scores. ``gradcam`` multiplies the last feature grid of
the network by the gradient that reaches it and sums over channels: HiResCAM (Draelos and Carin 2020), which is Grad-CAM
(Selvaraju et al. 2017) where the grid is averaged before a linear layer, and stays true where it is not: dense layers,
and the tokens of a ViT laid out on their grid. ``occlusion`` (Zeiler and Fergus 2014) blurs one window after another
and needs nothing but scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch.nn.functional import avg_pool2d, interpolate

from bonaface.errors import UsageError
from bonaface.inference.detector import Detector
from bonaface.inference.engines import TorchEngine
from bonaface.inference.faithfulness import blurred

WINDOWS = 6  # occluding windows a side; they overlap by half
POINTS = 8  # on the way from the blurred image, at which gradients are taken
AREA = 1 / 12  # of the shorter side: over so much the contributions of pixels are averaged, which alone are noise
ROUNDING = 1e-5  # of a blur, in the model's units
HeatMap = NDArray[np.float32]


def integrated_gradients(detector: Detector, pixels: torch.Tensor, target: str) -> HeatMap:
    """Heat (h, w) in [0, 1] of pixels (3, h, w): what sharp pixels add to the log-odds of ``target``.

    Raises:
        UsageError: an exported network, or one that has no gradients, such as a quantised one.
    """
    engine = _with_gradients(detector)
    hidden = blurred(pixels)
    change = pixels - hidden
    change[change.abs() < ROUNDING] = 0  # or a flat image would have a map of the blur's rounding errors
    gradient = torch.zeros_like(pixels)
    for share in (np.arange(POINTS) + 0.5) / POINTS:  # one by one: together they take a gigabyte on a large network
        with detector.lock, torch.enable_grad(), _no_gradients_is_an_error():
            point = (hidden + share * change)[None].to(engine.device, engine.dtype).requires_grad_()
            # A copy, as some networks write into what they are given.
            score = _log_odds(detector, engine.model(pixel_values=point.clone()).logits.float()).sum()
            gradient += torch.autograd.grad(score if target == "fake" else -score, point)[0][0].float().cpu()
    side = 2 * round(min(pixels.shape[1:]) * AREA / 2) + 1
    added = (change * gradient).sum(0).nan_to_num()[None, None]
    return _scaled(avg_pool2d(added, side, 1, side // 2, count_include_pad=False)[0, 0].relu().numpy())


def gradcam(detector: Detector, pixels: torch.Tensor, target: str) -> HeatMap:
    """Heat (h, w) in [0, 1] of pixels (3, h, w): where the last grid of features points to ``target``.

    Raises:
        UsageError: an exported network, or one without a grid of features.
    """
    engine = _with_gradients(detector)
    seen: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output: _keep(seen, output)) for module in engine.model.modules()
    ]
    try:
        with detector.lock, torch.enable_grad(), _no_gradients_is_an_error():
            batch = pixels[None].to(engine.device, engine.dtype).requires_grad_()
            score = _log_odds(detector, engine.model(pixel_values=batch.clone()).logits.float()).sum()
            grids = [tensor for tensor in seen if _grid(tensor, batch.shape[2:]) is not None]
            if not grids:
                raise UsageError(
                    "this network has no grid of features for gradcam", "choose method integrated_gradients"
                )
            gradients = torch.autograd.grad(score if target == "fake" else -score, grids, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    evidence = torch.zeros(2, 2)
    for tensor, gradient in zip(reversed(grids), reversed(gradients), strict=True):
        grid = None if gradient is None else _grid((tensor * gradient).detach().float(), batch.shape[2:])
        # Behind the last attention only the class token counts: the grid in front of it is the last that matters.
        if grid is not None and bool(grid.any()):
            evidence = grid.sum(0).relu()
            break
    heat = interpolate(evidence[None, None], size=batch.shape[2:], mode="bilinear")
    return _scaled(heat[0, 0].cpu().numpy())


def occlusion(detector: Detector, pixels: torch.Tensor, target: str) -> HeatMap:
    """Heat (h, w) in [0, 1] of pixels (3, h, w): how far ``target`` falls where a window is blurred."""
    hidden = blurred(pixels)
    height, width = pixels.shape[1:]
    side_y, side_x = max(1, round(height / WINDOWS)), max(1, round(width / WINDOWS))
    corners = [(y, x) for y in range(0, height, max(1, side_y // 2)) for x in range(0, width, max(1, side_x // 2))]
    variants = []
    for y, x in corners:
        variant = pixels.clone()
        variant[:, y : y + side_y, x : x + side_x] = hidden[:, y : y + side_y, x : x + side_x]
        variants.append(variant)
    # Log-odds: near 0 and 1 a probability hardly moves.
    scores = special.logit(target_scores(detector, [pixels, *variants], target).clip(1e-9, 1 - 1e-9))
    drops, hits = np.zeros((height, width)), np.zeros((height, width))
    for (y, x), score in zip(corners, scores[1:], strict=True):
        drops[y : y + side_y, x : x + side_x] += scores[0] - score
        hits[y : y + side_y, x : x + side_x] += 1
    return _scaled(np.maximum(drops / hits, 0).astype(np.float32))


def target_scores(detector: Detector, pixels: list[torch.Tensor], target: str) -> NDArray[np.float64]:
    """The probability (n,) of ``target`` for pixel tensors (3, h, w)."""
    p_fake = detector.p_fake(detector.probabilities(detector.run(pixels)[0]))
    return p_fake if target == "fake" else 1 - p_fake


def _with_gradients(detector: Detector) -> TorchEngine:
    engine = detector.engine
    if not isinstance(engine, TorchEngine):
        raise UsageError(f"engine {engine.name} has no gradients", "choose method occlusion, or engine torch")
    return engine


@contextmanager
def _no_gradients_is_an_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UsageError(f"no gradients from this network: {error}", "choose method occlusion") from error


def _keep(seen: list[torch.Tensor], output: Any) -> None:
    if isinstance(output, tuple) and output:  # a block that gives its attention too
        output = output[0]
    if isinstance(output, torch.Tensor) and output.requires_grad:
        seen.append(output)


def _grid(tensor: torch.Tensor, size: torch.Size) -> torch.Tensor | None:
    """The features of one image as (channels, rows, columns), or None for a tensor that is no grid.

    Rows and columns are in the input's proportion. Tokens in front of the grid (class, registers) are left out.
    """
    height, width = size
    if tensor.shape[0] != 1:
        return None
    if tensor.ndim == 4:
        for grid in (tensor[0], tensor[0].permute(2, 0, 1)):
            rows, columns = grid.shape[1:]
            if 1 < rows <= height and rows * width == columns * height:
                return grid
    if tensor.ndim == 3:
        for prefix in range(min(9, tensor.shape[1])):
            rows = math.isqrt((tensor.shape[1] - prefix) * height // width)
            columns = rows * width // height
            if rows > 1 and rows * columns == tensor.shape[1] - prefix:
                return tensor[0, prefix:].T.reshape(-1, rows, columns)
    return None


def _log_odds(detector: Detector, logits: torch.Tensor) -> torch.Tensor:
    """Of each image, (n,): how much more the network says fake than real, in logits (n, labels)."""
    if logits.shape[1] == 1:
        return logits[:, 0] if detector.real_index else -logits[:, 0]
    if detector.uses_sigmoid:  # a score of its own for each label
        return -logits[:, detector.real_index]
    others = torch.cat([logits[:, : detector.real_index], logits[:, detector.real_index + 1 :]], 1)
    return torch.logsumexp(others, 1) - logits[:, detector.real_index]


def _scaled(heat: NDArray[Any]) -> HeatMap:
    heat = heat - heat.min()
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)
