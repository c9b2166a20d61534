"""Commands in a process of their own that need not import anything again, on a disk of their own if that is asked."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

Do = Callable[[], object]  # it is pickled
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
BIND, REMOUNT, READ_ONLY = 4096, 32, 1


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, and what it said on both channels."""

    code: int
    said: str


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bonaface.cli.main", "bonaface.cli.train"])


def command(arguments: Sequence[str], log: Path, before: Do | None = None, afterwards: Do | None = None) -> BaseProcess:
    """Start ``bonaface ARGUMENTS``; the process calls ``before`` first and ``afterwards`` last.

    It is a fork of one that has imported everything and runs no threads, as the tests' own may.
    """
    process = CONTEXT.Process(target=_work, args=(arguments, log, before, afterwards, dict(os.environ)))
    process.start()
    return process


def _work(
    arguments: Sequence[str], log: Path, before: Do | None, afterwards: Do | None, environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    if before:
        before()
    sys.argv = ["bonaface", *arguments]
    from bonaface.cli.main import main

    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if afterwards:
        afterwards()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def run(arguments: Sequence[str], log: Path, before: Do | None = None, afterwards: Do | None = None) -> Done:
    """As :func:`command`, until it ends."""
    process = command(arguments, log, before, afterwards)
    process.join(300)
    if process.exitcode is None:
        process.kill()
    return Done(-1 if process.exitcode is None else process.exitcode, log.read_text(errors="replace"))


def own_mounts() -> None:
    """What this process mounts from now on, no other one sees. Raises OSError where the system does not allow it."""
    root, user, group = os.geteuid() == 0, os.geteuid(), os.getegid()
    _call("unshare", NEW_MOUNTS if root else NEW_MOUNTS | NEW_USER)
    if not root:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, (1 << 18) | 16384, None)  # private, and all below


def small_disk(folder: Path, size: str) -> Do:
    """A disk of so many bytes at a folder."""
    return partial(_mount, (b"none", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()))


def read_only(folder: Path) -> Do:
    """The folder as one that takes no writes, not even root's."""
    name = os.fsencode(folder)
    return partial(_mount, (name, name, None, BIND, None), (name, name, None, BIND | REMOUNT | READ_ONLY, None))


def _mount(*calls: tuple[object, ...]) -> None:
    own_mounts()
    for arguments in calls:
        _call("mount", *arguments)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
