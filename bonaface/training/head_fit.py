"""A head trained on kept features of views, standardised: seconds an epoch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

BATCH = 128


class HeadFit:
    """What trains a head on features: AdamW with a cosine schedule, mixup of features and labels.

    Args:
        head: float32 (n, width) -> logits (n, labels).
        mixup: alpha of the Beta distribution; 0 for never.
    """

    def __init__(
        self,
        head: nn.Module,
        n_labels: int,
        *,
        rate: float,
        decay: float,
        epochs: int,
        mixup: float = 0.0,
        smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.head, self.n_labels, self.mixup, self.smoothing = head, n_labels, mixup, smoothing
        self.rng = np.random.default_rng(seed)
        self.optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, max(epochs, 1))

    def epoch(self, views: NDArray[np.float32], labels: torch.Tensor, weights: torch.Tensor) -> tuple[float, int]:
        """One pass over views (views, n, width), of which one is drawn for each row; mean loss and number of steps."""
        self.head.train()
        drawn = self.rng.integers(len(views), size=len(labels))
        order = self.rng.permutation(len(labels))
        total, steps = 0.0, 0
        for picked in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
            x = torch.from_numpy(views[drawn[picked], picked])
            y = nn.functional.one_hot(labels[picked], self.n_labels).float()
            w = weights[picked]
            if self.mixup:
                share = float(self.rng.beta(self.mixup, self.mixup))
                other = torch.from_numpy(self.rng.permutation(len(picked)))
                x, y, w = (share * part + (1 - share) * part[other] for part in (x, y, w))
            losses = nn.functional.cross_entropy(self.head(x), y, reduction="none", label_smoothing=self.smoothing)
            self.optimiser.zero_grad()
            loss = (losses * w).mean()
            loss.backward()
            self.optimiser.step()
            total, steps = total + loss.item(), steps + 1
        self.schedule.step()
        self.head.eval()
        return total / steps, steps
