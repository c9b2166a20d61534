"""What the environment tells the Hub's client: a wrong value is named before a library that reads it trips over it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from bonaface.errors import UsageError

# What the Hub's client reads with a bare int() when it is imported, and our own loading; and the least that is meant.
HUB_NUMBERS = {"HF_HUB_ETAG_TIMEOUT": 1, "HF_HUB_DOWNLOAD_TIMEOUT": 1, "LOCAL_WORLD_SIZE": 1}
HEADERS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_USER_AGENT_ORIGIN")  # sent with every request


def whole_number(name: str, text: str, least: int, most: int | None = None) -> int:
    """The number that an option or variable called ``name`` gives. Raises UsageError."""
    value = int(text) if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text, re.ASCII) else None
    if value is None or value < least or (most is not None and value > most):
        span = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise UsageError(f"{name} is {text!r}, which is not a whole number {span}", f"give a whole number {span}")
    return value


def check_hub() -> None:
    """Raise UsageError for a variable with which the Hub's client cannot be imported, or cannot ask for anything."""
    check_numbers(HUB_NUMBERS)
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        address = urlsplit(endpoint)
        good = not endpoint or (address.scheme in ("http", "https") and address.hostname and address.port != 0)
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"HF_ENDPOINT is {endpoint!r}, which is not an address", "set https://HOST, or unset it")
    for name in HEADERS:
        if not os.environ.get(name, "").isascii():
            raise UsageError(f"{name} has characters that no request can carry", "use ASCII letters and digits")


def check_numbers(numbers: Mapping[str, int]) -> None:
    """Raise UsageError for a variable (name -> its least value) that is set to anything but a whole number."""
    for name, least in numbers.items():
        text = os.environ.get(name)
        if text == "":
            del os.environ[name]  # as good as unset, but not to int()
        elif text is not None:
            whole_number(name, text, least)
