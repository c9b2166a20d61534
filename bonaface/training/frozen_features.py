"""Features of a frozen network for drawn views of each image, kept on disk: a head is then trained in seconds.

The features are the input of the last layer, for views drawn as training draws them. They are a function of the data,
the frozen weights, the image processor, the augmentation and the seed, and are kept in a folder named after all of
these, in blocks: what exists is not computed again, by the same run after an interruption or by another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.imaging.transforms import TrainTransform, sample_seed
from bonaface.inference.forward import run_rows
from bonaface.models.load import head_of
from bonaface.training.run import on_main_process

FOLDER = Path("features")  # beside `prepared`, in the working directory
BLOCK = 1024  # images per file
VERSION = 1  # raise it if the same settings would give other numbers


class DrawnViews(TrainTransform):
    """As training draws views, in the model's units."""

    def __call__(self, image: Image.Image, seed: int) -> torch.Tensor:
        """RGB image and seed -> float32 (3, H, W)."""
        drawn = super().__call__(image, seed)
        return self.output.normalize(drawn) if drawn.dtype == torch.uint8 else drawn


def feature_key(
    model: PreTrainedModel, processor: BaseImageProcessor, rows: Dataset, fingerprint: str, augmentation: str, seed: int
) -> str:
    """24 hex digits of everything that the features depend on, which leaves out the head."""
    head = {id(parameter) for parameter in head_of(model).parameters()}
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) not in head:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    facts = [VERSION, BLOCK, fingerprint, augmentation, seed, processor.to_dict(), list(rows["path"])]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]


def frozen_features(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    rows: Dataset,
    fingerprint: str,
    *,
    augmentation: str,
    views: int,
    seed: int,
    workers: int = 0,
    folder: Path = FOLDER,
) -> NDArray[np.float32]:
    """Features of ``views`` drawn views of each row, float32 (views, n, width).

    Raises:
        UsageError: the logits do not come from a linear layer.
    """
    place = folder / feature_key(model, processor, rows, fingerprint, augmentation, seed)
    transform = DrawnViews(processor, augmentation)
    blocks = [range(start, min(start + BLOCK, len(rows))) for start in range(0, len(rows), BLOCK)]
    found = []
    with tqdm(total=views * len(rows), desc="features", unit="image", leave=False, disable=None) as bar:
        for view in range(views):
            parts = []
            for number, block in enumerate(blocks):
                drawn = ImageRows(rows.select(block), transform, sample_seed(seed, view, number))
                parts.append(_block(model, drawn, place / f"{view:03d}-{number:05d}.npy", workers))
                bar.update(len(block))
            found.append(np.concatenate(parts))
    return np.stack(found)


def plain_features(model: PreTrainedModel, rows: Dataset, transform: Any, workers: int = 0) -> NDArray[np.float32]:
    """Features of the rows as evaluation sees them, float32 (n, width)."""
    return _features(model, ImageRows(rows, transform), workers)


def _block(model: PreTrainedModel, rows: ImageRows, file: Path, workers: int) -> NDArray[np.float32]:
    known = on_main_process(lambda: _read(file, len(rows)))
    if known is not None:
        return known
    features = _features(model, rows, workers)
    on_main_process(lambda: _write(file, features))
    return features


def _features(model: PreTrainedModel, rows: ImageRows, workers: int) -> NDArray[np.float32]:
    features = run_rows(model, rows, workers=workers, title="features").features
    if features is None:
        raise UsageError(f"{type(model).__name__} has no linear classifier", "leave head_only out")
    return features


def _read(file: Path, n: int) -> NDArray[np.float32] | None:
    """A block that exists and is complete."""
    try:
        found = np.load(file)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == n else None


def _write(file: Path, features: NDArray[np.float32]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as partial:
        np.save(partial, features)


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """All rows once, in a drawn order, at most ``size`` at a time."""
    order = rng.permutation(n)
    return (order[start : start + size] for start in range(0, n, size))
