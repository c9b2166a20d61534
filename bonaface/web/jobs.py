"""A visitor's batch of files: one folder, one row per file, deleted afterwards."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonaface.web.archives import ArchiveError, Entry, is_zip, known_suffix, unpack
from bonaface.web.limits import Limits
from bonaface.web.uploads import Upload

if TYPE_CHECKING:
    from PIL import Image

    from bonaface.web.judge import Judge

STOPPED = "not checked"
SWEEP_SECONDS = 60
THUMBNAIL = 224


@dataclass
class Job:
    """Files of one visitor, in a folder of their own that is deleted with the job.

    Attributes:
        entries: the files, those inside archives included; ``rows`` are as :func:`tables.row_of` makes them.
        marks: index of an entry -> the label that the visitor says is right.
    """

    folder: tempfile.TemporaryDirectory[str]
    entries: list[Entry] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    marks: dict[int, str] = field(default_factory=dict)
    chosen: int | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    used: float = field(default_factory=time.monotonic)
    _thumbnails: dict[int, str | None] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Its folder."""
        return Path(self.folder.name)

    def thumbnail(self, index: int) -> str | None:
        """A small image of an entry as a ``data:`` address; None where it cannot be read. Made once."""
        if index not in self._thumbnails:
            from bonaface.web.markup import image_uri

            small = None if self.rows[index]["error"] else small_image(self.entries[index].path)
            self._thumbnails[index] = image_uri(small) if small else None
        return self._thumbnails[index]

    def counts(self) -> Counter[str]:
        """Files by verdict."""
        return Counter(row["verdict"] for row in self.rows)


class Jobs:
    """The job of each visitor (by Gradio's session), one at a time; old ones are dropped, and all at exit."""

    def __init__(self, limits: Limits, folder: Path) -> None:
        self.limits, self.folder = limits, folder
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._sweep, name="old jobs", daemon=True).start()

    def new(self, session: str) -> Job:
        """A new job; the visitor's last one is deleted."""
        self.drop(session)
        job = Job(tempfile.TemporaryDirectory(prefix="job-", dir=self.folder))
        with self._lock:
            self._jobs[session] = job
        return job

    def of(self, session: str) -> Job | None:
        """The visitor's job, which is now in use."""
        with self._lock:
            job = self._jobs.get(session)
            if job:
                job.used = time.monotonic()
            return job

    def stop(self, session: str) -> None:
        """Let the check end after the images in progress."""
        job = self.of(session)
        if job:
            job.stopped.set()

    def drop(self, session: str) -> None:
        """Delete what a visitor left."""
        with self._lock:
            job = self._jobs.pop(session, None)
        if job:
            job.stopped.set()
            job.folder.cleanup()

    def _sweep(self) -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            oldest = time.monotonic() - self.limits.keep_seconds
            for session in [session for session, job in list(self._jobs.items()) if job.used < oldest]:
                self.drop(session)


def collect(job: Job, uploads: Sequence[Upload], limits: Limits) -> None:
    """Bring files and the contents of zips into the job's folder, as ``job.entries``.

    A refused archive is an entry with its reason. Raises ArchiveError for more files than ``limits`` allow.
    """
    for number, upload in enumerate(uploads):
        folder = job.path / f"{number:04d}"
        folder.mkdir()
        if upload.path is not None and is_zip(upload.path):
            try:
                job.entries += unpack(upload.path, folder, limits, upload.name)
            except ArchiveError as error:
                job.entries.append(Entry(upload.name, status="unreadable", error=str(error)))
        else:
            target = folder / f"file{known_suffix(upload.name)}"
            if upload.path is not None:
                shutil.copyfile(upload.path, target)
            else:
                target.write_bytes(upload.data)
            job.entries.append(Entry(upload.name, target))
        if len(job.entries) > limits.files:
            raise ArchiveError(f"You sent more than {limits.files:,} files. Send fewer at a time.")


def check(job: Job, judge: Judge) -> Iterator[int]:
    """Fill ``job.rows``, one for each entry, in order; gives the number done. Ends early where the job is stopped."""
    from bonaface.inference.tables import row_of

    results = judge.stream([entry.path for entry in job.entries if entry.path])
    for entry in job.entries:
        if job.stopped.is_set():
            result = judge.failure(STOPPED, "the check was stopped before this file")
        elif entry.path is None:
            result = judge.failure(entry.status, entry.error)
        else:
            result = next(results)
        job.rows.append(row_of(entry.name, result))
        yield len(job.rows)


def small_image(path: Path | None) -> Image.Image | None:
    """A small RGB image, or None if there is none."""
    from bonaface.imaging.images import ImageError, load_image  # the first page need not wait for it

    if path is None:
        return None
    try:
        image = load_image(path)
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image
