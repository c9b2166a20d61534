"""A detector's networks for a browser: what runs, and how an image becomes what it reads."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from bonaface.errors import UsageError
from bonaface.imaging.resampling import CAN_RESIZE
from bonaface.imaging.transforms import Preprocessing
from bonaface.inference.detector import Detector
from bonaface.inference.engines import ONNX_FILE
from bonaface.inference.network_files import write_network
from bonaface.inference.unfamiliar import Unfamiliar

ODD_SIZES = ((97, 61), (61, 97), (640, 479), (33, 300))  # what the page's resizing is compared with the processor's on


def network_bytes(detector: Detector) -> bytes:
    """The network as ONNX: pixels -> logits, and features where it has them. Raises UsageError without the exporter."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", "pip install 'bonaface[export]'") from error
    with tempfile.TemporaryDirectory() as folder:
        write_network(detector, Path(folder), "onnx", [])
        return (Path(folder) / ONNX_FILE).read_bytes()


def face_network(weights: Path) -> bytes:
    """YuNet for images of any size: its file is fixed at 640 pixels, which OpenCV overrides as it loads it."""
    import onnx

    model = onnx.load(weights)
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape
        fixed = [0, 1] if value in model.graph.input else [0, 2]  # batch and channels; batch and values per place
        for i, dimension in enumerate(shape.dim):
            if i not in fixed:
                dimension.dim_param = f"{value.name}_{i}"
    del model.graph.value_info[:]
    return model.SerializeToString()


def bank_bytes(known: Unfamiliar) -> bytes:
    """The bank in int8, a quarter of its size: for each row a float32 scale, then all rows' values."""
    scales = np.abs(known.bank).max(axis=1, keepdims=True) / 127
    levels = np.rint(known.bank / np.maximum(scales, 1e-12)).astype(np.int8)
    return scales.astype("<f4").tobytes() + levels.tobytes()


@dataclass(frozen=True)
class Pixels:
    """How an RGB image becomes the network's input: resized, cut out of the middle, scaled for each channel.

    Attributes:
        edge: the shorter side after resizing; None where ``resized`` is the whole size.
        resized: height and width after resizing.
        crop: "down" or "even": how half a pixel is rounded where the middle is cut out.
        arithmetic: of the resizing; "pillow", "int16" (torch's for bytes) or "float" (torch's otherwise).
        scale, offset: for each channel, from levels to the network's units.
    """

    height: int
    width: int
    edge: int | None
    resized: tuple[int, int] | None
    crop: str
    kernel: str
    arithmetic: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> Pixels:
        """Find the rule by which a model's image processor works, by comparing its output with each rule's.

        Raises:
            UsageError: it follows none of the rules that the page has.
        """
        facts = Preprocessing.of(processor)
        if facts.kernel not in CAN_RESIZE:
            raise _unknown(processor)
        rng = np.random.default_rng(0)
        images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in ODD_SIZES]
        wanted = [_levels(processor, image, facts) for image in images]
        edge = _edge(processor)
        rules = [(edge, None)] * bool(edge) + [(None, (facts.height, facts.width))]
        tried = product(rules, ("even", "down"), ("pillow", "int16", "float"))
        for (edge, size), crop, arithmetic in tried:
            rule = cls(
                facts.height,
                facts.width,
                edge,
                size,
                crop,
                facts.kernel.name.lower(),
                arithmetic,
                facts.scale,
                facts.offset,
            )
            if all(
                np.abs(rule.levels(image) - level).max() < 0.01 for image, level in zip(images, wanted, strict=True)
            ):
                return rule
        raise _unknown(processor)

    def levels(self, image: Image.Image) -> NDArray[np.float32]:
        """The levels (height, width, 3) that the page hands to the network."""
        width, height = image.size
        if self.resized:
            height, width = self.resized
        elif self.edge:
            short, long = sorted(image.size)
            longer = int(self.edge * long / short)
            width, height = (self.edge, longer) if image.width <= image.height else (longer, self.edge)
        image = self._resized(image, (width, height))
        middle = (lambda x: round(x / 2)) if self.crop == "even" else (lambda x: x // 2)
        left, top = middle(width - self.width), middle(height - self.height)
        return np.asarray(image.crop((left, top, left + self.width, top + self.height)), np.float32)

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        if self.arithmetic == "pillow":
            return image.resize(size, Image.Resampling[self.kernel.upper()])
        if self.kernel not in ("bilinear", "bicubic"):  # torch has no other
            return image.resize(size, Image.Resampling.NEAREST)
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        levels = levels if self.arithmetic == "int16" else levels.float()
        resized = interpolate(levels, size[::-1], mode=self.kernel, antialias=True)
        return Image.fromarray(
            (resized[0] if resized.dtype == torch.uint8 else resized[0].round())
            .clamp(0, 255)
            .byte()
            .permute(1, 2, 0)
            .numpy()
        )


def _levels(processor: Any, image: Image.Image, facts: Preprocessing) -> NDArray[np.float32]:
    pixels = processor(image, return_tensors="pt")["pixel_values"][0].numpy()
    scale, offset = (np.array(values).reshape(3, 1, 1) for values in (facts.scale, facts.offset))
    return ((pixels - offset) / scale).transpose(1, 2, 0)


def _edge(processor: Any) -> int | None:
    """The shorter side that a processor of transformers or timm resizes to; None where it names none."""
    size = getattr(processor, "size", None)
    if size is not None:
        edge = size.get("shortest_edge") if hasattr(size, "get") else getattr(size, "shortest_edge", None)
        return edge and int(edge)
    data = getattr(processor, "data_config", {})
    return int(data["input_size"][-1] / data.get("crop_pct", 1.0)) if "input_size" in data else None


def _unknown(processor: Any) -> UsageError:
    return UsageError(
        f"the page cannot resize images as this model's {type(processor).__name__} does",
        "use a model that resizes the shorter side, or both, and cuts out the middle",
    )
