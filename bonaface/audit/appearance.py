"""Simple statistics of what a model sees: colours, light, borders and sharpness of the aligned face crop.

Where these few numbers tell the classes apart, a detector may learn the studio, the light or the framing instead of the
traces that a generator leaves.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bonaface.imaging.faces import FaceDetector, crop_face, find_main_face

SIDE = 128  # of the crop in pixels
MARGIN = 0.2
_RIM = 4  # rows that count as border

NAMES = {
    "red": "mean red",
    "green": "mean green",
    "blue": "mean blue",
    "red_spread": "spread of red",
    "green_spread": "spread of green",
    "blue_spread": "spread of blue",
    "saturation": "mean saturation",
    "saturation_spread": "spread of saturation",
    "brightness": "brightness",
    "contrast": "contrast",
    "skew": "skew of the brightness",
    "dark": "share of nearly black pixels",
    "bright": "share of nearly white pixels",
    **{f"{side}_level": f"brightness of the {side} border" for side in ("top", "bottom", "left", "right")},
    **{f"{side}_flat": f"spread within the {side} border" for side in ("top", "bottom", "left", "right")},
    "sharpness": "sharpness (log variance of the Laplacian)",
    "crop_side": "resolution of the face, px",
    "face_share": "share of the image's shorter side that the face takes up",
    "face_x": "horizontal position of the face",
    "face_y": "vertical position of the face",
    "face": "face found",
    "n_faces": "number of faces",
}


def appearance(image: Image.Image, detector: FaceDetector) -> dict[str, float | str]:
    """The statistics of one RGB image by the keys of ``NAMES``.

    Levels and spreads are in [0, 1]; positions are the centre of the face box as shares of width and height.
    """
    face = find_main_face(image, detector.detect(image))
    crop = crop_face(image, face.box, margin=MARGIN if face.n_faces else 0.0)
    x0, y0, x1, y1 = face.box
    return {
        **crop_statistics(np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS))),
        "crop_side": float(crop.width),
        "face_share": max(x1 - x0, y1 - y0) / min(image.size),
        "face_x": (x0 + x1) / 2 / image.width,
        "face_y": (y0 + y1) / 2 / image.height,
        "face": {"none": "none"}.get(face.status, "found"),
        "n_faces": float(face.n_faces),
    }


def crop_statistics(crop: NDArray[np.uint8]) -> dict[str, float | str]:
    """Colour, light, border and sharpness of a crop (128, 128, 3) uint8."""
    rgb = crop.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[:, :, 1]
    means, spreads = rgb.mean(axis=(0, 1)), rgb.std(axis=(0, 1))
    level, contrast = float(grey.mean()), float(grey.std())
    borders = {"top": grey[:_RIM], "bottom": grey[-_RIM:], "left": grey[:, :_RIM], "right": grey[:, -_RIM:]}
    return {
        **{name: float(v) for name, v in zip(("red", "green", "blue"), means, strict=True)},
        **{f"{name}_spread": float(v) for name, v in zip(("red", "green", "blue"), spreads, strict=True)},
        "saturation": float(saturation.mean()),
        "saturation_spread": float(saturation.std()),
        "brightness": level,
        "contrast": contrast,
        "skew": float(np.mean((grey - level) ** 3) / max(contrast, 1e-3) ** 3),
        "dark": float((grey < 0.03).mean()),
        "bright": float((grey > 0.97).mean()),
        **{f"{side}_level": float(rim.mean()) for side, rim in borders.items()},
        **{f"{side}_flat": float(rim.std()) for side, rim in borders.items()},
        "sharpness": float(np.log(cv2.Laplacian(grey, cv2.CV_32F).var() + 1e-6)),
    }
