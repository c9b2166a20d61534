"""A classifier with our labels and its image processor: from the Hub, a folder, timm, or one of our presets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    ConvNextV2Config,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    TimmWrapperConfig,
    ViTConfig,
    ViTImageProcessor,
)
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from bonaface.errors import UsageError
from bonaface.models.cnn import PlainCNNConfig
from bonaface.models.download import model_folder
from bonaface.models.parts import last_linear
from bonaface.models.pretrained import PACKAGED, pretrained_state

Config = TypeVar("Config", bound=PreTrainedConfig)
TIMM = "timm_model"  # where transformers' wrapper keeps timm's network

# Small architectures for small machines, built from scratch: name -> (config from an input side, default input side).
PRESETS: dict[str, tuple[Callable[[int], PreTrainedConfig], int]] = {
    # 3.4 M parameters: the widths and depths of ConvNeXtV2-atto (Woo et al. 2023, table 10).
    "convnext": (
        lambda side: ConvNextV2Config(
            hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2], image_size=side, drop_path_rate=0.05
        ),
        128,
    ),
    # 2.8 M parameters: the widths of ViT-tiny (Touvron et al. 2021) at half its depth, with 8 px patches.
    "vit": (
        lambda side: ViTConfig(
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=side,
            patch_size=8,
        ),
        96,
    ),
    # 2.8 M parameters: ResNet-18 (He et al. 2016) at half its width.
    "resnet": (
        lambda side: ResNetConfig(
            embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 2, 2], layer_type="basic"
        ),
        128,
    ),
    "resnet18": (lambda side: ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2] * 4, layer_type="basic"), 224),
    # The students' plain CNN; needs `import bonaface` to be loaded.
    "cnn": (lambda side: PlainCNNConfig(image_size=side), 256),
}
NO_NETWORK_HINT = (
    f"give a local model folder, a preset whose weights come as a package ({', '.join(PACKAGED)}), "
    f"or build it untrained with --from_scratch (presets: {', '.join(PRESETS)})"
)


def load_model(
    name: str,
    labels: Sequence[str],
    *,
    from_scratch: bool = False,
    image_size: int | None = None,
    resize: int | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A float32 classifier over `labels` (class order) and the image processor that belongs to it.

    Args:
        name: a preset of ours or of :data:`pretrained.PACKAGED`, ``timm/<architecture>``, a folder, or a Hub
            id with or without ``@revision``.
        from_scratch: build from the configuration with fresh weights; presets of ours always are.
        image_size: side of the square input, pixels; the model's own when None.
        resize: shorter side before the centre crop of `image_size`, pixels; None keeps the model's own rule, which
            for presets is no border at all (`resize` = `image_size`).

    Raises:
        UsageError: the model cannot be found or reached, or does not fit the input size.
    """
    if image_size is None:
        return _find(name, labels, from_scratch, None, resize, trust_remote_code)
    try:
        model, processor = _find(name, labels, from_scratch, image_size, resize, trust_remote_code)
        _check_takes(model, image_size)
    except (AssertionError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        hint = "choose another image_size, or leave it out for the size that the network was made for"
        raise UsageError(f"{name} cannot take images of {image_size} px: {reason}", hint) from error
    return model, processor


def _find(
    name: str,
    labels: Sequence[str],
    from_scratch: bool,
    image_size: int | None,
    resize: int | None,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    if name in PRESETS:
        build, side = PRESETS[name][0], image_size or PRESETS[name][1]
        model = AutoModelForImageClassification.from_config(_with_labels(build(side), labels))
        return model, _processor(side, resize or side)
    if name in PACKAGED:
        return _packaged(name, labels, from_scratch, image_size, resize)
    if from_scratch and name.startswith("timm/"):
        timm = _with_labels(_timm_config(name.removeprefix("timm/"), image_size), labels)
        return AutoModelForImageClassification.from_config(timm), timm_processor(timm)
    folder = model_folder(name, weights=not from_scratch, code=trust_remote_code, otherwise=NO_NETWORK_HINT)
    config = _load(AutoConfig, name, folder, trust_remote_code)
    old_labels, old_classes = class_names(config), config.num_labels
    if image_size is not None:
        _resize_config(config, image_size)
    config = _with_labels(config, labels)
    if isinstance(config, TimmWrapperConfig):
        processor: BaseImageProcessor = timm_processor(config)
    else:
        processor = _load(AutoImageProcessor, name, folder, trust_remote_code)
        if image_size is not None:
            processor = _processor(image_size, resize or image_size, like=processor)
    if from_scratch:
        model = AutoModelForImageClassification.from_config(config, trust_remote_code=trust_remote_code)
    else:
        model = _load_weights(name, folder, config, trust_remote_code, old_classes)
        if old_labels != list(labels):
            _reset_classifier(model)
    return model, processor


@torch.no_grad()  # not inference_mode: what a network keeps of this call, it reads again in training
def _check_takes(model: PreTrainedModel, side: int) -> None:
    training = model.training
    model.eval()(pixel_values=torch.zeros(1, 3, side, side))
    model.train(training)


def class_names(config: PreTrainedConfig) -> list[str] | None:
    """The labels of a configuration in class order, or None where it has only ``LABEL_0, LABEL_1, …``."""
    id2label = cast("dict[int, str]", config.id2label)
    names = [id2label[i] for i in sorted(id2label)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def checkpoint_labels(name: str) -> list[str] | None:
    """Class order of a model folder or Hub id, so that a second fine-tune on the same labels keeps its head.

    None for what has no head yet: a preset, a timm architecture. Raises UsageError where there is no such model.
    """
    if name in PRESETS or name in PACKAGED or name.startswith("timm/"):
        return None
    folder = model_folder(name, weights=False, otherwise=NO_NETWORK_HINT)
    return class_names(AutoConfig.from_pretrained(folder)) if (folder / "config.json").is_file() else None


def model_class(name: str, trust_remote_code: bool = False) -> type[PreTrainedModel] | None:
    """The class of the model that :func:`load_model` gives, without making one; None where its code came with it.

    Raises UsageError where there is no such model.
    """
    if name in PRESETS:
        build, side = PRESETS[name]
        kind: type[PreTrainedConfig] = type(build(side))
    elif name.startswith("timm/"):
        kind = TimmWrapperConfig
    else:
        folder = model_folder(name, weights=False, code=trust_remote_code, otherwise=NO_NETWORK_HINT)
        kind = type(_load(AutoConfig, name, folder, trust_remote_code))
    found = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(kind, None)
    return found[0] if isinstance(found, tuple) else found  # some, as DeiT, have a second one with another head


def _with_labels(config: Config, labels: Sequence[str]) -> Config:
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    if isinstance(config, TimmWrapperConfig):  # it keeps a second list of its own, which goes stale silently
        config.label_names = list(labels)
    if hasattr(config, "bonaface"):  # facts of another training
        del config.bonaface
    return config


def _reset_classifier(model: PreTrainedModel) -> None:
    layer = last_linear(model, model.config.num_labels)
    if layer is not None:
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _load_weights(
    name: str, folder: Path, config: PreTrainedConfig, trust_remote_code: bool, old_classes: int
) -> PreTrainedModel:
    kind = AutoModelForImageClassification
    options = {"ignore_mismatched_sizes": True, "dtype": torch.float32}
    # safetensors, of a folder too: a pickle may run code
    model, info = _load(
        kind, name, folder, trust_remote_code, config=config, use_safetensors=True, output_loading_info=True, **options
    )
    unfit = []  # transformers leaves these as they happen to be, which may be NaN
    own = model.state_dict()
    for key, theirs, mine in info["mismatched_keys"]:
        if (theirs[:1], mine[:1], theirs[1:]) == ((old_classes,), (config.num_labels,), mine[1:]):  # a classifier's
            nn.init.trunc_normal_(own[key], std=0.02) if len(mine) > 1 else nn.init.zeros_(own[key])
        else:
            unfit.append(key)
    if unfit:
        _adapt(model, unfit, name, folder)
    return model


@torch.no_grad()
def _adapt(model: PreTrainedModel, unfit: Sequence[str], name: str, folder: Path) -> None:
    """Fill tensors that depend on the input size, such as position embeddings, by resampling, as timm does."""
    own = model.state_dict()
    files = [*folder.glob("*.safetensors")]
    stored = {key: tensor for file in files for key, tensor in load_file(file).items()}
    resampled = getattr(sys.modules[type(getattr(model, TIMM, model)).__module__], "checkpoint_filter_fn", None)
    if hasattr(model, TIMM) and resampled:
        bare = {key.removeprefix(f"{TIMM}."): tensor.float() for key, tensor in stored.items()}
        stored = {f"{TIMM}.{key}": tensor for key, tensor in resampled(bare, model.timm_model).items()}
    for key in unfit:
        if key not in stored or stored[key].shape != own[key].shape:
            raise UsageError(
                f"the weights of {name} do not fit this input size: {key} is {tuple(stored[key].shape)}"
                if key in stored
                else f"the weights of {name} lack {key}",
                "leave out image_size, to train at the size that the weights were made for",
            )
        own[key].copy_(stored[key])


def _load(auto: Any, name: str, folder: Path, trust_remote_code: bool, **kwargs: Any) -> Any:
    try:
        return auto.from_pretrained(str(folder), trust_remote_code=trust_remote_code, **kwargs)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"cannot load the model {name}: {reason}", NO_NETWORK_HINT) from error


def _packaged(
    name: str, labels: Sequence[str], from_scratch: bool, image_size: int | None, resize: int | None
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A preset with pretrained weights and a fresh classifier; its processor is timm's, as for any timm model."""
    preset = PACKAGED[name]
    side = image_size or preset.side
    config = _timm_config(preset.architecture, side)
    if preset.model_args:
        config.model_args = {**(config.model_args or {}), **preset.model_args}
    # A saved model of timm's wrapper is loaded with timm's own preprocessing, whatever preprocessor_config.json says.
    crop = {"crop_pct": side / (resize or side), "interpolation": "bilinear"}
    config.pretrained_cfg = {**config.pretrained_cfg, **crop}
    model = AutoModelForImageClassification.from_config(_with_labels(config, labels))
    if not from_scratch:
        own = model.timm_model.state_dict()
        found = pretrained_state(name)
        if "pos_embed" in found:
            found["pos_embed"] = resample_abs_pos_embed(
                found["pos_embed"], list(model.timm_model.patch_embed.grid_size)
            )
        fitting = {key: value for key, value in found.items() if value.shape == own[key].shape}
        model.timm_model.load_state_dict({**own, **fitting})
        _reset_classifier(model)
    return model, timm_processor(config)


def _timm_config(architecture: str, image_size: int | None) -> TimmWrapperConfig:
    try:
        facts = timm.get_pretrained_cfg(architecture)
    except RuntimeError:
        facts = None
    if facts is None or not timm.is_model(architecture.split(".")[0]):
        close = timm.list_models(f"*{architecture.split('.')[0]}*")[:5]
        raise UsageError(
            f"timm has no architecture `{architecture}`",
            f"did you mean {' or '.join(close)}?" if close else "choose one of timm.list_models()",
        )
    own: dict[str, Any] = {"pretrained_cfg": {k: v for k, v in facts.to_dict().items() if k != "num_classes"}}
    config = TimmWrapperConfig(architecture=architecture.split(".")[0], **own)
    if image_size is not None:
        _resize_config(config, image_size)
    return config


def timm_processor(config: TimmWrapperConfig) -> TimmWrapperImageProcessor:
    """The preprocessing of a model of timm's wrapper, which stands in its configuration.

    `AutoImageProcessor` makes the same, but looks for a torchvision variant first and prints that there is none.
    """
    return TimmWrapperImageProcessor(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)


def _resize_config(config: PreTrainedConfig, side: int) -> None:
    if isinstance(config, TimmWrapperConfig):
        config.pretrained_cfg = {**config.pretrained_cfg, "input_size": [3, side, side]}
        facts = timm.get_pretrained_cfg(config.architecture)
        if facts is not None and facts.fixed_input_size:  # as a transformer's; a convolutional network's is not
            config.model_args = {**(config.model_args or {}), "img_size": side}
    elif isinstance(config, ViTConfig) and config.image_size != side:
        raise UsageError(
            f"this ViT takes {config.image_size} px, not {side}",
            "leave --image_size out, or use a timm ViT, which adapts",
        )
    elif hasattr(config, "image_size"):
        config.image_size = side


def _processor(side: int, resize: int, like: Any = None) -> ViTImageProcessor:
    """Resize the shorter side, crop the centre, scale to mean 0.5: the same for all our presets."""
    return ViTImageProcessor(
        size={"shortest_edge": resize},
        do_center_crop=True,
        crop_size={"height": side, "width": side},
        do_convert_rgb=True,
        image_mean=like.image_mean if like else [0.5, 0.5, 0.5],
        image_std=like.image_std if like else [0.25] * 3,
    )
