"""The first blocks of a pretrained vision transformer, with fewer hidden units, taught to give what they gave before.

Two steps, without labels. Block by block, the units of its perceptron that serve best are kept and what reads them is
refitted (:mod:`bonaface.models.pruning`), on what the blocks before it, pruned already, give. Then all blocks learn
together to give the tokens that the whole network gives after each of them (FitNets, Romero et al. 2015; for
transformers Jiao et al. 2020, "TinyBERT"), on images drawn as training draws them.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import layer_norm
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bonaface.data.dataset import sampling_weights
from bonaface.data.loading import Collator, ImageRows, NormalisedRows
from bonaface.errors import DivergedError, UsageError
from bonaface.files import atomic_path
from bonaface.imaging.transforms import TrainTransform
from bonaface.models.parts import move
from bonaface.models.pruning import Moments, fewer_units
from bonaface.training.callbacks import Divergence, EpochLines, QuietEpochLines
from bonaface.training.checkpoints import COMPLETE, drop_partial_checkpoints, last_complete_checkpoint
from bonaface.training.frozen_blocks import input_of
from bonaface.training.heads import transformer_of

BATCH = 32
CLASS_TOKEN = 1 / 8  # of the weight of all patches, when a layer is refitted
EPSILON = 1e-6
SAVES = 8  # checkpoints of the learning


@dataclass(frozen=True)
class Pruning:
    """How small the network becomes, and how long it learns."""

    blocks: int
    units: int  # hidden units of a block
    images: int = 1600  # drawn views that choose the units
    views: int = 12800  # drawn views that the blocks learn from together
    learning_rate: float = 3e-4


def prune(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    rows: Dataset,
    augmentation: str,
    pruning: Pruning,
    args: TrainingArguments,
    folder: Path,
) -> PreTrainedModel:
    """A smaller network of the same architecture that gives nearly the same tokens.

    Args:
        model: a vision transformer of timm, which stays as it is.
        rows: images, whose labels only balance the draw; sources count the root of their size.
        augmentation: the preset that draws the views.
        args: seed, device, precision and workers.
        folder: what it has done so far, to resume from.

    Raises:
        UsageError: another kind of network, or more blocks or units than it has.
        DivergedError: weights that are no longer finite.
    """
    network = transformer_of(model, "pruning")
    units = network.blocks[0].mlp.fc1.out_features
    for name, asked, most in (("blocks", pruning.blocks, len(network.blocks)), ("units", pruning.units, units)):
        if not 0 < asked <= most:
            raise UsageError(f"{name}: {asked} is not between 1 and {most}", f"the model has {most}")
    set_seed(args.seed)
    small = _smaller(model, pruning)
    kept = folder / "units.safetensors"
    if kept.is_file():
        small.load_state_dict(load_file(kept))
    else:
        views = drawn_views(rows, processor, augmentation, pruning.images, args.seed)
        _keep_units(model, small, _loader(views, args), args)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as partial:
            save_file(small.state_dict(), partial)
    views = drawn_views(rows, processor, augmentation, pruning.views, args.seed + 1)
    _distil(model, small, views, pruning, args, folder / "checkpoints")
    return small


def drawn_views(rows: Dataset, processor: BaseImageProcessor, augmentation: str, count: int, seed: int) -> ImageRows:
    """So many views of the rows, drawn as training draws them, in the model's units."""
    weights = sampling_weights(rows, "source_root")
    chosen = np.random.default_rng(seed).choice(len(rows), count, p=weights / weights.sum())
    return NormalisedRows(rows.select(chosen), TrainTransform(processor, augmentation), seed)


def _loader(views: ImageRows, args: TrainingArguments) -> DataLoader[Any]:
    return DataLoader(views, BATCH, num_workers=args.dataloader_num_workers, collate_fn=Collator(channels_last=False))


def _smaller(model: PreTrainedModel, pruning: Pruning) -> PreTrainedModel:
    """The network with its first blocks alone and fewer units, its other weights the model's own."""
    config = copy.deepcopy(model.config)
    width = transformer_of(model).embed_dim
    config.model_args = {**(config.model_args or {}), "depth": pruning.blocks, "mlp_ratio": pruning.units / width}
    small = AutoModelForImageClassification.from_config(config)
    own, theirs = small.state_dict(), model.state_dict()
    small.load_state_dict({name: theirs[name] if theirs[name].shape == own[name].shape else own[name] for name in own})
    return small


@torch.inference_mode()
def _keep_units(
    model: PreTrainedModel, small: PreTrainedModel, loader: DataLoader[Any], args: TrainingArguments
) -> None:
    """Choose the units of each block and refit what reads them, in place, from the first block to the last."""
    model, small = (move(each.eval(), device=args.device) for each in (model, small))
    with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
        read = torch.cat(
            [
                input_of(model, "timm_model.blocks.0", batch["pixel_values"].to(args.device)).bfloat16().cpu()
                for batch in tqdm(loader, desc="views", unit="batch", leave=False, disable=None)
            ]
        )
        pruned = read  # what the pruned blocks give in the place of the whole ones
        pairs = zip(transformer_of(model).blocks, transformer_of(small).blocks, strict=False)
        for whole, block in tqdm(list(pairs), desc="units", unit="block", leave=False, disable=None):
            given = _through(whole, read, args)
            attended = _through(partial(_attended, block), pruned, args)
            _fit_block(whole, block, attended, given, args)
            read, pruned = given, _through(block, pruned, args)


def _fit_block(whole: Any, block: Any, attended: torch.Tensor, given: torch.Tensor, args: TrainingArguments) -> None:
    """Make ``block`` give what ``whole`` gave, from its own attention's output."""
    moments = Moments(whole.mlp.fc1.out_features, given.shape[2])
    weight = torch.ones(given.shape[1])
    weight[0] = CLASS_TOKEN * (given.shape[1] - 1)
    for start in range(0, len(given), BATCH):
        tokens = attended[start : start + BATCH].to(args.device).float()
        target = given[start : start + BATCH].to(args.device).float() - tokens
        hidden = whole.mlp.act(whole.mlp.fc1(whole.norm2(tokens))).float()
        moments.add(hidden.flatten(0, 1), target.flatten(0, 1), weight.repeat(len(tokens)).to(args.device))
    importance = 1 / (given.float().flatten(0, 1).var(0) + EPSILON)
    kept, layer, bias = fewer_units(moments, block.mlp.fc1.out_features, importance, whole.mlp.fc2.weight)
    block.mlp.fc1.weight.copy_(whole.mlp.fc1.weight[kept])
    block.mlp.fc1.bias.copy_(whole.mlp.fc1.bias[kept])
    block.mlp.fc2.weight.copy_(layer)
    block.mlp.fc2.bias.copy_(bias)


def _attended(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    return tokens + block.attn(block.norm1(tokens))


def _through(
    block: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, args: TrainingArguments
) -> torch.Tensor:
    """What a block makes of tokens, bfloat16 (n, tokens, width) in main memory."""
    return torch.cat([block(part.to(args.device).float()).bfloat16().cpu() for part in tokens.split(BATCH)])


class _Mimic(nn.Module):
    """The smaller network, whose loss is how far the tokens after its blocks are from the whole network's.

    Three parts, each in units of its own deviation: all tokens, the class token, and the mean of the normalised
    tokens, which are what a head reads.
    """

    def __init__(self, model: PreTrainedModel, small: PreTrainedModel, loader: DataLoader[Any]) -> None:
        super().__init__()
        self.small = transformer_of(small)
        self.whole = [transformer_of(model)]  # in a list: not a part, so it is neither trained nor saved
        self.scales: list[list[torch.Tensor]] = []
        probe = next(iter(loader))["pixel_values"].to(model.device)
        with torch.no_grad():
            for tokens in self._tokens(self.whole[0], probe):
                parts = _parts(tokens)
                self.scales.append([1 / (part.flatten(0, -2).var(0) + EPSILON) for part in parts])

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Pixels (n, 3, height, width) -> the loss, a scalar."""
        with torch.no_grad():
            given = self._tokens(self.whole[0], pixel_values)
        losses = [
            (scale * (mine - theirs).square()).mean()
            for own, their, scales in zip(self._tokens(self.small, pixel_values), given, self.scales, strict=True)
            for mine, theirs, scale in zip(_parts(own), _parts(their), scales, strict=True)
        ]
        return {"loss": torch.stack(losses).mean()}

    def _tokens(self, network: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
        """What is there after each block of the smaller network, float32 (n, tokens, width)."""
        found = network.forward_intermediates(
            pixels, indices=list(range(len(self.small.blocks))), return_prefix_tokens=True, output_fmt="NLC",
            intermediates_only=True, stop_early=True,
        )  # fmt: skip
        return [torch.cat([prefix, patches], 1).float() for patches, prefix in found]


def _parts(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tokens, tokens[:, 0], layer_norm(tokens, tokens.shape[-1:]).mean(1)


class _Completed(TrainerCallback):
    """Marks a checkpoint once all of it is written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        (Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / COMPLETE).touch()


def _distil(
    model: PreTrainedModel,
    small: PreTrainedModel,
    views: ImageRows,
    pruning: Pruning,
    args: TrainingArguments,
    folder: Path,
) -> None:
    """Train the blocks of the smaller network in place, from the last checkpoint where there is one."""
    model, small = (move(each, device=args.device) for each in (model.eval(), small))
    mimic = _Mimic(model, small, _loader(views, args))
    network = transformer_of(small)
    small.requires_grad_(False)
    network.blocks.requires_grad_(True)
    steps = -(-len(views) // BATCH)
    settings = replace(
        args, output_dir=str(folder), num_train_epochs=1, max_steps=-1, per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=1, learning_rate=pruning.learning_rate, weight_decay=0.0, warmup_steps=0.1,
        lr_scheduler_type="cosine", eval_strategy="no", load_best_model_at_end=False, metric_for_best_model=None,
        save_strategy="steps", save_steps=max(1, steps // SAVES), save_total_limit=1, logging_strategy="steps",
        logging_steps=max(1, steps // SAVES),
    )  # fmt: skip
    trainer = Trainer(
        mimic, settings, train_dataset=views, data_collator=Collator(channels_last=False), callbacks=[_Completed()]
    )
    for usual in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(usual)
    trainer.add_callback(QuietEpochLines() if args.disable_tqdm else EpochLines())
    drop_partial_checkpoints(folder)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder))
    divergence = Divergence()
    divergence.now, divergence.rates = trainer.state.global_step, {trainer.state.global_step: settings.learning_rate}
    try:
        divergence.check_weights(small)
    except DivergedError:
        shutil.rmtree(folder)  # or the same command would end here again
        raise
    small.requires_grad_(True)
