"""Rows of a data set -> logits and penultimate features, on one process or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from bonaface.data.loading import Collator, ImageRows
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.forward import Outputs, forward, with_fast_products
from bonaface.models.parts import is_convolutional, move

OutputsOf = Callable[[str, Dataset], Outputs]  # what a progress bar says, and rows -> a model's outputs for them


def outputs_of(model: PreTrainedModel, processor: BaseImageProcessor, *, workers: int = 0) -> OutputsOf:
    """A model's outputs for rows of a data set, as evaluation sees them."""
    return lambda title, rows: run_rows(model, ImageRows(rows, EvalTransform(processor)), workers=workers, title=title)


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
