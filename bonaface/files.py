"""Atomic writes: every file and folder is written under a temporary name, then renamed, so nobody reads half of one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not a POSIX system: two processes in one folder are not kept apart there
    fcntl = None  # type: ignore[assignment]

ORPHANS = 10.0  # seconds in which the workers of a process that was killed end; they keep its lock until then


@contextmanager
def locked(path: str | os.PathLike[str], patience: float | None = None) -> Iterator[None]:
    """A block that no other process is in for the same file or folder; its end, however it comes, lets the next one in.

    Raises:
        BlockingIOError: another process is in it for longer than ``patience`` seconds (``ORPHANS`` when None).
        OSError: it cannot be opened.
    """
    if fcntl is None:
        yield
        return
    place, until = os.open(path, os.O_RDONLY), time.monotonic() + (ORPHANS if patience is None else patience)
    try:
        while True:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            except OSError:  # a file system that locks no folders, such as NFS: nobody is kept apart there
                break
        yield
    finally:
        with suppress(OSError):  # workers that live on hold it too, unless it is given back
            fcntl.flock(place, fcntl.LOCK_UN)
        os.close(place)


@contextmanager
def atomic_path(path: str | os.PathLike[str], scratch: Path | None = None) -> Iterator[Path]:
    """A temporary name for a library to write to, renamed to ``path`` at the end of the block.

    It ends in the suffix of ``path``, by which many libraries choose a format. If the block raises, the temporary file
    is removed and ``path`` is as it was.

    Args:
        path: where the file will be; its folder exists.
        scratch: the folder of the temporary file, on the same file system; default: that of ``path``.
    """
    path = Path(path)
    temporary = (scratch or path.parent) / f".{path.stem}.{os.getpid()}.partial{path.suffix}"
    try:
        yield temporary
        _as_umask_says(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder, renamed to ``path`` at the end of the block; removed if the block raises.

    ``path`` is new or an empty folder; otherwise the renaming raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _as_umask_says(file)
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder, whose files replace those of the same name in ``folder`` at the end of the block."""
    folder = Path(folder)
    temporary = folder / ".partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            _as_umask_says(file)
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _as_umask_says(file: Path) -> None:
    """Let others read what a library wrote for its owner alone, as safetensors does, where they may read new files."""
    if not file.is_file() or file.stat().st_mode & 0o077:
        return
    usual = file.with_name(f".{file.name}.mode")
    try:
        os.close(os.open(usual, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        file.chmod(usual.stat().st_mode & 0o666)
    except OSError:  # a file system without permissions, or where the owner may not change them
        pass
    finally:
        usual.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes, scratch: Path | None = None) -> None:
    """Write a whole file, or none; ``scratch`` as in :func:`atomic_path`."""
    with atomic_path(path, scratch) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole file in UTF-8, line ends as they are, or none."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:
    """Write strict JSON in UTF-8, with a newline at the end. Raises ValueError for a number that is not finite."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))  # a surrogate, of an undecodable path, as JSON's escape


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or damaged, or contains no object."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
