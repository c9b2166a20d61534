"""A trained model on the images of a data set: the predictions table that every figure is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from bonafide.data import FaceData
from bonafide.metrics import predictions_frame
from bonafide.training import Collator, ImageRows, is_convolutional
from bonafide.transforms import EvalTransform


@torch.inference_mode()
def predict_rows(
    model: PreTrainedModel, rows: ImageRows, *, batch_size: int = 64, workers: int = 0, title: str = "scoring"
) -> np.ndarray:
    """Probabilities of every row, float64 (n, classes), in row order and in float32 arithmetic.

    Several processes share the rows, each image scored exactly once, and all of them get the whole result.
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
    parts = [model(pixel_values=batch["pixel_values"].to(state.device)).logits.double().cpu() for batch in progress]
    logits = torch.cat(parts).numpy() if parts else np.empty((0, model.config.num_labels))
    pieces = gather_object([(state.process_index, logits)])
    whole = np.empty((len(rows), model.config.num_labels))
    for process, piece in pieces:
        whole[process :: state.num_processes] = piece
    return torch.softmax(torch.from_numpy(whole), dim=1).numpy()


def predict(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    splits: Sequence[str] = ("validation", "test"),
    *,
    batch_size: int = 64,
    workers: int = 0,
) -> pd.DataFrame:
    """The predictions table of some splits (see :func:`bonafide.metrics.predictions_frame`)."""
    tables = []
    for split in splits:
        rows = data.splits[split]
        scores = predict_rows(
            model,
            ImageRows(rows, EvalTransform(processor)),
            batch_size=batch_size,
            workers=workers,
            title=f"scoring {split}",
        )
        tables.append(
            predictions_frame(
                scores,
                rows["label"],
                path=rows["path"],
                labels=data.labels,
                real_label=data.real_label,
                source=rows["source"],
                group=rows["group"],
                split=split,
            )
        )
    return pd.concat(tables, ignore_index=True)
