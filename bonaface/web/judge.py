"""One loaded model and everything the page gets from it. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from bonaface import __version__
from bonaface.files import read_json
from bonaface.imaging.images import ImageError, decode_image, shown_name
from bonaface.inference.detector import Detector, Result
from bonaface.inference.explain import Explanation, explain, faithfulness_of
from bonaface.inference.faithfulness import Faithfulness
from bonaface.inference.reader import CROP_SIDE
from bonaface.models.drawings import MEANING
from bonaface.models.weights import weights_digest
from bonaface.provenance.read import Provenance, read_provenance
from bonaface.video.judge import ClipResult, Progress, judge_clip
from bonaface.web.batcher import Batcher
from bonaface.web.limits import Limits
from bonaface.web.schema import HeatMapAnswer, ModelAnswer, Prediction
from bonaface.web.uploads import Upload
from bonaface.web.wording import Wording

SHOWN = 1024  # pixels, the longer side of images on the page


class Judge:
    """A model that is ready. Thread-safe.

    Args:
        name: folder or Hub id.
        limits: how many requests make a batch, and how many may wait.

    Raises:
        UsageError: the model cannot be loaded.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.detector = Detector.from_pretrained(name)
        self.limits = limits
        self.folder = self.detector.folder or Path(name)
        self.metrics = read_json(self.folder / "report" / "metrics.json")
        self.words = Wording(self.detector, self.folder)
        self.title = self.folder.resolve().name if Path(name).is_dir() else name
        self.weights = weights_digest(self.folder)[:16]
        # The first run of a network costs several times the others, and what finds faces is loaded by the first image
        # that is large enough: not in the first visitor's time.
        self.detector([Image.new("RGB", (2 * CROP_SIDE, 2 * CROP_SIDE), "grey")])
        self._batcher: Batcher[Path | bytes, Result] = Batcher(
            self.detector.__call__, largest=limits.together, waiting=limits.waiting
        )

    @property
    def greeting(self) -> str:
        """That it is ready, and what everyone must know before using it."""
        warning = f" {MEANING}" if self.detector.knows_only_drawings else ""
        return f"The model {self.title} is ready.{warning}"

    @property
    def caveats(self) -> list[str]:
        """The caveats of its report; the one about drawings even if the report is older or missing."""
        told = [str(line) for line in self.metrics.get("caveats", [])]
        return [MEANING, *(line for line in told if line != MEANING)] if self.detector.knows_only_drawings else told

    def check(self, upload: Upload) -> Result:
        """The result of one image; requests of the same moment share a batch. Raises Busy."""
        source = upload.path or upload.data
        return _without_path(self._batcher(source), source)

    def stream(self, files: Sequence[Path]) -> Iterator[Result]:
        """A result for each file, in order, as they come."""
        return map(_without_path, self.detector.stream(files), files)

    def clip(self, path: Path, progress: Progress) -> ClipResult:
        """Every person of a clip; ``progress`` is called after each frame. Raises ImageError, or what it raises."""
        try:
            return judge_clip(str(path), self.detector, progress=progress, longest=self.limits.clip_seconds)
        except ImageError as error:
            said = str(error).replace(f"{shown_name(path)}: ", "")
            raise ImageError(error.reason, said[:1].upper() + said[1:]) from error

    def failure(self, status: str, error: str) -> Result:
        """The result for a file that is not an image."""
        return Result({}, math.nan, "error", self.detector.band, status=status, error=error)

    def heat_map(self, data: bytes) -> Explanation:
        """The heat map of the image, or of its worst face, enlarged; at most ``SHOWN`` pixels. Raises ImageError."""
        return explain(self.detector, decode_image(data), test=False).close_up(SHOWN)

    def trust(self, heat: Explanation) -> Faithfulness:
        """How far to trust a heat map. Testing it takes longer than drawing it."""
        return faithfulness_of(heat, self.detector)

    def provenance(self, data: bytes) -> Provenance | None:
        """What the file says about itself; None if it is not an image."""
        try:
            return read_provenance(data)
        except ImageError:
            return None

    def prediction(self, name: str, result: Result) -> Prediction:
        """A result as the API gives it."""
        return Prediction.model_validate(
            {
                "name": name,
                "status": result.status,
                "error": result.error,
                "verdict": result.verdict,
                "p_fake": None if result.error else result.p_fake,
                "labels": result.labels,
                "band": result.band and list(result.band),
                "faces": [{"box": list(f.box), "p_fake": f.p_fake, "verdict": f.verdict} for f in result.faces],
                "warnings": list(result.warnings),
                "resembles": None if result.resembles is None else list(result.resembles),
                "meaning": " ".join(self.words.remarks(result)),
            }
        )

    def heat_answer(self, name: str, heat: Explanation) -> HeatMapAnswer:
        """A heat map's words, with how far to trust it, as the API gives them."""
        trust = self.trust(heat)
        words = {"target": heat.target, "method": heat.method, "trust": f"{trust.sentence} {trust.reason}"}
        return HeatMapAnswer.model_validate(words | {"prediction": self.prediction(name, heat.result)})

    def answer(self) -> ModelAnswer:
        """The model as the API describes it."""
        figures = {
            key: [value["value"], value["low"], value["high"]]
            for key, value in self.metrics.get("figures", {}).items()
            if isinstance(value, dict) and {"value", "low", "high"} <= set(value)
        }
        band = self.detector.band
        return ModelAnswer(
            status="ready",
            message=self.greeting,
            name=self.title,
            version=__version__,
            weights=self.weights,
            data_fingerprint=self.detector.facts.data_fingerprint,
            labels=self.detector.labels,
            real_label=self.detector.real_label,
            knows_only_drawings=self.detector.knows_only_drawings,
            band=list(band) if band else None,
            figures=figures,
            conclusion=str(self.metrics.get("conclusion", "")),
        )


def _without_path(result: Result, source: Path | bytes) -> Result:
    """The same, without the path on the server in its message."""
    if result.error and isinstance(source, Path):
        return replace(result, error=result.error.replace(f"{shown_name(source)}: ", ""))
    return result
