"""A result in words: why this verdict, and what each warning means."""

from __future__ import annotations

from bonaface.inference.detector import Result
from bonaface.inference.reader import COMPRESSED, NO_FACE, SMALL
from bonaface.inference.unfamiliar import REASON as UNFAMILIAR
from bonaface.models.drawings import MEANING as MEANING_OF_DRAWINGS
from bonaface.models.drawings import WARNING as DRAWINGS_ONLY
from bonaface.models.facts import ModelFacts
from bonaface.stats.figures import percent
from bonaface.web.markup import score

NOT_CALIBRATED = "not calibrated"
WARNINGS = {
    DRAWINGS_ONLY: MEANING_OF_DRAWINGS,
    NO_FACE: "The whole picture was scored. The model was made for faces, so its score may mean little.",
    SMALL: "There is little to look at; scores of small pictures are less certain.",
    COMPRESSED: "Strong JPEG compression takes away the traces that the model looks for.",
    UNFAMILIAR: "The picture is far from everything that the model has seen, so no verdict is given.",
    NOT_CALIBRATED: "This model came without calibration: the verdict is simply its largest label.",
}
# What to do about a file that gave no picture, by the reason of its ImageError.
REMEDIES = {
    "empty": "The file holds nothing. Was it copied completely?",
    "truncated": "The file ends too early. Was it copied completely?",
    "not an image": "Send a photograph as JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF.",
    "wrong extension": "The file is named like an image, but is none. Send a photograph as JPEG, PNG or WebP.",
    "too many pixels": "Scale it down and send it again.",
    "too many bytes": "Save it with fewer bytes and send it again.",
    "missing": "It was deleted, for it came too long ago. Send it again.",
}


def why(result: Result, facts: ModelFacts) -> str:
    """Why this verdict: by the model's stored band, and what that band promises."""
    if UNFAMILIAR in result.warnings:
        return "No verdict: the picture is unlike what the model was trained on."
    if result.band is None:
        return "This is the model's largest label."
    low, high = result.band
    band = facts.band
    promised = band if band and band.certified and not facts.judged_on else None
    delta = percent(promised.delta, None) if promised else None
    sure = f", with {percent(promised.confidence, None)} confidence" if promised else ""
    if result.verdict == "fake":
        promise = f" At most {delta} of real pictures like those it was tested on score so high{sure}." if delta else ""
        return f"The score is at or above {score(high)}, from where this model says AI-generated.{promise}"
    if result.verdict == "real":
        promise = f" At most {delta} of fakes like those it was tested on score so low{sure}." if delta else ""
        return f"The score is at or below {score(low)}, up to where this model says real.{promise}"
    return f"The score lies between {score(low)} and {score(high)}, where this model errs too often to give a verdict."


def warnings_of(result: Result) -> list[tuple[str, str]]:
    """Each warning with what it means."""
    return [(name[:1].upper() + name[1:], WARNINGS.get(name, "")) for name in result.warnings]


def failure_lines(result: Result) -> list[str]:
    """Why there is no result, and what to do."""
    reason = str(result.error or "")
    reason = (
        f"It {reason}" if reason.startswith("holds") else f"It is {reason}" if reason.startswith("named") else reason
    )
    return [reason[:1].upper() + reason[1:] + ".", REMEDIES.get(result.status, "Save it anew and send it again.")]
