"""What learns, how fast and when: blocks of a model, freezing, parameter groups, schedules, averaged weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from timm.models import group_parameters
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, TrainerCallback, TrainerState

from bonaface.errors import UsageError
from bonaface.models.parts import head_of

EMA_FILE = "ema.safetensors"
# A stage's layer (``encoder.stages.1.layers.0``) or a layer of a net without stages (``encoder.layer.3``).
BLOCK = re.compile(r"^.*?(?:stages?|layers?|blocks?|features|dense)\.\d+(?:\.(?:layers?|blocks?)\.\d+)?(?=\.)")
SPARED = re.compile(r"bias|_token|pos(ition)?_emb", re.IGNORECASE)


def blocks(model: PreTrainedModel) -> list[list[str]]:
    """Names of the parameters by depth: the stem first, each block of the network, the head last.

    timm's models list their blocks; for others the names tell. What comes between two blocks, or after the last one,
    belongs to the block before it.
    """
    head = {id(parameter) for parameter in head_of(model).parameters()}
    body = [name for name, parameter in model.named_parameters() if id(parameter) not in head]
    groups: dict[Any, list[str]] = {}
    told = _timm_blocks(model)
    key: Any = None
    for name in body:
        found = BLOCK.match(name)
        key = told[name] if name in told else found.group() if found else key
        groups.setdefault(key, []).append(name)
    ordered = [groups[key] for key in sorted(groups)] if told else list(groups.values())
    return [*ordered, [name for name, parameter in model.named_parameters() if id(parameter) in head]]


def _timm_blocks(model: PreTrainedModel) -> dict[str, int]:
    for prefix, module in model.named_modules():
        if hasattr(module, "group_matcher"):
            found = group_parameters(module, module.group_matcher(coarse=False), reverse=True)
            return {f"{prefix}.{name}" if prefix else name: int(depth) for name, depth in found.items()}
    return {}


def learnable(model: nn.Module) -> set[str]:
    """Names of the parameters that require a gradient; some architectures keep a few that never do."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def freeze(model: PreTrainedModel, what: str, among: set[str]) -> None:
    """Let only a part of `among` learn: ``none`` is frozen, the ``backbone``, or ``all_but_last_N`` blocks.

    The head is the last block. Batch norms whose block is frozen keep their statistics too (see :func:`rest`).

    Raises:
        UsageError: N is more than there are blocks.
    """
    groups = [list(among)] if what == "none" else blocks(model)
    n = 1 if what in ("none", "backbone") else int(what.rsplit("_", 1)[1])
    if n > len(groups):
        raise UsageError(
            f"freeze: {what}, but {type(model).__name__} has {len(groups)} blocks, including the head",
            f"give N from 1 to {len(groups)}, or `freeze: none`",
        )
    learning = {name for group in groups[-n:] for name in group}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning and name in among)


def rest(model: nn.Module) -> None:
    """Put batch norms that do not learn into evaluation mode, so that their running statistics stay."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()


def add_dropout(model: PreTrainedModel, share: float) -> RemovableHandle:
    """Dropout in front of the last layer while the model trains; its weights keep their stock names."""

    def drop(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (nn.functional.dropout(inputs[0], share, module.training),)

    return head_of(model).register_forward_pre_hook(drop)


def decayed_names(model: nn.Module) -> list[str]:
    """Parameters that weight decay is for: kernels and matrices.

    Not norms, biases, layer scales, class tokens and position embeddings; transformers' own rule decays BatchNorm
    weights, layer scales, tokens and positions.
    """
    return [
        name
        for name, parameter in model.named_parameters()
        if sum(side > 1 for side in parameter.shape) >= 2 and not SPARED.search(name)
    ]


def layer_decay_groups(model: PreTrainedModel, rate: float, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate shrinks by `decay` from each block to the one before it.

    Layer-wise learning-rate decay as in Clark et al. 2020 (ELECTRA, section 3.3) and Bao et al. 2022 (BEiT).
    """
    decayed, parameters = set(decayed_names(model)), dict(model.named_parameters())
    groups = []
    for depth, names in enumerate(reversed(blocks(model))):
        for decays in (True, False):
            chosen = [parameters[n] for n in names if (n in decayed) == decays and parameters[n].requires_grad]
            if chosen:
                groups.append(
                    {"params": chosen, "lr": rate * decay**depth, "weight_decay": weight_decay if decays else 0.0}
                )
    return groups


def one_cycle(optimizer: Optimizer, steps: int, warmup: int, **kwargs: Any) -> LRScheduler:
    """Up to the learning rate during warm-up (30 % of the steps if none is given), then down (Smith & Topin 2018)."""
    share = min(1.0, max(2, warmup or 0.3 * steps) / steps)  # torch divides by the steps of the way up less one
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, total_steps=steps, cycle_momentum=False, **{"pct_start": share, **kwargs})


class PlateauWarmup(TrainerCallback):
    """Linear warm-up in front of reduce-on-plateau, which transformers starts at the full learning rate."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Set the learning rate of each group while warm-up lasts."""
        if state.global_step < self.steps:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (state.global_step + 1) / self.steps


class WeightAverage(TrainerCallback):
    """An exponential moving average of the weights (Polyak & Juditsky 1992), with timm's warm-up of the decay.

    Evaluation sees the average, training continues from the weights; checkpoints contain both.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Add the step's weights."""
        self.average.update(self.model, step=state.global_step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with averaged weights, for as long as the context lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        ours = self.average.module.state_dict()
        for name, tensor in self.model.state_dict().items():
            kept = tensor.clone()
            tensor.copy_(ours[name])
            ours[name].copy_(kept)

    def save(self, folder: str | Path) -> None:
        """Write the average into a checkpoint."""
        save_file({k: v.contiguous() for k, v in self.average.module.state_dict().items()}, Path(folder) / EMA_FILE)

    def load(self, folder: str | Path) -> None:
        """Read it back, to train on."""
        self.average.module.load_state_dict(load_file(Path(folder) / EMA_FILE))

    def keep(self, folder: str | Path | None = None) -> None:
        """Make the average (a checkpoint's, or the present one) the model's weights."""
        if folder is not None:
            self.load(folder)
        self.model.load_state_dict(self.average.module.state_dict())
