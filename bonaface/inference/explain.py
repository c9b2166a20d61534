"""Which areas of an image point to the verdict: a heat map, its overlay, and a test of how far to trust it.

Made by the methods of :mod:`bonaface.inference.heat_maps`. A map shows where the model looked, not what is wrong there;
:mod:`bonaface.inference.faithfulness` tests it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw

from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.imaging.faces import Box
from bonaface.imaging.images import ImageError, load_image
from bonaface.imaging.transforms import Preprocessing
from bonaface.inference.detector import Detector, Result
from bonaface.inference.engines import TorchEngine
from bonaface.inference.faithfulness import Faithfulness, measure
from bonaface.inference.heat_maps import HeatMap, gradcam, integrated_gradients, occlusion, target_scores

METHODS = {"integrated_gradients": integrated_gradients, "gradcam": gradcam, "occlusion": occlusion}


@dataclass(frozen=True)
class Explanation:
    """A heat map of one image or of its worst face.

    Attributes:
        image: the upright RGB image.
        result: the detector's.
        target: "fake" or "real": what the map shows evidence for; the more likely of the two.
        method: by its name in ``METHODS``.
        heat: float32 (H, W) in [0, 1], on the grid of the pixels that the model reads.
        region: x0, y0, x1, y1 in the image's pixels: what those pixels show.
        face: the face's box in the image's pixels, where one was cut out.
        pixels: float32 (3, H, W), what the model read; ``heat`` is of that height and width.
        faithfulness: None where it was not measured.
    """

    image: Image.Image
    result: Result
    target: str
    method: str
    heat: HeatMap
    region: Box
    face: Box | None
    pixels: torch.Tensor
    faithfulness: Faithfulness | None = None

    def overlay(self) -> Image.Image:
        """The image with the heat over what the model saw, and the face's box."""
        x0, y0, x1, y1 = (round(v) for v in self.region)
        size = (max(1, x1 - x0), max(1, y1 - y0))
        heat = Image.fromarray(self.heat).resize(size, Image.Resampling.BILINEAR)
        values = np.sqrt(np.clip(np.asarray(heat), 0, 1))  # or all but a few peaks would be dark
        colours = (matplotlib.colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8)
        mask = Image.fromarray((values * 255 * 0.6).astype(np.uint8))
        image = self.image.copy()
        image.paste(Image.fromarray(colours), (x0, y0), mask)
        if self.face is not None:
            width = max(2, min(image.size) // 200)
            ImageDraw.Draw(image).rectangle(self.face, outline=(0, 200, 255), width=width)
        return image

    def close_up(self, side: int) -> Explanation:
        """The same within ``side`` pixels, and of a face alone: one in a full-length image is too small to read.

        Without the face's box, which would frame nearly all of it.
        """
        image, (x0, y0, x1, y1) = self.image, self.region
        left, top = 0, 0
        if self.face is not None:
            left, top = math.floor(x0), math.floor(y0)
            image = image.crop((left, top, math.ceil(x1), math.ceil(y1)))
        full, image = image, image.copy()
        image.thumbnail((side, side))  # an overlay on 60 megapixels takes seconds
        wide, high = image.width / full.width, image.height / full.height
        region = (x0 - left) * wide, (y0 - top) * high, (x1 - left) * wide, (y1 - top) * high
        return replace(self, image=image, region=region, face=None)


def explain(
    detector: Detector,
    image: Image.Image,
    *,
    faces: bool | None = None,
    method: str = "auto",
    test: bool = True,
) -> Explanation:
    """Explain a detector's verdict on an image: on its worst face where faces are cut out.

    Args:
        image: RGB, upright.
        faces: see :mod:`bonaface.inference.reader`.
        method: "integrated_gradients", "gradcam" (both need gradients) or "occlusion"; "auto" is the first where the
            network has gradients, and the last elsewhere.
        test: measure the map's faithfulness too; :func:`faithfulness_of` does it later.

    Raises:
        UsageError: an unknown method, one that needs gradients on an exported network, or gradcam on a network without
            a grid of features.
    """
    if method not in ("auto", *METHODS):
        raise UsageError(f"unknown method {method!r}", "choose auto, " + ", ".join(METHODS))
    result = detector(image, faces=faces)[0]
    face = max(result.faces, key=lambda f: f.p_fake, default=None)
    whole = (0.0, 0.0, float(image.width), float(image.height))
    square = detector.reader.face_square(image, face.box) if face else whole
    view = image.crop(square) if face else image
    target = "fake" if result.p_fake >= 0.5 else "real"
    pixels = detector.pixels(view)
    if method == "auto":
        method, heat = _best_map(detector, pixels, target)
    else:
        heat = METHODS[method](detector, pixels, target)
    x0, y0, x1, y1 = seen_region(detector.reader.processor, view.size)
    found = Explanation(
        image,
        result,
        target,
        method,
        heat,
        (square[0] + x0, square[1] + y0, square[0] + x1, square[1] + y1),
        face.box if face else None,
        pixels,
    )
    return replace(found, faithfulness=faithfulness_of(found, detector)) if test else found


def _best_map(detector: Detector, pixels: torch.Tensor, target: str) -> tuple[str, HeatMap]:
    """The method that "auto" stands for, and its map."""
    if isinstance(detector.engine, TorchEngine):
        try:
            return "integrated_gradients", METHODS["integrated_gradients"](detector, pixels, target)
        except UsageError:  # a quantised network, for one, has no gradients
            pass
    return "occlusion", METHODS["occlusion"](detector, pixels, target)


def faithfulness_of(found: Explanation, detector: Detector) -> Faithfulness:
    """How far to trust an explanation that the same detector gave; some 130 runs of the model."""
    return measure(found.pixels, found.heat, lambda batch: target_scores(detector, batch, found.target))


def seen_region(processor: Any, size: tuple[int, int]) -> Box:
    """The part of an image of ``size`` (width, height) that the model reads: x0, y0, x1, y1 in its pixels.

    Asked of the processor itself, by showing it ramps: it may squash, crop or pad, and names these things in many ways.
    """
    facts = Preprocessing.of(processor)
    width, height = size
    ramps = np.zeros((height, width, 3), dtype=np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width).round()[None, :]
    ramps[..., 1] = np.linspace(0, 255, height).round()[:, None]
    output = processor(Image.fromarray(ramps), return_tensors="pt")["pixel_values"][0].double().numpy()
    edges = []
    for channel, n, line in ((0, width, output[0].mean(0)), (1, height, output[1].mean(1))):
        values = (line - facts.offset[channel]) / facts.scale[channel] / 255
        # The straight line through the middle half: resampling bends a ramp at its ends.
        middle = np.arange(len(values) // 4, max(len(values) // 4 + 2, 3 * len(values) // 4))
        slope, start = np.polyfit(middle, values[middle], 1)
        edges.append([min(max((start + slope * at) * n, 0.0), float(n)) for at in (-0.5, len(values) - 0.5)])
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def run_explain_command(
    path: str | os.PathLike[str],
    model: str,
    out: str | os.PathLike[str] = "heat.png",
    *,
    faces: bool | None = None,
    method: str = "auto",
    test: bool = True,
    engine: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    real_label: str | None = None,
    yunet: str | os.PathLike[str] | None = None,
) -> int:
    """``bonaface explain``: write the overlay and say how far to trust it. Raises UsageError."""
    file = Path(out)
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"cannot write an image to {file}", "name a file that ends in .png")
    try:
        image = load_image(path)
    except ImageError as error:
        raise UsageError(str(error), "choose an image of a face") from error
    detector = Detector.from_pretrained(
        model, device=device, engine=engine, dtype=dtype, real_label=real_label, yunet=yunet
    )
    explanation = explain(detector, image, faces=faces, method=method, test=test)
    result = explanation.result
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as partial:
        explanation.overlay().save(partial)
    print(f"{result.verdict}, p(fake) {result.p_fake:.4f}" + "".join(f"\nnote: {note}" for note in result.warnings))
    print(f"{file}: the brighter an area, the more it points to {explanation.target} ({explanation.method})")
    if explanation.faithfulness is not None:
        print(explanation.faithfulness.sentence, explanation.faithfulness.reason)
    return 0
