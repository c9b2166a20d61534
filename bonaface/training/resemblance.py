"""What a trained model tells of the sources that fakes resemble: learned from its training split, judged on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from accelerate import PartialState
from transformers import BaseImageProcessor, PreTrainedModel

from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.loading import ImageRows
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.resembles import FEWEST_IMAGES, FEWEST_SOURCES, FILE, Fakes, fit_resembles
from bonaface.inference.rows import run_rows
from bonaface.inference.unfamiliar import BANK_SIZE
from bonaface.models.facts import ResemblesFacts


def learn_resemblance(
    model: PreTrainedModel, processor: BaseImageProcessor, data: FaceData, folder: Path, *, workers: int = 0
) -> ResemblesFacts | None:
    """Learn it from the fakes in ``train``; ``validation`` chooses the threshold, ``calibration`` judges.

    What it is told by goes to ``folder`` if it is on. None where the last layer is not linear, or there are too few
    sources or images (see :func:`bonaface.inference.resembles.fit_resembles`). Every process of a distributed run calls
    it and gets the same.
    """
    train = data.splits["train"]
    fake = np.array(train["label"]) != data.real_index
    names, counts = np.unique(np.array(train["source"], dtype=str)[fake], return_counts=True)
    names = names[(counts >= FEWEST_IMAGES) & (names != "")]
    (folder / FILE).unlink(missing_ok=True)
    if len(names) < FEWEST_SOURCES:
        return None
    parts = []
    for split in ("train", "validation", "calibration"):
        rows = data.splits[split]
        fake = np.array(rows["label"]) != data.real_index
        rows = rows.select(np.flatnonzero(fake & np.isin(np.array(rows["source"], dtype=str), names)))
        rows = balanced_subset(rows, max(BANK_SIZE, FEWEST_IMAGES * len(names)))
        items = ImageRows(rows, EvalTransform(processor))
        features = run_rows(model, items, workers=workers, title=f"resemblance: {split}").features
        if features is None:
            return None
        parts.append(Fakes(features, rows["source"]))
    fitted = fit_resembles(*parts)
    if fitted is None:
        return None
    if fitted[1].on and PartialState().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        fitted[0].save(folder)
    return fitted[1]
