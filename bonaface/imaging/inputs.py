"""What a user names on a command line -> paths, and names of files -> text that is safe to show."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from bonaface.imaging.images import is_image_name
from bonaface.imaging.walk import is_no_data, walk_files


def find_inputs(
    arguments: Sequence[str | os.PathLike[str]],
    stdin: TextIO | None = None,
    wanted: Callable[[str], bool] = is_image_name,
) -> Iterator[str]:
    """The files meant by the arguments of a command, in their order.

    A folder gives the files below it whose names are ``wanted`` (see :func:`walk.walk_files`), ``-`` the lines of
    ``stdin``, a pattern with ``* ? [`` that is no file the sorted matches; all else is a file, whether it exists
    or not.
    """
    for argument in (os.fspath(argument) for argument in arguments):
        if argument == "-":
            for line in stdin or sys.stdin:
                if name := line.rstrip("\r\n"):
                    yield name
        elif os.path.isdir(argument):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
            yield from _files_below(argument, wanted)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            yield from list(_matches(argument)) or [argument]
        else:
            yield argument


def as_utf8(text: str) -> str:
    """A file name with bytes that are no UTF-8 (surrogates in Python) as text that any program can read."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """For a terminal: without the control characters that could move its cursor or change its title."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in as_utf8(text))


def _files_below(folder: str, wanted: Callable[[str], bool]) -> Iterator[str]:
    """What is wanted, and what cannot be read there, such as broken links, each of which gets a row of its own."""
    for found in walk_files(folder):
        if found.problem or wanted(found.path):
            yield str(Path(folder, found.path))


def _matches(pattern: str) -> Iterator[str]:
    """What a pattern matches, sorted, without what is no data below the folder that it names."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    for match in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob has no absolute patterns
        if not any(map(is_no_data, Path(match).parts[fixed:])):
            yield match
