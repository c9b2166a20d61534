"""A clip -> the frames to look at, each with its time: few, spread over the whole, in bounded memory.

``most`` frames at most are taken, one in each of as many equal slots of time; with ``fps`` the slots are as long as the
rate says, and with ``scenes`` each scene has its own. A slot without a frame of its own, as in a video of variable
frame rate, gives none: a frame that stands still counts once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from PIL import Image

from bonaface.errors import UsageError

MOST, MOST_BY_RATE = 64, 4096  # frames of a clip
FINEST = 120.0  # frames a second
EARLY = 0.002  # seconds: containers round times, and a frame due at a slot's start may be said to come before it

Slot = tuple[float, float]  # seconds: from, up to (without it)


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are looked at.

    Attributes:
        fps: frames a second, in (0, ``FINEST``]; at most ``MOST_BY_RATE`` in all. None: ``most`` frames, spread.
        scenes: spread them over scenes, so that each is looked at however short it is.

    Raises:
        UsageError: a rate out of range, or both.
    """

    fps: float | None = None
    scenes: bool = False
    most: int = MOST

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= FINEST:
            raise UsageError(f"--fps {self.fps:g} is no rate", f"give frames a second, above 0 and up to {FINEST:g}")
        if self.fps is not None and self.scenes:
            raise UsageError("--fps and --scenes exclude each other", "leave out one of them")

    def slots(self, duration: float, cuts: Sequence[float] = ()) -> list[Slot]:
        """The slots of a clip of so many seconds, whose scenes change at ``cuts`` (ascending, without 0)."""
        if self.fps is not None:
            n = max(1, min(math.ceil(duration * self.fps), MOST_BY_RATE))
            width = max(1 / self.fps, duration / n)
            return [(i * width - EARLY, (i + 1) * width - EARLY) for i in range(n)]
        edges = [0.0, *cuts, duration]
        scenes = [(a, b) for a, b in pairwise(edges) if b > a] or [(0.0, max(duration, 1e-3))]
        if len(scenes) > self.most:
            scenes = [scenes[i * len(scenes) // self.most] for i in range(self.most)]
        each = self.most // len(scenes)
        steps = [(a - EARLY, (b - a) / each) for a, b in scenes]
        return [(a + i * width, a + (i + 1) * width) for a, width in steps for i in range(each)]


@dataclass(frozen=True)
class Frame:
    """``time`` in seconds from the clip's start; ``image`` RGB, upright, with square pixels."""

    time: float
    image: Image.Image


class Clip(Protocol):
    """An opened clip, to be closed by its ``with`` block.

    Attributes:
        size: width and height in pixels, as shown.
        duration: seconds that can be read.
        declared: seconds that the file claims; more than ``duration`` where it is cut off.
        n: the most frames that come.
    """

    size: tuple[int, int]
    duration: float
    declared: float
    n: int

    def __enter__(self) -> Clip: ...

    def __exit__(self, *_: object) -> None: ...

    def frames(self) -> Iterator[Frame]:
        """The frames to look at, by time; what cannot be decoded is passed over."""
        ...


def pick(times: Sequence[float], slots: Sequence[Slot]) -> list[int]:
    """Numbers of the frames to take: the first in each slot, by the frames' times (ascending)."""
    taken: list[int] = []
    i = 0
    for start, end in slots:
        while i < len(times) and times[i] < start:
            i += 1
        if i < len(times) and times[i] < end:
            taken.append(i)
            i += 1
    return taken
