"""A raw folder -> aligned, deduplicated face crops that differ between classes in what they show alone.

What gives a class away before any pixel is understood is taken away, alike for every file:

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
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm.auto import tqdm

from bonaface.data.alignment import SIZE_RANGE, Alignment, prepare_file
from bonaface.data.duplicates import SIDE, Thumbnails, near_duplicate_groups
from bonaface.data.listing import Listing, list_data
from bonaface.data.rows import BrokenFile, left_out
from bonaface.data.splits import merge_groups
from bonaface.errors import UsageError
from bonaface.files import write_bytes
from bonaface.imaging import FACE_MARGIN
from bonaface.imaging.faces import FaceDetector
from bonaface.imaging.images import ImageFacts
from bonaface.pools import cancelled_on_error

FINISHED = "prepare.json"  # written last: its presence says that all the rest is there
WORK = ".prepare"  # journal and unfinished files; gone in the end
CHUNK = 8  # files a process takes at a time


@dataclass(frozen=True)
class PrepareSummary:
    """What was made of a raw folder; counts are files."""

    found: int
    written: int
    dropped: dict[str, int]  # by kind of reason
    no_face: dict[str, int]  # by label; their centre square was used
    upscaled: dict[str, int]  # by label; their crop was smaller than the side drawn
    near_duplicate_groups: int  # groups of two or more
    detector: str
    units: str = ""  # which folders were taken for sources, and which are kept whole


def prepare(
    raw: str | os.PathLike[str],
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

    The files are ``OUT/[split/]label/source/name-hash.jpg``; ``metadata.csv`` (``file_name, label, source,
    group, split``, the facts of the original file, the face box in its pixels, and what was drawn) makes it
    a data set that every command here reads; ``dropped.csv`` lists what was left out; ``prepare.json``
    holds options and summary.

    Args:
        raw: any form of data that :func:`bonaface.data.listing.list_data` reads; it is only read.
        out: a new or empty folder, or one that an interrupted call with the same data and options left behind.
        seed, size_range, quality_range, margin: see :class:`bonaface.data.alignment.Alignment`.
        faces: False takes the centre square of every picture, for data that is cropped already.
        detector: a FaceDetector of your own; default: YuNet where its weights are found, else the Haar cascade.
        real_label: only needed where no label's name says that it is the real one.
        groups: which folders are groups that splits keep whole, as :func:`bonaface.data.listing.list_data` takes it.
        workers: processes; default one a CPU core. 1 works in this process.

    Raises:
        UsageError: nothing to prepare in ``raw``, a label without any usable file; ``out`` is not empty, not writable,
            in or around ``raw``, or comes from other data or options.
    """
    alignment = Alignment(seed, size_range, quality_range, margin)
    raw, out = Path(raw), Path(out)
    _refuse_overlap(raw, out)
    try:
        listing = list_data(raw, real_label=real_label, check="none", groups=groups)
    except OSError as error:
        raise UsageError(f"cannot read {raw}: {_why(error)}", "mend the folder's permissions") from error
    detector = (detector or FaceDetector()) if faces else None
    parameters = {
        **json.loads(json.dumps(asdict(alignment))),
        "faces": faces,
        "detector": detector.name if detector else "none",
        "data": _fingerprint(listing),
    }
    try:
        done = _open_out(out, parameters)
        if done is not None:
            return done
        records = _process_all(listing, alignment, detector, out, workers)
        return _finish(listing, records, parameters, out)
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {_why(error)}",
            "mend that, or choose another folder; what is done is kept and the same command continues",
        ) from error


def run_prepare_command(raw: str, out: str, **arguments: Any) -> None:
    """``python -m bonaface prepare``: :func:`prepare`, then a summary of a few lines on stdout."""
    summary = prepare(raw, out, **arguments)
    dropped = ", ".join(f"{n} {reason}" for reason, n in summary.dropped.items()) or "none"
    print(f"{summary.written} of {summary.found} files are in {out} (faces: {summary.detector})")
    if summary.units:
        print(f"folders: {summary.units}")
    print(f"dropped: {dropped}" + (f"; see {Path(out) / 'dropped.csv'}" if summary.dropped else ""))
    for what, counts in (("no face found", summary.no_face), ("upscaled", summary.upscaled)):
        if counts:
            print(f"{what}: " + ", ".join(f"{n} {label}" for label, n in counts.items()))
    if summary.near_duplicate_groups:
        print(f"{summary.near_duplicate_groups} groups of near duplicates, which splits keep together")


# -- the folders -----------------------------------------------------------------------------------


def _refuse_overlap(raw: Path, out: Path) -> None:
    if not raw.is_dir():
        return
    first, second = raw.resolve(), out.resolve()
    if first == second:
        raise UsageError(f"{out} is the raw folder itself", "choose another folder: raw files are never changed")
    if first in second.parents or second in first.parents:
        raise UsageError(f"{out} and the raw folder {raw} lie in one another", "choose a folder beside the raw one")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _fingerprint(listing: Listing) -> str:
    """Changes with any path, label, source, split, group or file size."""
    digest = hashlib.sha256()
    for row in listing.rows:
        image = row["image"]
        try:
            size = len(image["bytes"]) if image["bytes"] is not None else Path(image["path"]).stat().st_size
        except OSError:
            size = -1
        facts = [row["path"], listing.labels[row["label"]], row["source"], row["split"], row["group"], size]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]


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
    if out.exists() and (not out.is_dir() or any(entry.name != WORK for entry in out.iterdir())):
        raise UsageError(f"{out} is not an empty folder", "choose another one: nothing is overwritten")
    (out / WORK).mkdir(parents=True, exist_ok=True)
    write_bytes(started, json.dumps(parameters).encode(), out / WORK)
    return None


def _check_complete(out: Path) -> None:
    with (out / "metadata.csv").open(encoding="utf-8", newline="") as file:
        lost = [row["file_name"] for row in csv.DictReader(file) if not (out / row["file_name"]).is_file()]
    if lost:
        raise UsageError(
            f"{len(lost)} files of the finished folder {out} are gone, {lost[0]} for one",
            "remove the folder; the same command makes it anew",
        )


# -- all files, in processes -----------------------------------------------------------------------


def _process_all(
    listing: Listing, alignment: Alignment, detector: FaceDetector | None, out: Path, workers: int | None
) -> dict[str, dict[str, Any]]:
    """A record for every path; what the journal already holds is not done again."""
    journal = out / WORK / "journal.jsonl"
    records = {r["path"]: r for r in _read_journal(journal) if "dropped" in r or (out / r["file_name"]).is_file()}
    todo = [i for i, path in enumerate(listing.rows["path"]) if path not in records]
    rows = listing.rows.select(todo)
    with (
        journal.open("a", encoding="ascii") as file,
        tqdm(desc="preparing", unit="file", initial=len(records), total=len(listing.rows), disable=None) as bar,
    ):
        file.write("\n")  # ends a line that a kill cut short
        for record in _in_processes(rows, listing.labels, alignment, detector, out, workers or os.cpu_count() or 1):
            file.write(json.dumps(record) + "\n")
            file.flush()
            records[record["path"]] = record
            bar.update()
    return records


def _read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines; the last one may be torn by a kill."""
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
    with cancelled_on_error(ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),))) as pool:
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


def _start_worker(parent: int) -> None:
    """End with the parent: one that is killed cannot stop its workers itself. Ctrl-C is for the parent alone.

    OpenCV's threads are left as they are: ``cv2.setNumThreads`` in a forked process hangs where the
    parent's were started.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


# -- the end: duplicates, tables -------------------------------------------------------------------


def _finish(
    listing: Listing, records: Mapping[str, dict[str, Any]], parameters: Mapping[str, Any], out: Path
) -> PrepareSummary:
    """Drop exact duplicates, group near ones, write the tables, and mark the folder as finished."""
    rows = listing.rows.remove_columns("image")
    facts = {row["path"]: {**row, "label": listing.labels[row["label"]]} for row in rows}
    dropped = {file.path: (file.reason, file.label, file.source) for file in listing.broken}
    for path, reason in _reasons_to_drop(facts, records).items():
        dropped[path] = (reason, facts[path]["label"], facts[path]["source"])
        (out / records[path].get("file_name", "-")).unlink(missing_ok=True)
    kept = [path for path in facts if path not in dropped]
    for label in listing.labels:
        if not any(facts[path]["label"] == label for path in kept):
            unusable = [BrokenFile(path, *why) for path, why in dropped.items() if why[1] == label]
            raise UsageError(
                f"no usable file labelled {label} in {listing.origin}: {left_out(unusable)}",
                "fix these files: they are broken, or the same file lies under two labels",
            )
    near = near_duplicate_groups(kept, np.stack([_thumbnail(records[path]) for path in kept]))
    groups = merge_groups([facts[path]["group"] for path in kept], [near.get(path, path) for path in kept])
    table = [_metadata_row(facts[p], records[p], group) for p, group in zip(kept, groups, strict=True)]
    lost = [
        {"original_path": path, "reason": reason, "label": label, "source": source}
        for path, (reason, label, source) in sorted(dropped.items())
    ]
    summary = PrepareSummary(
        found=len(facts) + len(listing.broken),
        written=len(kept),
        dropped=dict(sorted(Counter(row["reason"].split(":")[0] for row in lost).items())),
        no_face=_count(row["label"] for row in table if row["face"] == "none" and parameters["faces"]),
        upscaled=_count(row["label"] for row in table if row["crop_side"] < row["side"]),
        near_duplicate_groups=sum(n > 1 for n in Counter(near.get(path, path) for path in kept).values()),
        detector=str(parameters["detector"]),
        units=listing.units,
    )
    write_bytes(out / "dropped.csv", _csv(lost, ["original_path", "reason", "label", "source"]), out / WORK)
    write_bytes(out / "metadata.csv", _csv(table, list(table[0])), out / WORK)
    end = {"parameters": parameters, "summary": asdict(summary)}
    write_bytes(out / FINISHED, json.dumps(end, indent=2).encode(), out / WORK)
    shutil.rmtree(out / WORK)
    return summary


def _reasons_to_drop(facts: Mapping[str, dict[str, Any]], records: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    reasons = {path: record["dropped"] for path, record in records.items() if "dropped" in record}
    copies: dict[str, list[str]] = {}
    for path in facts:
        if path not in reasons:
            copies.setdefault(records[path]["sha256"], []).append(path)
    for paths in copies.values():
        if len({facts[path]["label"] for path in paths}) > 1:
            reasons |= {path: "same file under two labels: " + " = ".join(paths) for path in paths}
        else:
            reasons |= dict.fromkeys(paths[1:], f"duplicate: same file as {paths[0]}")
    return reasons


def _thumbnail(record: Mapping[str, Any]) -> Thumbnails:
    return np.frombuffer(base64.b64decode(record["thumbnail"]), np.uint8).reshape(SIDE, SIDE)


def _metadata_row(facts: Mapping[str, Any], record: Mapping[str, Any], group: str) -> dict[str, Any]:
    original = record["original"]
    return {
        "file_name": record["file_name"],
        "label": facts["label"],
        "source": facts["source"],
        **({"family": facts["family"]} if "family" in facts else {}),
        "group": group,
        "split": facts["split"],
        "original_path": facts["path"],
        "original_sha256": record["sha256"],
        **{f"original_{f.name}": original.get(f.name, "") for f in fields(ImageFacts)},
        **{key: record[key] for key in ("face", "face_score", "n_faces")},
        **{f"face_{key}": v for key, v in zip(("x0", "y0", "x1", "y1"), record["face_box"], strict=True)},
        **{key: record[key] for key in ("crop_side", "side", "quality")},
    }


def _count(labels: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(labels).items()))


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")


def prepared_folder(listing: Listing, size_range: tuple[int, int] = SIZE_RANGE) -> Path:
    """Where the aligned copy of a data set is kept: named after it, its fingerprint and an unusual size."""
    size = "" if size_range == SIZE_RANGE else f"-{size_range[0]}-{size_range[1]}"
    return Path("prepared") / f"{Path(listing.origin).name}-{_fingerprint(listing)}{size}"


def face_margin(folder: str | os.PathLike[str]) -> float | None:
    """The margin that :func:`prepare` left around the faces of a folder; None where it did not make or crop it."""
    if not is_prepared(folder):
        return None
    parameters = json.loads((Path(folder) / FINISHED).read_text())["parameters"]
    return parameters["margin"] if parameters["faces"] else None


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Whether :func:`prepare` made this folder."""
    return (Path(folder) / FINISHED).is_file()
