"""Image -> faces and square face crops, so that the model sees every image framed alike.

Two detectors of OpenCV: YuNet (Wu, Peng and Yu 2023, "YuNet: a tiny millisecond-level face detector"), whose weights
come from the Hub or from the user, and the Haar cascade inside the OpenCV 4 wheel (Viola and Jones 2001) where they
are not available. ``FaceDetector.name`` says which of the two is used.

What happens to unusual images (:func:`find_main_face`):

* several faces: the largest one is used, the status is ``"several"``;
* no face: the largest centred square of the image stands in for the face box, the status is ``"none"``;
* a face narrower or lower than ``TINY_FACE`` pixels: it is used, the status is ``"tiny"`` (too few pixels to judge).
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from PIL import Image

from bonaface.errors import UsageError

logger = logging.getLogger(__name__)

YUNET_REPO = "opencv/face_detection_yunet"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_ENV = "BONAFACE_YUNET"
TINY_FACE = 40  # pixels
# A portrait is found best and fastest at 320 px; faces that are small in a large image need the second look.
# Below 160 px YuNet misses most faces that it finds in the same image scaled up.
FIRST_LOOK, SECOND_LOOK, SMALLEST_LOOK = 320, 1280, 160
HAAR_LOOK, HAAR_BORDER = 256, 0.15

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Face:
    """One face found in an image.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the image given, within its borders.
        score: in [0, 1]; YuNet's own confidence. Haar's is a squashed cascade weight: it ranks and is no probability.
        landmarks: (5, 2) float32 in pixels: the subject's right eye, left eye, nose tip, right and left mouth corner;
            None from Haar.
    """

    box: Box
    score: float
    landmarks: np.ndarray | None = None

    @property
    def size(self) -> float:
        """The shorter side of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True)
class MainFace:
    """The region of an image that is judged, and how it was chosen: "ok", "several", "tiny" or "none"."""

    box: Box
    status: str
    score: float
    n_faces: int


class FaceDetector:
    """Finds faces; safe to share between threads (each gets a detector of its own) and to send to processes.

    Args:
        weights: a YuNet ONNX file. Without it, the environment variable ``BONAFACE_YUNET``, the Hub's cache and the
            Hub are tried in turn; if all fail, the Haar cascade is used.
        kind: ``"auto"`` for the order above, ``"yunet"`` or ``"haar"`` for that one alone.
        threshold: the least score of a face, in [0, 1].

    Raises:
        UsageError: the weights named are missing or are not a YuNet model, or ``kind="yunet"`` and none are found.
    """

    def __init__(self, weights: str | Path | None = None, *, kind: str = "auto", threshold: float = 0.6) -> None:
        if kind not in ("auto", "yunet", "haar"):
            raise UsageError(f"unknown face detector {kind!r}", "choose auto, yunet or haar")
        self.threshold = threshold
        self.weights = None if kind == "haar" else find_yunet(weights)
        if kind == "yunet" and self.weights is None:
            raise UsageError("the YuNet weights were not found", f"set {YUNET_ENV} to a copy of {YUNET_REPO}")
        self._local = threading.local()
        self._cv()  # a file that is not a model is an error now, not at the first image

    @property
    def name(self) -> str:
        """Which detector is used, for reports."""
        return "YuNet" if self.weights else "Haar cascade (YuNet weights not found)"

    def __reduce__(self) -> tuple[Any, ...]:
        kind = "yunet" if self.weights else "haar"
        return _rebuild, (type(self), self.weights, kind, self.threshold)

    def detect(self, image: Image.Image) -> list[Face]:
        """All faces of an image, the largest first.

        Args:
            image: mode RGB, any size; it is scaled for the search, the boxes are in its own pixels.
        """
        longest = max(image.size)
        if self.weights:
            faces = self._yunet(image, float(np.clip(longest, SMALLEST_LOOK, FIRST_LOOK)))
            if not faces and longest > FIRST_LOOK:
                faces = self._yunet(image, float(min(longest, SECOND_LOOK)))
        else:
            faces = self._haar(image)
        return sorted(faces, key=lambda face: _area(face.box), reverse=True)

    def _cv(self) -> Any:
        """This thread's OpenCV detector: OpenCV's objects keep state between calls."""
        detector = getattr(self._local, "detector", None)
        if detector is None:
            if self.weights:
                try:
                    detector = cv2.FaceDetectorYN.create(str(self.weights), "", (320, 320), self.threshold)
                except cv2.error as error:
                    raise UsageError(
                        f"{self.weights} is not a YuNet model", f"download {YUNET_FILE} from {YUNET_REPO} on the Hub"
                    ) from error
            else:
                folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]
                detector = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
            self._local.detector = detector
        return detector

    def _yunet(self, image: Image.Image, longest: float) -> list[Face]:
        pixels, scale = _scaled(image, longest)
        detector = self._cv()
        detector.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = detector.detect(pixels[:, :, ::-1].copy())
        faces = []
        for row in rows if rows is not None else ():
            x, y, width, height = row[:4] / scale
            box = _clamp((x, y, x + width, y + height), image.size)
            if box is not None:
                landmarks = (row[4:14].reshape(5, 2) / scale).astype(np.float32)
                faces.append(Face(box, float(min(row[14], 1.0)), landmarks))
        return faces

    def _haar(self, image: Image.Image) -> list[Face]:
        pixels, scale = _scaled(image.convert("L"), HAAR_LOOK)
        # The cascade misses faces that touch the border: a reflected rim lifts the share found from 90 to 94 %.
        rim = round(HAAR_LOOK * HAAR_BORDER)
        pixels = cv2.equalizeHist(cv2.copyMakeBorder(pixels, rim, rim, rim, rim, cv2.BORDER_REFLECT))
        boxes, _, weights = self._cv().detectMultiScale3(
            pixels, scaleFactor=1.1, minNeighbors=4, minSize=(24, 24), outputRejectLevels=True
        )
        faces = []
        for (x, y, width, height), weight in zip(boxes, np.ravel(weights), strict=True):
            left, top = (x - rim) / scale, (y - rim) / scale
            box = _clamp((left, top, left + width / scale, top + height / scale), image.size)
            score = float(1 - np.exp(-max(weight, 0.0) / 2.5))
            if box is not None and score >= self.threshold:
                faces.append(Face(box, score))
        return faces


def find_main_face(image: Image.Image, faces: list[Face]) -> MainFace:
    """The region to judge, by the policy in this module's docstring.

    Args:
        image: the image in which ``faces`` were found.
        faces: as :meth:`FaceDetector.detect` gives them, the largest first.
    """
    if not faces:
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return MainFace((left, top, left + side, top + side), "none", 0.0, 0)
    face = faces[0]
    status = "tiny" if face.size < TINY_FACE else "several" if len(faces) > 1 else "ok"
    return MainFace(face.box, status, face.score, len(faces))


def face_square(image: Image.Image, face: MainFace, margin: float) -> Box:
    """The square to cut out: x0, y0, x1, y1 in whole pixels, always inside the image.

    It is the longer side of the face box with ``margin`` of it added on each side. Where it would leave the image it is
    moved inside, and made smaller where it is larger than the image: padding would put mirrored pixels around
    every tightly cropped face, and some sources crop tightly. Without a face it is the centre square.
    """
    x0, y0, x1, y1 = face.box
    wanted = max(x1 - x0, y1 - y0) * (1 + 2 * margin) if face.n_faces else max(x1 - x0, y1 - y0)
    side = max(1, min(round(wanted), *image.size))
    left = min(max(round((x0 + x1 - side) / 2), 0), image.width - side)
    top = min(max(round((y0 + y1 - side) / 2), 0), image.height - side)
    return left, top, left + side, top + side


def crop_face(image: Image.Image, box: Box, *, margin: float = 0.3, size: int | None = None) -> Image.Image:
    """The square around a box, with a margin; what leaves the image is filled by reflection.

    Args:
        image: mode RGB.
        box: x0, y0, x1, y1 in pixels; the part inside the image counts.
        margin: added on every side, as a share of the box's longer side, in [0, 2].
        size: side of the result in pixels (Lanczos, antialiased); None keeps the scale.

    Raises:
        ValueError: the box lies outside the image or is empty, or the margin or size is out of range.
    """
    inside = _clamp(box, image.size)
    if inside is None:
        raise ValueError(f"box {box} contains no pixel of an image of {image.width} x {image.height}")
    if not 0 <= margin <= 2 or (size is not None and size < 1):
        raise ValueError(f"margin {margin} is not in [0, 2] or size {size} is not positive")
    x0, y0, x1, y1 = inside
    side = max(1, round(max(x1 - x0, y1 - y0) * (1 + 2 * margin)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    right, bottom = left + side, top + side
    crop = image.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))
    pads = ((max(-top, 0), max(bottom - image.height, 0)), (max(-left, 0), max(right - image.width, 0)), (0, 0))
    if any(map(any, pads)):
        crop = Image.fromarray(np.pad(np.asarray(crop), pads, mode="symmetric"))
    return crop if size is None else crop.resize((size, size), Image.Resampling.LANCZOS)


def find_yunet(weights: str | Path | None = None) -> Path | None:
    """The YuNet weights: the path given, else ``BONAFACE_YUNET``, else the Hub's cache, else the Hub; None if nowhere.

    Raises:
        UsageError: a path was named and there is no file.
    """
    named = weights or os.environ.get(YUNET_ENV)
    if not named:
        return _yunet_from_hub()
    path = Path(os.path.expanduser(named))  # noqa: PTH111 - Path's raises where there is no such user
    if not os.path.isfile(path):  # noqa: PTH113 - Path's raises for a name that is too long
        origin = "" if weights else f" (from {YUNET_ENV})"
        raise UsageError(f"no YuNet weights at {path}{origin}", f"download {YUNET_FILE} from {YUNET_REPO} on the Hub")
    return path


@cache
def _yunet_from_hub() -> Path | None:
    """The weights, or None; asked once a process.

    The Hub's client retries for half a minute without a network: we ask one quick question first and go on without
    YuNet where it is not answered.
    """
    cached = try_to_load_from_cache(YUNET_REPO, YUNET_FILE)
    if isinstance(cached, str):
        return Path(cached)
    if constants.is_offline_mode():
        return None
    try:
        get_hf_file_metadata(hf_hub_url(YUNET_REPO, YUNET_FILE), timeout=3)
        return Path(hf_hub_download(YUNET_REPO, YUNET_FILE, etag_timeout=3))
    except Exception as error:  # any failure of network, proxy, Hub or disk means the same here: no YuNet
        logger.warning("cannot download the YuNet weights from the Hub (%s): using the Haar cascade", error)
        return None


def _rebuild(cls: type[FaceDetector], weights: Path | None, kind: str, threshold: float) -> FaceDetector:
    return cls(weights, kind=kind, threshold=threshold)


def _scaled(image: Image.Image, longest: float) -> tuple[np.ndarray, float]:
    """The image's pixels with the longest side brought to ``longest``, and the factor."""
    scale = longest / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size == image.size:
        return np.asarray(image), 1.0
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)), scale


def _clamp(box: Box, size: tuple[int, int]) -> Box | None:
    """The part of a box inside the image, None where that is less than a pixel wide or high."""
    x0, y0, x1, y1 = (float(value) for value in box)
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1]))
    return (x0, y0, x1, y1) if x1 - x0 >= 1 and y1 - y0 >= 1 else None


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
