"""What a resumable scoring run keeps: its list of inputs, and the finished rows."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bonaface.errors import UsageError
from bonaface.inference.tables import Row

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs on one table are not kept apart there
    fcntl = None  # type: ignore[assignment]


class Inputs:
    """The list of inputs in a temporary file: counted before the first is scored, and read twice, in little memory."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = paths

    def __enter__(self) -> Inputs:
        self._folder = tempfile.TemporaryDirectory(prefix="bonaface-")
        self._file = Path(self._folder.name) / "inputs"
        self.n = 0
        with self._file.open("w", encoding="ascii") as file:
            for path in self._paths:
                file.write(json.dumps(os.fspath(path)) + "\n")
                self.n += 1
        if not self.n:
            self._folder.cleanup()
            raise UsageError("no images found", "name files, folders with images, patterns, or - for stdin")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def read(self, start: int = 0) -> Iterator[str]:
        """The paths from number ``start`` on."""
        with self._file.open(encoding="ascii") as file:
            yield from (json.loads(line) for line in islice(file, start, None))


class Journal:
    """Records as JSON lines after one line with the run's options; locked by one process at a time."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path, self.options = path, json.loads(json.dumps(options))
        path.touch()
        self._file: IO[bytes] = path.open("r+b")

    def __enter__(self) -> Journal:
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._file.close()
                raise UsageError(f"another process is writing {self.path}", "wait for it, or stop it") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def resume(self, inputs: Inputs, batch_size: int) -> int:
        """Cut the journal after its last whole batch, and return how many inputs have their row.

        Raises:
            UsageError: it belongs to a run with other options or inputs.
        """
        head = self._file.readline()
        options = _record(head)
        if not options:  # new, or the computer went down while the first line was written
            return self._begin()
        if options != self.options and not self._holds(options.get("batch_size")):
            return self._begin()
        self._check(options == self.options, "other options (model, engine, faces, batch size)")
        self._file.seek(len(head))
        whole, end, paths = 0, self._file.tell(), inputs.read()
        for n, line in enumerate(iter(self._file.readline, b""), 1):
            row = _record(line)
            if "path" not in row or not isinstance(row.get("rows", []), list):
                break
            self._check(row["path"] == next(paths, None), "other inputs")
            if n % batch_size == 0 or n == inputs.n:
                whole, end = n, self._file.tell()
        self._file.truncate(end)
        return whole

    def _begin(self) -> int:
        self._file.seek(0)
        self._file.truncate()
        self._append([json.dumps(self.options)])
        return 0

    def _holds(self, n: Any) -> bool:
        """Whether at least `n` whole rows follow."""
        if not isinstance(n, int) or not 0 < n <= sys.maxsize:
            return False
        return sum(line.endswith(b"\n") for line in islice(self._file, n)) == n

    def append(self, records: Sequence[Row]) -> None:
        """Add a batch, a record for each input; it has left the process when this returns."""
        self._append([json.dumps(record) for record in records])

    def records(self) -> Iterator[Row]:
        """All records, in order: an image's row, or a clip's ``path`` and the ``rows`` of its persons."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def rows(self) -> Iterator[Row]:
        """All rows, in order."""
        for record in self.records():
            yield from record.get("rows", [record])

    def _append(self, lines: Sequence[str]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write("".join(line + "\n" for line in lines).encode("ascii"))
        self._file.flush()

    def _check(self, same: bool, what: str) -> None:
        if not same:
            raise UsageError(
                f"{self.path} belongs to an unfinished run with {what}",
                "repeat that command, delete the file, or choose another --out",
            )


def _record(line: bytes) -> dict[str, Any]:
    """The object of a whole line; empty for one that was cut off, or that a crash of the computer left as zeros."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
