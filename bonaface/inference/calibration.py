"""Calibrated scores: temperature and class bias.

:mod:`bonaface.training.calibrate` chooses the images that they are fitted on, and measures their effect.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy.optimize import minimize
from transformers import PreTrainedModel

from bonaface.models.facts import Calibration
from bonaface.models.parts import last_linear

FloatArray = NDArray[np.float64]
TEMPERATURES = (0.01, 100.0)


def fit(logits: ArrayLike, labels: ArrayLike) -> Calibration:
    """Temperature and class bias with the least negative log-likelihood (Guo et al. 2017, section 4.2, with a bias).

    ``logits`` float (n, k) of images that did not train the model, ``labels`` class numbers (n,). In (1 / temperature,
    bias / temperature) the problem is convex. As in Platt (1999, section 2.2), a label counts as (n_c + 1) / (n_c + k)
    for its class c and 1 / (n_c + k) for each other, so that few or perfectly separated images give cautious scores
    and never infinite ones. The temperature stays within 0.01 and 100.

    Raises:
        ValueError: a class without an image, logits that are not finite, or shapes that do not fit.
    """
    z, true = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if z.ndim != 2 or len(z) != len(true) or not np.isfinite(z).all():
        raise ValueError(f"needs finite logits (n, classes) and n labels, not {z.shape} and {true.shape}")
    n, k = z.shape
    counts = np.bincount(true, minlength=k)
    if len(counts) > k or (counts == 0).any():
        raise ValueError("every class needs an image to be calibrated on")
    targets = 1 / (counts[true, None] + k) + np.eye(k)[true] * (counts / (counts + k))[true, None]
    z = z - z.mean(axis=1, keepdims=True)
    scale = float(z.std())
    z = z / scale if scale > 1e-12 else np.zeros_like(z)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        scores = parameters[0] * z + parameters[1:]
        gap = special.softmax(scores, axis=1) - targets
        value = (special.logsumexp(scores, axis=1) - (targets * scores).sum(axis=1)).mean()
        return float(value), np.concatenate([[(gap * z).sum() / n], gap.mean(axis=0)])

    scale = scale if scale > 1e-12 else 1.0
    slopes = (scale / TEMPERATURES[1], scale / TEMPERATURES[0])
    start = np.zeros(k + 1)
    start[0] = np.clip(1.0, *slopes)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[slopes] + [(None, None)] * k,
        options={"ftol": 1e-14, "gtol": 1e-10, "maxiter": 1000},
    )  # fmt: skip
    temperature = scale / float(found.x[0])
    bias = found.x[1:] - found.x[1:].mean()  # a shift of all logits changes nothing
    return Calibration(temperature, tuple((bias * temperature).tolist()), folded=False, n=n)


@torch.no_grad()
def fold(model: PreTrainedModel, calibration: Calibration) -> bool:
    """Put the calibration into the last linear layer, so that the model's plain softmax is calibrated.

    False, and nothing done, where there is no such layer or it has no bias to carry ours. That the layer's output is
    the logits is for the caller to know (:func:`bonaface.inference.forward.forward` finds its input only then).
    """
    layer = last_linear(model, model.config.num_labels)
    if layer is None or layer.bias is None:
        return False
    bias = torch.tensor(calibration.bias, dtype=torch.float64, device=layer.bias.device)
    layer.weight.copy_(layer.weight.double() / calibration.temperature)
    layer.bias.copy_((layer.bias.double() + bias) / calibration.temperature)
    return True


def apply(logits: ArrayLike | torch.Tensor, calibration: Calibration | None = None) -> FloatArray:
    """Logits (n, k) of a model -> probabilities float64 (n, k), calibrated where there is a calibration.

    One that is folded into the weights needs nothing more.
    """
    if isinstance(logits, torch.Tensor):
        logits = logits.detach().double().cpu().numpy()
    z = np.asarray(logits, dtype=np.float64)
    if calibration is not None and not calibration.folded:
        z = (z + np.asarray(calibration.bias)) / calibration.temperature
    return special.softmax(z, axis=1)


def uncalibrated(probabilities: ArrayLike, calibration: Calibration | None) -> FloatArray | None:
    """What the probabilities (n, k) were before calibration, folded or not; None for a model that has none."""
    if calibration is None:
        return None
    z = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-300))
    return special.softmax(z * calibration.temperature - np.asarray(calibration.bias), axis=1)
