"""A person's frames -> one score and one verdict, no more certain than the frames are.

The frames of a clip are one person, one camera and one encoder: they are not independent, so that averaging evidence
over them (adding up log-odds, or an interval that shrinks with their number) would call a clip certain that is merely
long. A person's score is instead that of the **frame in the middle**: half of the frames score higher, half lower. It
is a score of one frame, to which the model's calibration and band apply as they are, and stays the same however often
the same frames are repeated. The median withstands up to half of the frames being blurred or turned away
(breakdown point 1/2; Hampel 1971). Of two frames in the middle, the less certain one counts.

Frames unlike the training data do not count, unless they are half or more: then there is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bonaface.imaging.faces import Box


@dataclass(frozen=True)
class Sighting:
    """A person in one frame.

    Attributes:
        time: seconds from the clip's start.
        box: of the face, in pixels; None where the whole frame was judged.
        p_fake, labels, verdict, unfamiliar: as :class:`bonaface.inference.detector.FaceResult` has them.
        image: a small JPEG of the face, or of the frame.
    """

    time: float
    box: Box | None
    p_fake: float
    labels: dict[str, float]
    verdict: str
    unfamiliar: bool = False
    image: bytes = b""


@dataclass(frozen=True)
class Person:
    """One person of a clip, seen at least once; ``sightings`` by time."""

    number: int
    sightings: tuple[Sighting, ...]

    @property
    def unfamiliar(self) -> bool:
        """Whether half of the frames, or more, are unlike the training data."""
        return 2 * sum(s.unfamiliar for s in self.sightings) >= len(self.sightings)

    @property
    def middle(self) -> Sighting:
        """The frame whose score is the person's."""
        return middle(self.sightings if self.unfamiliar else [s for s in self.sightings if not s.unfamiliar])

    @property
    def p_fake(self) -> float:
        """The person's score, in [0, 1]."""
        return self.middle.p_fake

    @property
    def verdict(self) -> str:
        """By the model's band: "real", "fake" or "uncertain"."""
        return "uncertain" if self.unfamiliar else self.middle.verdict

    @property
    def outside_band(self) -> float:
        """The share of frames with a verdict of their own, in [0, 1]."""
        return sum(s.verdict != "uncertain" for s in self.sightings) / len(self.sightings)

    @property
    def start(self) -> float:
        """Seconds at which the person is first seen."""
        return self.sightings[0].time

    @property
    def end(self) -> float:
        """Seconds at which the person is last seen."""
        return self.sightings[-1].time

    @property
    def telling(self) -> list[Sighting]:
        """The frames with the highest, the middle and the lowest score, each once."""
        ranked = sorted(self.sightings, key=lambda s: s.p_fake)
        return list({s.time: s for s in (ranked[-1], self.middle, ranked[0])}.values())


def middle(sightings: Sequence[Sighting]) -> Sighting:
    """The one whose score is the median; of two in the middle the one without a verdict, or nearer to one half."""
    ranked = sorted(sightings, key=lambda s: s.p_fake)
    n = len(ranked)
    return min(ranked[(n - 1) // 2 : n // 2 + 1], key=lambda s: (s.verdict != "uncertain", abs(s.p_fake - 0.5)))
