"""Evidence to take away: one image's result as a self-contained HTML page, and as a PNG card.

Both say what was judged (SHA-256), by what (model, weights, version, date), the verdict and what it is worth. The page
loads nothing, and a policy inside it forbids that it ever does. The image can be left out; its hash still identifies
it, and its heat map is then drawn on plain grey.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from bonaface import __version__
from bonaface.files import atomic_path, write_text
from bonaface.imaging.images import decode_image, read_bytes
from bonaface.inference.detector import Detector, Result
from bonaface.inference.explain import Explanation, explain
from bonaface.models.weights import weights_digest
from bonaface.provenance.read import Provenance, read_provenance
from bonaface.provenance.trust import trust_list
from bonaface.web.evidence_card import draw_card
from bonaface.web.markup import WORDS, render, score
from bonaface.web.wording import Wording, warnings_of

SIDE = 640  # pixels, the longer side of the images inside
GREY = "#b9c0c4"


@dataclass(frozen=True)
class Origin:
    """What judged: the model's name, the first digits of its weights' SHA-256, its training data's fingerprint."""

    model: str
    weights: str
    data: str

    @classmethod
    def of(cls, detector: Detector, folder: Path, name: str) -> Origin:
        """The model in ``folder``, by the name that people call it."""
        return cls(name, weights_digest(folder)[:16], detector.facts.data_fingerprint)


@dataclass(frozen=True)
class Case:
    """One image and all that is known of it; ``heat`` is its close-up, with its faithfulness."""

    name: str
    data: bytes
    result: Result
    heat: Explanation
    provenance: Provenance
    checked: datetime

    @classmethod
    def of(cls, detector: Detector, name: str, data: bytes, result: Result, faces: bool | None = None) -> Case:
        """Explain a result that is not an error and was scored with ``faces``, and read what the file says.

        Raises:
            ImageError: the file is no image any more.
        """
        heat = explain(detector, decode_image(data), faces=faces).close_up(SIDE)
        return cls(name, data, result, heat, read_provenance(data), datetime.now(UTC).replace(microsecond=0))

    @property
    def sha256(self) -> str:
        """Of the file's bytes, as 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


def write_evidence(case: Case, words: Wording, origin: Origin, folder: Path, *, with_image: bool = True) -> list[Path]:
    """Write the page and the card into a folder that exists, named by the image's hash; their paths. Raises OSError."""
    page, card = (folder / f"bonaface-{case.sha256[:12]}.{kind}" for kind in ("html", "png"))
    image = _thumbnail(case) if with_image else None
    heat = case.heat if with_image else replace(case.heat, image=Image.new("RGB", case.heat.image.size, GREY))
    facts = _facts(case, words, origin)
    write_text(page, _page(case, words, facts, image, heat.overlay(), with_image))
    with atomic_path(card) as partial:
        draw_card(facts, case.result.verdict, image, heat.overlay()).save(partial)
    return [page, card]


class EvidenceFolder:
    """Writes the evidence of each result that it is called with, into one folder, which is made."""

    def __init__(self, folder: Path, model: str, *, faces: bool | None = None, with_image: bool = True) -> None:
        self.folder, self.faces, self.with_image = folder, faces, with_image
        self.model = Path(model).resolve().name if Path(model).is_dir() else model
        folder.mkdir(parents=True, exist_ok=True)
        self._known: tuple[Wording, Origin] | None = None

    def __call__(self, detector: Detector, path: str, result: Result) -> None:
        """Nothing for a file without a result."""
        if result.error:
            return
        if self._known is None:
            home = detector.folder or Path(self.model)
            self._known = Wording(detector, home), Origin.of(detector, home, self.model)
        case = Case.of(detector, Path(path).name, read_bytes(path), result, self.faces)
        write_evidence(case, *self._known, self.folder, with_image=self.with_image)


def _facts(case: Case, words: Wording, origin: Origin) -> dict[str, str]:
    """What the page and the card both say, in plain text."""
    result = case.result
    trust = case.heat.faithfulness.sentence if case.heat.faithfulness else ""
    said = dict.fromkeys(item.says for item in case.provenance.evidence)
    pointed = "AI generation" if case.heat.target == "fake" else "a photograph"
    return {
        "verdict": WORDS[result.verdict],
        "beside": words.beside(result),
        "short": words.in_short(result),
        "score": score(result.p_fake),
        "band": f"real up to {score(result.band[0])}, AI-generated from {score(result.band[1])}" if result.band else "",
        "map": f"Bright areas point to {pointed}. {trust}",
        "said": f"The file says of itself: {', '.join(said)}." if said else "The file says nothing about its origin.",
        "sha256": case.sha256,
        "model": origin.model,
        "weights": origin.weights,
        "data": origin.data,
        "version": __version__,
        "checked": f"{case.checked:%Y-%m-%d %H:%M} UTC",
    }


def _page(
    case: Case, words: Wording, facts: dict[str, str], image: Image.Image | None, heat: Image.Image, named: bool
) -> str:
    faithfulness = case.heat.faithfulness
    return render(
        "evidence",
        facts=facts,
        result=case.result,
        name=case.name if named else "",
        size=len(case.data),
        image=image,
        heat=heat,
        side=SIDE,
        tested=faithfulness.reason if faithfulness else "",
        why=words.why(case.result),
        remarks=words.remarks(case.result),
        like=words.resembles(case.result),
        warnings=warnings_of(case.result),
        said=case.provenance.evidence,
        trailing=case.provenance.trailing,
        note=case.provenance.note,
        credentials=case.provenance.credentials,
        trust=trust_list(),
    )


def _thumbnail(case: Case) -> Image.Image:
    image = decode_image(case.data)
    image.thumbnail((SIDE, SIDE))
    return image
