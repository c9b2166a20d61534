"""Degradations: what happens to an image between the camera or the generator and the detector.

Two uses. :data:`DEGRADATIONS` are fixed, named and graded: what robustness is measured with.
:func:`random_degradation` is a random chain with one strength dial: what training is hardened with. Both
take and give a ``PIL.Image`` in mode RGB, never look at a label, and are functions of the image, the
strength and the seed alone: no global random state is read or changed, so every process draws the same.

:func:`common_history` is the third piece: after it, no trace tells whether an image came as PNG, WebP or
JPEG.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image
from PIL.Image import Resampling
from torchvision.transforms.v2 import functional as F

# The kernels that programs scale images with. Nearest is left out: no program uses it for photographs.
KERNELS = (Resampling.BOX, Resampling.BILINEAR, Resampling.HAMMING, Resampling.BICUBIC, Resampling.LANCZOS)

HISTORY_QUALITY = (75, 95)


def random_kernel(rng: Generator) -> Resampling:
    """One of :data:`KERNELS`, each as likely as the next."""
    return KERNELS[rng.integers(len(KERNELS))]


# -- codecs ----------------------------------------------------------------------------------------


def encode_jpeg(image: Image.Image, quality: int, *, subsampling: str = "4:2:0") -> bytes:
    """A baseline JPEG file with the standard tables and nothing but pixels in it: no EXIF, ICC profile or comment.

    Pillow and OpenCV need the same time for this; Pillow lets us name the subsampling.
    """
    plain = Image.new("RGB", image.size)
    plain.paste(image)  # drops ``info``, from which Pillow would copy metadata
    buffer = io.BytesIO()
    plain.save(buffer, "JPEG", quality=int(quality), subsampling=subsampling)
    return buffer.getvalue()


def jpeg(image: Image.Image, quality: float, *, subsampling: str = "4:2:0") -> Image.Image:
    """Once through JPEG at ``quality`` (1 to 100)."""
    return _decode(encode_jpeg(image, round(quality), subsampling=subsampling))


def webp(image: Image.Image, quality: float, *, effort: int = 4) -> Image.Image:
    """Once through lossy WebP at ``quality`` (1 to 100); ``effort`` 0 (fast) to 6, 4 is what programs use."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=round(quality), method=effort)
    return _decode(buffer.getvalue())


def _decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def common_history(image: Image.Image, seed: int, *, quality: tuple[int, int] = HISTORY_QUALITY) -> Image.Image:
    """Give the image the same history as every other: one JPEG generation, drawn from one distribution.

    Classes are often told apart by codec alone: one came as PNG, the other as JPEG of one camera. So every
    image, of whatever format and class, loses 0 to 7 columns on the left and rows at the top, which puts
    the 8x8 grid of an older JPEG at a random phase, and is then coded as JPEG 4:2:0 at a quality drawn
    uniformly from ``quality`` (both ends included). A lossless or a WebP file gets the block grid and the
    chroma loss that it lacked; a JPEG file gets one more generation. The rule does not look at the format,
    because a rule that did would itself be a trace.

    What remains is an older, *coarser* JPEG generation under the new one. Scaling afterwards wears it down,
    which is what preparation and training do next. Images with a side under 16 pixels are not cut.
    """
    rng = np.random.default_rng(seed)
    left, top = (int(v) for v in rng.integers(0, 8, size=2))
    level = int(rng.integers(quality[0], quality[1] + 1))
    width, height = image.size
    if min(width, height) >= 16:
        image = image.crop((left, top, width, height))
    return jpeg(image, level)


# -- single steps ----------------------------------------------------------------------------------


def resize_short_side(image: Image.Image, side: float, kernel: Resampling) -> Image.Image:
    """Scale so that the shorter side has ``side`` pixels; the aspect ratio stays."""
    factor = side / min(image.size)
    width, height = (max(1, round(v * factor)) for v in image.size)
    return image.resize((width, height), kernel) if (width, height) != image.size else image


def random_crop(image: Image.Image, width: int, height: int, rng: Generator) -> Image.Image:
    """A window of ``width`` x ``height`` pixels (at most the image's own) at a random place, not resized."""
    width, height = min(width, image.width), min(height, image.height)
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def gaussian_blur(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur with a standard deviation of ``sigma`` pixels."""
    return Image.fromarray(cv2.GaussianBlur(np.asarray(image), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))


def motion_blur(image: Image.Image, length: float, angle: float) -> Image.Image:
    """The mean over a straight line of ``length`` pixels at ``angle`` degrees: a moved camera."""
    size = max(3, math.ceil(length) | 1)
    kernel = np.zeros((size, size), np.float32)
    dx, dy = (length / 2 * f(math.radians(angle)) for f in (math.cos, math.sin))
    for t in np.linspace(-1, 1, 4 * size):
        kernel[round(size // 2 + t * dy * (size - 1) / size), round(size // 2 + t * dx * (size - 1) / size)] += 1
    return Image.fromarray(cv2.filter2D(np.asarray(image), -1, kernel / kernel.sum()))


def gaussian_noise(image: Image.Image, sigma: float, rng: Generator) -> Image.Image:
    """Independent noise on every value, standard deviation ``sigma`` in 8-bit levels."""
    pixels = np.asarray(image, np.float32)
    noisy = pixels + sigma * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def erase(image: Image.Image, share: float, rng: Generator) -> Image.Image:
    """Grey out one rectangle of ``share`` of the area (random erasing; Zhong et al. 2020, AAAI)."""
    aspect = math.exp(rng.uniform(math.log(1 / 3), math.log(3)))
    area = share * image.width * image.height
    width = min(image.width, max(1, round(math.sqrt(area * aspect))))
    height = min(image.height, max(1, round(area / width)))
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    erased = image.copy()
    erased.paste((127, 127, 127), (left, top, left + width, top + height))
    return erased


def _adjust(how: Callable[..., Any], image: Image.Image, amount: float) -> Image.Image:
    """One of torchvision's adjustments: all of them take images, but are annotated for tensors."""
    return how(image, amount)


def colour_jitter(image: Image.Image, amount: float, rng: Generator) -> Image.Image:
    """Brightness, contrast and saturation times 1 ± ``amount`` each; the hue up to ``amount`` / 10 turns away."""
    brightness, contrast, saturation = rng.uniform(1 - amount, 1 + amount, size=3).clip(min=0)
    image = _adjust(F.adjust_brightness, image, brightness)
    image = _adjust(F.adjust_contrast, image, contrast)
    image = _adjust(F.adjust_saturation, image, saturation)
    return _adjust(F.adjust_hue, image, rng.uniform(-amount, amount) / 10)


def screenshot(image: Image.Image, zoom: float, rng: Generator) -> Image.Image:
    """Shown on a screen at ``zoom`` and saved without loss: smoothly scaled, a tone curve, edges cut by hand."""
    kernel = (Resampling.BILINEAR, Resampling.BICUBIC)[rng.integers(2)]
    image = resize_short_side(image, zoom * min(image.size), kernel)
    image = _adjust(F.adjust_gamma, image, rng.uniform(0.9, 1.1))
    cut = rng.uniform(0.96, 1.0, size=2)
    return random_crop(image, max(1, round(image.width * cut[0])), max(1, round(image.height * cut[1])), rng)


def social_media(image: Image.Image, hops: float, rng: Generator) -> Image.Image:
    """Posted and downloaded ``hops`` times: a long side of at most 1080 px, then 3/4 of it each time.

    Each hop is a downscale, a mild sharpening as platforms do it, and JPEG 4:2:0 at quality 65 to 85 or,
    one time in four, WebP at the same.
    """
    for hop in range(round(hops)):
        limit = 1080 if hop == 0 else round(0.75 * max(image.size))
        if max(image.size) > limit:
            short = limit * min(image.size) / max(image.size)
            image = resize_short_side(image, max(1, short), random_kernel(rng))
        image = _adjust(F.adjust_sharpness, image, rng.uniform(1.0, 1.5)) if min(image.size) > 2 else image
        codec = webp if rng.random() < 0.25 else jpeg
        image = codec(image, rng.uniform(65, 85))
    return image


# -- fixed degradations, for measuring robustness --------------------------------------------------


@dataclass(frozen=True)
class Degradation:
    """One named, graded degradation; ``apply(image, strength, seed)`` gives the degraded RGB image."""

    name: str
    unit: str  # what a strength says, for tables and axis labels
    strengths: tuple[float, ...]  # from mild to strong
    step: Callable[[Image.Image, float, Generator], Image.Image]

    def apply(self, image: Image.Image, strength: float, seed: int) -> Image.Image:
        """The same image, strength and seed give the same pixels in every process."""
        return self.step(image, strength, np.random.default_rng(seed))


def _downscale(image: Image.Image, side: float, rng: Generator) -> Image.Image:
    """To a short side of ``side`` pixels; an image that is smaller already stays as it is."""
    return image if min(image.size) <= side else resize_short_side(image, side, random_kernel(rng))


def _upscale(image: Image.Image, factor: float, rng: Generator) -> Image.Image:
    return resize_short_side(image, factor * min(image.size), random_kernel(rng))


def _crop(image: Image.Image, share: float, rng: Generator) -> Image.Image:
    return random_crop(image, max(1, round(share * image.width)), max(1, round(share * image.height)), rng)


DEGRADATIONS: dict[str, Degradation] = {
    d.name: d
    for d in (
        Degradation("jpeg", "JPEG quality", (95, 85, 75, 50, 30), lambda i, s, r: jpeg(i, s)),
        Degradation("webp", "WebP quality", (95, 85, 75, 50, 30), lambda i, s, r: webp(i, s)),
        Degradation("downscale", "short side, px", (512, 256, 128), _downscale),
        Degradation("upscale", "factor", (1.5, 2, 3), _upscale),
        Degradation("blur", "sigma, px", (0.5, 1, 2, 3), lambda i, s, r: gaussian_blur(i, s)),
        Degradation("motion", "length, px", (3, 7, 15), lambda i, s, r: motion_blur(i, s, r.uniform(0, 180))),
        Degradation("noise", "sigma, 8-bit levels", (2, 5, 10, 20), gaussian_noise),
        Degradation("crop", "share of each side kept", (0.9, 0.75, 0.5), _crop),
        Degradation("brightness", "factor", (0.8, 1.25, 0.6, 1.6), lambda i, s, r: _adjust(F.adjust_brightness, i, s)),
        Degradation("colour", "saturation factor", (0.7, 1.4, 0), lambda i, s, r: _adjust(F.adjust_saturation, i, s)),
        Degradation("erase", "share of the area", (0.05, 0.15, 0.3), erase),
        Degradation("screenshot", "zoom", (0.9, 1.3, 0.6), screenshot),
        Degradation("social", "times posted", (1, 2, 3), social_media),
    )
}


# -- a random chain, for training ------------------------------------------------------------------


def random_degradation(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """A random chain of resampling, blur, noise, colour and compression, as strong as the dial says.

    The first four come in random order, since images meet them so (Zhang et al. 2021, "Designing a
    practical degradation model for deep blind image super-resolution", section 3.3); compression comes
    last, as saving does. Each step happens with a fixed probability; its depth grows with the dial.

    Args:
        image: RGB image of any size; the size stays.
        strength: 0 (nothing at all happens) to 1 (short side down to a third, blur of 2 px, noise of 15 levels, JPEG
            quality 30).
        seed: the sample's own seed. The chain never sees a label or a file format: it is alike for every class.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in [0, 1], not {strength}")
    if strength == 0:
        return image
    rng = np.random.default_rng(seed)
    steps = [(0.4, _random_resample), (0.3, _random_blur), (0.3, _random_noise), (0.4, _random_colour)]
    for i in rng.permutation(len(steps)):
        chance, step = steps[i]
        if rng.random() < chance:
            image = step(image, strength, rng)
    return _random_codec(image, strength, rng) if rng.random() < 0.6 else image


def _random_resample(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    smaller = min(image.size) / rng.uniform(1, 1 + 2 * strength)
    return resize_short_side(image, max(8, smaller), random_kernel(rng)).resize(image.size, random_kernel(rng))


def _random_blur(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    if rng.random() < 0.75:
        return gaussian_blur(image, rng.uniform(0.2, 0.2 + 1.8 * strength))
    return motion_blur(image, rng.uniform(2, 2 + 7 * strength), rng.uniform(0, 180))


def _random_noise(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    return gaussian_noise(image, rng.uniform(0, 15 * strength), rng)


def _random_colour(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    return colour_jitter(image, 0.3 * strength, rng)


def _random_codec(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    quality = rng.uniform(98 - 68 * strength, 98)
    if rng.random() < 0.3:
        return webp(image, quality, effort=0)  # a third of the default's time, and the same kind of trace
    return jpeg(image, quality, subsampling="4:2:0" if rng.random() < 0.7 else "4:4:4")
