"""A clip and a detector -> its persons, each with a score over time.

Faces are looked for in every frame and cut out as in images, so that each person is judged alone. Only a clip that
never shows more than one face, and that as large as in a portrait, is judged by whole frames, as such an image is:
a clip of one image repeated gets that image's score. Where there is no face at all, the whole frames are judged too.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from bonaface.imaging.faces import Box, crop_face
from bonaface.imaging.images import ImageError, shown_name
from bonaface.inference.detector import NOT_CALIBRATED, UNFAMILIAR, Detector, Result
from bonaface.inference.reader import CROP_SHARE, CROP_SIDE, NO_FACE, SMALL
from bonaface.memory import trim_memory
from bonaface.models.drawings import WARNING as DRAWINGS_ONLY
from bonaface.video.frames import Frame, Sampling
from bonaface.video.opening import open_clip
from bonaface.video.persons import Person, Sighting
from bonaface.video.scenes import look_of
from bonaface.video.tracks import Tracker

HELD_PIXELS = 4_000_000  # of a batch of frames; a batch for each worker and two more are held at once
TRIM_EVERY = 16  # frames: what is kept of each lies between the large blocks of those that are gone
MOST_PERSONS = 16
THUMBNAIL = 160  # pixels
FEWEST_FRAMES = 3  # a face of a single frame is left out beside persons of so many: most are no faces

Progress = Callable[[int, int], None]  # frames looked at, the most that come


@dataclass(frozen=True)
class ClipResult:
    """What was found in a clip.

    Attributes:
        persons: by number, in order of appearance; never empty.
        frames: looked at.
        duration: seconds that could be read.
        size: width and height in pixels.
        band: the model's, see :class:`bonaface.inference.detector.Result`.
        warnings: of the whole clip; see :meth:`warnings_of` for a person's.
    """

    persons: tuple[Person, ...]
    frames: int
    duration: float
    size: tuple[int, int]
    band: tuple[float, float] | None
    warnings: tuple[str, ...] = ()

    @property
    def worst(self) -> Person:
        """The person with the highest score: one generated face makes a clip fake."""
        return max(self.persons, key=lambda person: person.p_fake)

    def warnings_of(self, person: Person) -> tuple[str, ...]:
        """Of the clip and of this person."""
        return (*self.warnings, *[UNFAMILIAR] * person.unfamiliar)


def judge_clip(
    path: str,
    detector: Detector,
    sampling: Sampling | None = None,
    *,
    faces: bool | None = None,
    progress: Progress | None = None,
    longest: float | None = None,
) -> ClipResult:
    """Follow and judge every person of a clip.

    Args:
        path: a video or an animated image.
        sampling: the frames to look at.
        faces: False judges whole frames; by default and with True faces are looked for, if the model is one of faces.
        progress: called after every frame; what it raises ends the work.
        longest: seconds that a clip may last.

    Raises:
        ImageError: the clip cannot be read, or lasts longer.
    """
    search = detector.facts.face_margin is not None if faces is None else faces
    with open_clip(path, sampling or Sampling()) as clip:
        if longest is not None and clip.duration > longest:
            text = f"lasts {clip.duration / 60:.0f} minutes; the limit is {longest / 60:.0f}"
            raise ImageError("too many bytes", f"{shown_name(path)}: {text}")
        gathered = _Gathered(detector, whole=faces is not True)
        for frame, result in _scored(clip.frames(), detector, search, clip.size):
            gathered.add(frame, result)
            if gathered.n % TRIM_EVERY == 0:
                trim_memory()
            if progress is not None:
                progress(gathered.n, clip.n)
        if not gathered.n:
            raise ImageError("truncated", f"{shown_name(path)}: no frame can be decoded")
        warnings = [*gathered.warnings(), *_cut_note(clip.duration, clip.declared)]
        persons, left_out = gathered.persons()
        return ClipResult(persons, gathered.n, clip.duration, clip.size, detector.band, (*warnings, *left_out))


def _scored(
    frames: Iterator[Frame], detector: Detector, search: bool, size: tuple[int, int]
) -> Iterator[tuple[Frame, Result]]:
    """Each frame with its result; a few are held at a time."""
    batch = max(1, min(detector.engine.batch_size, HELD_PIXELS // (size[0] * size[1])))
    held: deque[Frame] = deque()

    def images() -> Iterator[Image.Image]:
        for frame in frames:
            held.append(frame)
            yield frame.image

    for result in detector.stream(images(), faces=search, batch_size=batch):
        if result.error:  # of its size, which all frames share
            raise ImageError("unreadable", result.error)
        yield held.popleft(), result


class _Gathered:
    """What is kept of the frames: scores, boxes and small images.

    ``whole`` allows that a clip of one large face is judged by whole frames.
    """

    def __init__(self, detector: Detector, whole: bool) -> None:
        self._detector, self._tracker = detector, Tracker()
        self._tracks: dict[int, list[Sighting]] = defaultdict(list)
        self._frames: list[Sighting] = []  # whole
        self._whole = self._portrait = whole  # so far, each frame is an image of one large face, or of none
        self._said: Counter[str] = Counter()
        self._small = False  # as face crops are, in which images are not searched for faces either
        self.n = 0

    def add(self, frame: Frame, result: Result) -> None:
        """The next frame."""
        self.n += 1
        self._said.update(result.warnings)
        self._small = self._whole and min(frame.image.size) <= CROP_SIDE
        boxes = [face.box for face in result.faces]
        self._portrait = self._portrait and _is_portrait(frame.image.size, boxes)
        if not boxes or self._portrait:
            alone = result if not boxes else self._detector([frame.image], faces=False)[0]
            far = UNFAMILIAR in alone.warnings
            small = _jpeg(frame.image)
            self._frames.append(Sighting(frame.time, None, alone.p_fake, alone.labels, alone.verdict, far, small))
        if not boxes:
            return
        for number, face in zip(self._tracker.follow(look_of(frame.image), boxes), result.faces, strict=True):
            small = _jpeg(crop_face(frame.image, face.box))
            self._tracks[number].append(
                Sighting(frame.time, face.box, face.p_fake, face.labels, face.verdict, face.unfamiliar, small)
            )

    def persons(self) -> tuple[tuple[Person, ...], list[str]]:
        """The persons, and a note on faces that are left out."""
        if self._portrait or not self._tracks:
            return (Person(1, tuple(self._frames)),), []
        tracks = [tuple(track) for track in self._tracks.values()]
        if max(map(len, tracks)) >= FEWEST_FRAMES:
            tracks = [track for track in tracks if len(track) > 1]
        kept = sorted(tracks, key=len, reverse=True)[:MOST_PERSONS]
        kept.sort(key=lambda track: track[0].time)
        n = len(self._tracks) - len(kept)
        note = [f"{n} more {'face' if n == 1 else 'faces'} seen too briefly to judge"] if n else []
        return tuple(Person(i, track) for i, track in enumerate(kept, 1)), note

    def warnings(self) -> list[str]:
        """Of the model, and of most frames."""
        model = [name for name in (DRAWINGS_ONLY, NOT_CALIBRATED) if self._said[name]]
        faceless = [NO_FACE] * (self._said[NO_FACE] == self.n and not self._small)
        return [*model, *faceless, *[SMALL] * (2 * self._said[SMALL] >= self.n)]


def _is_portrait(size: tuple[int, int], boxes: list[Box]) -> bool:
    """Whether an image of this size, with these faces, is judged whole: the rule of images, for at most one face."""
    if not boxes:
        return True
    x0, y0, x1, y1 = boxes[0]
    large = min(size) <= CROP_SIDE or max(x1 - x0, y1 - y0) >= CROP_SHARE * min(size)
    return len(boxes) == 1 and large


def _cut_note(duration: float, declared: float) -> list[str]:
    if declared <= duration:
        return []
    whole = "" if declared == float("inf") else f" of {declared:.1f} s"
    return [f"cut off: only {duration:.1f} s{whole} can be read"]


def _jpeg(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
