"""Many files -> one table, one row per image in input order, even for files that cannot be read.

A clip has one row per person, where the caller passes what judges clips.

Finished rows go to a journal beside the table (``.NAME.journal``, JSON lines), a whole batch at a time. A run that was
killed resumes after the last whole batch, so its batches are those of an uninterrupted run and its numbers are the
same to the last bit. Only when every input has its row is the table written, under a temporary name, and renamed.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from bonaface.errors import UsageError
from bonaface.imaging.images import is_image_name, shown_name
from bonaface.imaging.inputs import find_inputs, printable
from bonaface.inference.cluster import RayDetector
from bonaface.inference.detector import Detector, Result
from bonaface.inference.journal import Inputs, Journal
from bonaface.inference.resembles import in_words
from bonaface.inference.tables import CLIP_COLUMNS, RESEMBLES, Row, row_of, table_writer

ENGINES = ("local", "torch", "openvino", "onnx", "ray")
Each = Callable[[Detector, str, Result], None]  # is called with every path and its result


class Clips(Protocol):
    """What judges clips among images, see :class:`bonaface.video.rows.ClipScorer`; ``options`` decide the rows."""

    options: dict[str, Any]

    def is_clip(self, path: str) -> bool:
        """Whether a file is a clip."""
        ...

    def is_wanted(self, name: str) -> bool:
        """Whether a file of this name in a folder is an image or a clip."""
        ...

    def rows(self, path: str, detector: Detector, faces: bool | None) -> list[Row]:
        """A row for each person, or one with an error."""
        ...


@dataclass(frozen=True)
class Summary:
    """What a run did: counts of files by verdict ("real", "fake", "uncertain", "error").

    A clip counts by the person with the highest score; ``persons`` are those of all clips.
    """

    verdicts: Counter[str]
    continued_from: int = 0
    first_error: str = ""  # of a table, which shows no lines: the file and why it was not scored
    persons: int = 0

    def __str__(self) -> str:
        n = sum(self.verdicts.values())
        parts = ", ".join(f"{self.verdicts[name]:,} {name}" for name in ("real", "fake", "uncertain"))
        why = f" (first: {printable(self.first_error)})" if self.first_error else ""
        clips = f"; {self.persons:,} {'person' if self.persons == 1 else 'persons'} in clips" * (self.persons > 0)
        return f"{n:,} {'file' if n == 1 else 'files'}: {parts}, {self.verdicts['error']:,} not readable{why}{clips}"


def score_files(
    paths: Iterable[str],
    detector: Detector | RayDetector,
    out: str | os.PathLike[str],
    *,
    faces: bool | None = None,
    batch_size: int | None = None,
    model: str = "",
    progress: bool | None = None,
    each: Each | None = None,
    clips: Clips | None = None,
) -> Summary:
    """Score files into a table; the same call resumes a run that was killed.

    Args:
        paths: files, read lazily and once; a million of them need no more memory than a thousand.
        out: ``.csv``, ``.jsonl`` or ``.parquet``; see :mod:`bonaface.inference.tables` for the columns.
        faces: see :mod:`bonaface.inference.reader`.
        batch_size: images that the model is given at once; the engine's own when None.
        model: the model's name, so that a killed run is not resumed with another one.
        progress: a bar with rate and time left; None shows it on a terminal only.
        each: called before an image's row is written; not for rows of the run that is resumed.
        clips: judges clips; without it, an animation is its first frame, and a video no image.

    Raises:
        UsageError: an unknown suffix, a table that already exists, no input, a killed run with other inputs or
            options, or another process that writes the same table.
    """
    out = Path(out)
    write_table = table_writer(out)
    journal = out.with_name(f".{out.name}.journal")
    if out.exists() and not journal.exists():
        raise UsageError(f"{out} already exists", "choose another name, or delete it")
    batch_size = batch_size or detector.engine.batch_size
    options = {"model": model, "labels": detector.labels, "faces": faces, "batch_size": batch_size}
    options |= clips.options if clips else {}
    with ExitStack() as stack:
        inputs = stack.enter_context(Inputs(paths))
        out.parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(Journal(journal, {**options, "engine": detector.engine.name}))
        done = log.resume(inputs, batch_size)
        hidden = None if progress is None else not progress
        bar = stack.enter_context(tqdm(total=inputs.n, initial=done, unit="file", desc="scoring", disable=hidden))
        records = _records(inputs, done, detector, each, clips, faces, batch_size)
        while batch := list(islice(records, batch_size)):
            log.append(batch)
            bar.update(len(batch))
        summary = _summary(log.records(), done)
        more = (RESEMBLES,) * (detector.resembles is not None) + CLIP_COLUMNS * (summary.persons > 0)
        write_table(out, log.rows, detector.labels, more)
    journal.unlink()
    return summary


def _summary(records: Iterable[Row], continued_from: int = 0) -> Summary:
    verdicts, first_error, persons = Counter[str](), "", 0
    for record in records:
        rows = record.get("rows", [record])
        persons += sum("person" in row for row in rows)
        row = max(rows, key=lambda row: row["p_fake"] or 0.0)
        verdicts[row["verdict"]] += 1
        first_error = first_error or row["error"] or ""
    return Summary(verdicts, continued_from, first_error, persons)


def print_table(
    paths: Iterable[str],
    detector: Detector | RayDetector,
    *,
    faces: bool | None = None,
    each: Each | None = None,
    clips: Clips | None = None,
) -> Summary:
    """Score files and print a line for each, as soon as it is known."""

    def printed(records: Iterable[Row]) -> Iterator[Row]:
        for record in records:
            for row in record.get("rows", [record]):
                _print_row(row)
            yield record

    with Inputs(paths) as inputs:
        print(f"{'verdict':<10} {'p(fake)':>8}  file")
        summary = _summary(printed(_records(inputs, 0, detector, each, clips, faces)))
    return replace(summary, first_error="")  # it has been printed


def _print_row(row: Row) -> None:
    score = "" if row["error"] else f"{row['p_fake']:.4f}"
    notes = [row["error"] or row["warnings"], in_words(row[RESEMBLES]) if RESEMBLES in row else ""]
    if "person" in row:
        span = f"{row['start']:.1f} to {row['end']:.1f} s"
        notes.insert(
            0, f"person {row['person']}, {span}, {row['frames']} frames, {row['outside_band']:.0%} with a verdict"
        )
    said = printable("; ".join(filter(None, notes)))
    name = printable(shown_name(row["path"]) if row["error"] else row["path"])
    print(f"{row['verdict']:<10} {score:>8}  {name}" + f"  ({said})" * bool(said))
    for face in row["faces"] if len(row["faces"]) > 1 and "person" not in row else ():
        box = ", ".join(f"{v:.0f}" for v in face["box"])
        print(f"  {face['verdict']:<8} {face['p_fake']:>8.4f}  face at {box}")


def _records(
    inputs: Inputs,
    done: int,
    detector: Detector | RayDetector,
    each: Each | None,
    clips: Clips | None,
    faces: bool | None,
    batch_size: int | None = None,
) -> Iterator[Row]:
    """The records of the inputs behind the first ``done``.

    A clip's place among the images stays empty, so that these are cut into the same batches wherever a run is resumed.
    """
    are_clips: deque[bool] = deque()

    def images() -> Iterator[Any]:
        for path in inputs.read(done):
            are_clips.append(clips is not None and clips.is_clip(path))
            yield None if are_clips[-1] else path

    results = detector.stream(images(), faces=faces, batch_size=batch_size)
    for path, result in zip(inputs.read(done), results, strict=True):
        if not are_clips.popleft():
            if each is not None and isinstance(detector, Detector):
                each(detector, path, result)
            yield row_of(path, result)
        elif clips is not None and isinstance(detector, Detector):
            yield {"path": path, "rows": clips.rows(path, detector, faces)}
        else:
            refusal = replace(result, status="unsupported", error="clips are judged on one machine: no --engine ray")
            yield row_of(path, refusal)


def run_predict_command(
    paths: Sequence[str],
    model: str,
    out: str | None = None,
    *,
    faces: bool | None = None,
    engine: str = "local",
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    real_label: str | None = None,
    yunet: str | os.PathLike[str] | None = None,
    each: Each | None = None,
    clips: Clips | None = None,
) -> int:
    """``python -m bonaface predict``: 0, or 1 where not one file could be scored.

    ``engine`` is the detector's, where "local" is its "auto", or "ray": its "auto" on a cluster. Raises UsageError.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", "choose " + ", ".join(ENGINES))
    if engine == "ray" and each is not None:
        raise UsageError("--evidence needs the model on this machine", "leave out --engine ray")
    if out is not None:
        table_writer(Path(out))  # a wrong suffix is said before the model is loaded
    warnings.filterwarnings("ignore", module="PIL")  # of broken metadata and sizes: the file's row says what matters
    make = RayDetector if engine == "ray" else Detector.from_pretrained
    detector = make(
        model,
        device=device,
        engine="auto" if engine in ("local", "ray") else engine,
        dtype=dtype,
        real_label=real_label,
        yunet=yunet,
    )
    inputs = find_inputs(paths, wanted=clips.is_wanted if clips else is_image_name)
    if out is None:
        summary = print_table(inputs, detector, faces=faces, each=each, clips=clips)
    else:
        summary = score_files(
            inputs, detector, out, faces=faces, batch_size=batch_size, model=model, each=each, clips=clips
        )
        if isinstance(detector, RayDetector) and detector.lost:
            print(f"{detector.lost} workers were lost; others scored their files")
        if summary.continued_from:
            print(f"resumed after {summary.continued_from:,} files that were already scored")
    print(summary if out is None else f"{summary}; table: {out}")
    return 0 if set(summary.verdicts) - {"error"} else 1
