"""Scores that mean what they say: temperature and class bias, the calibration split, and all that hangs on it.

Three kinds of data, apart from each other and from the test: one half of the validation split (``validation``) chooses
the epoch and fits temperature and bias; the other half (``calibration``, :func:`hold_out_calibration`) chooses and fits
nothing, so it may say what the scores are worth: calibration error, certified thresholds, the uncertain band, and how
far from the training data is too far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy.optimize import minimize
from transformers import BaseImageProcessor, PreTrainedModel

from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.loading import ImageRows
from bonaface.data.splits import assign_splits
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.forward import run_rows
from bonaface.inference.unfamiliar import BANK_SIZE, fit_unfamiliar
from bonaface.models.facts import Calibration, ModelFacts
from bonaface.models.load import last_linear
from bonaface.stats.certificates import FPRS, thresholds, uncertain_band
from bonaface.stats.metrics import all_figures, fake_probability

FloatArray = NDArray[np.float64]
TEMPERATURES = (0.01, 100.0)
HALVES_SEED = 0


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


def calibration_half(rows: Dataset, seed: int = HALVES_SEED) -> tuple[Dataset, Dataset]:
    """Cut a validation split in two: (the half that selects, the half that certifies).

    Stratified by label and source, groups whole, seeded: the same rows give the same halves everywhere.
    """
    shares = {"selects": 0.5, "certifies": 0.5}
    halves = assign_splits(list(rows["label"]), list(rows["source"]), list(rows["group"]), shares, seed)
    selects, certifies = (
        rows.select([i for i, half in enumerate(halves) if half == name]) for name in ("selects", "certifies")
    )
    return selects, certifies


def hold_out_calibration(data: FaceData, seed: int = HALVES_SEED) -> FaceData:
    """The data with its validation split halved: ``validation`` to select with, ``calibration`` to certify with."""
    if "calibration" in data.splits:
        return data
    selects, certifies = calibration_half(data.splits["validation"], seed)
    splits = DatasetDict({**data.splits, "validation": selects, "calibration": certifies})
    return replace(data, splits=splits, _rows={}, _fingerprint="")


def calibrate_run(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    facts: ModelFacts,
    *,
    folder: Path | None = None,
    delta: float = 0.05,
    confidence: float = 0.95,
    fprs: Sequence[float] = FPRS,
    batch_size: int = 64,
    workers: int = 0,
) -> ModelFacts:
    """Calibrate a trained model and say what its scores are worth: the facts with all that follows from that.

    Fits on ``data.splits["validation"]`` and folds into the model's weights in place where it can. Judges on
    ``data.splits["calibration"]`` (see :func:`hold_out_calibration`): ``calibration`` with ECE and NLL before and
    after, ``thresholds``, ``band``, ``unfamiliar`` (absent where the last layer is not linear), whose bank of training
    features is written to ``folder``. Every process of a distributed run calls it and gets the same.

    Raises:
        ValueError: the data has no calibration split.
    """
    if "calibration" not in data.splits:
        raise ValueError("calibrate_run needs a split `calibration`: see hold_out_calibration")

    def outputs(name: str, rows: Dataset) -> Any:
        items = ImageRows(rows, EvalTransform(processor))
        return run_rows(model, items, batch_size=batch_size, workers=workers, title=f"calibrating: {name}")

    selects, certifies = data.splits["validation"], data.splits["calibration"]
    fitted, held = outputs("validation", selects), outputs("calibration", certifies)
    training = outputs("training features", balanced_subset(data.splits["train"], BANK_SIZE)) if folder else None
    calibration: Calibration | None = None
    note = ""
    try:
        calibration = fit(fitted.logits, selects["label"])
    except ValueError as error:
        note = f"not calibrated: {error}"
    probabilities = apply(held.logits, calibration)
    if calibration is not None:
        calibration = _judged(calibration, held.logits, certifies["label"], data)
        calibration = replace(calibration, folded=fitted.features is not None and fold(model, calibration))
    p = fake_probability(probabilities, data.real_index)
    fake = np.array(certifies["label"]) != data.real_index
    facts = replace(
        facts,
        calibration=calibration,
        calibration_note=note,
        thresholds=thresholds(p[~fake], fprs, p_fake=p[fake], confidence=confidence),
        band=uncertain_band(p, fake, delta=delta, confidence=confidence, sources=certifies["source"]),
    )
    if folder is not None and training is not None and training.features is not None and len(certifies):
        familiar = fit_unfamiliar(training.features, held.features)
        facts = replace(facts, unfamiliar=familiar.facts(sorted(set(data.splits["train"]["source"]))))
        if PartialState().is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            familiar.save(folder)
    return facts


def _judged(calibration: Calibration, logits: FloatArray, labels: Sequence[int], data: FaceData) -> Calibration:
    """The calibration with what it did on images that it was not fitted on."""
    figures: dict[str, Any] = {}
    for when, applied in (("before", None), ("after", calibration)):
        found = all_figures(labels, apply(logits, applied), labels=data.labels, real_index=data.real_index)
        for name, key in (("ece", "ece"), ("log_loss", "nll")):
            figures[f"{key}_{when}"] = found[name] if np.isfinite(found[name]) else None
    share = float(np.mean(np.array(labels) != data.real_index)) if len(labels) else None
    return replace(calibration, share_fake=share, **figures)
