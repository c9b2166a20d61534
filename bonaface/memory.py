"""Memory that was freed, back to the system."""

from __future__ import annotations

import ctypes
from typing import Any

_trim: Any
try:  # glibc keeps freed blocks for itself, those of several large images too
    _trim = ctypes.CDLL(None).malloc_trim
except (AttributeError, OSError, TypeError):  # another C library
    _trim = None


def trim_memory() -> None:
    """Give freed memory back, where the C library can; takes milliseconds."""
    if _trim is not None:
        _trim(0)
