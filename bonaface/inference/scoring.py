"""Many files -> one table, a row for every input in input order, whatever happens on the way.

Finished rows go to a journal beside the table (``.NAME.journal``, JSON lines), a whole batch at a time. A run that was
killed continues behind the last whole batch, so its batches are those of an undisturbed run and its numbers are the
same to the last bit. Only when every input has its row is the table written, under a temporary name, and renamed.

Columns: ``path``, ``status`` ("ok" or the reason of the error), ``error``, ``verdict``, ``p_fake``, ``p_<label>`` for
every label, ``n_faces``, ``faces`` (JSON: box, p_fake and verdict of each), ``warnings`` (joined by "; ").

File names are untrusted. In CSV a text that a spreadsheet would run as a formula (it starts with ``= + - @``, a tab or
a carriage return) is preceded by an apostrophe; JSON lines and Parquet hold it as it is. Bytes of a name that are not
UTF-8 are written as ``\\xNN``.
"""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.imaging.inputs import as_utf8, find_inputs, printable
from bonaface.inference.cluster import RayDetector
from bonaface.inference.detector import Detector, Result
from bonaface.stats.metrics import probability_columns

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs on one table are not kept apart there
    fcntl = None  # type: ignore[assignment]

TABLE_ROWS = 10_000  # rows of a Parquet row group, and the most that are held at once
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
ENGINES = ("local", "torch", "openvino", "onnx", "ray")

Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """What a run did: counts of files by verdict ("real", "fake", "uncertain", "error")."""

    verdicts: Counter[str]
    continued_from: int = 0
    first_error: str = ""  # of a table, which shows no lines: the file and why it was not scored

    def __str__(self) -> str:
        n = sum(self.verdicts.values())
        parts = ", ".join(f"{self.verdicts[name]:,} {name}" for name in ("real", "fake", "uncertain"))
        why = f" (the first: {printable(self.first_error)})" if self.first_error else ""
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
) -> Summary:
    """Score files into a table; the same call continues a run that was killed.

    Args:
        paths: files, read lazily and once; a million of them need no more memory than a thousand.
        out: ``.csv``, ``.jsonl`` or ``.parquet``; see the module's docstring for the columns.
        faces: see :mod:`bonaface.inference.pictures`.
        batch_size: pictures that the model is given at once; the engine's own when None.
        model: what the model was called, so that a killed run is not continued with another one.
        progress: a bar with rate and time left; None shows it on a terminal only.

    Raises:
        UsageError: an unknown suffix, a table that is there already, no input, a killed run with other inputs or
            options, or another process at work on the same table.
    """
    out = Path(out)
    write_table = _writer(out)
    journal = out.with_name(f".{out.name}.journal")
    if out.exists() and not journal.exists():
        raise UsageError(f"{out} is there already", "choose another name, or delete it")
    batch_size = batch_size or detector.engine.batch_size
    options = {"model": model, "labels": detector.labels, "faces": faces, "batch_size": batch_size}
    with ExitStack() as stack:
        inputs = stack.enter_context(_Inputs(paths))
        out.parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(_Journal(journal, {**options, "engine": detector.engine.name}))
        done = log.resume(inputs, batch_size)
        bar = stack.enter_context(
            tqdm(
                total=inputs.n,
                initial=done,
                unit="file",
                desc="scoring",
                disable=None if progress is None else not progress,
            )
        )
        results = detector.stream(inputs.read(done), faces=faces, batch_size=batch_size)
        rows = (row_of(path, result) for path, result in zip(inputs.read(done), results, strict=True))
        while batch := list(islice(rows, batch_size)):
            log.append(batch)
            bar.update(len(batch))
        verdicts, first_error = Counter[str](), ""
        for row in log.rows():
            verdicts[row["verdict"]] += 1
            first_error = first_error or row["error"] or ""
        write_table(out, log.rows, detector.labels)
    journal.unlink()
    return Summary(verdicts, done, first_error)


def row_of(path: str, result: Result) -> Row:
    """One row of the table; floats as the detector gave them, None where there is no score."""
    faces = [{"box": [round(v, 1) for v in f.box], "p_fake": f.p_fake, "verdict": f.verdict} for f in result.faces]
    return {
        "path": path,
        "status": result.status,
        "error": result.error,
        "verdict": result.verdict,
        "p_fake": None if math.isnan(result.p_fake) else result.p_fake,
        "scores": list(result.labels.values()),
        "faces": faces,
        "warnings": "; ".join(result.warnings),
    }


def print_table(paths: Iterable[str], detector: Detector | RayDetector, *, faces: bool | None = None) -> Summary:
    """Score files and print a line for each, as soon as it is known."""
    verdicts: Counter[str] = Counter()
    with _Inputs(paths) as inputs:
        print(f"{'verdict':<10} {'p(fake)':>8}  file")
        for path, result in zip(inputs.read(), detector.stream(inputs.read(), faces=faces), strict=True):
            verdicts[result.verdict] += 1
            score = "" if result.error else f"{result.p_fake:.4f}"
            notes = printable(result.error or "; ".join(result.warnings))
            print(f"{result.verdict:<10} {score:>8}  {printable(path)}" + f"  ({notes})" * bool(notes))
            for face in result.faces if len(result.faces) > 1 else ():
                box = ", ".join(f"{v:.0f}" for v in face.box)
                print(f"  {face.verdict:<8} {face.p_fake:>8.4f}  face at {box}")
    return Summary(verdicts)


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
) -> int:
    """``python -m bonaface predict``: 0, or 1 where not one file could be scored. ``engine`` is the detector's, where
    "local" is its "auto", or "ray": its "auto" on a cluster. Raises UsageError."""
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", "choose " + ", ".join(ENGINES))
    if out is not None:
        _writer(Path(out))  # a wrong suffix is said before the model is loaded
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
        summary = print_table(inputs, detector, faces=faces)
    else:
        summary = score_files(inputs, detector, out, faces=faces, batch_size=batch_size, model=model)
        if isinstance(detector, RayDetector) and detector.lost:
            print(f"{detector.lost} workers were lost; others have scored their files")
        if summary.continued_from:
            print(f"continued behind {summary.continued_from:,} files that were scored before")
    print(summary if out is None else f"{summary}; table: {out}")
    return 0 if set(summary.verdicts) - {"error"} else 1


class _Inputs:
    """The list of inputs in a temporary file: counted before the first is scored, and read twice, in little memory."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = paths

    def __enter__(self) -> _Inputs:
        self._folder = tempfile.TemporaryDirectory(prefix="bonaface-")
        self._file = Path(self._folder.name) / "inputs"
        self.n = 0
        with self._file.open("w", encoding="ascii") as file:
            for path in self._paths:
                file.write(json.dumps(os.fspath(path)) + "\n")
                self.n += 1
        if not self.n:
            self._folder.cleanup()
            raise UsageError("there is no image to score", "name files, folders with images, patterns, or - for stdin")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def read(self, start: int = 0) -> Iterator[str]:
        """The paths from number ``start`` on."""
        with self._file.open(encoding="ascii") as file:
            yield from (json.loads(line) for line in islice(file, start, None))


class _Journal:
    """Rows as JSON lines behind one line with the run's options; held by one process at a time."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path, self.options = path, json.loads(json.dumps(options))
        path.touch()
        self._file: IO[bytes] = path.open("r+b")

    def __enter__(self) -> _Journal:
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._file.close()
                raise UsageError(f"another process is at work on {self.path}", "wait for it, or stop it") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def resume(self, inputs: _Inputs, batch_size: int) -> int:
        """Cut the journal behind its last whole batch, and say how many inputs have their row."""
        head = self._file.readline()
        if not head.endswith(b"\n"):  # new, or killed while the first line was written
            return self._begin()
        options = json.loads(head)
        if options != self.options and not self._holds(options["batch_size"]):
            return self._begin()
        self._check(options == self.options, "other options (model, engine, faces, batch size)")
        self._file.seek(len(head))
        whole, end, paths = 0, self._file.tell(), inputs.read()
        for n, line in enumerate(iter(self._file.readline, b""), 1):
            if not line.endswith(b"\n"):
                break
            self._check(json.loads(line)["path"] == next(paths, None), "other inputs")
            if n % batch_size == 0 or n == inputs.n:
                whole, end = n, self._file.tell()
        self._file.truncate(end)
        return whole

    def _begin(self) -> int:
        self._file.seek(0)
        self._file.truncate()
        self._append([json.dumps(self.options)])
        return 0

    def _holds(self, n: int) -> bool:
        """Whether at least `n` whole rows follow."""
        return sum(line.endswith(b"\n") for line in islice(self._file, n)) == n

    def append(self, rows: Sequence[Row]) -> None:
        """Add a batch; it has left the process when this returns."""
        self._append([json.dumps(row) for row in rows])

    def rows(self) -> Iterator[Row]:
        """All rows, in order."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def _append(self, lines: Sequence[str]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write("".join(line + "\n" for line in lines).encode("ascii"))
        self._file.flush()

    def _check(self, same: bool, what: str) -> None:
        if not same:
            raise UsageError(
                f"{self.path} is left from a run with {what}",
                "repeat that command, delete the file, or choose another --out",
            )


RowSource = Callable[[], Iterator[Row]]


def _writer(out: Path) -> Callable[[Path, RowSource, Sequence[str]], None]:
    """The function that writes a table with this suffix."""
    writers = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if out.suffix.lower() not in writers:
        raise UsageError(f"cannot write a table to {out}", "end its name with .csv, .jsonl or .parquet")
    write = writers[out.suffix.lower()]

    def write_whole(path: Path, rows: RowSource, labels: Sequence[str]) -> None:
        with atomic_path(path) as partial:
            write(partial, rows(), labels)

    return write_whole


def _columns(labels: Sequence[str]) -> list[str]:
    scores = [name for name in probability_columns(labels) if name != "p_fake"]
    return ["path", "status", "error", "verdict", "p_fake", *scores, "n_faces", "faces", "warnings"]


def _flat(row: Row, labels: Sequence[str]) -> dict[str, Any]:
    """A row with a column a label, names as UTF-8 and faces as JSON."""
    scores = row["scores"] or [None] * len(labels)
    return {
        "path": as_utf8(row["path"]),
        "status": row["status"],
        "error": as_utf8(row["error"] or ""),
        "verdict": row["verdict"],
        "p_fake": row["p_fake"],
        **{name: score for name, score in zip(probability_columns(labels), scores, strict=True) if name != "p_fake"},
        "n_faces": len(row["faces"]),
        "faces": json.dumps(row["faces"]) if row["faces"] else "",
        "warnings": row["warnings"],
    }


def _write_csv(path: Path, rows: Iterator[Row], labels: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _columns(labels))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _safe_cell(value) for name, value in _flat(row, labels).items()})


def _write_jsonl(path: Path, rows: Iterator[Row], labels: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**_flat(row, labels), "faces": row["faces"]}) + "\n")


def _write_parquet(path: Path, rows: Iterator[Row], labels: Sequence[str]) -> None:
    kinds = {"n_faces": pa.int32(), **{name: pa.float64() for name in _columns(labels) if name.startswith("p_")}}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in _columns(labels)])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := [_flat(row, labels) for row in islice(rows, TABLE_ROWS)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _safe_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
