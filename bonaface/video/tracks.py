"""Faces of successive frames -> tracks: the same person, by the overlap of the boxes within one scene.

A face continues the track that its box overlaps most, if both frames show the same scene. So a cut ends a track, and
a return to the same camera position continues it. A lone face that jumps between two frames is still one person.
Persons who change places between two frames of one scene are taken for each other, and one who moves beyond his box
beside others, or comes back in another scene, gets a second track: there is no recognition of faces here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bonaface.imaging.faces import Box
from bonaface.video.scenes import Look, same_scene

LEAST_OVERLAP = 0.1  # intersection over union; frames are seconds apart, and heads move
LARGEST_CHANGE = 2.0  # of the size of a lone face that jumps


@dataclass
class _Track:
    box: Box
    look: Look
    frame: int


class Tracker:
    """Numbers persons, from 0, in the order in which they appear."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._frame = -1

    def follow(self, look: Look, boxes: Sequence[Box]) -> list[int]:
        """The track of each face of the next frame.

        Args:
            look: of the whole frame, see :func:`bonaface.video.scenes.look_of`.
            boxes: in pixels.
        """
        self._frame += 1
        here = [i for i, track in enumerate(self._tracks) if same_scene(track.look, look)]
        found = dict(self._overlapping(here, boxes))
        found |= self._jumped([i for i in here if i not in found.values()], boxes, found)
        for k, box in enumerate(boxes):
            if k not in found:
                found[k] = len(self._tracks)
                self._tracks.append(_Track(box, look, self._frame))
            self._tracks[found[k]] = _Track(box, look, self._frame)
        return [found[k] for k in range(len(boxes))]

    def _overlapping(self, here: Sequence[int], boxes: Sequence[Box]) -> list[tuple[int, int]]:
        """(face, track) pairs with the largest overlap in all."""
        shared = overlaps(boxes, [self._tracks[i].box for i in here])
        rows, columns = linear_sum_assignment(shared, maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(k, here[j]) for k, j in pairs if shared[k, j] >= LEAST_OVERLAP]

    def _jumped(self, free: Sequence[int], boxes: Sequence[Box], found: dict[int, int]) -> dict[int, int]:
        """The one face without a track, and the one track of the frame before that has lost its face."""
        faces = [k for k in range(len(boxes)) if k not in found]
        lost = [i for i in free if self._tracks[i].frame == self._frame - 1]
        if len(faces) != 1 or len(lost) != 1:
            return {}
        sizes = sorted(max(b[2] - b[0], b[3] - b[1]) for b in (boxes[faces[0]], self._tracks[lost[0]].box))
        return {faces[0]: lost[0]} if sizes[1] <= LARGEST_CHANGE * sizes[0] else {}


def overlaps(some: Sequence[Box], others: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each pair of boxes, float64 (some, others), in [0, 1]."""
    a = np.asarray(some, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(axis=2)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2)
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))
