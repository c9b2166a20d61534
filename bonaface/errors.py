"""What a user did wrong, said in one line with the way to mend it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(Exception):
    """A mistake of the caller: ``message`` says what is wrong and where, ``hint`` how to mend it."""

    def __init__(self, message: str, hint: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.hint, self.exit_code = hint, exit_code

    def __reduce__(self) -> tuple[type[UsageError], tuple[str, str, int]]:
        return type(self), (str(self), self.hint, self.exit_code)  # it crosses process borders


@contextmanager
def usage_errors_exit() -> Iterator[None]:
    """Turn a :class:`UsageError` into ``error:`` and ``hint:`` lines on stderr and its exit code (2)."""
    try:
        yield
    except UsageError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def shorten(text: str, limit: int = 80) -> str:
    """Text that a user gave, for a message: beginning and end of what is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 16]}…{text[-15:]}"
