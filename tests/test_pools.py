"""Work that is queued in a pool ends with the block that queued it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bonaface.pools import cancelled_on_error


def test_an_interrupt_cancels_what_has_not_begun() -> None:
    """The pool's own block would wait for all of it: two threads, 400 naps of 10 ms."""
    done: list[int] = []

    def nap(number: int) -> None:
        time.sleep(0.01)
        done.append(number)

    def interrupted() -> None:
        with cancelled_on_error(ThreadPoolExecutor(2)) as pool:
            for _ in pool.map(nap, range(400)):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(done) < 40


def test_a_block_that_ends_well_has_all_of_its_results() -> None:
    with cancelled_on_error(ThreadPoolExecutor(2)) as pool:
        assert list(pool.map(abs, range(-3, 0))) == [3, 2, 1]
