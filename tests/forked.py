"""Commands in a process of their own that need not import anything again, on a disk of their own if that is asked."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

Mount = Callable[[Path], None]
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
BIND, REMOUNT, READ_ONLY = 4096, 32, 1


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, and what it said on both channels."""

    code: int
    said: str


def command(arguments: Sequence[str], log: Path, mount: Mount | None = None) -> BaseProcess:
    """Start ``bonaface ARGUMENTS`` in a fork of this process; ``mount`` is called first, in a world of its own."""

    def work() -> None:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))  # pytest has its own
        if mount:
            own_mounts()
            mount(log)
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
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def run(arguments: Sequence[str], log: Path, mount: Mount | None = None, seconds: float = 300) -> Done:
    """As :func:`command`, until it ends."""
    process = command(arguments, log, mount)
    process.join(seconds)
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


def small_disk(folder: Path, size: str) -> Mount:
    """A disk of so many bytes at a folder."""
    return lambda _: _call("mount", b"none", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode())


def read_only(folder: Path) -> Mount:
    """The folder as one that takes no writes, not even root's."""

    def mount(_: Path) -> None:
        name = os.fsencode(folder)
        _call("mount", name, name, None, BIND, None)
        _call("mount", name, name, None, BIND | REMOUNT | READ_ONLY, None)

    return mount


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
