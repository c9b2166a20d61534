r"""Results -> rows of a table, and the table as CSV, JSON lines or Parquet.

Columns: ``path``, ``status`` ("ok" or the reason of the error), ``error``, ``verdict``, ``p_fake``, ``p_<label>`` for
every label, ``n_faces``, ``faces`` (JSON: box, p_fake and verdict of each), ``warnings`` (joined by "; "). A table
of a model that can tell has ``RESEMBLES``: for fakes the known sources that each is most like (joined by "; ", in JSON
lines a list), or "none of them". A table with clips also has ``CLIP_COLUMNS``, one row per person, and in ``faces`` the
frames that show the person, with times.

File names are untrusted. In CSV a text that a spreadsheet would run as a formula (it starts with ``= + - @``, a tab or
a carriage return) is preceded by an apostrophe; JSON lines and Parquet hold it as it is. Bytes of a name that are not
UTF-8 are written as ``\xNN``.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.imaging.inputs import as_utf8
from bonaface.inference.detector import Result
from bonaface.stats.probabilities import probability_columns

TABLE_ROWS = 10_000  # rows of a Parquet row group, and the most that are held at once
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# A person's number, seconds first and last seen, frames seen in, and the share of these with a verdict of their own.
CLIP_COLUMNS = ("person", "start", "end", "frames", "outside_band")

RESEMBLES = "resembles"

Row = dict[str, Any]
RowSource = Callable[[], Iterator[Row]]


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
        **({} if result.resembles is None else {RESEMBLES: list(result.resembles)}),
    }


def table_writer(out: Path) -> Callable[[Path, RowSource, Sequence[str], Sequence[str]], None]:
    """The function that writes a table with this suffix, these labels and further columns."""
    writers = {".csv": write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if out.suffix.lower() not in writers:
        raise UsageError(f"cannot write a table to {out}", "name a file that ends in .csv, .jsonl or .parquet")
    write = writers[out.suffix.lower()]

    def write_whole(path: Path, rows: RowSource, labels: Sequence[str], more: Sequence[str]) -> None:
        with atomic_path(path) as partial:
            write(partial, rows(), labels, more)

    return write_whole


def columns(labels: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """The table's columns, in order; ``more`` are of RESEMBLES and CLIP_COLUMNS, here and below."""
    scores = [name for name in probability_columns(labels) if name != "p_fake"]
    return ["path", "status", "error", "verdict", "p_fake", *scores, "n_faces", "faces", "warnings", *more]


def flat_row(row: Row, labels: Sequence[str], more: Sequence[str] = ()) -> dict[str, Any]:
    """A row with one column per label, names as UTF-8 and faces as JSON."""
    scores = row["scores"] or [None] * len(labels)
    like = "; ".join(row[RESEMBLES]) or "none of them" if RESEMBLES in row else None
    return {
        "path": as_utf8(row["path"]),
        "status": row["status"],
        "error": as_utf8(row["error"] or ""),
        "verdict": row["verdict"],
        "p_fake": row["p_fake"],
        **{name: score for name, score in zip(probability_columns(labels), scores, strict=True) if name != "p_fake"},
        "n_faces": row.get("n_faces", len(row["faces"])),
        "faces": json.dumps(row["faces"]) if row["faces"] else "",
        "warnings": row["warnings"],
        **{name: like if name == RESEMBLES else row.get(name) for name in more},
    }


def nested_row(row: Row, labels: Sequence[str], more: Sequence[str] = ()) -> dict[str, Any]:
    """The same, but for JSON: faces and sources are lists."""
    return flat_row(row, labels, more) | {name: row[name] for name in ("faces", *more) if name in row}


def write_csv(path: Path, rows: Iterator[Row], labels: Sequence[str], more: Sequence[str] = ()) -> None:
    """The table as CSV, in which no spreadsheet finds a formula to run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns(labels, more))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _safe_cell(value) for name, value in flat_row(row, labels, more).items()})


def _write_jsonl(path: Path, rows: Iterator[Row], labels: Sequence[str], more: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(nested_row(row, labels, more)) + "\n")


def _write_parquet(path: Path, rows: Iterator[Row], labels: Sequence[str], more: Sequence[str]) -> None:
    names = columns(labels, more)
    kinds = {name: pa.float64() for name in names if name.startswith("p_") or name in ("start", "end", "outside_band")}
    kinds |= dict.fromkeys(("n_faces", "person", "frames"), pa.int32())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := [flat_row(row, labels, more) for row in islice(rows, TABLE_ROWS)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _safe_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
