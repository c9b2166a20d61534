"""``teachers``: perceptrons that read all stages of the network teach the blocks that learn.

The middle stages of a pretrained network carry further to unseen generators than its last layer does (Cozzolino et al.
2024; Koutlis and Papadopoulos 2024), but a stock classifier reads the last layer alone. So small perceptrons learn the
labels from means and deviations of every stage's maps, and the learnable blocks learn what these say of mixed maps
(Hinton et al. 2015; "function matching" in Beyer et al. 2022) instead of the labels. What ships is the stock network.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bonaface.errors import UsageError
from bonaface.training.cached_rows import MapRows
from bonaface.training.head_fit import HeadFit
from bonaface.training.options import Stage

STAGE = re.compile(r"(?:stages?|layers?|blocks?|features)\.?\d+$")
HIDDEN, DROPOUT, CLIP = 512, (0.3, 0.5), 6.0
EPOCHS, RATE, DECAY, MIXUP = 16, 3e-4, 0.01, 0.4
BATCH = 64


class StageFeatures(nn.Module):
    """Maps -> mean and standard deviation over the area, of the maps and of what each stage makes of them.

    Args:
        body: the network without its frozen blocks; a copy is kept as it is now.

    Raises:
        UsageError: no learnable stages are found by their names.
    """

    def __init__(self, body: PreTrainedModel) -> None:
        super().__init__()
        self.body = copy.deepcopy(body).eval().requires_grad_(False)
        found = [
            name
            for name, part in self.body.named_modules()
            if STAGE.search(name) and any(True for _ in part.parameters())
        ]
        outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
        if not outermost:
            raise UsageError(f"teachers: {type(body).__name__} has no stages to read", "leave teachers out")
        self._seen: list[torch.Tensor] = []
        for name in outermost:
            self.body.get_submodule(name).register_forward_hook(self._see)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Float (n, c, h, w) -> float32 (n, features)."""
        self._seen = [maps]
        self.body(pixel_values=maps)
        seen, self._seen = self._seen, []
        parts = [part.float() for part in seen if part.ndim == 4]
        return torch.cat([torch.cat([part.mean((2, 3)), _deviation(part)], 1) for part in parts], 1)

    def _see(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        self._seen.append(output)


def _deviation(maps: torch.Tensor) -> torch.Tensor:
    return (maps.var((2, 3), correction=0) + 1e-6).sqrt()


class Teacher(nn.Module):
    """Maps -> probabilities: the mean of several perceptrons on the features of all stages."""

    def __init__(self, features: StageFeatures, heads: list[nn.Module]) -> None:
        super().__init__()
        self.features, self.heads = features, nn.ModuleList(heads)

    @torch.no_grad()
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Float (n, c, h, w) -> float32 (n, labels), rows of sum 1."""
        read = self.features(maps)
        return torch.stack([head(read).float() for head in self.heads]).mean(0).softmax(1)


def train_teacher(body: PreTrainedModel, rows: MapRows, weights: torch.Tensor, n_labels: int, stage: Stage) -> Teacher:
    """The teacher of a stage: a function of its rows, its views and the seed.

    Args:
        weights: of the rows in the loss, (n,), mean 1.
    """
    show = PartialState().is_main_process
    with torch.random.fork_rng(devices=[]):
        features = StageFeatures(body).to(stage.args.device)
        views = np.stack([_features_of(features, rows, view, stage, show) for view in range(len(rows.views))])
        mean, std = views.mean((0, 1), dtype=np.float64), views.std((0, 1), dtype=np.float64) + 1e-3
        views = np.clip((views - mean) / std, -CLIP, CLIP).astype(np.float32)
        labels = torch.tensor(rows.labels)
        standard = _Standard(torch.from_numpy(mean).float(), torch.from_numpy(std).float())
        heads: list[nn.Module] = []
        for number in range(stage.recipe.teachers or 1):
            torch.manual_seed(stage.args.seed * 1000 + number)
            head = nn.Sequential(
                nn.Dropout(DROPOUT[0]), nn.Linear(views.shape[2], HIDDEN), nn.GELU(), nn.Dropout(DROPOUT[1]),
                nn.Linear(HIDDEN, n_labels),
            )  # fmt: skip
            own = stage.args.seed + number
            fit = HeadFit(head, n_labels, rate=RATE, decay=DECAY, epochs=EPOCHS, mixup=MIXUP, seed=own)
            for _ in tqdm(range(EPOCHS), desc="teacher", unit="epoch", leave=False, disable=None if show else True):
                fit.epoch(views, labels, weights)
            heads.append(nn.Sequential(standard, head))
    return Teacher(features, heads).eval().requires_grad_(False).to(stage.args.device)


class _Standard(nn.Module):
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.mean) / self.std).clamp(-CLIP, CLIP)


@torch.inference_mode()
def _features_of(features: StageFeatures, rows: MapRows, view: int, stage: Stage, show: bool) -> NDArray[np.float32]:
    device, found = stage.args.device, []
    starts = range(0, len(rows), BATCH)
    for start in tqdm(starts, desc=f"teacher, view {view}", unit="batch", leave=False, disable=None if show else True):
        maps = rows.maps(view, range(start, min(start + BATCH, len(rows)))).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=stage.args.bf16):
            found.append(features(maps).cpu().numpy())
    return np.concatenate(found)
