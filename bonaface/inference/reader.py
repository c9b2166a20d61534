"""An image as a user passes it -> what the model reads: the pixels of its faces, or of the whole.

**Whole image or faces.** ``faces=False`` scores the image as it is, as ``pipeline("image-classification")`` does.
``faces=True`` looks for faces, cuts each out as ``bonaface prepare`` does, and scores each. By default
(``faces=None``) a photograph is searched and an image that is already a crop of a face is not:

1. a model whose facts say that it was trained on whole images (``face_margin`` is null) never searches;
2. an image whose shorter side is at most ``CROP_SIDE`` pixels is a crop;
3. else faces are searched: where the largest one's longer side is at least ``CROP_SHARE`` of the image's shorter
   side, the image is a crop; where there is none, the whole image is scored and a warning says so.

Faces below ``TINY_FACE`` pixels are scored only where there is no larger one, and the ``MAX_FACES`` largest at most. A
image's score is the largest over its faces: one generated face makes an image fake. It follows that a crowd
has more chances of a false positive than a portrait; the face's own score is in the result.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bonaface.imaging import FACE_MARGIN
from bonaface.imaging.faces import TINY_FACE, Box, FaceDetector, MainFace, face_square
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import MAX_PIXELS, ImageError, decode_image, orientation, read_bytes, to_rgb
from bonaface.inference.admission import Admitted, ImageInput
from bonaface.memory import trim_memory

CROP_SIDE, CROP_SHARE, MAX_FACES = 320, 1 / 3, 16
SMALL_SIDE, LOW_QUALITY = 64, 40  # pixels; JPEG quality on the IJG scale
LARGEST_ASPECT = 32  # longer by shorter side; a processor that resizes the shorter one would make gigabytes of more
# For the sake of memory: images of more pixels than LARGE are decoded and resized at once only as far as all of them
# have no more than TOGETHER, and one of more than HUGE is first averaged over blocks, since an image processor makes
# several copies. A phone's 12 megapixels stay as they are.
LARGE, HUGE, TOGETHER = 4_000_000, 16_000_000, 50_000_000

NO_FACE, SMALL, COMPRESSED = "no face found", "very small", "heavily compressed"


@dataclass
class Item:
    """An image on its way to the model.

    Attributes:
        pixels: float32 (3, h, w) of each face in ``boxes``, or of the whole image where there is no box; none after
            an ``error``.
        seconds: spent on "decode", "faces" and "pixels".
    """

    pixels: list[torch.Tensor] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    error: ImageError | None = None


class ImageReader:
    """Decodes, finds faces and preprocesses. Thread-safe.

    Args:
        processor: the model's image processor.
        face_margin: the border that training left around faces, as a share of the box on each side; None for a model
            of whole images.
        yunet: weights of the face detector, which is loaded when the first image is searched.
    """

    def __init__(self, processor: Any, face_margin: float | None = FACE_MARGIN, yunet: Path | None = None) -> None:
        self.processor, self.face_margin, self._yunet = processor, face_margin, yunet
        self._faces: FaceDetector | None = None
        self._large, self._loading = _PixelBudget(), threading.Lock()

    def read(self, images: Sequence[Admitted], faces: bool | None) -> list[Item]:
        """An item for each image, in order, also for one that was refused.

        Images of one size go through the processor together.
        """
        items: list[Item] = []
        by_size: dict[tuple[int, int], list[tuple[Item, int, Image.Image]]] = defaultdict(list)
        for image in images:
            item = Item()
            items.append(item)
            if isinstance(image, ImageError):
                item.error = image
                continue
            try:
                data, n_pixels = _open(image, item)
                if n_pixels < LARGE:
                    for i, view in enumerate(self._views(data, image, faces, item)):
                        by_size[view.size].append((item, i, view))
            except ImageError as error:
                item.error = _alone(error)
                continue
            if n_pixels >= LARGE:
                with self._large.spent(n_pixels):
                    self._read_large(data, image, faces, item)
        for members in by_size.values():
            self._process(members)
        return items

    def _read_large(self, data: bytes | Image.Image, image: ImageInput, faces: bool | None, item: Item) -> None:
        """As ``read``, for one image that is released when this returns."""
        try:
            for i, view in enumerate(self._views(data, image, faces, item)):
                self._process([(item, i, view)])
        except ImageError as error:
            item.error = _alone(error)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """RGB image -> float32 (3, h, w), exactly as the model's image processor makes it."""
        return self.processor(image, return_tensors="pt")["pixel_values"][0]

    def find_faces(self, image: Image.Image, faces: bool | None = None) -> tuple[list[Box], list[str]]:
        """Face boxes of an RGB image that are to be scored (none: the image itself is), and warnings."""
        small = [SMALL] if min(image.size) < SMALL_SIDE else []
        by_rule = faces is None
        if by_rule:
            faces = min(image.size) > CROP_SIDE and self.face_margin is not None
        if not faces:
            return [], small
        found = self._face_detector().detect(image)
        if not found:
            return [], [NO_FACE, *small]
        x0, y0, x1, y1 = found[0].box
        if by_rule and max(x1 - x0, y1 - y0) >= CROP_SHARE * min(image.size):
            return [], small
        large = [face for face in found if face.size >= TINY_FACE]
        return [face.box for face in (large or found)[:MAX_FACES]], [] if large else [SMALL]

    def face_square(self, image: Image.Image, box: Box) -> Box:
        """The square around a face, framed as ``bonaface prepare`` frames it for training; whole pixels."""
        margin = FACE_MARGIN if self.face_margin is None else self.face_margin
        return face_square(image, MainFace(box, "ok", 1.0, 1), margin)

    def _views(self, data: bytes | Image.Image, image: ImageInput, faces: bool | None, item: Item) -> list[Image.Image]:
        """The RGB images to score: the faces, or the whole."""
        started = time.perf_counter()
        upright = _rgb(data) if isinstance(data, Image.Image) else decode_image(data, name=_name(image))
        if max(upright.size) > LARGEST_ASPECT * min(upright.size):
            width, height = upright.size
            raise ImageError("unreadable", f"{_name(image) or 'image'}: {width} x {height} pixels are too narrow")
        decoded = time.perf_counter()
        item.boxes, warnings = self.find_faces(upright, faces)
        item.warnings += warnings
        item.seconds |= {"decode": decoded - started, "faces": time.perf_counter() - decoded}
        views = [upright.crop(self.face_square(upright, box)) for box in item.boxes] or [upright]
        views = [view.reduce(factor) if (factor := _reduction(view)) > 1 else view for view in views]
        item.pixels = [torch.empty(0)] * len(views)
        return views

    def _process(self, members: Sequence[tuple[Item, int, Image.Image]]) -> None:
        """Images of one size, each with its item and its place there."""
        started = time.perf_counter()
        pixels = self.processor([view for *_, view in members], return_tensors="pt")["pixel_values"]
        share = (time.perf_counter() - started) / len(members)
        for (item, i, _), tensor in zip(members, pixels, strict=True):
            item.pixels[i] = tensor
            item.seconds["pixels"] = item.seconds.get("pixels", 0.0) + share

    def _face_detector(self) -> FaceDetector:
        with self._loading:
            if self._faces is None:
                self._faces = FaceDetector(self._yunet)
            return self._faces


class _PixelBudget:
    """Lets threads in while their images have no more than ``TOGETHER`` pixels; a larger one alone."""

    def __init__(self) -> None:
        self._pixels, self._changed = 0, threading.Condition()

    @contextmanager
    def spent(self, n_pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._pixels or self._pixels + n_pixels <= TOGETHER)
            self._pixels += n_pixels
        try:
            yield
        finally:
            trim_memory()
            with self._changed:
                self._pixels -= n_pixels
                self._changed.notify_all()


def _open(image: ImageInput, item: Item) -> tuple[bytes | Image.Image, int]:
    """The encoded bytes (or the PIL image) and the number of pixels, from the header alone."""
    if isinstance(image, Image.Image):
        width, height = image.size
        if not 0 < width * height <= MAX_PIXELS:
            raise ImageError("too many pixels", f"{width} x {height} pixels are not in 1 to {MAX_PIXELS:,}")
        return image, width * height
    data = image if isinstance(image, bytes) else read_bytes(image)
    facts = inspect_image(data, name=_name(image))
    if facts.jpeg_quality is not None and facts.jpeg_quality < LOW_QUALITY:
        item.warnings.append(COMPRESSED)
    return data, facts.width * facts.height


def _alone(error: ImageError) -> ImageError:
    """The error without its traceback, whose frames hold the broken image's pixels."""
    return ImageError(error.reason, str(error))


def _reduction(image: Image.Image) -> int:
    """The side of the blocks that bring an image below HUGE pixels."""
    return math.ceil(math.sqrt(image.width * image.height / HUGE))


def _rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as decode_image would have given it."""
    try:
        image.load()
        pixels, turn = to_rgb(image), orientation(image)
    except Exception as error:
        raise ImageError("unreadable", f"the image cannot be decoded ({error})") from error
    return pixels if turn is None else pixels.transpose(turn)


def _name(image: ImageInput) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else ""
