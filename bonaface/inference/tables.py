r"""Results -> rows of a table, and the table as CSV, JSON lines or Parquet.

Columns: ``path``, ``status`` ("ok" or the reason of the error), ``error``, ``verdict``, ``p_fake``, ``p_<label>`` for
every label, ``n_faces``, ``faces`` (JSON: box, p_fake and verdict of each), ``warnings`` (joined by "; "). A table
with clips also has ``CLIP_COLUMNS``, one row per person, and in ``faces`` the frames that show the person, with times.

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
from bonaface.stats.predictions import probability_columns

TABLE_ROWS = 10_000  # rows of a Parquet row group, and the most that are held at once
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# A person's number, seconds first and last seen, frames seen in, and the share of these with a verdict of their own.
CLIP_COLUMNS = ("person", "start", "end", "frames", "outside_band")

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
    }


def table_writer(out: Path) -> Callable[[Path, RowSource, Sequence[str], bool], None]:
    """The function that writes a table with this suffix, with the columns of clips or without them."""
    writers = {".csv": write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if out.suffix.lower() not in writers:
        raise UsageError(f"cannot write a table to {out}", "name a file that ends in .csv, .jsonl or .parquet")
    write = writers[out.suffix.lower()]

    def write_whole(path: Path, rows: RowSource, labels: Sequence[str], clips: bool) -> None:
        with atomic_path(path) as partial:
            write(partial, rows(), labels, clips)

    return write_whole


def columns(labels: Sequence[str], clips: bool = False) -> list[str]:
    """The table's columns, in order."""
    scores = [name for name in probability_columns(labels) if name != "p_fake"]
    names = ["path", "status", "error", "verdict", "p_fake", *scores, "n_faces", "faces", "warnings"]
    return [*names, *CLIP_COLUMNS] if clips else names


def flat_row(row: Row, labels: Sequence[str], clips: bool = False) -> dict[str, Any]:
    """A row with one column per label, names as UTF-8 and faces as JSON."""
    scores = row["scores"] or [None] * len(labels)
    flat = {
        "path": as_utf8(row["path"]),
        "status": row["status"],
        "error": as_utf8(row["error"] or ""),
        "verdict": row["verdict"],
        "p_fake": row["p_fake"],
        **{name: score for name, score in zip(probability_columns(labels), scores, strict=True) if name != "p_fake"},
        "n_faces": row.get("n_faces", len(row["faces"])),
        "faces": json.dumps(row["faces"]) if row["faces"] else "",
        "warnings": row["warnings"],
    }
    return flat | {name: row.get(name) for name in CLIP_COLUMNS} if clips else flat


def write_csv(path: Path, rows: Iterator[Row], labels: Sequence[str], clips: bool = False) -> None:
    """The table as CSV, in which no spreadsheet finds a formula to run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns(labels, clips))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _safe_cell(value) for name, value in flat_row(row, labels, clips).items()})


def _write_jsonl(path: Path, rows: Iterator[Row], labels: Sequence[str], clips: bool) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**flat_row(row, labels, clips), "faces": row["faces"]}) + "\n")


def _write_parquet(path: Path, rows: Iterator[Row], labels: Sequence[str], clips: bool) -> None:
    names = columns(labels, clips)
    kinds = {name: pa.float64() for name in names if name.startswith("p_") or name in ("start", "end", "outside_band")}
    kinds |= dict.fromkeys(("n_faces", "person", "frames"), pa.int32())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := [flat_row(row, labels, clips) for row in islice(rows, TABLE_ROWS)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _safe_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
