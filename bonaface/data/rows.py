"""One image of a data set before it is read, and one that is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\ufeff]")  # in no label or source that is meant


class FileRow(NamedTuple):
    """A file of a data folder. ``path`` is relative to the folder, with ``/``; "" stands for what is not known.

    ``inside`` are the folders below the label, without a split's, where folders name the label.
    """

    path: str
    label: str
    source: str
    split: str
    group: str = ""
    family: str = ""
    inside: tuple[str, ...] | None = None


@dataclass(frozen=True)
class BrokenFile:
    """A file that was named by the data set but cannot be used, and why."""

    path: str
    reason: str
    label: str
    source: str


def left_out(broken: list[BrokenFile]) -> str:
    """How many files were left out and why the first was, for an error: ``3 files were left out, the first: …``."""
    n = len(broken)
    return f"{n:,} {'file was' if n == 1 else 'files were'} left out, the first: {broken[0].path} ({broken[0].reason})"


def shared_depth(folders: Sequence[tuple[str, ...]]) -> int:
    """How many names, from the top, all these folders (as tuples of names) share."""
    if not folders:
        return 0
    first, last = min(folders), max(folders)  # what these two share, all between them in order share
    return next((i for i, name in enumerate(first) if i == len(last) or name != last[i]), len(first))
