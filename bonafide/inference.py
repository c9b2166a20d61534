"""Rows or tensors -> logits and penultimate features, in float32, on one process or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bonafide.loading import Collator, ImageRows
from bonafide.models import is_convolutional, last_linear


@dataclass(frozen=True)
class Outputs:
    """What a model said of n images."""

    logits: NDArray[np.float64]  # (n, classes)
    features: NDArray[np.float32] | None  # (n, width): the input of the last layer; None where that is not linear


@torch.inference_mode()
def forward(model: PreTrainedModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits (n, classes) and, where one linear layer makes them, its input (n, width); else None.

    A model may average several heads or normalise after its last linear layer: the layer counts only where its output
    is the logits.
    """
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((inputs[0], output))

    layer = last_linear(model, model.config.num_labels)
    handle = layer.register_forward_hook(keep) if layer is not None else None
    try:
        logits = model(pixel_values=pixels).logits
    finally:
        if handle is not None:
            handle.remove()
    if len(seen) == 1 and seen[0][0].ndim == 2 and torch.equal(seen[0][1], logits):
        return logits, seen[0][0]
    return logits, None


@torch.inference_mode()
def run_rows(
    model: PreTrainedModel, rows: ImageRows, *, batch_size: int = 64, workers: int = 0, title: str = "scoring"
) -> Outputs:
    """The outputs for every row, in row order.

    Several processes share the rows, each image run exactly once, and all of them get the whole result.
    """
    state = PartialState()
    mine = range(state.process_index, len(rows), state.num_processes)
    model = model.to(state.device).eval()
    loader: DataLoader[Any] = DataLoader(
        Subset(rows, mine),
        batch_size,
        num_workers=workers,
        collate_fn=Collator(is_convolutional(model)),
    )
    progress = tqdm(loader, desc=title, unit="batch", leave=False, disable=None if state.is_main_process else True)
    parts = [forward(model, batch["pixel_values"].to(state.device)) for batch in progress]
    logits = np.concatenate([part.double().cpu().numpy() for part, _ in parts] or [np.empty((0, _classes(model)))])
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


def _classes(model: PreTrainedModel) -> int:
    return int(model.config.num_labels)
