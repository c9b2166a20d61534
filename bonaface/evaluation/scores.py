"""Images -> scores of one or more models, each image read and decoded once, however many degradations follow.

Reading, decoding, degrading and preprocessing happen in threads (Pillow and OpenCV let go of Python's lock), the models
run in the main thread on batches that mix images and degradations. Images are scored whole, as
``pipeline("image-classification")`` does: no face is cut out.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from bonaface.data.dataset import image_bytes
from bonaface.imaging.degradations import DEGRADATIONS
from bonaface.imaging.images import ImageError, decode_image
from bonaface.inference.detector import LARGEST_ASPECT, Detector
from bonaface.pools import cancelled_on_error

FloatArray = NDArray[np.float64]
PIXELS_AT_ONCE = 2_000_000  # of degraded images in a thread before they are resized; the processor makes floats


class Variant(NamedTuple):
    """What was done to an image: a name of :data:`DEGRADATIONS` and its strength; nothing for the image itself."""

    degradation: str = ""
    strength: float = 0.0


CLEAN = Variant()


def probabilities_of(detector: Detector, pixels: torch.Tensor) -> tuple[FloatArray, NDArray[np.float32] | None]:
    """A batch of ``detector.pixels`` -> its calibrated probabilities (n, classes) and features (n, width), if any."""
    logits, features = detector.engine(pixels)
    return detector.probabilities(logits), features


@dataclass
class Scored:
    """The scores of n images in v variants. Rows that could not be read are in ``errors``, their figures NaN."""

    probabilities: list[FloatArray]  # one a detector: (n, v, its classes)
    features: list[NDArray[np.float32] | None]  # one a detector: (n, width) of the first variant
    errors: dict[int, str] = field(default_factory=dict)  # row -> reason
    faceless: set[int] = field(default_factory=set)  # rows without a face, where a face was looked for

    @property
    def readable(self) -> NDArray[np.int64]:
        """Row numbers of the images that were scored."""
        return np.array([i for i in range(len(self.probabilities[0])) if i not in self.errors], dtype=np.int64)


class _Work(NamedTuple):
    row: int
    pixels: list[list[torch.Tensor]]  # detector -> distinct images
    places: list[int]  # variant -> its image: a step that leaves an image as it is shares that image's score
    error: str = ""
    has_face: bool = True


def score_images(
    rows: Dataset,
    detectors: Sequence[Detector],
    *,
    variants: Sequence[Variant] = (CLEAN,),
    has_face: Callable[[Image.Image], bool] | None = None,
    batch_size: int = 128,
    threads: int | None = None,
    title: str = "scoring",
) -> Scored:
    """Every row of a data set (columns ``image`` and ``path``) in every variant by every detector.

    A degradation's random part depends on the image's path and the degradation's name alone, so that models, runs
    and subsets see the same pixels. ``has_face`` looks at each undegraded image; it must be safe in threads.
    """
    n, v = len(rows), len(variants)
    result = Scored([np.full((n, v, len(s.labels)), np.nan) for s in detectors], [None] * len(detectors))
    waiting: list[_Work] = []
    held = 0
    rows = rows.select_columns(["image", "path"])
    work = _in_threads(lambda i: _prepare(i, rows[i], detectors, variants, has_face), n, threads)
    for item in tqdm(work, desc=title, total=n, unit="image", leave=False, disable=None):
        if item.error:
            result.errors[item.row] = item.error
            continue
        if not item.has_face:
            result.faceless.add(item.row)
        waiting.append(item)
        held += len(item.pixels[0])
        if held >= batch_size:
            _score(waiting, detectors, batch_size, result)
            waiting, held = [], 0
    if waiting:
        _score(waiting, detectors, batch_size, result)
    return result


def _prepare(
    row: int,
    item: Mapping[str, Any],
    detectors: Sequence[Detector],
    variants: Sequence[Variant],
    has_face: Callable[[Image.Image], bool] | None,
) -> _Work:
    try:
        image = decode_image(image_bytes(item["image"]), name=item["path"])
        if max(image.size) > LARGEST_ASPECT * min(image.size):  # resized by its shorter side it would fill the memory
            raise ImageError("unreadable", f"{item['path']}: too narrow")
    except ImageError as error:
        return _Work(row, [], [], error.reason)
    pixels: list[list[torch.Tensor]] = [[] for _ in detectors]
    waiting: list[Image.Image] = []
    places: list[int] = []
    n = clean = 0
    for variant in variants:
        variation = degrade(image, variant, item["path"])
        if variation is image and clean:  # a step that leaves this image as it is
            places.append(clean - 1)
            continue
        n += 1
        places.append(n - 1)
        clean = n if variation is image else clean
        waiting.append(variation)
        if sum(v.width * v.height for v in waiting) > PIXELS_AT_ONCE:
            _process(waiting, detectors, pixels)
            waiting = []
    _process(waiting, detectors, pixels)
    return _Work(row, pixels, places, has_face=has_face is None or has_face(image))


def _process(
    images: Sequence[Image.Image], detectors: Sequence[Detector], pixels: Sequence[list[torch.Tensor]]
) -> None:
    """Add to ``pixels`` what ``Detector.pixels`` gives for each image; those of one size go together."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        by_size.setdefault(image.size, []).append(i)
    for detector, known in zip(detectors, pixels, strict=True):
        found: dict[int, torch.Tensor] = {}
        for places in by_size.values():
            tensors = detector.processor([images[i] for i in places], return_tensors="pt")["pixel_values"]
            found |= dict(zip(places, tensors, strict=True))
        known += [found[i] for i in range(len(images))]


def degrade(image: Image.Image, variant: Variant, path: str) -> Image.Image:
    """The image in a variant; the very same object where nothing is to be done."""
    if variant == CLEAN:
        return image
    seed = zlib.crc32(f"{variant.degradation}\0{path}".encode(errors="surrogateescape"))
    return DEGRADATIONS[variant.degradation].apply(image, variant.strength, seed)


def _score(items: Sequence[_Work], detectors: Sequence[Detector], batch_size: int, result: Scored) -> None:
    """Run the models on all variants of some images and store their outputs."""
    sizes = [len(item.pixels[0]) for item in items]
    starts = np.cumsum([0, *sizes[:-1]])
    for s, detector in enumerate(detectors):
        batch = torch.stack([tensor for item in items for tensor in item.pixels[s]])
        parts = [probabilities_of(detector, part) for part in batch.split(batch_size)]
        probabilities = np.concatenate([part for part, _ in parts])
        features = None if parts[0][1] is None else np.concatenate([part for _, part in parts])
        for item, start in zip(items, starts, strict=True):
            result.probabilities[s][item.row] = probabilities[start + np.array(item.places)]
            if features is not None:
                if result.features[s] is None:
                    result.features[s] = np.full((len(result.probabilities[s]), features.shape[1]), np.nan, np.float32)
                result.features[s][item.row] = features[start + item.places[0]]  # type: ignore[index]


def _in_threads(task: Callable[[int], _Work], n: int, threads: int | None) -> Iterator[_Work]:
    """Results in order, only a few of them computed ahead: each contains all variants of an image."""
    threads = threads or max(1, os.cpu_count() or 1)
    torch.get_num_threads()  # settles the main thread's number before the others choose 1 for themselves
    with cancelled_on_error(ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))) as pool:
        ahead: deque[Future[_Work]] = deque()
        try:
            for i in range(n):
                ahead.append(pool.submit(task, i))
                if len(ahead) > threads + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
