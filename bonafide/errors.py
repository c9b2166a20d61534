"""What a user did wrong, said in one line with the way to mend it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(Exception):
    """A mistake of the caller: ``message`` says what is wrong and where, ``hint`` how to mend it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@contextmanager
def usage_errors_exit() -> Iterator[None]:
    """Turn a :class:`UsageError` into ``error:`` and ``hint:`` lines on stderr and exit code 2."""
    try:
        yield
    except UsageError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(2) from error
