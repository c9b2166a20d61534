"""Undecoded rows -> batches: a dataset, a sampler whose keys carry the epoch, a collator."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler

from bonaface.data.dataset import image_bytes
from bonaface.imaging.images import decode_image
from bonaface.imaging.transforms import EvalTransform, TrainTransform, sample_seed

Key = tuple[int, int, int]  # epoch, row, how many times the row was drawn before in this epoch


class ImageRows(torch.utils.data.Dataset):
    """Rows decoded and transformed when asked for: ``{"pixel_values": (3, H, W), "labels": int}``.

    Pixels are float32 in the model's units, or uint8 levels where the transform gives those. ``seed`` is that of a
    training transform's draws, which depend on the epoch and the row too.
    """

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
            pixels = self.transform(image, self.seed_of(epoch, row, copy))
        else:
            pixels = self.transform(image)
        return {"pixel_values": pixels, "labels": item["label"]}

    def seed_of(self, epoch: int, row: int, copy: int) -> int:
        """What a drawn sample is a function of, besides the image."""
        return sample_seed(self.seed, epoch, row + copy * len(self))


class NormalisedRows(ImageRows):
    """The same, always float32 in the model's units: for a network that reads them without a trainer."""

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        item = super().__getitem__(key)
        if isinstance(self.transform, TrainTransform) and item["pixel_values"].dtype == torch.uint8:
            item["pixel_values"] = self.transform.output.normalize(item["pixel_values"])
        return item


class EpochSampler(Sampler[Key]):
    """A seeded order of rows for each epoch, as keys that carry the epoch into the workers.

    Workers that live on from epoch to epoch never see a ``set_epoch`` on their copy of the dataset; a key reaches them.
    With weights, rows are drawn by systematic resampling: each as often as its weight says, give or take one.
    A last batch of a single image is left for another epoch: batch norms cannot learn from one image.
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
    """Items -> a batch, in the memory format that the model runs in.

    With ``regions`` levels may differ in size: each image lies in the corner of a canvas that fits the largest, and
    ``sizes``, int64 (n, 2), has their heights and widths.
    """

    def __init__(self, channels_last: bool, *, regions: bool = False) -> None:
        self.channels_last, self.regions = channels_last, regions

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (n, 3, H, W) of the items' type, ``labels`` int64 (n,), and ``sizes`` of regions."""
        pixels = [item["pixel_values"] for item in items]
        batch = {"labels": torch.tensor([item["labels"] for item in items])}
        if self.regions and pixels[0].dtype == torch.uint8:  # evaluation's are float32, of one size
            batch["sizes"] = torch.tensor([each.shape[1:] for each in pixels])
            canvas = torch.zeros(len(pixels), 3, *batch["sizes"].amax(dim=0).tolist(), dtype=torch.uint8)
            for i, each in enumerate(pixels):
                canvas[i, :, : each.shape[1], : each.shape[2]] = each
            batch["pixel_values"] = canvas
        elif self.channels_last:  # stacked as the images lie in memory, so that nothing is moved twice
            batch["pixel_values"] = torch.stack([each.permute(1, 2, 0) for each in pixels]).permute(0, 3, 1, 2)
        else:
            batch["pixel_values"] = torch.stack(pixels)
        return batch
