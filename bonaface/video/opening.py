"""A file -> an opened clip."""

from __future__ import annotations

from bonaface.video.animations import Animation
from bonaface.video.films import Film
from bonaface.video.frames import Clip, Sampling
from bonaface.video.kinds import MOVING_KINDS, kind_of


def open_clip(path: str, sampling: Sampling) -> Clip:
    """Open a video or an animated image.

    Raises:
        ImageError: it is missing, empty, too large, damaged or none of the two, or reading videos needs the extra.
    """
    return Animation(path, sampling) if kind_of(path)[0] in MOVING_KINDS else Film(path, sampling)
