"""A table that people or spreadsheets wrote -> rows, whatever its delimiter, encoding and spelling of the header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bonaface.errors import UsageError

DELIMITERS = ",;\t|"
# UTF-32 first: its mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
END = "\0end\0"  # a row of our own behind the last one


def read_table(path: Path, needed: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """The rows of a CSV file: column -> cell, blanks around both taken away, column names in lower case.

    Delimiters are comma, semicolon, tab or ``|``, as the header shows (or the line ``sep=;`` before it); quotation
    marks are single where the first two lines have cells in them; rows without any text are left out.

    Args:
        needed: the columns that must be there, each with other names that it may have.

    Raises:
        UsageError: it cannot be read, lacks a column (its header is shown), has one twice, a row of more cells than the
            header, or a quotation mark that is not closed.
    """
    lines = read_text(path).split("\n")
    while lines and not lines[0].strip():
        del lines[0]
    declared = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    text = "\n".join(lines[bool(declared) :])
    first, _, rest = text.partition("\n")
    for delimiter in declared[1] if declared else DELIMITERS:
        quote = _quote([first, rest.partition("\n")[0]], delimiter)
        names = _column_names(next(_reader(first, delimiter, quote), []), needed)
        if set(needed) <= set(names):
            _refuse_twice(path, names)
            return _rows(path, text, delimiter, quote, names)
    raise UsageError(
        f"{path} has no columns {' and '.join(needed)}: its header is `{first.strip()[:200]}`",
        f"name the columns in the first line, as in {','.join(needed)}",
    )


def read_text(path: Path) -> str:
    r"""A text file in UTF-8, UTF-16 or UTF-32, else in the code page of Western Windows; line ends are ``\n``.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = _decode(path.read_bytes())
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(
            f"{path} cannot be read: {why}", "save it as UTF-8 text that you have permission to read"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def column_name(name: str) -> str:
    """``File Name`` -> ``file_name``."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _decode(data: bytes) -> str:
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    head = data[:1000]
    if head.count(0) > len(head) // 4:  # UTF-16 without its mark: every other byte of Latin letters is zero
        return data.decode("utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _column_names(header: Sequence[str], needed: Mapping[str, Sequence[str]]) -> list[str]:
    """The header's names, with one of a needed column's other names replaced by its own where that is missing."""
    names = [column_name(name) for name in header]
    for column, others in needed.items():
        alike = [name for name in names if name in others]
        if column not in names and len(alike) == 1:
            names[names.index(alike[0])] = column
    return names


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if twice:
        raise UsageError(f"{path} has more than one column {twice}", "keep one of them, or rename the others")


def _quote(lines: Iterable[str], delimiter: str) -> str:
    """The mark around cells: single where one of these lines has a cell in such, for no name begins and ends so."""
    edge = rf"(?:^|{re.escape(delimiter)})\s*"
    single = re.compile(rf"{edge}'[^']*'\s*(?={re.escape(delimiter)}|$)")
    return "'" if any(map(single.search, lines)) else '"'


def _reader(text: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, skipinitialspace=True)


def _rows(path: Path, text: str, delimiter: str, quote: str, names: Sequence[str]) -> list[dict[str, str]]:
    try:
        cells = list(_reader(f"{text}\n{END}", delimiter, quote))
    except csv.Error as error:
        raise UsageError(f"{path} cannot be read: {error}", "save it as CSV again") from error
    if cells[-1] != [END]:  # the last cell has swallowed it, and maybe many rows
        raise UsageError(f"{path} has an unclosed quotation mark", "close it, or save the table as CSV again")
    rows = []
    for number, row in enumerate(cells[1:-1], start=1):
        stripped = [cell.strip() for cell in row]
        if any(stripped[len(names) :]):
            raise UsageError(
                f"{path}: row {number} has {len(row)} cells, but the header has {len(names)}",
                'put quotation marks around cells that contain the delimiter: "a,b.jpg"',
            )
        if any(stripped):
            rows.append(dict(zip(names, stripped, strict=False)))
    return rows
