"""Every file below a folder, links followed, without what systems and tools leave between people's files.

A link counts as though what it leads to were copied to its place: a file is known by its name inside the folder, and a
folder that two links lead to is read twice (the audit names such copies, splits keep them together). Only a link to
a folder that contains it is not followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

LOOP = "link to a folder that contains it"

# What a file manager, a network drive, a file system, an archive or a tool made, in lower case. Names that begin with a
# dot (.git, .cache, .ipynb_checkpoints, .Trash-1000, ._x.jpg) need no place here.
# fmt: off
NO_DATA = frozenset({
    "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder",  # macOS
    "$recycle.bin", "recycle.bin", "recycler", "recycled", "system volume information", "msocache",
    "$windows.~bt", "$winreagent",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",  # Windows
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "@__thumb",
    "@synoresource", "synophoto_thumb",
    "lost+found", "lost.dir", "~snapshot",  # network drives, file systems, cards
    "thumbnail", "thumbnails", "_thumbnails", "_thumb", "thumbs", "_thumbs", "_gsdata_",  # image viewers
    "ipod photo cache", "adobe bridge cache", "trash", "cvs", "venv",
    "__pycache__", "cache", "_cache", "caches", "node_modules", "site-packages",
})
# fmt: on
# FOUND.001 of a file system check, Lightroom's previews, and copies such as "__MACOSX (1)".
NUMBERED_NO_DATA = re.compile(r"found\.\d{3}|.+\.lrdata")
COPY = re.compile(r" \(\d+\)$| copy$")


class Found(NamedTuple):
    """A file, or (where ``problem`` is not empty) a link or folder behind which nothing can be read."""

    path: str  # relative to the folder walked, with "/"
    problem: str = ""


def is_no_data(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system or tool: never part of a data set."""
    plain = COPY.sub("", name.casefold())
    return name.startswith((".", "~$")) or plain in NO_DATA or NUMBERED_NO_DATA.fullmatch(plain) is not None


def first_file(folder: Path) -> str | None:
    """The name of the first file or folder in ``folder`` that no system or tool made; None if there is none."""
    return min((path.name for path in folder.iterdir() if not is_no_data(path.name)), default=None)


def walk_files(
    root: str | os.PathLike[str],
    on_unreadable: Callable[[OSError], None] | None = None,
    skipped: list[str] | None = None,
) -> Iterator[Found]:
    """The files below ``root``, whatever their kind: those of a folder sorted by name, then its subfolders.

    A folder that cannot be read is found with its problem; ``on_unreadable`` may raise instead. Names that are no data
    join ``skipped``.
    """
    waiting = [("", _with_parents(os.path.realpath(root)))]
    while waiting:
        folder, above = waiting.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118 - a million paths
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if on_unreadable:
                on_unreadable(error)
            yield Found(folder, f"folder cannot be read: {_why(error)}")
            continue
        folders = []
        for entry in children:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_no_data(entry.name):
                if skipped is not None:
                    skipped.append(path)
                continue
            if not entry.is_symlink() and not entry.is_dir(follow_symlinks=False):
                yield Found(path)
                continue
            try:
                status = entry.stat()
                if not stat.S_ISDIR(status.st_mode):
                    yield Found(path)
                elif (identity := (status.st_dev, status.st_ino)) in above:
                    yield Found(path, LOOP)
                else:
                    own = _with_parents(os.path.realpath(entry.path)) if entry.is_symlink() else {identity}
                    folders.append((path, above | own))
            except OSError as error:
                yield Found(path, f"broken link: {_why(error)}")
        waiting += reversed(folders)


def _with_parents(path: str) -> frozenset[tuple[int, int]]:
    """Device and inode of a folder and of all its parents: a link to one of these would lead back here."""
    found = set()
    while True:
        status = os.stat(path)  # noqa: PTH116
        found.add((status.st_dev, status.st_ino))
        if path == (parent := os.path.dirname(path)):  # noqa: PTH120
            return frozenset(found)
        path = parent


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
