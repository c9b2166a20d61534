"""Fewer hidden units in a linear layer's place between two others, chosen and refitted in closed form.

Optimal Brain Surgeon (Hassibi and Stork 1993, "Second order derivatives for network pruning", NeurIPS 5), applied to
whole units as by Kurtic et al. (2023, "ZipLM", NeurIPS): what a unit costs is the squared error that remains after all
others have been refitted without it, which the inverse of the units' Gram matrix gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GROUP = 1 / 200  # of the units: removed before the costs are computed anew
RIDGE = 1e-4  # of the mean square of a unit, so that the Gram matrix can be inverted


@dataclass
class Moments:
    """Weighted sums over tokens of hidden units and of what they are to give, for a linear regression.

    Args:
        units: number of hidden units.
        width: number of outputs.
    """

    units: int
    width: int

    def __post_init__(self) -> None:
        self.weight = 0.0
        self.gram = torch.zeros(self.units, self.units)
        self.cross = torch.zeros(self.units, self.width)
        self.unit_sum, self.target_sum = torch.zeros(self.units), torch.zeros(self.width)

    def add(self, hidden: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        """Add tokens: ``hidden`` float (n, units), ``target`` float (n, width), ``weight`` float (n,)."""
        weighted = hidden * weight[:, None]
        self.weight += float(weight.sum())
        self.gram += (weighted.T @ hidden).cpu()
        self.cross += (weighted.T @ target).cpu()
        self.unit_sum += weighted.sum(0).cpu()
        self.target_sum += (target * weight[:, None]).sum(0).cpu()


@torch.no_grad()
def fewer_units(
    moments: Moments, keep: int, importance: torch.Tensor, layer: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The units that serve best, and the linear layer that reads them.

    Args:
        keep: how many units remain.
        importance: float (width,), what a squared error of each output counts.
        layer: float (width, units), the weight of the layer that reads them now. Where the tokens do not decide, the
            new one stays close to it.

    Returns:
        Their numbers, int64 (keep,) in ascending order, the weight, float32 (width, keep), and the bias, float32
        (width,).

    Raises:
        ValueError: more units than there are, or none.
    """
    if not 0 < keep <= moments.units:
        raise ValueError(f"cannot keep {keep} of {moments.units} units")
    unit_mean = moments.unit_sum.double() / moments.weight
    target_mean = moments.target_sum.double() / moments.weight
    gram = moments.gram.double() / moments.weight - unit_mean[:, None] * unit_mean
    cross = moments.cross.double() / moments.weight - unit_mean[:, None] * target_mean
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(moments.units, dtype=torch.float64)
    inverse, before = torch.linalg.inv(gram + ridge), layer.T.double().cpu()
    weight, kept = before + inverse @ (cross - gram @ before), torch.arange(moments.units)
    group, width = max(1, round(GROUP * moments.units)), moments.width
    while len(kept) > keep:
        order = ((weight.square() * importance.double().cpu()).sum(1) / inverse.diagonal()).argsort()
        fewer = min(group, len(kept) - keep)
        gone, rest = order[:fewer], order[fewer:].sort().values
        step = torch.linalg.solve(inverse[gone][:, gone], torch.cat([weight[gone], inverse[gone][:, rest]], 1))
        change = inverse[rest][:, gone] @ step
        weight, inverse = weight[rest] - change[:, :width], inverse[rest][:, rest] - change[:, width:]
        kept = kept[rest]
    return kept, weight.T.float(), (target_mean - unit_mean[kept] @ weight).float()
