"""A job's results as downloads: CSV, JSON, one self-contained HTML page, and a labelled folder of corrections."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bonaface.files import write_json, write_text
from bonaface.inference.tables import RESEMBLES, nested_row, write_csv
from bonaface.models.drawings import MEANING
from bonaface.report.pages import Gallery, KeyFigure, Page, Section, Table, Thumbnail, page_html
from bonaface.web.jobs import Job, small_image
from bonaface.web.markup import WORDS, score

if TYPE_CHECKING:
    from bonaface.web.judge import Judge

ORDER = ("fake", "uncertain", "real", "error")


def write_exports(job: Job, judge: Judge) -> tuple[str, str, str]:
    """Write the three files into the job's folder; their paths: CSV, JSON, HTML."""
    folder = job.path / "results"
    folder.mkdir(exist_ok=True)
    table, data, page = (folder / f"bonaface-results.{kind}" for kind in ("csv", "json", "html"))
    labels = judge.detector.labels
    more = (RESEMBLES,) * (judge.detector.resembles is not None)
    write_csv(table, iter(job.rows), labels, more)
    rows = [nested_row(row, labels, more) for row in job.rows]
    model = judge.answer()
    about = {
        "name": model.name,
        "bonaface": model.version,
        "weights": model.weights,
        "labels": labels,
        "knows_only_drawings": model.knows_only_drawings,
        "band": model.band,
    }
    write_json(data, {"model": about, "files": rows}, indent=1)
    write_text(page, page_html(_page(job, judge)))
    return str(table), str(data), str(page)


def summary(job: Job) -> str:
    """How many files got which verdict, in words."""
    counts = job.counts()
    parts = [f"{counts[verdict]:,} {WORDS[verdict].lower()}" for verdict in ORDER if counts[verdict]]
    n = len(job.rows)
    return f"{n:,} {'file' if n == 1 else 'files'}: " + ", ".join(parts).replace("ai-generated", "AI-generated") + "."


def corrections_zip(job: Job, target: Path) -> Path:
    """The marked images as ``<label>/corrected/<number>_<name>``: a data set for the next training.

    Labels and names become plain file names. Raises OSError.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, label in sorted(job.marks.items()):
            entry = job.entries[index]
            if entry.path is not None:
                name = f"{file_name(label)}/corrected/{index:04d}_{file_name(Path(entry.name).name)}"
                archive.write(entry.path, name)
    return target


def file_name(text: str) -> str:
    """Untrusted text as the name of a file: letters, digits, ``. - _``, no leading dot, at most 80 long."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._")[-80:] or "unnamed"


def _page(job: Job, judge: Judge) -> Page:
    model = judge.answer()
    counts = job.counts()
    sections = []
    for verdict in ORDER:
        rows = [(i, row) for i, row in enumerate(job.rows) if row["verdict"] == verdict]
        if rows and verdict != "error":
            rows.sort(key=lambda item: -item[1]["p_fake"])
            items = [Thumbnail(small_image(job.entries[i].path), score(row["p_fake"]), row["path"]) for i, row in rows]
            sections.append(Section(verdict, f"{WORDS[verdict]} ({len(rows):,})", [Gallery(items)]))
    sections.append(Section("files", "All files", [Table(_frame(job.rows))]))
    return Page(
        title="Images checked with bonaface",
        subtitle=f"model {model.name}, weights {model.weights or 'unknown'}, bonaface {model.version}",
        conclusion=summary(job),
        caveats=[
            "No score proves that an image is real or fake. It says how much an image resembles the generated images "
            "that this model was trained on.",
            *([MEANING] if model.knows_only_drawings else []),
            *([model.conclusion] if model.conclusion else []),
        ],
        key_figures=[KeyFigure(WORDS[verdict], f"{counts[verdict]:,}", "", "files") for verdict in ORDER],
        lead=[_verdict_rule(model.band)],
        sections=sections,
    )


def _verdict_rule(band: Sequence[float] | None) -> str:
    if not band:
        return "The verdict is the model's most likely label: it has no uncertainty band."
    low, high = score(band[0]), score(band[1])
    return f"Scores run from 0 to 1: real up to {low}, AI-generated from {high}, uncertain in between."


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    columns = ("file", "verdict", "score", "faces", "remarks")
    cells = [
        (row["path"], WORDS[row["verdict"]], row["p_fake"], len(row["faces"]), row["error"] or row["warnings"])
        for row in rows
    ]
    return pd.DataFrame(cells, columns=list(columns)).astype({"score": "float64"})
