"""A result in words: why this verdict, what its score has meant, and what each warning means."""

from __future__ import annotations

from pathlib import Path

from bonaface.inference.detector import Detector, Result
from bonaface.inference.reader import COMPRESSED, NO_FACE, SMALL
from bonaface.inference.resembles import in_words
from bonaface.inference.unfamiliar import REASON as UNFAMILIAR
from bonaface.models.drawings import MEANING as MEANING_OF_DRAWINGS
from bonaface.models.drawings import WARNING as DRAWINGS_ONLY
from bonaface.models.facts import ModelFacts
from bonaface.stats.figures import percent
from bonaface.web.markup import score
from bonaface.web.meaning import KnownScores, Meaning, in_short, remarks, wrong_in_short

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


class Wording:
    """What the results of one model mean; ``folder`` has its scores of known images."""

    def __init__(self, detector: Detector, folder: Path) -> None:
        self.facts = detector.facts
        self.known = KnownScores.of_run(folder, detector.real_label, detector.facts.band)

    def beside(self, result: Result) -> str:
        """What must be read with the verdict: that there is none, or how often such verdicts are wrong."""
        if UNFAMILIAR in result.warnings:
            return "No verdict: unlike the training data."
        if result.verdict == "uncertain":
            return "No verdict: the model is too often wrong here."
        wrong = self.known.wrong(result.verdict) if self.known else None
        return wrong_in_short(*wrong) if wrong else ""

    def in_short(self, result: Result) -> str:
        """What such a score has meant, for somebody in a hurry."""
        if UNFAMILIAR in result.warnings:
            return "What a score means for such an image is not known."
        meaning = self.meaning(result)
        return in_short(meaning) if meaning else "What such a score means was never measured for this model."

    def resembles(self, result: Result) -> str:
        """Which known generators it is most like, and what that is worth; "" where that is not told."""
        told = self.facts.resembles
        if result.resembles is None or told is None:
            return ""
        like = in_words(result.resembles)
        share = told.accuracy if result.resembles else told.none_known
        worth = (
            f"{'The nearest was right for' if result.resembles else 'So are'} {percent(share, 0)} of the images from"
        )
        return f"{like[:1].upper()}{like[1:]}. {worth} generators that it knows. This is no part of the verdict."

    def why(self, result: Result) -> str:
        """Why this verdict."""
        return why(result, self.facts)

    def meaning(self, result: Result) -> Meaning | None:
        """What such a score has meant on known images; None without them."""
        return self.known.meaning(result.p_fake) if self.known and not result.error else None

    def remarks(self, result: Result) -> list[str]:
        """The same in sentences with every figure."""
        if result.error:
            return []
        calibrated = self.facts.calibration is not None
        return remarks(self.meaning(result), calibrated, result.warnings, self.facts.unseen)


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
    """Each warning with what it means, but for the one that :meth:`Wording.beside` gives as the reason."""
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
