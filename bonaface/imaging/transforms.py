"""From an RGB image to the tensor a model reads: one transform for evaluation, presets for training.

Evaluation is the model's own image processor and nothing else, because that is what
``pipeline("image-classification")`` will run. Training draws its randomness from a seed of the sample's own
(:func:`sample_seed`), never from a global state: the same sample in the same epoch is the same tensor in
any process, with any number of workers, and after a resume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from PIL.Image import Resampling

from bonaface.errors import UsageError
from bonaface.imaging.degradations import (
    colour_jitter,
    common_history,
    erase,
    random_crop,
    random_degradation,
    random_kernel,
    resize_short_side,
)
from bonaface.imaging.resampling import CAN_RESIZE, resize_batch


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 63-bit seed for one sample in one epoch of one run; all three must be at least 0."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Preprocessing:
    """What an image processor gives, as plain facts: ``pixel * scale + offset``, in ``height`` x ``width``."""

    height: int
    width: int
    scale: tuple[float, ...]  # for each channel, from 8-bit levels to the model's units
    offset: tuple[float, ...]
    kernel: Resampling  # the one the processor resizes with

    @classmethod
    def of(cls, processor: Any) -> Preprocessing:
        """Measure the processor, by showing it a black and a white image.

        Processors describe themselves in a dozen ways (``size``, ``shortest_edge``, ``crop_pct``,
        ``crop_size``, ``pad_size``, a timm configuration); what they do is the same for all: resize, crop,
        and an affine map for each channel.

        Raises:
            UsageError: the output size depends on the image, or is not 3 channels.
        """
        black, white = (_centre_pixel(processor, level, (320, 240)) for level in (0, 255))
        if black[0] != _centre_pixel(processor, 0, (240, 320))[0]:
            raise UsageError(
                f"{type(processor).__name__} gives tensors of different sizes for different images",
                hint="set a fixed size in preprocessor_config.json, e.g. do_center_crop and crop_size",
            )
        (height, width), low = black
        scale = (white[1] - low) / 255
        return cls(height, width, tuple(scale.tolist()), tuple(low.tolist()), _kernel(processor))

    def normalize(self, levels: torch.Tensor) -> torch.Tensor:
        """Levels (..., 3, H, W) -> float32 of the same shape, device and memory format, in the model's units."""
        return levels.float() * _by_channel(self.scale, levels.device) + _by_channel(self.offset, levels.device)

    def resize(self, levels: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        """Images of the given sizes, each in the corner of a canvas -> levels in the output's size."""
        return resize_batch(levels, sizes, (self.height, self.width), self.kernel)


@cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Kept on the device: sending them with each batch would make a GPU finish its step first."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)


def _levels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _centre_pixel(processor: Any, level: int, size: tuple[int, int]) -> tuple[tuple[int, int], torch.Tensor]:
    """Output size and the middle pixel (where padding does not reach) for an image of one grey level."""
    output = EvalTransform(processor)(Image.new("RGB", size, (level, level, level)))
    if output.ndim != 3 or output.shape[0] != 3:
        raise UsageError(
            f"{type(processor).__name__} gives a tensor of shape {tuple(output.shape)}, not (3, height, width)",
            hint="choose a model for image classification of RGB images",
        )
    height, width = output.shape[1:]
    return (height, width), output[:, height // 2, width // 2].double()


def _kernel(processor: Any) -> Resampling:
    """The processor's resampling kernel; bicubic where it names none that Pillow has."""
    name = getattr(processor, "resample", None)
    if name is None:
        name = getattr(processor, "data_config", {}).get("interpolation", "bicubic")
    if isinstance(name, int):
        return Resampling(name)
    return Resampling.__members__.get(str(getattr(name, "value", name)).upper(), Resampling.BICUBIC)


class EvalTransform:
    """RGB image -> float32 (3, H, W), exactly as the model's image processor makes it."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Float32 (3, H, W) in the model's units."""
        return self.processor(image, return_tensors="pt")["pixel_values"][0]


@dataclass(frozen=True)
class TrainPreset:
    """How a training sample is drawn from an image. Everything is drawn alike for every class."""

    region: str = "eval"  # "eval": as the processor does; "resized": random area and aspect; "crop": aspect kept
    area: tuple[float, float] = (1.0, 1.0)  # share of the largest fitting region's area
    native: float = 0.0  # "crop": chance that the region is cut at the output's own size, so not resized at all
    random_kernels: bool = False  # resize with any kernel, not only the processor's
    flip: bool = True
    colour: float = 0.0  # brightness, contrast and saturation times 1 ± this
    history: bool = False  # first bring the region to the common JPEG history
    degrade: float = 0.0  # strength of the random chain, 0 to 1
    erase: float = 0.0  # chance that a rectangle is greyed out


TRAIN_PRESETS: dict[str, TrainPreset] = {
    "none": TrainPreset(flip=False),
    "flip": TrainPreset(),
    "colour": TrainPreset(colour=0.2),
    "standard": TrainPreset("resized", area=(0.35, 1.0)),
    "crop": TrainPreset("crop", area=(0.35, 1.0), native=0.5),
    "light": TrainPreset("crop", area=(0.5, 1.0), native=0.25, random_kernels=True, history=True, degrade=0.15),
    "robust": TrainPreset("crop", area=(0.35, 1.0), native=0.25, random_kernels=True, history=True, degrade=0.4),
    "strong": TrainPreset(
        "crop", area=(0.25, 1.0), native=0.25, random_kernels=True, history=True, degrade=0.8, erase=0.25
    ),
}


class TrainTransform:
    """RGB image and seed -> a tensor (3, H, W) of the processor's output size.

    uint8 levels, a quarter of the bytes for workers to hand over and a GPU to be sent, which
    :meth:`Preprocessing.normalize` brings to the model's units on the device. Presets that leave the region to the
    processor give what it gives: float32 in the model's units.

    ``none``: the processor alone. ``flip``: mirrored half of the time, then the processor. ``colour``: the same
    with other brightness, contrast and saturation. ``standard``: the usual random resized crop and flip. ``crop``: the
    aspect ratio is kept, and half of the samples are cut at native resolution, since resizing wipes out the finest
    traces. ``robust``: a random region at a random scale and kernel, flip, the common JPEG history, and a random chain
    of resampling, blur, noise, colour, JPEG and WebP. ``light``: the dial at a third of that. ``strong``: twice as
    high, and erasing.

    The chain comes before the resize to the model's size (the file was bad) or after it (the image was
    made small, then saved), each half of the time.

    With ``regions`` the resize is left to the device (:func:`resampling.resize_batch`) where nothing comes
    after it: such samples are (3, h, w) of any size up to twice the output's.

    Raises:
        UsageError: no such preset, or the processor has no fixed output size.
    """

    def __init__(self, processor: Any, preset: str = "standard", *, regions: bool = False) -> None:
        if preset not in TRAIN_PRESETS:
            raise UsageError(f"unknown training preset {preset!r}", hint="choose one of " + ", ".join(TRAIN_PRESETS))
        self.preset = TRAIN_PRESETS[preset]
        self.evaluate = EvalTransform(processor)
        self.output = Preprocessing.of(processor)
        plain = not (self.preset.history or self.preset.degrade or self.preset.erase or self.preset.random_kernels)
        self.gives_regions = regions and plain and self.preset.region != "eval" and self.output.kernel in CAN_RESIZE

    def __call__(self, image: Image.Image, seed: int) -> torch.Tensor:
        """The same image and seed give the same uint8 or float32 (3, h, w) in every process."""
        preset, rng = self.preset, np.random.default_rng(seed)
        if preset.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if preset.colour:
            image = colour_jitter(image, preset.colour, rng)
        if preset.region == "eval":
            return self.evaluate(image)
        image = random_crop(image, *self._region_size(image.width, image.height, rng), rng)
        image = self._at_most_twice_the_output(image)
        if self.gives_regions and max(image.width / self.output.width, image.height / self.output.height) <= 2:
            return _levels(image)
        if preset.history:
            image = common_history(image, int(rng.integers(2**63)))
        late = rng.random() < 0.5
        chain_seed = int(rng.integers(2**63))
        if not late:
            image = random_degradation(image, preset.degrade, chain_seed)
        kernel = random_kernel(rng) if preset.random_kernels else self.output.kernel
        image = image.resize((self.output.width, self.output.height), kernel)
        if late:
            image = random_degradation(image, preset.degrade, chain_seed)
        if rng.random() < preset.erase:
            image = erase(image, rng.uniform(0.02, 0.2), rng)
        return _levels(image)

    def _at_most_twice_the_output(self, image: Image.Image) -> Image.Image:
        """The chain on a 12-megapixel region would cost a hundred times the model's step and leave the same traces."""
        most = 2 * max(self.output.width, self.output.height)
        if not self.preset.degrade or min(image.size) <= most:
            return image
        return resize_short_side(image, most, self.output.kernel)

    def _region_size(self, width: int, height: int, rng: Generator) -> tuple[int, int]:
        """Width and height in pixels of the region to be cut out."""
        preset, out = self.preset, self.output
        share = math.sqrt(rng.uniform(*preset.area))
        if preset.region == "resized":
            aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
            return round(min(width, width * share * aspect)), round(min(height, height * share / aspect))
        fit = min(width / out.width, height / out.height)  # native pixels for one of the output's
        factor = fit * share
        if rng.random() < preset.native and fit >= 1:
            factor = 1.0
        return max(1, round(out.width * factor)), max(1, round(out.height * factor))
