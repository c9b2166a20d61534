"""A model folder that `pipeline("image-classification")` loads; nothing in it is pickled."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BaseImageProcessor, PreTrainedModel

from bonaface.files import atomic_files
from bonaface.models.parts import last_linear

# Three bits of mantissa and four of exponent, or two and five (Micikevicius et al. 2022, "FP8 formats for deep
# learning").
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
LOSS = 0.1  # of a tensor's norm that rounding may take; what is below 0.001 becomes 0 in the first of them


def save_model(folder: Path, model: PreTrainedModel, processor: BaseImageProcessor, *, float8: bool = False) -> None:
    """Write configuration, weights and preprocessing, all of them or none.

    Args:
        float8: store weights of two dimensions and more as 8-bit floats, but for the classifier's, which calibration
            still changes: a quarter of the size. Loaded, they are float32 again, rounded to three bits of mantissa, or
            two where they are too small or too large for that; to seven, as 16-bit floats, where neither will do.
    """
    model.config.dtype = "float32"  # what it is loaded as
    state = float8_state(model) if float8 else None
    with atomic_files(folder) as partial:
        model.save_pretrained(partial, state_dict=state)
        processor.save_pretrained(partial)


def float8_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The model's tensors by name, of the types in which :func:`save_model` stores them with `float8`."""
    classifier = last_linear(model, model.config.num_labels)
    kept = None if classifier is None else classifier.weight.data_ptr()

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 2 or not tensor.is_floating_point() or tensor.data_ptr() == kept:
            return tensor  # indices, such as those of relative positions, must stay what they are
        if not tensor.isfinite().all():
            return tensor
        for kind in FLOAT8:
            largest = torch.finfo(kind).max  # what is larger would become NaN
            rounded = tensor.clamp(-largest, largest).to(kind)
            if (rounded.float() - tensor).norm() <= LOSS * tensor.norm():
                return rounded
        return tensor.bfloat16()

    return {name: stored(tensor) for name, tensor in model.state_dict().items()}
