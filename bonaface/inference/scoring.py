"""Many files -> one table, one row per input in input order, even for files that cannot be read.

Finished rows go to a journal beside the table (``.NAME.journal``, JSON lines), a whole batch at a time. A run that was
killed resumes after the last whole batch, so its batches are those of an uninterrupted run and its numbers are the
same to the last bit. Only when every input has its row is the table written, under a temporary name, and renamed.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm.auto import tqdm

from bonaface.errors import UsageError
from bonaface.imaging.images import shown_name
from bonaface.imaging.inputs import find_inputs, printable
from bonaface.inference.cluster import RayDetector
from bonaface.inference.detector import Detector, Result
from bonaface.inference.journal import Inputs, Journal
from bonaface.inference.tables import Row, row_of, table_writer

ENGINES = ("local", "torch", "openvino", "onnx", "ray")
Each = Callable[[Detector, str, Result], None]  # is called with every path and its result


@dataclass(frozen=True)
class Summary:
    """What a run did: counts of files by verdict ("real", "fake", "uncertain", "error")."""

    verdicts: Counter[str]
    continued_from: int = 0
    first_error: str = ""  # of a table, which shows no lines: the file and why it was not scored

    def __str__(self) -> str:
        n = sum(self.verdicts.values())
        parts = ", ".join(f"{self.verdicts[name]:,} {name}" for name in ("real", "fake", "uncertain"))
        why = f" (first: {printable(self.first_error)})" if self.first_error else ""
        return f"{n:,} files: {parts}, {self.verdicts['error']:,} not readable{why}"


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
) -> Summary:
    """Score files into a table; the same call resumes a run that was killed.

    Args:
        paths: files, read lazily and once; a million of them need no more memory than a thousand.
        out: ``.csv``, ``.jsonl`` or ``.parquet``; see :mod:`bonaface.inference.tables` for the columns.
        faces: see :mod:`bonaface.inference.reader`.
        batch_size: images that the model is given at once; the engine's own when None.
        model: the model's name, so that a killed run is not resumed with another one.
        progress: a bar with rate and time left; None shows it on a terminal only.
        each: called before a result's row is written; not for rows of the run that is resumed.

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
    with ExitStack() as stack:
        inputs = stack.enter_context(Inputs(paths))
        out.parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(Journal(journal, {**options, "engine": detector.engine.name}))
        done = log.resume(inputs, batch_size)
        hidden = None if progress is None else not progress
        bar = stack.enter_context(tqdm(total=inputs.n, initial=done, unit="file", desc="scoring", disable=hidden))
        results = detector.stream(inputs.read(done), faces=faces, batch_size=batch_size)
        rows = (row_of(path, result) for path, result in _told(inputs.read(done), results, detector, each))
        while batch := list(islice(rows, batch_size)):
            log.append(batch)
            bar.update(len(batch))
        summary = _summary(log.rows(), done)
        write_table(out, log.rows, detector.labels)
    journal.unlink()
    return summary


def _summary(rows: Iterable[Row], continued_from: int) -> Summary:
    verdicts, first_error = Counter[str](), ""
    for row in rows:
        verdicts[row["verdict"]] += 1
        first_error = first_error or row["error"] or ""
    return Summary(verdicts, continued_from, first_error)


def print_table(
    paths: Iterable[str], detector: Detector | RayDetector, *, faces: bool | None = None, each: Each | None = None
) -> Summary:
    """Score files and print a line for each, as soon as it is known."""
    verdicts: Counter[str] = Counter()
    with Inputs(paths) as inputs:
        print(f"{'verdict':<10} {'p(fake)':>8}  file")
        results = detector.stream(inputs.read(), faces=faces)
        for path, result in _told(inputs.read(), results, detector, each):
            verdicts[result.verdict] += 1
            score = "" if result.error else f"{result.p_fake:.4f}"
            notes = printable(result.error or "; ".join(result.warnings))
            name = printable(shown_name(path) if result.error else path)
            print(f"{result.verdict:<10} {score:>8}  {name}" + f"  ({notes})" * bool(notes))
            for face in result.faces if len(result.faces) > 1 else ():
                box = ", ".join(f"{v:.0f}" for v in face.box)
                print(f"  {face.verdict:<8} {face.p_fake:>8.4f}  face at {box}")
    return Summary(verdicts)


def _told(
    paths: Iterable[str], results: Iterable[Result], detector: Detector | RayDetector, each: Each | None
) -> Iterator[tuple[str, Result]]:
    for path, result in zip(paths, results, strict=True):
        if each is not None and isinstance(detector, Detector):
            each(detector, path, result)
        yield path, result


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
    inputs = find_inputs(paths)
    if out is None:
        summary = print_table(inputs, detector, faces=faces, each=each)
    else:
        summary = score_files(inputs, detector, out, faces=faces, batch_size=batch_size, model=model, each=each)
        if isinstance(detector, RayDetector) and detector.lost:
            print(f"{detector.lost} workers were lost; others scored their files")
        if summary.continued_from:
            print(f"resumed after {summary.continued_from:,} files that were already scored")
    print(summary if out is None else f"{summary}; table: {out}")
    return 0 if set(summary.verdicts) - {"error"} else 1
