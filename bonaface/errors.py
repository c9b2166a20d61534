"""What a user did wrong, or what the system refused, in one line, with the way to fix it."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


class UsageError(Exception):
    """A mistake of the caller: ``message`` says what is wrong and where, ``hint`` how to fix it.

    Both may repeat what somebody typed: of what is very long, the middle is left out.
    """

    def __init__(self, message: str, hint: str, exit_code: int = 2) -> None:
        super().__init__(_short(message))
        self.hint, self.exit_code = _short(hint), exit_code

    def __reduce__(self) -> tuple[type[UsageError], tuple[str, str, int]]:
        return type(self), (str(self), self.hint, self.exit_code)  # it crosses process borders


class UnknownNameError(UsageError):
    """An unknown flag, key or argument: ``name`` as it was written, without leading dashes."""

    def __init__(self, message: str, hint: str, name: str) -> None:
        super().__init__(message, hint)
        self.name = name

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, str]]:  # type: ignore[override]
        return type(self), (str(self), self.hint, self.name)


class RealLabelError(UsageError):
    """No label of a model or of data is known to be that of photographs."""


class DivergedError(UsageError):
    """A training whose loss, weights or scores are no longer finite numbers."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "lower learning_rate or raise warmup_steps; you may keep the same output folder")

    def __reduce__(self) -> tuple[type[DivergedError], tuple[str]]:  # type: ignore[override]
        return type(self), (str(self),)


class SystemRefusalError(UsageError):
    """The system refused to read or write: a full disk, a folder that may not be written to."""


FULL = (errno.ENOSPC, errno.EDQUOT)
# Of a place, not of what the program does there; the last ones are those of drives that fail or are gone.
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
           errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ, errno.EINVAL, errno.EFBIG, errno.EBUSY, errno.ETXTBSY,
           errno.ENXIO, errno.ENODEV, errno.EIO, errno.ESTALE)  # fmt: skip
LONG_WORD, LONG_TEXT = 200, 600  # characters
# How libraries that pass on no error number report a full disk: safetensors, SQLite, torch.save.
FULL_WORDS = ("os error 28", "No space left on device", "database or disk is full", "unexpected pos")


@contextmanager
def writing(place: str | os.PathLike[str]) -> Iterator[None]:
    """A block that writes to this file or below this folder: the system's refusals are reported with a path.

    Raises:
        SystemRefusalError: in place of the system's error, or that of a library that ran into it; and at once for a
            name that is not UTF-8, which safetensors and Arrow cannot open.
    """
    refuse_undecodable(place)
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        refusal = _refusal(error, Path(place))
        if refusal is None:
            raise
        raise refusal from error


def refuse_undecodable(path: str | os.PathLike[str]) -> None:
    """Raise SystemRefusalError for a path with bytes that are not UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise SystemRefusalError(f"cannot use {path}: the path is not UTF-8", "rename that file or folder") from error


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path that somebody gave is a folder.

    Raises:
        SystemRefusalError: the system cannot look it up, because the name is too long or for want of permission; or it
            is not UTF-8.
    """
    with writing(path):
        return Path(path).is_dir()


@contextmanager
def usage_errors_exit() -> Iterator[None]:
    """What every command runs in: errors that a user can fix end it with two lines on stderr, and no traceback.

    A :class:`UsageError` becomes ``error:`` and ``hint:`` and its exit code (2), and so does what the system refuses;
    Ctrl-C becomes one line and 130, SIGTERM the same and 143: what is half written is removed on the way out.
    """
    os.environ.pop("MPLBACKEND", None)  # plots need none, and with an unknown one matplotlib is not even imported
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _terminable():
            yield
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from stop
    except Exception as error:
        said = error if isinstance(error, UsageError) else _refusal(error, None)
        if said is None:
            raise
        print(f"error: {_escaped(str(said))}\nhint: {_escaped(said.hint)}", file=sys.stderr)
        raise SystemExit(said.exit_code) from error


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM leave a block as an exception does, in the process that entered it; no other handler is moved."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(number: int, _: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    os.write(2, b"stopped\n")
    raise SystemExit(128 + number)


_mask = threading.local()


def _hold_sigterm() -> None:
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _end_by_sigterm() -> None:
    if signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


# A worker is born with our handler, but ends by SIGTERM as it would without. Python forgets signals that reach a fork
# before it has set itself up, so that one sent at once would be lost: it is held until then.
os.register_at_fork(before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_end_by_sigterm)


def stop_quietly() -> None:
    """Let Ctrl-C end a program with one line while it still imports, which takes seconds for torch."""
    signal.signal(signal.SIGINT, _stop)


def _stop(*_: object) -> NoReturn:
    os.write(2, b"stopped\n")
    os._exit(130)


def _refusal(error: BaseException, place: Path | None) -> SystemRefusalError | None:
    """What an error says of the system: a full disk, wherever in its causes; else only what itself names a path."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in FULL or any(words in str(seen) for words in FULL_WORDS):
            # Of a copy, the second name is the one that was written to.
            where = getattr(seen, "filename2", None) or getattr(seen, "filename", None) or _fullest(place)
            return SystemRefusalError(
                f"no space left on disk: cannot write to {where}",
                "free some space and run the same command again; finished work is kept",
            )
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, OSError) and error.errno in REFUSED and (error.filename or place):
        return SystemRefusalError(
            f"cannot use {error.filename or place}: {(error.strerror or 'refused').lower()}",
            "choose another path, or change its permissions",
        )
    return None


def _fullest(place: Path | None) -> Path:
    """Where a write failed that has named no file: the place meant for it, unless a cache or $TMPDIR has less room."""
    caches = (Path(tempfile.gettempdir()), Path(os.environ.get("HF_HOME", Path.home() / ".cache")), Path.cwd())
    places = [place, *caches] if place else list(caches)

    def room(path: Path) -> int:
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        return shutil.disk_usage(there).free

    return min(places, key=room)


def _short(text: str) -> str:
    return shorten(re.sub(rf"\S{{{LONG_WORD + 1},}}", lambda word: shorten(word[0], LONG_WORD), text), LONG_TEXT)


def _escaped(text: str) -> str:
    """One line for a terminal: what would move its cursor or change its title, and half characters, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, limit: int = 80) -> str:
    """Text that a user gave, for a message: beginning and end of what is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 16]}…{text[-15:]}"
