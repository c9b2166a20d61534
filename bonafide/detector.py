"""One inference engine for the app, the command line, the library and export: pictures in, verdicts out.

    detector = Detector.from_pretrained("runs/NAME")
    for result in detector(["a.jpg", "b.jpg"]):
        print(result.verdict, result.p_fake, result.labels, result.warnings)

**Whole picture or faces.** ``faces=False`` scores the picture as it is, as ``pipeline("image-classification")`` does.
``faces=True`` looks for faces, cuts each out as ``bonafide prepare`` does, and scores each. By default
(``faces=None``) a photograph is searched and a picture that is already a crop of a face is not:

1. a model whose facts say that it was trained on whole pictures (``face_margin`` is null) never searches;
2. a picture whose shorter side is at most ``CROP_SIDE`` pixels is a crop;
3. else faces are searched: where the largest one's longer side is at least ``CROP_SHARE`` of the picture's shorter
   side, the picture is a crop; where there is none, the whole picture is scored and a warning says so.

Faces below ``TINY_FACE`` pixels are scored only where there is no larger one, and the ``MAX_FACES`` largest at most. A
picture's score is the largest over its faces: one generated face makes a picture fake. It follows that a crowd
has more chances of a false alarm than a portrait; the face's own score is in the result.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import special
from transformers.utils import cached_file

from bonafide import calibration, unfamiliar
from bonafide.alignment import face_square
from bonafide.engines import Engine, load_engine
from bonafide.faces import TINY_FACE, Box, FaceDetector, MainFace
from bonafide.images import MAX_PIXELS, ImageError, decode_image, inspect_image, read_bytes
from bonafide.images import _to_rgb as to_rgb
from bonafide.images import _upright as upright
from bonafide.listing import find_real_label
from bonafide.metrics import fake_probability
from bonafide.unfamiliar import Unfamiliar

CROP_SIDE, CROP_SHARE, MAX_FACES = 320, 1 / 3, 16
FACE_MARGIN = 0.15  # what `bonafide prepare` leaves around a face box
SMALL_SIDE, LOW_QUALITY = 64, 40  # pixels; JPEG quality on the IJG scale
LARGEST_ASPECT = 32  # longer by shorter side; a processor that resizes the shorter one would make gigabytes of more
LARGE = 4_000_000  # pixels of a picture that is decoded and resized one at a time, for the sake of memory
CHUNK = 4  # pictures a decoding thread takes at a time

Picture = Image.Image | bytes | str | os.PathLike[str]


@dataclass(frozen=True)
class FaceResult:
    """One face of a picture; ``box`` is x0, y0, x1, y1 in pixels of the upright picture."""

    box: Box
    p_fake: float
    labels: dict[str, float]
    verdict: str


@dataclass(frozen=True)
class Result:
    """What is said of one picture.

    Attributes:
        labels: probability of each label, in class order; of the face with the largest ``p_fake`` where faces were cut
            out. Empty after an error.
        p_fake: sum over all labels that are not the real one, in [0, 1]; NaN after an error.
        verdict: "real", "fake" or "uncertain" by the model's stored band; by the largest label where the model has no
            band, with the warning "not calibrated"; "error" where there is no picture.
        band: ``p_fake`` up to the first is real, from the second on fake, between them uncertain; None if not known.
        faces: the faces that were cut out and scored, the largest first; empty where the whole picture was.
        warnings: any of the ``WARNINGS``.
        timing: seconds spent on this picture: "decode", "faces", "pixels" (resize and scale) and "model"; the last two
            are its share of a batch.
        status: "ok", or the reason of the :class:`~bonafide.images.ImageError`.
        error: the message of the error, else None.
    """

    labels: dict[str, float]
    p_fake: float
    verdict: str
    band: tuple[float, float] | None
    faces: tuple[FaceResult, ...] = ()
    warnings: tuple[str, ...] = ()
    timing: dict[str, float] = field(default_factory=dict)
    status: str = "ok"
    error: str | None = None


NO_FACE, SMALL, COMPRESSED = "no face found", "very small", "heavily compressed"
UNFAMILIAR, NOT_CALIBRATED = unfamiliar.REASON, "not calibrated"
WARNINGS = (NO_FACE, SMALL, COMPRESSED, UNFAMILIAR, NOT_CALIBRATED)


@dataclass
class _Item:
    """A picture on its way: the pixel tensors of its faces, or of itself."""

    pixels: list[torch.Tensor] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    error: ImageError | None = None


class Detector:
    """A classifier, its image processor and its facts. Thread-safe; build it with :meth:`from_pretrained`."""

    def __init__(
        self,
        engine: Engine,
        config: Any,
        processor: Any,
        *,
        real_label: str | None = None,
        unfamiliar: Unfamiliar | None = None,
        yunet: Path | None = None,
    ) -> None:
        self.engine, self.processor, self.config = engine, processor, config
        self.facts: dict[str, Any] = dict(getattr(config, "bonafide", None) or {})
        self.labels = [str(config.id2label[i]) for i in sorted(config.id2label)]
        self._sigmoid = config.problem_type == "multi_label_classification" or len(self.labels) == 1
        if len(self.labels) == 1:  # one logit: its label or not
            self.labels.append(f"not {self.labels[0]}")
        self.real_label = find_real_label(self.labels, real_label or self.facts.get("real_label"), origin="the model")
        self.real_index = self.labels.index(self.real_label)
        band = self.facts.get("band") or {}
        self.band = (float(band["low"]), float(band["high"])) if band else None
        self.unfamiliar = unfamiliar
        self._yunet = yunet
        self._faces: FaceDetector | None = None
        self.lock, self._large, self._loading = threading.Lock(), threading.Lock(), threading.Lock()
        self._threads = ThreadPoolExecutor(
            min(4, os.cpu_count() or 1), "bonafide-decode", initializer=torch.set_num_threads, initargs=(1,)
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: str | None = None,
        engine: str = "auto",
        dtype: str | torch.dtype | None = None,
        real_label: str | None = None,
        yunet: str | os.PathLike[str] | None = None,
    ) -> Detector:
        """Load a model folder or Hub id: ours, an exported one, or anyone's image classifier.

        Args:
            name: folder with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` (or the network
                that ``bonafide export`` wrote), or a Hub id.
            device: for torch; the GPU where there is one.
            engine: "auto", "torch", "openvino" or "onnx"; "auto" is torch where the folder holds torch weights.
            dtype: "float32" (default) or "bf16".
            real_label: needed only where neither the model's facts nor a label's name says which one is real.
            yunet: weights of the face detector (see :class:`bonafide.faces.FaceDetector`).

        Raises:
            UsageError: the model, its weights or the engine is missing, or the real label is not known.
        """
        runner, config, processor = load_engine(name, engine, device=device, dtype=dtype)
        facts = getattr(config, "bonafide", None)
        file = cached_file(name, unfamiliar.FILE, _raise_exceptions_for_missing_entries=False) if facts else None
        known = Unfamiliar.load(Path(file).parent, facts) if file else None
        weights = Path(yunet) if yunet else None
        return cls(runner, config, processor, real_label=real_label, unfamiliar=known, yunet=weights)

    def __call__(self, images: Picture | Iterable[Picture], *, faces: bool | None = None) -> list[Result]:
        """Judge one picture or many; a result for each, in order.

        Args:
            images: PIL images, encoded bytes or paths (a string is always a path, never fetched).
            faces: see the module's docstring.

        Raises:
            ImageError: a single picture cannot be read. Among many, such a one has a result with ``error`` instead.
        """
        if not isinstance(images, Image.Image | bytes | str | os.PathLike):
            return list(self.stream(images, faces=faces))
        item = self._prepare([images], faces)[0]
        if item.error is not None:
            raise item.error
        return self._judge([item])

    def stream(self, images: Iterable[Picture], *, faces: bool | None = None, batch_size: int = 16) -> Iterator[Result]:
        """As calling the detector with many pictures, but lazy: a million of them need the memory of a few batches.

        Decoding runs in threads ahead of the model. ``images`` is read in the caller's thread.
        """
        source = iter(images)
        waiting: deque[Future[list[_Item]]] = deque()
        chunks = -(-batch_size // CHUNK)
        while True:
            while len(waiting) < 2 * chunks and (chunk := list(islice(source, CHUNK))):
                waiting.append(self._threads.submit(self._prepare, chunk, faces))
            if not waiting:
                return
            ready = [waiting.popleft().result() for _ in range(min(chunks, len(waiting)))]
            yield from self._judge([item for chunk in ready for item in chunk], batch_size)

    def scores(self, images: Sequence[Picture]) -> np.ndarray:
        """Probabilities float64 (n, classes) of whole pictures, in class order. Raises ImageError."""
        return self.probabilities(self._outputs(images)[0])

    def features(self, images: Sequence[Picture]) -> np.ndarray | None:
        """What the last linear layer reads, float32 (n, d), of whole pictures; None without one. Raises ImageError."""
        return self._outputs(images)[1]

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """RGB picture -> float32 (3, h, w), exactly as the model's image processor makes it."""
        return self.processor(image, return_tensors="pt")["pixel_values"][0]

    def find_faces(self, image: Image.Image, faces: bool | None = None) -> tuple[list[Box], list[str]]:
        """Face boxes of an RGB picture that are to be scored (none: the picture itself is), and warnings."""
        small = [SMALL] if min(image.size) < SMALL_SIDE else []
        by_rule = faces is None
        if by_rule:
            faces = min(image.size) > CROP_SIDE and self.facts.get("face_margin", FACE_MARGIN) is not None
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
        """The square around a face, framed as ``bonafide prepare`` frames it for training; whole pixels."""
        margin = self.facts.get("face_margin")
        return face_square(image, MainFace(box, "ok", 1.0, 1), FACE_MARGIN if margin is None else margin)

    def _prepare(self, images: Sequence[Picture], faces: bool | None) -> list[_Item]:
        """Decode, find faces, resize and scale; pictures of one size go through the processor together."""
        items: list[_Item] = []
        by_size: dict[tuple[int, int], list[tuple[_Item, Image.Image]]] = defaultdict(list)
        for image in images:
            item = _Item()
            items.append(item)
            try:
                data, n_pixels = _open(image, item)
                if n_pixels < LARGE:
                    for view in self._views(data, image, faces, item):
                        by_size[view.size].append((item, view))
                else:
                    with self._large:
                        for view in self._views(data, image, faces, item):
                            self._process([(item, view)])
            except ImageError as error:
                item.error = error
        for members in by_size.values():
            self._process(members)
        return items

    def _views(self, data: bytes | Image.Image, image: Picture, faces: bool | None, item: _Item) -> list[Image.Image]:
        """The RGB pictures to score: the faces, or the whole."""
        started = time.perf_counter()
        picture = _rgb(data) if isinstance(data, Image.Image) else decode_image(data, name=_name(image))
        if max(picture.size) > LARGEST_ASPECT * min(picture.size):
            width, height = picture.size
            raise ImageError(
                "unreadable", f"{_name(image) or 'image'}: {width} x {height} pixels are too narrow a strip"
            )
        decoded = time.perf_counter()
        item.boxes, warnings = self.find_faces(picture, faces)
        item.warnings += warnings
        item.seconds |= {"decode": decoded - started, "faces": time.perf_counter() - decoded}
        return [picture.crop(self.face_square(picture, box)) for box in item.boxes] or [picture]

    def _process(self, members: Sequence[tuple[_Item, Image.Image]]) -> None:
        started = time.perf_counter()
        pixels = self.processor([view for _, view in members], return_tensors="pt")["pixel_values"]
        share = (time.perf_counter() - started) / len(members)
        for (item, _), tensor in zip(members, pixels, strict=True):
            item.pixels.append(tensor)
            item.seconds["pixels"] = item.seconds.get("pixels", 0.0) + share

    def _outputs(self, images: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray | None]:
        items = self._prepare(images, faces=False)
        for item in items:
            if item.error is not None:
                raise item.error
        return self.run([item.pixels[0] for item in items])

    def run(self, pixels: Sequence[torch.Tensor], batch_size: int = 16) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (n, classes) and features (n, d) of pixel tensors, one batch at a time."""
        batches = [torch.stack(list(pixels[i : i + batch_size])) for i in range(0, len(pixels), batch_size)]
        with self.lock:
            outputs = [self.engine(batch) for batch in batches]
        if not outputs:
            return np.empty((0, len(self.config.id2label))), None
        logits, features = zip(*outputs, strict=True)
        return np.concatenate(logits), None if features[0] is None else np.concatenate(features)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 (n, classes); softmax, or the sigmoid where the pipeline would take it."""
        if self._sigmoid:
            p = special.expit(logits.astype(np.float64))
            return p if p.shape[1] == len(self.labels) else np.concatenate([p, 1 - p], axis=1)
        return calibration.apply(logits, self.facts)

    def _judge(self, items: Sequence[_Item], batch_size: int = 16) -> list[Result]:
        """Run the model on all faces of all items, then say what they mean."""
        started = time.perf_counter()
        pixels = [tensor for item in items for tensor in item.pixels]
        logits, features = self.run(pixels, batch_size)
        probabilities = self.probabilities(logits)
        strange = self._unfamiliar(features, len(pixels))
        share = (time.perf_counter() - started) / max(1, len(pixels))
        results, first = [], 0
        for item in items:
            rows = slice(first, first + len(item.pixels))
            first = rows.stop
            item.seconds["model"] = share * len(item.pixels)
            results.append(self._result(item, probabilities[rows], strange[rows]))
        return results

    def _result(self, item: _Item, probabilities: np.ndarray, strange: np.ndarray) -> Result:
        if item.error is not None:
            reason, message = item.error.reason, str(item.error)
            return Result({}, float("nan"), "error", self.band, timing=item.seconds, status=reason, error=message)
        p_fake = self.p_fake(probabilities)
        worst = int(p_fake.argmax())
        labels = [dict(zip(self.labels, map(float, row), strict=True)) for row in probabilities]
        verdicts = [self._verdict(*row) for row in zip(p_fake, probabilities, strange, strict=True)]
        faces = [
            FaceResult(box, float(p), label, verdict)
            for box, p, label, verdict in zip(item.boxes, p_fake, labels, verdicts, strict=False)
        ]
        warnings = item.warnings + [UNFAMILIAR] * bool(strange[worst]) + [NOT_CALIBRATED] * (self.band is None)
        return Result(
            labels[worst],
            float(p_fake[worst]),
            verdicts[worst],
            self.band,
            tuple(faces),
            tuple(warnings),
            item.seconds,
        )

    def p_fake(self, probabilities: np.ndarray) -> np.ndarray:
        """(n, classes) -> (n,): the probability of everything but the real label."""
        if self._sigmoid:
            return 1 - probabilities[:, self.real_index]
        return fake_probability(probabilities, self.real_index)

    def _verdict(self, p_fake: float, probabilities: np.ndarray, strange: bool) -> str:
        if strange:
            return "uncertain"
        if self.band is None:
            return "real" if probabilities.argmax() == self.real_index else "fake"
        low, high = self.band
        return "real" if p_fake <= low else "fake" if p_fake >= high else "uncertain"

    def _unfamiliar(self, features: np.ndarray | None, n: int) -> np.ndarray:
        """Which of n feature vectors are farther from the training data than the model's threshold."""
        if self.unfamiliar is None or features is None:
            return np.zeros(n, dtype=bool)
        return self.unfamiliar.distance(features) > self.unfamiliar.threshold

    def _face_detector(self) -> FaceDetector:
        with self._loading:
            if self._faces is None:
                self._faces = FaceDetector(self._yunet)
            return self._faces


def _open(image: Picture, item: _Item) -> tuple[bytes | Image.Image, int]:
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


def _rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as decode_image would have given it."""
    try:
        image.load()
        return upright(image, to_rgb(image))
    except Exception as error:
        raise ImageError("unreadable", f"the picture cannot be decoded ({error})") from error


def _name(image: Picture) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else ""
