"""How a face sits in its crop, drawn at random: around the face box, or aligned by landmarks as FFHQ is.

Data sets of faces are framed each in its own way, and StyleGAN's are all aligned like the photographs that it learned
from. A classifier takes such framing for a sign of its source; drawn alike for both classes, it says nothing.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

# The subject's right eye, left eye, nose tip, right and left mouth corner in FFHQ's crops (Karras et al. 2019), as
# shares of the side: the mean of what YuNet finds there.
FFHQ = np.array([[0.377, 0.470], [0.623, 0.470], [0.500, 0.605], [0.405, 0.708], [0.595, 0.708]], np.float32)
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def similarity(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Least-squares similarity (Umeyama 1991) from pixels to FFHQ's crop as the unit square, (2, 3).

    Args:
        landmarks: (5, 2) in pixels, in the order of :attr:`bonaface.imaging.faces.Face.landmarks`.
    """
    source, target = landmarks - landmarks.mean(0), FFHQ - FFHQ.mean(0)
    norm = (source**2).sum()
    a = (source * target).sum() / norm
    b = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / norm
    turn = np.array([[a, -b], [b, a]], np.float32)
    return np.c_[turn, FFHQ.mean(0) - turn @ landmarks.mean(0)].astype(np.float32)


def unit_square(image: Image.Image) -> NDArray[np.float32]:
    """The map from pixels to the unit square that is the largest centred square of the image, (2, 3)."""
    side = min(image.size)
    offset = [0.5 - image.width / 2 / side, 0.5 - image.height / 2 / side]
    return np.array([[1 / side, 0, offset[0]], [0, 1 / side, offset[1]]], np.float32)


def cut(
    image: Image.Image,
    to_unit: NDArray[np.float32],
    share: float,
    shift: tuple[float, float] = (0.0, 0.0),
    turn: float = 0.0,
    interpolation: int = cv2.INTER_CUBIC,
) -> Image.Image:
    """A square of ``share`` of the unit square's side, ``shift`` (in units) off its middle, turned by ``turn`` degrees.

    It has about as many pixels as the image has there; what lies outside the image is filled by reflection.
    """
    scale = 1 / math.sqrt(abs(float(np.linalg.det(to_unit[:, :2]))))  # pixels a unit
    side = max(16, min(round(scale * share), 2 * max(image.size)))
    angle = math.radians(turn)
    spin = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * (side / share)
    middle = np.array([0.5 + shift[0], 0.5 + shift[1]])
    matrix = np.c_[spin @ to_unit[:, :2], spin @ (to_unit[:, 2] - middle) + side / 2].astype(np.float32)
    warped = cv2.warpAffine(
        np.asarray(image), matrix, (side, side), flags=interpolation, borderMode=cv2.BORDER_REFLECT_101
    )
    return Image.fromarray(warped)


def random_framing(
    image: Image.Image,
    landmarks: NDArray[np.float32] | None,
    rng: Generator,
    *,
    area: tuple[float, float],
    shift: float,
    turn: float,
) -> Image.Image:
    """A square of a random share of the image's area, at most ``shift`` of the side off the middle.

    Half of them are turned, by ``turn`` degrees standard deviation.

    Args:
        landmarks: align by them; None to cut around the middle of the image, which a face crop has its face in.
    """
    share = math.sqrt(rng.uniform(*area))
    moved = (float(rng.uniform(-shift, shift)), float(rng.uniform(-shift, shift)))
    angle = float(np.clip(rng.normal(0, turn), -3 * turn, 3 * turn)) if rng.random() < 0.5 else 0.0
    interpolation = INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))]
    if landmarks is None:
        room = (1 - share) / 2
        moved = (min(max(moved[0], -room), room), min(max(moved[1], -room), room))
    return cut(
        image, unit_square(image) if landmarks is None else similarity(landmarks), share, moved, angle, interpolation
    )
