"""One inference engine for the app, the command line, the library and export: images in, verdicts out.

    detector = Detector.from_pretrained("runs/NAME")
    for result in detector(["a.jpg", "b.jpg"]):
        print(result.verdict, result.p_fake, result.labels, result.warnings)

Whether the whole image is scored or its faces: see :mod:`bonaface.inference.reader`. An image's score is the largest
over its faces. With ``faces=False`` the scores are those of ``pipeline("image-classification")``, but for three kinds
of image: transparency is laid over white (the pipeline drops it and shows what was hidden), 16-bit grey is scaled to 8
(the pipeline cuts it off), and images above 16 megapixels are averaged over blocks before they are resized.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import special

from bonaface.data.labels import find_real_label
from bonaface.imaging.faces import Box
from bonaface.inference import calibration, unfamiliar
from bonaface.inference.admission import Admitted, ImageInput, admit, admit_all, is_single
from bonaface.inference.engines import Engine, load_engine
from bonaface.inference.forward import Outputs
from bonaface.inference.reader import COMPRESSED, LARGEST_ASPECT, NO_FACE, SMALL, ImageReader, Item
from bonaface.inference.resembles import Resembles
from bonaface.inference.unfamiliar import Unfamiliar
from bonaface.models.download import model_folder
from bonaface.models.drawings import WARNING as DRAWINGS_ONLY
from bonaface.models.drawings import knows_only_drawings
from bonaface.models.facts import ModelFacts
from bonaface.stats.probabilities import fake_probability

__all__ = ["LARGEST_ASPECT", "WARNINGS", "Detector", "FaceResult", "ImageInput", "Result"]


@dataclass(frozen=True)
class FaceResult:
    """One face of an image; ``box`` is x0, y0, x1, y1 in pixels of the upright image.

    ``unfamiliar``: it is unlike the training data, and its verdict therefore uncertain.
    """

    box: Box
    p_fake: float
    labels: dict[str, float]
    verdict: str
    unfamiliar: bool = False


@dataclass(frozen=True)
class Result:
    """The result for one image.

    Attributes:
        labels: probability of each label, in class order; of the face with the largest ``p_fake`` where faces were cut
            out. Empty after an error.
        p_fake: sum over all labels that are not the real one, in [0, 1]; NaN after an error.
        verdict: "real", "fake" or "uncertain" by the model's stored band; by the most likely label if the model has no
            band, with the warning "not calibrated"; "error" if there is no image.
        band: ``p_fake`` up to the first is real, from the second on fake, between them uncertain; None without a band.
        faces: the faces that were cut out and scored, the largest first; empty where the whole image was.
        warnings: any of the ``WARNINGS``.
        timing: seconds spent on this image: "decode", "faces", "pixels" (resize and scale) and "model"; the last two
            are its share of a batch.
        status: "ok", or the reason of the :class:`~bonaface.imaging.images.ImageError`.
        error: the message of the error, else None.
        resembles: the generators of the training data that it is most like, the nearest first; empty where it is like
            none of them. No part of the verdict; None where that is not "fake", or the model cannot tell.
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
    resembles: tuple[str, ...] | None = None


UNFAMILIAR, NOT_CALIBRATED = unfamiliar.REASON, "not calibrated"
WARNINGS = (DRAWINGS_ONLY, NO_FACE, SMALL, COMPRESSED, UNFAMILIAR, NOT_CALIBRATED)


class Detector:
    """A classifier, its image processor and its facts. Thread-safe; build it with :meth:`from_pretrained`.

    Args:
        engine: what runs the network.
        config, processor: transformers' configuration and image processor of the model.
        facts: what the model knows of itself; as its configuration says when None.
        real_label: the label that means a photograph; that of the facts, else found by its name, when None.
        unfamiliar: the training images' features, to which distances are measured; None for no such warning.
        resembles: what tells which training sources a fake is like; None where that is not told.
        yunet: weights of the face detector.
    """

    def __init__(
        self,
        engine: Engine,
        config: Any,
        processor: Any,
        *,
        facts: ModelFacts | None = None,
        real_label: str | None = None,
        unfamiliar: Unfamiliar | None = None,
        resembles: Resembles | None = None,
        yunet: Path | None = None,
    ) -> None:
        self.engine, self.processor, self.config = engine, processor, config
        self.facts = ModelFacts.of_config(config) if facts is None else facts
        self.labels = [str(config.id2label[i]) for i in sorted(config.id2label)]
        self.uses_sigmoid = config.problem_type == "multi_label_classification" or len(self.labels) == 1
        if len(self.labels) == 1:  # one logit: its label or not
            self.labels.append(f"not {self.labels[0]}")
        self.real_label = find_real_label(self.labels, real_label or self.facts.real_label, origin="the model")
        self.real_index = self.labels.index(self.real_label)
        self.band = (self.facts.band.low, self.facts.band.high) if self.facts.band else None
        self.unfamiliar, self.resembles = unfamiliar, resembles
        self.reader = ImageReader(processor, self.facts.face_margin, yunet)
        self.folder: Path | None = None  # where it was loaded from
        self.knows_only_drawings = False
        self.lock = threading.Lock()
        self._torch_threads = torch.get_num_threads()
        # Torch keeps a number of threads for every thread: a worker has one core to itself.
        self._n_workers = engine.workers or min(8, os.cpu_count() or 1)
        self._workers = ThreadPoolExecutor(
            self._n_workers, "bonaface", initializer=torch.set_num_threads, initargs=(1,)
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
                that ``bonaface export`` wrote), or a Hub id with or without ``@revision``.
            device: for torch; the GPU where there is one.
            engine: "auto", "torch", "openvino" or "onnx"; "auto" is torch where the folder holds torch weights.
            dtype: "float32" (default) or "bf16".
            real_label: needed only if neither the model's facts nor a label's name shows which one is real.
            yunet: weights of the face detector (see :class:`bonaface.imaging.faces.FaceDetector`).

        Raises:
            UsageError: the model, its weights or the engine is missing, its configuration is damaged or of a newer
                bonaface, or the real label is not known.
        """
        folder = model_folder(name)
        runner, config, processor = load_engine(folder, engine, name=name, device=device, dtype=dtype)
        facts = ModelFacts.of_config(config, str(name))
        known = Unfamiliar.load(folder, facts.unfamiliar)
        like, weights = Resembles.load(folder, facts.resembles), Path(yunet) if yunet else None
        detector = cls(
            runner, config, processor, facts=facts, real_label=real_label, unfamiliar=known, resembles=like,
            yunet=weights,
        )  # fmt: skip
        detector.folder, detector.knows_only_drawings = folder, knows_only_drawings(folder)
        return detector

    def __call__(self, images: Any, *, faces: bool | None = None) -> list[Result]:
        """Judge one image or many; a result for each, in order.

        An image is any of:

        * a path (str or ``os.PathLike``) or a ``data:`` URL; any other URL is refused, never fetched;
        * encoded bytes (bytes, bytearray, memoryview), or a file open in binary mode, from its current position;
        * a PIL image of any mode;
        * a NumPy array (height, width) or (height, width, channels), or a tensor (height, width) or (channels, height,
          width): 1 to 4 channels, uint8, or floats in [0, 1];
        * a row of a data set: a dict with ``bytes``, ``path`` or ``image``; Gradio's file data.

        Many images are anything that yields such values: a list, a generator, a column of a ``datasets.Dataset``, a
        pandas Series, an array or tensor with a batch axis in front. All but PIL images are copied as they are
        yielded.

        Args:
            images: one or many.
            faces: see :mod:`bonaface.inference.reader`.

        Raises:
            ImageError: a single image cannot be read, or is none of the above ("unsupported"). Among many, it
                has a result with ``status`` and ``error`` instead.
        """
        if not is_single(images):
            return list(self.stream(images, faces=faces))
        item = self.reader.read([admit(images)], faces)[0]
        if item.error is not None:
            raise item.error
        return self._judge([item])

    def stream(self, images: Any, *, faces: bool | None = None, batch_size: int | None = None) -> Iterator[Result]:
        """As calling the detector with many images, but lazy: a million of them need the memory of a few batches.

        On a CPU every core takes ``batch_size`` images from file to score by itself; on a GPU threads read ahead of
        it. The same images in the same order are cut into the same batches. ``images`` is read in the
        caller's thread.

        Args:
            batch_size: images that the model is given at once; the engine's own when None.
        """
        size, source = batch_size or self.engine.batch_size, admit_all(images)
        waiting: deque[Future[tuple[list[Item], Outputs | None]]] = deque()
        while True:
            while len(waiting) <= self._n_workers and (chunk := list(islice(source, size))):
                waiting.append(self._workers.submit(self._read_and_run, chunk, faces))
            if not waiting:
                return
            yield from self._judge(*waiting.popleft().result())

    def scores(self, images: Any) -> np.ndarray:
        """Probabilities float64 (n, classes) of whole images, in class order. Raises ImageError."""
        return self.probabilities(self._outputs(images)[0])

    def features(self, images: Any) -> np.ndarray | None:
        """What the last linear layer reads, float32 (n, d), of whole images; None without one. Raises ImageError."""
        return self._outputs(images)[1]

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """RGB image -> float32 (3, h, w), exactly as the model's image processor makes it."""
        return self.reader.pixels(image)

    def run(self, pixels: Sequence[torch.Tensor]) -> Outputs:
        """Logits (n, classes) and features (n, d) or None of pixel tensors (3, h, w), with all cores."""
        with self.lock:
            if torch.get_num_threads() != self._torch_threads:
                torch.set_num_threads(self._torch_threads)
            return self._run(self.engine, pixels)

    def _run(self, engine: Callable[[torch.Tensor], Outputs], pixels: Sequence[torch.Tensor]) -> Outputs:
        size = self.engine.batch_size
        outputs = [engine(torch.stack(list(pixels[i : i + size]))) for i in range(0, len(pixels), size)]
        if not outputs:
            return Outputs(np.empty((0, len(self.config.id2label)), dtype=np.float32), None)
        logits, features = zip(*outputs, strict=True)
        return Outputs(np.concatenate(logits), None if features[0] is None else np.concatenate(features))

    def _outputs(self, images: Any) -> Outputs:
        items = self.reader.read([*admit_all(images)], faces=False)
        for item in items:
            if item.error is not None:
                raise item.error
        return self.run([item.pixels[0] for item in items])

    def _read_and_run(self, images: Sequence[Admitted], faces: bool | None) -> tuple[list[Item], Outputs | None]:
        """In a worker: a batch's items, and the model's outputs where the engine works on one core."""
        items = self.reader.read(images, faces)
        if not self.engine.workers:
            return items, None
        started = time.perf_counter()
        pixels = [tensor for item in items for tensor in item.pixels]
        outputs = self._run(self.engine.in_worker, pixels)
        _share(items, time.perf_counter() - started)
        return items, outputs

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 (n, classes); softmax, or the sigmoid where the pipeline would take it."""
        if self.uses_sigmoid:
            p = special.expit(logits.astype(np.float64))
            return p if p.shape[1] == len(self.labels) else np.concatenate([p, 1 - p], axis=1)
        return calibration.apply(logits, self.facts.calibration)

    def _judge(self, items: Sequence[Item], outputs: Outputs | None = None) -> list[Result]:
        """Say what the outputs for all faces of all items mean; run the model where there are none yet."""
        if outputs is None:
            started = time.perf_counter()
            outputs = self.run([tensor for item in items for tensor in item.pixels])
            _share(items, time.perf_counter() - started)
        logits, features = outputs
        probabilities = self.probabilities(logits)
        strange = self._unfamiliar(features, len(logits))
        like = self._resembling(features, len(logits))
        results, first = [], 0
        for item in items:
            rows = slice(first, first + len(item.pixels))
            first = rows.stop
            results.append(self._result(item, probabilities[rows], strange[rows], like[rows]))
        return results

    def _result(
        self, item: Item, probabilities: np.ndarray, strange: np.ndarray, like: Sequence[tuple[str, ...] | None]
    ) -> Result:
        if item.error is not None:
            reason, message = item.error.reason, str(item.error)
            return Result({}, float("nan"), "error", self.band, timing=item.seconds, status=reason, error=message)
        p_fake = self.p_fake(probabilities)
        worst = int(p_fake.argmax())
        labels = [dict(zip(self.labels, map(float, row), strict=True)) for row in probabilities]
        verdicts = [self._verdict(*row) for row in zip(p_fake, probabilities, strange, strict=True)]
        faces = [
            FaceResult(box, float(p), label, verdict, bool(far))
            for box, p, label, verdict, far in zip(item.boxes, p_fake, labels, verdicts, strange, strict=False)
        ]
        warnings = [DRAWINGS_ONLY] * self.knows_only_drawings + item.warnings
        warnings += [UNFAMILIAR] * bool(strange[worst]) + [NOT_CALIBRATED] * (self.band is None)
        return Result(
            labels[worst],
            float(p_fake[worst]),
            verdicts[worst],
            self.band,
            tuple(faces),
            tuple(warnings),
            item.seconds,
            resembles=like[worst] if verdicts[worst] == "fake" else None,
        )

    def p_fake(self, probabilities: np.ndarray) -> np.ndarray:
        """(n, classes) -> (n,): the probability of everything but the real label."""
        if self.uses_sigmoid:
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

    def _resembling(self, features: np.ndarray | None, n: int) -> Sequence[tuple[str, ...] | None]:
        """Which known sources each of n feature vectors is most like; None where the model cannot tell."""
        return [None] * n if self.resembles is None or features is None else self.resembles.named(features)


def _share(items: Sequence[Item], seconds: float) -> None:
    """The time of a batch, shared out by faces."""
    n = max(1, sum(len(item.pixels) for item in items))
    for item in items:
        item.seconds["model"] = seconds * len(item.pixels) / n
