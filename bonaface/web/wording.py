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
    NO_FACE: "The whole image was scored. The model is meant for faces, so the score may mean little.",
    SMALL: "A small image has little detail, so its score is less reliable.",
    COMPRESSED: "Strong JPEG compression removes the traces that the model looks for.",
    NOT_CALIBRATED: "This model has no calibration, so the verdict is its most likely label.",
}
# What to do about a file that is not a readable image, by the reason of its ImageError.
REMEDIES = {
    "empty": "Check that it was copied completely, then send it again.",
    "truncated": "Check that it was copied completely, then send it again.",
    "not an image": "Send a JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF image.",
    "wrong extension": "The file has the extension of an image but is not one. Send a JPEG, PNG or WebP image.",
    "too many pixels": "Scale the image down and send it again.",
    "too many bytes": "Save the image as a smaller file and send it again.",
    "missing": "Uploads are deleted after a few minutes. Send the file again.",
}


def no_verdict(result: Result) -> str:
    """Why there is none, in a line."""
    if UNFAMILIAR in result.warnings:
        return "No verdict: unlike the training data."
    return "No verdict: it is too often wrong here."


def why(result: Result, facts: ModelFacts) -> str:
    """Why this verdict: by the model's stored band, and what that band guarantees."""
    if UNFAMILIAR in result.warnings:
        return "The image differs too much from the training data for a verdict."
    if result.band is None:
        return "This is the model's most likely label."
    low, high = result.band
    band = facts.band
    certified = band if band and band.certified and not facts.judged_on else None
    delta = percent(certified.delta, None) if certified else None
    sure = f", with {percent(certified.confidence, None)} confidence" if certified else ""
    if result.verdict == "fake":
        bound = f" At most {delta} of real images like those it was tested on score this high{sure}." if delta else ""
        return f"The score is at or above {score(high)}, this model's threshold for AI-generated.{bound}"
    if result.verdict == "real":
        bound = f" At most {delta} of fakes like those it was tested on score this low{sure}." if delta else ""
        return f"The score is at or below {score(low)}, this model's threshold for real.{bound}"
    return f"The score is between {score(low)} and {score(high)}, where this model is wrong too often for a verdict."


def warnings_of(result: Result) -> list[tuple[str, str]]:
    """Each warning with what it means, but for the one that :func:`no_verdict` gives as the reason."""
    return [(name[:1].upper() + name[1:], WARNINGS.get(name, "")) for name in result.warnings if name != UNFAMILIAR]


def failure_lines(result: Result) -> list[str]:
    """Why there is no result, and what to do."""
    reason = str(result.error or "")
    reason = (
        f"It {reason}" if reason.startswith("contains") else f"It is {reason}" if reason.startswith("named") else reason
    )
    return [
        reason[:1].upper() + reason[1:] + ".",
        REMEDIES.get(result.status, "Save it again as JPEG or PNG, then send it."),
    ]
