"""Images that somebody reported as wrongly judged, before and after a change of the model.

A folder of reports has the images and, best, a ``metadata.csv`` (or ``.tsv``) with ``file_name``, ``label`` (the truth)
and, where known, ``note`` and ``score``, the score that was reported. Without a table, folders named real and fake tell
the truth, as in the corrections that the app gives for download.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bonaface.data.dialects import read_table
from bonaface.data.labels import said_by
from bonaface.data.metadata import COLUMNS
from bonaface.errors import UsageError
from bonaface.evaluation.data import load_detector
from bonaface.evaluation.options import EvaluationOptions
from bonaface.imaging.inputs import find_inputs, printable
from bonaface.inference.detector import Result

TABLES = ("metadata.csv", "metadata.tsv")
STATES = ("right", "undecided", "wrong", "unreadable")


@dataclass(frozen=True)
class Reported:
    """One reported image: ``truth`` is "real" or "fake", ``note`` untrusted text, ``score`` NaN where none was kept."""

    path: Path
    truth: str
    note: str = ""
    score: float = math.nan


@dataclass(frozen=True)
class Receipt:
    """A reported image with what two models say of it."""

    reported: Reported
    before: Result
    after: Result

    @property
    def states(self) -> tuple[str, str]:
        """Before and after, each one of ``STATES``."""
        first, second = (_state(result, self.reported.truth) for result in (self.before, self.after))
        return first, second

    @property
    def regressed(self) -> bool:
        """Right before, wrong now."""
        return self.states == ("right", "wrong")

    def __str__(self) -> str:
        before, after = self.states
        change = f"{after} as before" if before == after else f"{after} now, {before} before"
        scores = " -> ".join(_scored(result) for result in (self.before, self.after))
        old = "" if math.isnan(self.reported.score) else f", {self.reported.score:.2f} when it was reported"
        note = f" ({printable(self.reported.note)})" if self.reported.note else ""
        name = printable(str(self.reported.path))
        return f"{name}: {self.reported.truth}; {change}; {scores}{old}{note}"


def read_reports(folder: Path) -> list[Reported]:
    """The reports in a folder, in the order of its table, else by path.

    Raises:
        UsageError: no such folder, no image, an image that the table leaves out or names without a file, a truth that
            is neither real nor fake, or a score that is no number in [0, 1].
    """
    images = [Path(path) for path in find_inputs([folder])] if folder.is_dir() else []
    if not images:
        raise UsageError(f"no images found in {folder}", "give the folder of the images that were reported")
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        return [Reported(image, _truth_by_folder(image, folder)) for image in images]
    reports = list(_read_rows(table, {image.resolve() for image in images}))
    if missing := {image.resolve() for image in images} - {report.path.resolve() for report in reports}:
        names = printable(str(min(missing).relative_to(folder.resolve())))
        raise UsageError(f"{table} leaves out {len(missing):,} images, the first: {names}", "give each a row")
    return reports


def run_regressions_command(folder: str, before: str, after: str, options: EvaluationOptions) -> int:
    """``bonaface evaluate --regressions``: a line for each reported image, and a count.

    Returns:
        3 where an image that was right is wrong now, else 1 where not one could be read, else 0.

    Raises:
        UsageError: as :func:`read_reports` and :func:`bonaface.evaluation.data.load_detector`.
    """
    reports = read_reports(Path(folder))
    paths = [report.path for report in reports]
    first, second = (list(load_detector(name, options)[0].stream(paths)) for name in (before, after))
    receipts = [Receipt(*row) for row in zip(reports, first, second, strict=True)]
    for receipt in receipts:
        print(receipt)
    print(_summary(receipts))
    if any(receipt.regressed for receipt in receipts):
        return 3
    return 1 if all(receipt.after.error for receipt in receipts) else 0


def _read_rows(table: Path, images: set[Path]) -> Iterator[Reported]:
    for number, cells in enumerate(read_table(table, COLUMNS), start=1):
        where, name = f"{table}: row {number}", cells["file_name"]
        path = table.parent / name
        if path.resolve() not in images:
            raise UsageError(f"{where} names {printable(name)}, which is no image here", "correct or delete the row")
        truth = said_by(cells["label"])
        if not truth:
            raise UsageError(f"{where} has the label `{printable(cells['label'])}`", "write real or fake")
        yield Reported(path, truth, cells.get("note") or "", _score(cells.get("score") or "", where))


def _score(text: str, where: str) -> float:
    if not text:
        return math.nan
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:  # NaN is neither
        raise UsageError(f"{where} has the score `{printable(text)}`", "write a number from 0 to 1, or nothing")
    return score


def _truth_by_folder(image: Path, folder: Path) -> str:
    for part in image.relative_to(folder).parts[:-1]:
        if truth := said_by(part):
            return truth
    raise UsageError(
        f"nothing says whether {printable(str(image))} is real or fake",
        "sort the images into real/ and fake/, or add a metadata.csv with file_name, label, note and score",
    )


def _state(result: Result, truth: str) -> str:
    if result.error:
        return "unreadable"
    return "undecided" if result.verdict == "uncertain" else "right" if result.verdict == truth else "wrong"


def _scored(result: Result) -> str:
    return printable(result.error) if result.error else f"{result.verdict} {result.p_fake:.2f}"


def _summary(receipts: Sequence[Receipt]) -> str:
    counts = [Counter(receipt.states[i] for receipt in receipts) for i in (0, 1)]
    told = [", ".join(f"{count[state]:,} {state}" for state in STATES if count[state]) for count in counts]
    n = sum(receipt.regressed for receipt in receipts)
    return f"{len(receipts):,} reported images: {told[0]} before; {told[1]} now; {n:,} right before and wrong now"
