"""``cached_views``: the learnable blocks trained on kept maps of the frozen ones.

A frozen block gives the same maps for the same view, so they are computed once (:mod:`view_cache`) and each epoch costs
the learnable blocks alone. What comes out is the whole network, of the architecture that it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, PreTrainedModel

from bonaface.data.loading import Collator, ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.transforms import Preprocessing
from bonaface.models.parts import is_convolutional, move
from bonaface.training.cached_rows import MapRows
from bonaface.training.options import Stage
from bonaface.training.view_cache import FOLDER, ViewCache

TOLERANCE = 1e-3  # of logits, between the whole network and its learnable blocks on kept maps


class FrozenBlocks:
    """The blocks of a network that nothing is learned in, and their maps.

    Args:
        model: with a part frozen; must call its modules one after the other, as convolutional networks do.

    Raises:
        UsageError: the learnable blocks on the maps do not give what the whole network gives.
    """

    def __init__(
        self, model: PreTrainedModel, processor: BaseImageProcessor, stage: Stage, folder: Path = FOLDER
    ) -> None:
        self.model, self.stage = move(model, device=stage.args.device), stage
        output = Preprocessing.of(processor)
        probe = torch.rand(2, 3, output.height, output.width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        probe = probe.to(model.device)
        self.first, frozen = _split(model, probe)
        self.frozen = {name: model.get_submodule(name) for name in frozen}
        weights = [
            (f"{name}.{key}", value) for name, part in self.frozen.items() for key, value in part.state_dict().items()
        ]
        self.cache = ViewCache(weights, processor, stage.recipe.augmentation, stage.args.seed, self._maps, folder)
        self._check(probe)

    def drawn(self, rows: Dataset, seed: int) -> MapRows:
        """The rows to train on, as maps of the recipe's number of drawn views."""
        views = self.stage.recipe.cached_views
        assert views is not None
        return MapRows(rows, self.cache.drawn(rows, views), seed)

    def plain(self, rows: Dataset) -> MapRows:
        """The rows to evaluate, as maps of the view that evaluation sees."""
        return MapRows(rows, [self.cache.plain(rows)], 0)

    @contextmanager
    def bypassed(self) -> Iterator[PreTrainedModel]:
        """The model without its frozen blocks, for as long as the context lasts: its pixels are the maps."""
        with self._with(dict.fromkeys(self.frozen, _Pass())):
            yield self.model

    @contextmanager
    def _with(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        before = {name: self.model.get_submodule(name) for name in modules}
        try:
            for name, module in modules.items():
                self.model.set_submodule(name, module)
            yield
        finally:
            for name, module in before.items():
                self.model.set_submodule(name, module)

    def _maps(self, rows: ImageRows) -> NDArray[np.float16]:
        model, workers = self.model, self.stage.args.dataloader_num_workers
        loader: DataLoader[Any] = DataLoader(
            rows, 64, num_workers=workers, collate_fn=Collator(is_convolutional(model))
        )
        with self._with(self.frozen):  # the trainer that asks for maps has the model without them
            maps = [input_of(model, self.first, batch["pixel_values"].to(model.device)) for batch in loader]
        return np.concatenate([part.half().cpu().numpy() for part in maps])

    @torch.inference_mode()
    def _check(self, pixels: torch.Tensor) -> None:
        model = self.model.eval()
        whole = model(pixel_values=pixels).logits
        try:
            maps = input_of(model, self.first, pixels)
            with self.bypassed():
                part = model(pixel_values=maps).logits
            same = part.shape == whole.shape and torch.allclose(part, whole, atol=TOLERANCE, rtol=TOLERANCE)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            same = False
        if not same:
            raise UsageError(
                f"cached_views: {type(model).__name__} does not run its frozen blocks one after the other",
                "leave cached_views out, or choose a convolutional network",
            )


class _Pass(nn.Module):
    """Gives its first input, whatever a block takes beside it."""

    def forward(self, first: Any, *_: Any, **__: Any) -> Any:
        return first


class _Reached(Exception):
    """The first learnable module is about to run."""


@torch.inference_mode()
def input_of(model: nn.Module, module: str, pixels: torch.Tensor) -> torch.Tensor:
    """What a module of the model reads; what comes after it does not run."""
    found: list[torch.Tensor] = []

    def stop(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    handle = model.get_submodule(module).register_forward_pre_hook(stop)
    try:
        model.eval()(pixel_values=pixels)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


@torch.inference_mode()
def _split(model: nn.Module, pixels: torch.Tensor) -> tuple[str, list[str]]:
    """The module that learns and runs first, and the outermost modules that have ended before it begins."""
    names = {module: name for name, module in model.named_modules()}
    calls: list[tuple[str, bool]] = []  # a module's name, and whether it ends there
    hooks = []
    for module, name in names.items():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: calls.append((name, False))))
        hooks.append(module.register_forward_hook(lambda *_, name=name: calls.append((name, True))))
    try:
        model.eval()(pixel_values=pixels)
    finally:
        for hook in hooks:
            hook.remove()
    learning = {names[m] for m in names if any(p.requires_grad for p in m.parameters(recurse=False))}
    begins = next(i for i, (name, ends) in enumerate(calls) if name in learning and not ends)
    later = {name for name, _ in calls[begins:]}
    ended = {name for name, ends in calls[:begins] if ends} - later
    outermost = [name for name in ended if not any(name.startswith(f"{other}.") for other in ended)]
    return calls[begins][0], sorted(outermost)
