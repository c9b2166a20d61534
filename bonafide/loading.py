"""Undecoded rows -> batches: a dataset, a sampler whose keys carry the epoch, a collator."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler

from bonafide.data import image_bytes
from bonafide.images import decode_image
from bonafide.transforms import EvalTransform, TrainTransform, sample_seed

Key = tuple[int, int, int]  # epoch, row, how many times the row was drawn before in this epoch


class ImageRows(torch.utils.data.Dataset):
    """Rows decoded and transformed when asked for: ``{"pixel_values": float32 (3, H, W), "labels": int}``."""

    def __init__(self, rows: Dataset, transform: EvalTransform | TrainTransform, seed: int = 0) -> None:
        self.origin, self.rows = rows, rows.select_columns(["image", "label"])
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        epoch, row, copy = key if isinstance(key, tuple) else (0, key, 0)
        item = self.rows[row]
        image = decode_image(image_bytes(item["image"]), name=item["image"].get("path") or "")
        if isinstance(self.transform, TrainTransform):
            pixels = self.transform(image, sample_seed(self.seed, epoch, row + copy * len(self)))
        else:
            pixels = self.transform(image)
        return {"pixel_values": pixels, "labels": item["label"]}


class EpochSampler(Sampler[Key]):
    """A seeded order of rows for each epoch, as keys that carry the epoch into the workers.

    Workers that live on from epoch to epoch never see a ``set_epoch`` on their copy of the dataset; a key reaches them.
    With weights, rows are drawn by systematic resampling: each as often as its weight says, give or take one.
    An image that would be the last batch by itself waits for another epoch: batch norms cannot learn from one.
    """

    def __init__(self, n: int, seed: int, weights: np.ndarray | None = None, batch_size: int = 0) -> None:
        self.n, self.seed, self.weights, self.epoch = n, seed, weights, 0
        self.lone = int(1 < batch_size < n and n % batch_size == 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n - self.lone

    def __iter__(self) -> Iterator[Key]:
        return islice(self._all(), len(self))

    def _all(self) -> Iterator[Key]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            yield from ((self.epoch, int(row), 0) for row in rng.permutation(self.n))
            return
        shares = np.cumsum(self.weights)
        ends = np.floor(shares / shares[-1] * self.n + rng.random())
        rows = np.repeat(np.arange(self.n), np.diff(ends, prepend=0).astype(int))
        first = np.searchsorted(rows, rows)
        keys = [(self.epoch, int(row), int(i - start)) for i, (row, start) in enumerate(zip(rows, first, strict=True))]
        yield from (keys[i] for i in rng.permutation(len(keys)))


class Collator:
    """Items -> a batch, in the memory format that the model runs in."""

    def __init__(self, channels_last: bool) -> None:
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([item["pixel_values"] for item in items])
        labels = torch.tensor([item["labels"] for item in items])
        return {"pixel_values": pixels.contiguous(memory_format=self.memory_format), "labels": labels}
