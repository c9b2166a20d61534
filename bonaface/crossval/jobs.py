"""Folds of a cross-validation as processes: several at a time, their output in files, none left behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from bonaface.data.folds import Fold
from bonaface.errors import UsageError
from bonaface.training.run import Run

try:
    import fcntl
except ImportError:  # Windows: two commands on one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[2]  # where the package lies, installed or not
LOG_LINES = 15


@dataclass
class FoldProcess:
    """A fold to train: its folder, the command, and its process while it runs."""

    fold: Fold
    folder: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None

    @property
    def run(self) -> Run:
        """The fold's own run folder."""
        return Run(self.folder / "run")


def environment(few_threads: bool) -> dict[str, str]:
    """That of the folds: they find ``train_hf`` wherever they start, and take one thread each where they are many."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **({"OMP_NUM_THREADS": "1"} if few_threads else {})}


def run_jobs(queue: Sequence[FoldProcess], side_by_side: int, variables: Mapping[str, str]) -> None:
    """Run what is not finished, ``side_by_side`` at a time with these environment variables, output in ``log.txt``.

    After a failure no other fold is started; running ones finish. If this process ends early, so do they.

    Raises:
        UsageError: a fold failed, with the last lines of its log and its exit code; or it is already running.
    """
    waiting = [job for job in queue if not job.run.is_finished]
    running: list[FoldProcess] = []
    failed: FoldProcess | None = None
    done = len(queue) - len(waiting)
    with _ended_with_us(), tqdm(total=len(queue), initial=done, desc="folds", unit="fold", disable=None) as bar:
        try:
            while running or (waiting and not failed):
                while waiting and not failed and len(running) < side_by_side:
                    running.append(_start(waiting.pop(0), variables))
                time.sleep(0.1)
                for job in [job for job in running if job.process and job.process.poll() is not None]:
                    running.remove(job)
                    _close(job)
                    if job.run.is_finished:
                        bar.update()
                        tqdm.write(_outcome(job), file=sys.stdout)
                        sys.stdout.flush()  # a run of hours often writes to a file
                    else:
                        failed = failed or job
        finally:
            for job in running:
                assert job.process is not None
                job.process.terminate()
                job.process.wait()
                _close(job)
    if failed:
        assert failed.process is not None
        lines = (failed.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        code = failed.process.returncode
        raise UsageError(
            "\n".join([f"fold {failed.fold.name} failed (exit code {code}); its log ends with", *lines]),
            f"fix the problem and give the same command to resume; the full log is {failed.folder / 'log.txt'}",
            exit_code=code if code > 0 else 1,
        )


@contextmanager
def _ended_with_us() -> Iterator[None]:
    """Let SIGTERM end this process as ctrl-C does: after it has ended what it started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(job: FoldProcess, variables: Mapping[str, str]) -> FoldProcess:
    """Start a fold. Its log is locked for as long as the fold lives, even where this process dies before it."""
    job.log = (job.folder / "log.txt").open("ab")
    if fcntl is not None:
        try:
            fcntl.flock(job.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"fold {job.fold.name} is being trained by another process", "wait for it, or stop it"
            ) from error
    job.log.write(f"$ {shlex.join(job.command)}\n".encode())
    job.log.flush()
    job.process = subprocess.Popen(
        job.command, stdin=subprocess.DEVNULL, stdout=job.log, stderr=subprocess.STDOUT, env=dict(variables)
    )
    return job


def _close(job: FoldProcess) -> None:
    if job.log is not None:
        job.log.close()


def _outcome(job: FoldProcess) -> str:
    metrics = json.loads((job.run.folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    auc, minutes = metrics["figures"]["auc"]["value"], metrics["facts"].get("minutes", float("nan"))
    figure = "no AUC" if auc is None else f"AUC {auc:.3f}"
    return f"  {job.fold.title:<40} {figure}, {metrics['figures']['n']:,} test images, {_lasted(minutes)}"


def _lasted(minutes: float) -> str:
    return f"{60 * minutes:.0f} seconds" if minutes < 1 else f"{minutes:.1f} minutes"
