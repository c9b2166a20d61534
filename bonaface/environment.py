"""Numbers that the environment gives: a wrong one is named before a library that reads it trips over it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from bonaface.errors import UsageError

# What the Hub's client reads with a bare int() when it is imported, and the least that is meant.
HUB_NUMBERS = {"HF_HUB_ETAG_TIMEOUT": 1, "HF_HUB_DOWNLOAD_TIMEOUT": 1}


def whole_number(name: str, text: str, least: int, most: int | None = None) -> int:
    """The number that an option or variable called ``name`` gives. Raises UsageError."""
    value = int(text) if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text, re.ASCII) else None
    if value is None or value < least or (most is not None and value > most):
        span = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise UsageError(f"{name} is {text!r}, which is not a whole number {span}", f"give a whole number {span}")
    return value


def check_numbers(numbers: Mapping[str, int] = HUB_NUMBERS) -> None:
    """Raise UsageError for a variable (name -> its least value) that is set to anything but a whole number."""
    for name, least in numbers.items():
        text = os.environ.get(name)
        if text == "":
            del os.environ[name]  # as good as unset, but not to int()
        elif text is not None:
            whole_number(name, text, least)
