"""Views of a face crop: one framing and one chain of edits and degradations for both classes, drawn by row and view.

A view is a function of (pixels, five points, seed, view, row) alone, so a cache of its features can be resumed
anywhere and made again. Nothing here sees a label. Three shortcuts are broken by construction:

- framing: half of the views are aligned by the five points as FFHQ is, half are cut around the face box; both are
  shifted, scaled and turned at random;
- sharpness: most views are scaled to a drawn number of pixels first, alike for both classes, some are blurred or
  sharpened;
- polish: the edits that people make (denoising, skin smoothing, grading, portrait blur, enlarging) are made in both
  classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

KERNELS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
# Eyes, nose and corners of the mouth (the person's right side first) in an FFHQ picture, as shares of its side.
FFHQ = np.float32([[0.377, 0.470], [0.623, 0.470], [0.500, 0.605], [0.405, 0.708], [0.595, 0.708]])
CENTRE_SHARE = 0.75  # of the crop's side: what the undrawn view shows


@dataclass(frozen=True)
class ViewSettings:
    """How strong the drawn views are. `strength` scales every probability of an edit or a degradation."""

    size: int = 224  # side of the view, pixels
    strength: float = 1.0
    align: float = 0.5  # share of the views aligned by the five points
    low_pixels: int = 56  # views are scaled down to this many pixels at least


def draw_view(image: np.ndarray, points: np.ndarray | None, settings: ViewSettings, rng: Generator) -> np.ndarray:
    """One random view: uint8 BGR (h, w, 3), points float (5, 2) or None -> uint8 BGR (size, size, 3)."""
    view = _frame(image, points, settings, rng)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    if rng.random() < 0.35 * settings.strength:
        view = edit(view, rng)
    view = degrade(view, settings, rng)
    return to_side(view, settings.size, cv2.INTER_AREA if len(view) > settings.size else _kernel(rng, 1))


def plain_view(image: np.ndarray, size: int, share: float = CENTRE_SHARE) -> np.ndarray:
    """The undrawn view: the middle of the crop, resized."""
    height, width = image.shape[:2]
    side = int(min(height, width) * share)
    top, left = (height - side) // 2, (width - side) // 2
    return to_side(image[top : top + side, left : left + side], size)


def aligned_view(image: np.ndarray, points: np.ndarray | None, size: int, share: float = 0.8) -> np.ndarray:
    """The undrawn view of the aligned framing: the FFHQ template, of which `share` of the side is shown."""
    if points is None:
        return plain_view(image, size)
    return _warp(image, _similarity(points), share, (0.0, 0.0), 0.0, size, cv2.INTER_CUBIC)


def to_side(image: np.ndarray, side: int, kernel: int | None = None) -> np.ndarray:
    """A square resized to `side` pixels; area averaging downwards and bicubic upwards where no kernel is named."""
    if kernel is None:
        kernel = cv2.INTER_AREA if len(image) > side else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=kernel)


# --- framing --------------------------------------------------------------------------------------------------------


def _frame(image: np.ndarray, points: np.ndarray | None, settings: ViewSettings, rng: Generator) -> np.ndarray:
    share = rng.uniform(0.58, 0.92)
    shift = (rng.uniform(-0.07, 0.07), rng.uniform(-0.07, 0.07))
    turn = float(np.clip(rng.normal(0, 5), -15, 15)) if rng.random() < 0.5 else 0.0
    aligned = points is not None and rng.random() < settings.align
    if not aligned and not turn:
        return _cut(image, share, shift)
    side = int(min(image.shape[:2]) * share)
    if aligned:
        assert points is not None
        return _warp(image, _similarity(points), share, shift, turn, side, _kernel(rng, 1))
    height, width = image.shape[:2]
    whole = min(height, width)
    square = np.float32([[1 / whole, 0, 0.5 - width / 2 / whole], [0, 1 / whole, 0.5 - height / 2 / whole]])
    return _warp(image, square, share, shift, turn, side, _kernel(rng, 1))


def _cut(image: np.ndarray, share: float, shift: tuple[float, float]) -> np.ndarray:
    height, width = image.shape[:2]
    whole = min(height, width)
    side = int(whole * share)
    top = int(np.clip((height - side) / 2 + shift[1] * whole, 0, height - side))
    left = int(np.clip((width - side) / 2 + shift[0] * whole, 0, width - side))
    return image[top : top + side, left : left + side]


def _similarity(points: np.ndarray) -> np.ndarray:
    """Least-squares similarity (Umeyama 1991) from pixels to the unit square of an FFHQ picture, float32 (2, 3)."""
    source, target = points - points.mean(0), FFHQ - FFHQ.mean(0)
    norm = (source**2).sum()
    a = (source * target).sum() / norm
    b = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / norm
    rotation = np.float32([[a, -b], [b, a]])
    return np.c_[rotation, FFHQ.mean(0) - rotation @ points.mean(0)].astype(np.float32)


def _warp(
    image: np.ndarray,
    to_unit: np.ndarray,
    share: float,
    shift: tuple[float, float],
    turn: float,
    side: int,
    kernel: int,
) -> np.ndarray:
    """`share` of the unit square around its centre plus `shift`, turned by `turn` degrees, as `side` pixels."""
    angle = np.deg2rad(turn)
    spin = np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (side / share)
    centre = np.float32([0.5 + shift[0], 0.5 + shift[1]])
    matrix = np.c_[spin @ to_unit[:, :2], spin @ (to_unit[:, 2] - centre) + side / 2]
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 0.7:  # warping does not average; blur away what the coarser grid cannot hold
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / scale)
    return cv2.warpAffine(image, matrix, (side, side), flags=kernel, borderMode=cv2.BORDER_REFLECT_101)


# --- edits that people make -----------------------------------------------------------------------------------------


def edit(image: np.ndarray, rng: Generator) -> np.ndarray:
    """One or two drawn edits of :data:`EDITS`."""
    for number in rng.permutation(len(EDITS))[: 1 + (rng.random() < 0.4)]:
        image = EDITS[number](image, rng)
    return image


def denoise(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A median or bilateral filter, as noise reduction and beauty filters smooth."""
    image = np.ascontiguousarray(image)
    if rng.random() < 0.3:
        return cv2.medianBlur(image, 3)
    smooth = cv2.bilateralFilter(image, 7, rng.uniform(15, 60), rng.uniform(2, 5))
    return _mix(smooth, image, rng.uniform(0.4, 1))


def sharpen(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Unsharp masking."""
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.5))
    amount = rng.uniform(0.3, 1.6)
    return cv2.addWeighted(np.ascontiguousarray(image), 1 + amount, soft, -amount, 0)


def grade(image: np.ndarray, rng: Generator) -> np.ndarray:
    """White balance, gamma, contrast and saturation; now and then grey."""
    gain = rng.uniform(0.88, 1.12, 3) * rng.uniform(0.85, 1.15)
    level = np.arange(256) / 255
    curve = level ** rng.uniform(0.7, 1.4)
    curve = 0.5 + (curve - 0.5) * rng.uniform(0.8, 1.3)
    table = np.clip(curve[:, None] * gain * 255, 0, 255).astype(np.uint8)
    graded = cv2.LUT(np.ascontiguousarray(image), table[None])
    grey = cv2.cvtColor(cv2.cvtColor(graded, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    saturation = 0.0 if rng.random() < 0.12 else rng.uniform(0.6, 1.4)
    return cv2.addWeighted(graded, saturation, grey, 1 - saturation, 0)


def portrait_blur(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A sharp ellipse around the face in a blurred picture."""
    side = len(image)
    mask = np.zeros((side, side), np.float32)
    axes = (int(side * rng.uniform(0.3, 0.42)), int(side * rng.uniform(0.38, 0.5)))
    cv2.ellipse(mask, (side // 2, side // 2), axes, 0, 0, 360, 1, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), side * 0.03)[..., None]
    soft = cv2.GaussianBlur(image, (0, 0), side * rng.uniform(0.01, 0.04))
    return (image * mask + soft * (1 - mask)).astype(np.uint8)


def enlarge(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Scaled down and up again with sharpening, as simple upscalers leave it."""
    side = len(image)
    small = to_side(image, max(24, int(side * rng.uniform(0.4, 0.8))), _kernel(rng))
    return sharpen(to_side(small, side, _kernel(rng, 2)), rng)


def local_contrast(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Contrast-limited histogram equalisation of the lightness: clarity and HDR sliders."""
    lab = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2LAB)
    lab[..., 0] = cv2.createCLAHE(rng.uniform(1, 2.5), (4, 4)).apply(lab[..., 0])
    return _mix(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), image, rng.uniform(0.3, 1))


EDITS = (denoise, sharpen, grade, portrait_blur, enlarge, local_contrast)


# --- degradations ---------------------------------------------------------------------------------------------------


def degrade(image: np.ndarray, settings: ViewSettings, rng: Generator) -> np.ndarray:
    """Scaled, blurred, noisy, of other tone, through one or two codecs: each step drawn."""
    strength, side = settings.strength, len(image)
    if rng.random() < 0.75 * strength and side > settings.low_pixels + 8:
        image = to_side(image, int(np.exp(rng.uniform(np.log(settings.low_pixels), np.log(side)))), _kernel(rng))
    if rng.random() < 0.2 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.15 * strength:
        image = sharpen(image, rng)
    if rng.random() < 0.2 * strength:
        noise = rng.normal(0, rng.uniform(1, 8), image.shape if rng.random() < 0.5 else (*image.shape[:2], 1))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.35 * strength:
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.75, 1.25), beta=rng.uniform(0, 25))
    if rng.random() < 0.75 * strength:
        image = codec(image, rng)
    if rng.random() < 0.2 * strength:
        image = codec(to_side(image, int(len(image) * rng.uniform(0.7, 1.3)), _kernel(rng)), rng)
    return image


def codec(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Once through JPEG (quality 30 to 95), one time in ten through WebP."""
    kind, flag = (".webp", cv2.IMWRITE_WEBP_QUALITY) if rng.random() < 0.1 else (".jpg", cv2.IMWRITE_JPEG_QUALITY)
    _, data = cv2.imencode(kind, np.ascontiguousarray(image), [flag, int(rng.uniform(30, 95))])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    return cv2.addWeighted(first, share, np.ascontiguousarray(second), 1 - share, 0)


def _kernel(rng: Generator, first: int = 0) -> int:
    return KERNELS[rng.integers(first, len(KERNELS))]
