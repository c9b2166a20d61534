"""Rows or tensors -> logits and penultimate features, in float32, on one process or several."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bonaface.data.loading import Collator, ImageRows
from bonaface.models.features import LastLayer
from bonaface.models.parts import Model, is_convolutional, move


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


@torch.inference_mode()
def run_rows(
    model: PreTrainedModel, rows: ImageRows, *, batch_size: int = 64, workers: int = 0, title: str = "scoring"
) -> Outputs:
    """The outputs for every row, in row order.

    Several processes share the rows, each image run exactly once, and all of them get the whole result.
    """
    state = PartialState()
    mine = range(state.process_index, len(rows), state.num_processes)
    model = with_fast_products(move(model, device=state.device).eval())
    loader: DataLoader[Any] = DataLoader(
        Subset(rows, mine),
        batch_size,
        num_workers=workers,
        collate_fn=Collator(is_convolutional(model)),
    )
    progress = tqdm(loader, desc=title, unit="batch", leave=False, disable=None if state.is_main_process else True)
    parts = [forward(model, batch["pixel_values"].to(state.device)) for batch in progress]
    nothing = np.empty((0, model.config.num_labels or 0))
    logits = np.concatenate([part.double().cpu().numpy() for part, _ in parts] or [nothing])
    features = [part.float().cpu().numpy() for _, part in parts if part is not None]
    whole = len(features) == len(parts) and bool(parts)
    pieces = gather_object([(state.process_index, logits, np.concatenate(features) if whole else None)])
    if state.num_processes == 1:
        return Outputs(logits, pieces[0][2])
    return _interleave(pieces, len(rows), state.num_processes)


def _interleave(pieces: list[Any], n: int, processes: int) -> Outputs:
    """Row i was run by process i modulo their number; a process without rows has no features to miss."""
    logits = np.empty((n, pieces[0][1].shape[1]))
    found = [(process, part) for process, _, part in pieces if part is not None]
    busy = sum(len(part) > 0 for _, part, _ in pieces)
    features = np.empty((n, found[0][1].shape[1]), dtype=np.float32) if found and len(found) == busy else None
    for process, part, _ in pieces:
        logits[process::processes] = part
    for process, part in found if features is not None else []:
        features[process::processes] = part  # type: ignore[index]
    return Outputs(logits, features)
