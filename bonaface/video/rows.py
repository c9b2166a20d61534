"""Clips on the command line: a row of the table per person, a bar while they are read, and their timelines."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from bonaface.errors import writing
from bonaface.imaging.images import ImageError, shown_name
from bonaface.imaging.inputs import printable
from bonaface.inference.detector import Detector, Result
from bonaface.inference.tables import Row, row_of
from bonaface.video.frames import Sampling
from bonaface.video.judge import ClipResult, judge_clip
from bonaface.video.kinds import is_clip, is_input_name
from bonaface.video.persons import Person


class ClipScorer:
    """Judges the clips among the inputs of ``bonaface predict``.

    Args:
        sampling: the frames to look at.
        timelines: a folder for a page per clip, which is made.
    """

    def __init__(self, sampling: Sampling, timelines: Path | None = None) -> None:
        self.sampling, self.timelines = sampling, timelines
        self.options: dict[str, Any] = {"clips": asdict(sampling)}
        if timelines is not None:
            with writing(timelines):
                timelines.mkdir(parents=True, exist_ok=True)

    def is_clip(self, path: str) -> bool:
        """Whether a file is a clip."""
        return is_clip(path)

    def is_wanted(self, name: str) -> bool:
        """Whether a file of this name in a folder is an image or a clip."""
        return is_input_name(name)

    def rows(self, path: str, detector: Detector, faces: bool | None) -> list[Row]:
        """A row for each person, or one with the reason why there is none."""
        with tqdm(desc=printable(shown_name(path))[-40:], unit="frame", leave=False, disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            try:
                result = judge_clip(path, detector, self.sampling, faces=faces, progress=progress)
            except ImageError as error:
                failed = Result({}, float("nan"), "error", detector.band, status=error.reason, error=str(error))
                return [row_of(path, failed)]
        if self.timelines is not None:
            from bonaface.video.timeline import write_timeline  # with matplotlib

            page = self.timelines / timeline_name(path)
            with writing(page):
                write_timeline(result, Path(path).name, page)
        return [row_of_person(path, result, person) for person in result.persons]


def timeline_name(path: str) -> str:
    """The file name of a clip's page: its own, as far as any system takes it, and a digest of its path."""
    stem = re.sub(r"[^\w.-]+", "_", Path(path).name, flags=re.ASCII)[:60]
    return f"{stem}-{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:8]}.html"


def row_of_person(path: str, result: ClipResult, person: Person) -> Row:
    """One row of the table, see :mod:`bonaface.inference.tables`; ``faces`` are the frames that show the person."""
    frames = [
        {"time": round(s.time, 3), "box": s.box and [round(v, 1) for v in s.box], "p_fake": s.p_fake}
        | {"verdict": s.verdict}
        for s in person.sightings
    ]
    return {
        "path": path,
        "status": "ok",
        "error": None,
        "verdict": person.verdict,
        "p_fake": person.p_fake,
        "scores": list(person.middle.labels.values()),
        "n_faces": int(person.middle.box is not None),
        "faces": frames,
        "warnings": "; ".join(result.warnings_of(person)),
        "person": person.number,
        "start": round(person.start, 3),
        "end": round(person.end, 3),
        "frames": len(person.sightings),
        "outside_band": round(person.outside_band, 4),
    }
