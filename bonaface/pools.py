"""Pools of threads or processes that stop when their block does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

P = TypeVar("P", bound=Executor)


@contextmanager
def cancelled_on_error(pool: P) -> Iterator[P]:
    """Use a pool in a ``with`` block; an exception or Ctrl-C there cancels the work that has not begun.

    The pools' own ``with`` waits until all of it is done, which may take hours.
    """
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
