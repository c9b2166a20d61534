"""Whether two frames show the same scene: the distance of their colour histograms.

Histograms do not mind what moves within a scene and differ where the camera or the place does; the measure is that of
PySceneDetect's HistogramDetector and OpenCV's HISTCMP_BHATTACHARYYA (Hellinger).
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ANOTHER = 0.45  # distance, in [0, 1], from which on a scene is another one
BINS, SIDE = 8, 96

Look = NDArray[np.float32]


def look_of(image: Image.Image) -> Look:
    """The colour histogram of an RGB image, (BINS, BINS, BINS) float32 that sums to 1; of blurred colours."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=1.0)
    pixels = cv2.GaussianBlur(np.asarray(small), (5, 5), 0)
    counts = cv2.calcHist([pixels], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3)
    return np.asarray(counts / counts.sum(), dtype=np.float32)


def distance(one: Look, other: Look) -> float:
    """0 for the same colours, 1 for none in common."""
    return float(cv2.compareHist(one, other, cv2.HISTCMP_BHATTACHARYYA))


def same_scene(one: Look, other: Look) -> bool:
    """Whether two frames are taken for one scene."""
    return distance(one, other) < ANOTHER


def scene_changes(frames: Iterable[tuple[float, Image.Image]]) -> list[float]:
    """The times at which a frame shows another scene than the one before it."""
    changes: list[float] = []
    before: Look | None = None
    for time, image in frames:
        look = look_of(image)
        if before is not None and not same_scene(before, look):
            changes.append(time)
        before = look
    return changes
