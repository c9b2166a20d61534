"""A raw folder -> aligned, deduplicated face crops whose classes differ only in what they show.

Shortcuts that need no look at the content are removed, in the same way for every file:

* *Framing*: the main face, square, with one margin and never a mirrored or made-up border; where no face is found the
  centre square, and ``metadata.csv`` says so.
* *Size*: every file's side is drawn from the same uniform distribution, whatever its class or its own size. The range
  should be one that nearly all crops fill without upscaling, for upscaled images are soft, and softness tells the class
  as well as size did. The summary counts those that had to be upscaled.
* *Encoding*: every crop is brought to the common JPEG history
  (:func:`bonaface.imaging.degradations.common_history`), scaled with a random kernel, and saved as baseline JPEG 4:2:0
  at a quality drawn from one distribution, without metadata.

What stays is content: among file facts, the bytes per pixel that it takes to code it.

Files that cannot be read are dropped, and so are exact duplicates: all but the first where they agree on the label, all
of them where they do not, since then no label can be trusted. ``dropped.csv`` names each with its reason. Near
duplicates stay and share a ``group``, which the splitter keeps whole.

Every draw is a function of the seed and the file's path in the raw folder, so neither the number of processes nor an
interruption changes a byte. Finished files are journalled; the same command continues after a kill.

The folder has ``[split/]label/source/name-hash.jpg``; ``metadata.csv`` (``file_name, label, source, group, split``, the
facts of the original file, the face box in its pixels, and what was drawn), which makes it data for every command here;
``dropped.csv``; ``prepare.json``, options and summary; ``scans.parquet``, what was found in the raw files.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
from tqdm.auto import tqdm

from bonaface.data.alignment import SIZE_RANGE, Alignment, prepare_file
from bonaface.data.listing import Listing, list_data
from bonaface.data.prepared import FINISHED, WORK, PrepareSummary, listing_fingerprint
from bonaface.data.prepared_tables import finish
from bonaface.errors import UsageError, is_folder
from bonaface.files import locked, write_bytes
from bonaface.imaging import FACE_MARGIN
from bonaface.imaging.faces import FaceDetector
from bonaface.imaging.walk import first_file
from bonaface.pools import cancelled_on_error

CHUNK = 8  # files a process takes at a time


def prepare(
    raw: str | os.PathLike[str] | Listing,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    size_range: tuple[int, int] = SIZE_RANGE,
    quality_range: tuple[int, int] = (75, 95),
    margin: float = FACE_MARGIN,
    faces: bool = True,
    detector: FaceDetector | None = None,
    real_label: str | None = None,
    groups: str = "auto",
    workers: int | None = None,
) -> PrepareSummary:
    """Write the folder that this module's docstring describes to ``out``.

    Args:
        raw: any form of data that :func:`bonaface.data.listing.list_data` reads, or what that made of it, unchecked,
            in which case ``real_label`` and ``groups`` are passed over; it is only read.
        out: a new or empty folder, or one that an interrupted call with the same data and options left behind.
        seed, size_range, quality_range, margin: see :class:`bonaface.data.alignment.Alignment`.
        faces: False takes the centre square of every image, for data that is cropped already.
        detector: a FaceDetector of your own; default: YuNet where its weights are found, else the Haar cascade.
        real_label: only needed where no label's name says that it is the real one.
        groups: which folders are groups that splits keep whole, as :func:`bonaface.data.listing.list_data` takes it.
        workers: processes; default one per CPU core. 1 works in this process.

    Raises:
        UsageError: nothing to prepare in ``raw``, a label without any usable file; ``out`` is not empty, not writable,
            in or around ``raw``, or comes from other data or options.
    """
    alignment = Alignment(seed, size_range, quality_range, margin)
    out = Path(out)
    _refuse_overlap(Path(raw.origin if isinstance(raw, Listing) else raw), out)
    listing = raw if isinstance(raw, Listing) else _list(raw, real_label, groups)
    detector = (detector or FaceDetector()) if faces else None
    parameters = json.loads(json.dumps(asdict(alignment))) | {"faces": faces}
    parameters |= {"detector": detector.name if detector else "none", "data": listing_fingerprint(listing)}
    try:
        done = _open_out(out, parameters)
        if done is not None:
            return done
        with locked(out):
            records = _process_all(listing, alignment, detector, out, workers)
            return finish(listing, records, parameters, out)
    except BlockingIOError as error:
        raise UsageError(f"another process is preparing {out}", "wait for it, or stop it") from error
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {_why(error)}",
            "fix that and run the same command again to resume, or choose another folder",
        ) from error


def _list(raw: str | os.PathLike[str], real_label: str | None, groups: str) -> Listing:
    try:
        return list_data(raw, real_label=real_label, check="none", groups=groups)
    except OSError as error:
        raise UsageError(f"cannot read {raw}: {_why(error)}", "fix the folder's permissions") from error


def run_prepare_command(raw: str, out: str, **arguments: Any) -> None:
    """``python -m bonaface prepare``: :func:`prepare`, then a summary of a few lines on stdout."""
    summary = prepare(raw, out, **arguments)
    dropped = ", ".join(f"{n} {reason}" for reason, n in summary.dropped.items()) or "none"
    print(f"{summary.written} of {summary.found} files written to {out} (faces: {summary.detector})")
    if summary.units:
        print(f"folders: {summary.units}")
    print(f"dropped: {dropped}" + (f"; see {Path(out) / 'dropped.csv'}" if summary.dropped else ""))
    for what, counts in (("no face found", summary.no_face), ("upscaled", summary.upscaled)):
        if counts:
            print(f"{what}: " + ", ".join(f"{n} {label}" for label, n in counts.items()))
    if summary.near_duplicate_groups:
        print(f"{summary.near_duplicate_groups} groups of near duplicates, each kept in one split")


# -- the folders -----------------------------------------------------------------------------------


def _refuse_overlap(raw: Path, out: Path) -> None:
    if not is_folder(raw):
        return
    first, second = (Path(os.path.realpath(path)) for path in (raw, out))  # Path.resolve raises for a link to itself
    if first == second:
        raise UsageError(f"{out} is the raw folder itself", "choose another folder: raw files are never changed")
    if first in second.parents or second in first.parents:
        raise UsageError(f"{out} and the raw folder {raw} overlap", "choose a folder outside the raw one")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _open_out(out: Path, parameters: Mapping[str, Any]) -> PrepareSummary | None:
    """Make ``out`` ready to work in; the summary if all is done there already."""
    started, finished = out / WORK / "parameters.json", out / FINISHED
    for file in (finished, started):
        if not file.is_file():
            continue
        known = json.loads(file.read_text())
        earlier = known.get("parameters", known)
        if earlier != parameters and file == started and not any(_read_journal(out / WORK / "journal.jsonl")):
            shutil.rmtree(out / WORK)  # nothing is done yet
            break
        if earlier != parameters:
            changed = [name for name in parameters if earlier.get(name) != parameters[name]]
            raise UsageError(
                f"{out} was prepared from other data or options (changed: {', '.join(changed)})",
                "choose another folder, or remove this one",
            )
        if file == finished:
            _check_complete(out)
            shutil.rmtree(out / WORK, ignore_errors=True)
            return PrepareSummary(**known["summary"])
        return None
    if out.exists() and (other := first_file(out) if out.is_dir() else out.name):
        raise UsageError(
            f"{out} is not an empty folder: there is {other}", "choose another folder: nothing is overwritten"
        )
    (out / WORK).mkdir(parents=True, exist_ok=True)
    write_bytes(started, json.dumps(parameters).encode(), out / WORK)
    return None


def _check_complete(out: Path) -> None:
    with (out / "metadata.csv").open(encoding="utf-8", newline="") as file:
        lost = [row["file_name"] for row in csv.DictReader(file) if not (out / row["file_name"]).is_file()]
    if lost:
        raise UsageError(
            f"the finished folder {out} lacks {len(lost)} of its files, such as {lost[0]}",
            "remove the folder and run the same command again",
        )


# -- all files, in processes -----------------------------------------------------------------------


def _process_all(
    listing: Listing, alignment: Alignment, detector: FaceDetector | None, out: Path, workers: int | None
) -> dict[str, dict[str, Any]]:
    """A record for every path; what the journal already contains is not done again."""
    journal = out / WORK / "journal.jsonl"
    records = {r["path"]: r for r in _read_journal(journal) if "dropped" in r or (out / r["file_name"]).is_file()}
    todo = [i for i, path in enumerate(listing.rows["path"]) if path not in records]
    rows = listing.rows.select(todo)
    with (
        journal.open("a", encoding="ascii") as file,
        tqdm(desc="preparing", unit="file", initial=len(records), total=len(listing.rows), disable=None) as bar,
    ):
        file.write("\n")  # ends a line that an interruption cut short
        for record in _in_processes(rows, listing.labels, alignment, detector, out, workers or os.cpu_count() or 1):
            file.write(json.dumps(record) + "\n")
            file.flush()
            records[record["path"]] = record
            bar.update()
    return records


def _read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """All complete lines; an interruption may have cut the last one short."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "path" in record:
            yield record


def _in_processes(
    rows: datasets.Dataset,
    labels: Sequence[str],
    alignment: Alignment,
    detector: FaceDetector | None,
    out: Path,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """Records in the order of the rows; at most a few chunks are in memory at a time."""

    def chunks() -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(rows), CHUNK):
            part = rows.select(range(start, min(start + CHUNK, len(rows))))
            yield [{**row, "label": labels[row["label"]]} for row in part]

    if workers == 1:
        for chunk in chunks():
            yield from (prepare_file(row, alignment, detector, out, out / WORK) for row in chunk)
        return
    waiting: deque[Future[list[dict[str, Any]]]] = deque()
    with cancelled_on_error(ProcessPoolExecutor(workers, initializer=_start_worker)) as pool:
        for chunk in chunks():
            waiting.append(pool.submit(_process_chunk, chunk, alignment, detector, out))
            if len(waiting) > 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _process_chunk(
    chunk: list[dict[str, Any]], alignment: Alignment, detector: FaceDetector | None, out: Path
) -> list[dict[str, Any]]:
    return [prepare_file(row, alignment, detector, out, out / WORK) for row in chunk]


def _start_worker() -> None:
    """End with the parent: one that is killed cannot stop its workers itself. Ctrl-C is for the parent alone.

    OpenCV's threads are left as they are: ``cv2.setNumThreads`` in a forked process hangs where the
    parent's were started.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent:
            parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
