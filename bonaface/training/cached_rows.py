"""Rows of kept maps, in the place of rows of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from bonaface.data.loading import Key
from bonaface.training.view_cache import CachedView


class MapRows(torch.utils.data.Dataset):
    """Kept maps of rows in place of their pixels: ``{"pixel_values": float32 (C, H, W), "labels": int}``.

    A sample's view is drawn from its seed, as :class:`bonaface.data.loading.ImageRows` draws the view itself.
    """

    def __init__(self, rows: Dataset, views: list[CachedView], seed: int) -> None:
        self.origin, self.labels, self.views, self.seed = rows, list(rows["label"]), views, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        epoch, row, copy = key if isinstance(key, tuple) else (0, key, 0)
        view = np.random.default_rng((self.seed, epoch, row, copy)).integers(len(self.views))
        return {"pixel_values": self.maps(int(view), [row])[0], "labels": self.labels[row]}

    def maps(self, view: int, rows: Sequence[int]) -> torch.Tensor:
        """Maps of some rows in one view, float32 (n, C, H, W)."""
        return torch.from_numpy(np.stack([self.views[view][row] for row in rows]).astype(np.float32))
