"""Rules for values, stated beside the fields and all checked before any work.

A dataclass states them beside the type: ``image_size: Annotated[int | None, Bounds(8)] = None``. None always passes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

from bonaface.errors import UsageError


class Rule(Protocol):
    """Anything that can refuse a value."""

    def check(self, name: str, value: Any) -> None:
        """Raise :class:`UsageError` where the field ``name`` may not have this value, which is not None."""


@dataclass(frozen=True)
class Bounds:
    """Least and greatest value; ``ends`` says whether these themselves are allowed. NaN never is."""

    low: float
    high: float = math.inf
    ends: str = "[)"

    def check(self, name: str, value: Any) -> None:
        """Raise :class:`UsageError` outside the bounds."""
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        if above and below:  # neither is true of NaN
            return
        least = f"at least {self.low}" if self.ends[0] == "[" else f"more than {self.low}"
        most = "" if self.high == math.inf else f" and {'at most' if self.ends[1] == ']' else 'less than'} {self.high}"
        raise UsageError(f"{name} is out of range: {value}", f"give {least}{most}, or leave it out")


@dataclass(frozen=True)
class Choices:
    """One of these names."""

    names: tuple[str, ...]

    def check(self, name: str, value: Any) -> None:
        """Raise :class:`UsageError` for another name, with the nearest one as the hint."""
        if value not in self.names:
            near = difflib.get_close_matches(value, self.names, 1) or self.names
            raise UsageError(f"{name}: `{value}` is not one of {', '.join(self.names)}", f"did you mean {near[0]}?")


@dataclass(frozen=True)
class Passes:
    """Anything that a function, which names its field, does not refuse."""

    test: Callable[[Any], None]

    def check(self, name: str, value: Any) -> None:
        """Raise what the function raises."""
        self.test(value)


def rules_of(kind: type) -> dict[str, tuple[Rule, ...]]:
    """The rules of a dataclass's fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__ for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def check(values: Any, rules: dict[str, tuple[Rule, ...]]) -> None:
    """Check the attributes of ``values`` that have rules. Raises :class:`UsageError` at the first that breaks one."""
    for name, own in rules.items():
        value = getattr(values, name)
        for rule in own if value is not None else ():
            rule.check(name, value)


def blame(where: str, check: Callable[[], Any]) -> None:
    """Run a check whose errors name the place where to fix them."""
    try:
        check()
    except UsageError as error:
        raise UsageError(f"{where}{error}", error.hint) from error
