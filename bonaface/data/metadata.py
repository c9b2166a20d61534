"""``metadata.csv`` or ``.jsonl`` beside image files -> rows, and what is left out: unlisted and missing files."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from bonaface.data.dialects import column_name, read_table, read_text
from bonaface.data.labels import SPLITS, split_named
from bonaface.data.rows import CONTROL, BrokenFile, FileRow, shared_depth
from bonaface.errors import UsageError

METADATA_NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")  # in any case; the first that is there
COLUMNS = {
    "file_name": ("filename", "file", "file_path", "filepath", "path", "image", "image_path"),
    "label": ("labels", "class", "target"),
}

NUL = re.compile("\0")  # the one control character that no file's name has
COLUMN_NAMES = ("file_name", "label", "source", "family", "group", "split")


def metadata_files(root: Path, files: Sequence[str]) -> list[tuple[str, str]]:
    """Metadata files of a folder with the split that each speaks for: at the top, or one in each split folder.

    The top is that of ``root``, or of the folder that contains all ``files`` (paths relative to ``root``, with ``/``).

    Raises:
        UsageError: some split folders have one, others none.
    """
    tables = [file for file in files if posixpath.basename(file).casefold() in METADATA_NAMES]
    folders = [tuple(file.split("/")[:-1]) for file in files] if tables else []
    for depth in range(shared_depth(folders) + 1):
        top = "/".join(folders[0][:depth]) if folders else ""
        if at_top := _metadata_in(top, tables):
            return [(at_top, "")]
        below = sorted({folder[depth] for folder in folders if len(folder) > depth})
        found = {name: _metadata_in(posixpath.join(top, name), tables) for name in below if split_named(name)}
        without = [name for name, file in found.items() if not file]
        if 0 < len(without) < len(found):
            raise UsageError(
                f"{root}: some split folders have a metadata file, but {', '.join(without)} has none",
                "add one to every split folder, or to none",
            )
        if found and not without:
            return [(file, split_named(name)) for name, file in found.items()]
    return []


def _metadata_in(folder: str, files: Iterable[str]) -> str:
    here = {posixpath.basename(file).casefold(): file for file in files if posixpath.dirname(file) == folder}
    return next((here[name] for name in METADATA_NAMES if name in here), "")


def read_metadata(
    root: Path, metadata: Sequence[tuple[str, str]], files: Sequence[str]
) -> tuple[list[FileRow], list[BrokenFile]]:
    """The rows of all metadata files, and what is left out: names outside ``root``, files that no row names.

    Args:
        metadata: as :func:`metadata_files` gives them.
        files: the image files below ``root``, relative to it, with ``/``.

    Raises:
        UsageError: a table that cannot be read, a row without name or label or with an unknown split, a file twice.
    """
    named = _NamedFiles(root, files)
    rows: list[FileRow] = []
    broken: list[BrokenFile] = []
    for path, split in metadata:
        for number, cells in enumerate(_read_cells(root / path), start=1):
            row = _row(f"{root / path}: row {number}", cells, split)
            found = named.inside(posixpath.dirname(path), row.path)
            if found is None:
                broken.append(BrokenFile(row.path, "outside the data folder", row.label, row.source))
            elif not _is_utf8(found):
                shown = found.encode("utf-8", "replace").decode()
                broken.append(BrokenFile(shown, "file name is not UTF-8", row.label, row.source))
            else:
                rows.append(row._replace(path=found))
        twice = [name for name, n in Counter(row.path for row in rows).items() if n > 1]
        if twice:
            raise UsageError(f"{root / path} lists {twice[0]} more than once", "write one row per file")
    known = {row.path for row in rows} | {file.path for file in broken}
    # A row with another machine's path, /home/x/faces/real/1.jpg, already counts for the file real/1.jpg.
    meant = {tail for path in known.difference(files) for tail in _tails(path)}
    unlisted = [file for file in files if file not in known and file not in meant]
    return rows, broken + [BrokenFile(file, "not listed in the metadata", "", "") for file in unlisted]


def _tails(path: str) -> Iterator[str]:
    """``a/b/c`` -> ``b/c``, ``c``."""
    parts = path.replace("\\", "/").split("/")
    return ("/".join(parts[i:]) for i in range(1, len(parts)))


def _read_cells(path: Path) -> list[dict[str, Any]]:
    if path.suffix.casefold() != ".jsonl":
        return list(read_table(path, COLUMNS))
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}: line {number} is not JSON: {error}", "write one JSON object per line") from error
        if not isinstance(row, dict):
            raise UsageError(
                f"{path}: row {number} is not a JSON object", 'write {"file_name": "x.jpg", "label": "real"}'
            )
        rows.append({column_name(name): value for name, value in row.items()})
    return rows


def _row(where: str, cells: Mapping[str, Any], split: str) -> FileRow:
    """The row as it is written; ``path`` is the name as it stands in the metadata."""

    def text(name: str) -> str:
        value = cells.get(name)
        return "" if value is None else str(value)

    for column in COLUMN_NAMES:
        mark = (NUL if column == "file_name" else CONTROL).search(text(column).strip())
        if mark:
            raise UsageError(
                f"{where} has a control character in its {column}: {text(column)[:80]!r} (U+{ord(mark[0]):04X})",
                "save the table as plain UTF-8 text, without it",
            )
    name, label, named = text("file_name"), text("label").strip(), text("split").strip() or split
    if not name or not label:
        raise UsageError(
            f"{where} has no {'label' if name else 'file_name'}",
            "give every row a file_name and a label; source, family, group and split are optional",
        )
    if named and not split_named(named):
        raise UsageError(f"{where} has the unknown split `{named}`", f"use one of {', '.join(SPLITS)}")
    source = text("source").strip() or label
    return FileRow(name, label, source, split_named(named), text("group").strip(), text("family").strip())


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _NamedFiles:
    """Finds what the rows name among the files of a data folder, by whatever way the name leads there."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 - links stay: a file is called by its name inside the folder
        self.files = frozenset(files)
        self._by_target: dict[str, str] | None = None

    def inside(self, folder: str, name: str) -> str | None:
        """The path below the data folder of a file that a row in ``folder`` names; None if it is outside.

        A file that is not there has a path all the same, unless its name leads out.
        """
        if not _is_utf8(name):
            return name
        spellings = dict.fromkeys([name, name.strip(), name.strip().replace("\\", "/")])
        paths = [self._below(folder, spelling) for spelling in spellings]
        for path in paths:
            if path is not None and (path in self.files or os.path.lexists(f"{self.root}/{path}")):
                return path
        for spelling in spellings:
            if found := self._targets().get(os.path.realpath(os.path.join(self.root, folder, spelling))):  # noqa: PTH118
                return found
        return None if PureWindowsPath(name).drive else paths[-1]

    def _below(self, folder: str, name: str) -> str | None:
        path = os.path.normpath(os.path.join(self.root, folder, name))  # noqa: PTH118
        top = self.root.rstrip("/") + "/"
        return path.removeprefix(top) if path.startswith(top) else None

    def _targets(self) -> Mapping[str, str]:
        """The files' real paths -> their paths below the data folder."""
        if self._by_target is None:
            self._by_target = {os.path.realpath(f"{self.root}/{file}"): file for file in self.files}
        return self._by_target
