"""What people do to photographs of themselves before they post them, and what phones do by themselves.

Noise reduction, skin smoothing, sharpening, colour grading, portrait-mode blur, upscaling and clarity sliders make a
photograph look polished, as generated images are. In training they are drawn alike for both classes, so that polish
does not mean "generated".
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image
from PIL.Image import Resampling

LARGE_KERNELS = (Resampling.BICUBIC, Resampling.LANCZOS)


def random_edit(image: Image.Image, rng: Generator) -> Image.Image:
    """One or two of :data:`EDITS`, each with a random strength in (0, 1]; RGB, the size stays."""
    for number in rng.permutation(len(EDITS))[: 1 + (rng.random() < 0.4)]:
        image = EDITS[number](image, rng.uniform(0.2, 1), rng)
    return image


def denoise(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    """A bilateral filter (Tomasi and Manduchi 1998), as noise reduction and beauty filters smooth skin."""
    pixels = np.asarray(image)
    smooth = cv2.bilateralFilter(pixels, 7, 15 + 45 * strength, 2 + 3 * strength)
    return Image.fromarray(_mix(smooth, pixels, 0.4 + 0.6 * strength))


def sharpen(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    """Unsharp masking with a radius of 0.6 to 2.5 px."""
    pixels = np.asarray(image)
    soft = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.6, 2.5))
    amount = 0.3 + 1.3 * strength
    return Image.fromarray(cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0))


def grade(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    """White balance, gamma, contrast and saturation; one time in eight grey."""
    gain = 1 + strength * rng.uniform(-0.12, 0.12, 3) + strength * rng.uniform(-0.15, 0.15)
    curve = (np.arange(256) / 255) ** np.exp(strength * rng.uniform(-0.35, 0.35))
    curve = 0.5 + (curve - 0.5) * (1 + strength * rng.uniform(-0.2, 0.3))
    table = np.clip(curve[:, None] * gain * 255, 0, 255).astype(np.uint8)
    graded = cv2.LUT(np.asarray(image), table[None])
    grey = cv2.cvtColor(cv2.cvtColor(graded, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = 0.0 if rng.random() < 1 / 8 else 1 + strength * rng.uniform(-0.4, 0.4)
    return Image.fromarray(cv2.addWeighted(graded, saturation, grey, 1 - saturation, 0))


def portrait_blur(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    """A sharp ellipse in the middle of a blurred image, as a phone's portrait mode renders a face."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    side = min(height, width)
    mask = np.zeros((height, width), np.float32)
    axes = (int(side * rng.uniform(0.3, 0.42)), int(side * rng.uniform(0.38, 0.5)))
    cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 1, -1)
    weight = cv2.GaussianBlur(mask, (0, 0), side * 0.03)[..., None]
    soft = cv2.GaussianBlur(pixels, (0, 0), side * (0.01 + 0.03 * strength))
    return Image.fromarray((pixels * weight + soft * (1 - weight)).astype(np.uint8))


def enlarge(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    """Made smaller, to 80 to 40 % of the side, enlarged again and sharpened, as simple upscalers do."""
    size = [max(1, round(side * (0.8 - 0.4 * strength))) for side in image.size]
    small = image.resize((size[0], size[1]), Resampling.BILINEAR)
    return sharpen(small.resize(image.size, LARGE_KERNELS[rng.integers(2)]), strength, rng)


def clarity(image: Image.Image, strength: float, rng: Generator) -> Image.Image:
    """Contrast-limited adaptive histogram equalisation of the lightness: clarity and HDR sliders."""
    lab = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(1 + 1.5 * strength, (4, 4)).apply(lab[..., 0])
    return Image.fromarray(_mix(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.asarray(image), 0.3 + 0.7 * strength))


EDITS = (denoise, sharpen, grade, portrait_blur, enlarge, clarity)


def _mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    return cv2.addWeighted(first, share, second, 1 - share, 0)
