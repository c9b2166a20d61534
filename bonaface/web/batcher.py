"""Requests that come at the same time are run as one batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Busy(Exception):
    """More is waiting than may wait."""


class Batcher(Generic[Item, Outcome]):
    """Many threads hand in one item each; one thread runs all that wait.

    Nothing waits for others to come: a batch is what has gathered while the one before it was run.

    Args:
        run: items -> their outcomes, in order. If it raises, it is called again for each item separately.
        largest: items of one batch.
        waiting: items that may wait; the next one raises :class:`Busy`.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Outcome]], *, largest: int, waiting: int) -> None:
        self._run, self._largest = run, largest
        self._queue: queue.Queue[tuple[Item, Future[Outcome]]] = queue.Queue(waiting)
        threading.Thread(target=self._work, name="batcher", daemon=True).start()

    def __call__(self, item: Item) -> Outcome:
        """The outcome of one item. Raises Busy, or what ``run`` raised."""
        future: Future[Outcome] = Future()
        try:
            self._queue.put_nowait((item, future))
        except queue.Full as error:
            raise Busy from error
        return future.result()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < self._largest:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            self._finish(batch)
            del batch  # or the last images stay in memory until the next ones come

    def _finish(self, batch: list[tuple[Item, Future[Outcome]]]) -> None:
        try:
            outcomes = self._run([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:  # one of them is to blame: the others shall not pay
                for pair in batch:
                    self._finish([pair])
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            future.set_result(outcome)
