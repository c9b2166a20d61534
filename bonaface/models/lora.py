"""Low-rank updates by peft: train a few weights, then merge them, so that the saved model is a stock one."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from bonaface.errors import UsageError
from bonaface.models.parts import head_of


def add_lora(model: PreTrainedModel, rank: int) -> Any:
    """The model with low-rank updates (Hu et al. 2022) of all its linear layers, else of its convolutions.

    The head learns in full. Updates start at nothing and are scaled by 2 (``lora_alpha = 2 * rank``).

    Raises:
        UsageError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UsageError("lora_rank needs the package peft", "pip install 'bonaface[lora]'") from error
    head = head_of(model)
    inside = {id(module) for module in head.modules()}
    names = {id(module): name for name, module in model.named_modules()}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and id(m) not in inside]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=[names[id(module)] for module in linear or convolutions],
        modules_to_save=[names[id(head)]],
    )
    return get_peft_model(model, config)


def merge_lora(model: Any) -> PreTrainedModel:
    """The stock model again, with the updates added to its weights; every weight learns again."""
    merged = model.merge_and_unload()
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    return merged
