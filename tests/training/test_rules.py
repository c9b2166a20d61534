"""A field's own rule refuses what lies outside it, by the field's name, wherever the value comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from bonaface.errors import UsageError
from bonaface.training.options import RULES
from bonaface.training.recipe import read_recipe
from bonaface.training.rules import Bounds, Choices, Passes, check, rules_of

BOUNDED = {name: rule for name, rules in RULES.items() for rule in rules if isinstance(rule, Bounds)}
CHOSEN = {name: rule for name, rules in RULES.items() for rule in rules if isinstance(rule, Choices)}


def refuse_odd(value: int) -> None:
    if value % 2:
        raise UsageError("it is odd", "give an even one")


@dataclass
class Settings:
    free: int = 0
    share: Annotated[float | None, Bounds(0, 1, "(]")] = None
    name: Annotated[str, Choices(("one", "two"))] = "one"
    even: Annotated[int, Bounds(2), Passes(refuse_odd)] = 2


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (Settings(share=0), "share is out of range: 0", "more than 0 and at most 1"),
        (Settings(share=1.5), "share is out of range: 1.5", "more than 0 and at most 1"),
        (Settings(share=float("nan")), "share is out of range: nan", "more than 0"),
        (Settings(name="tow"), "name: `tow` is not one of one, two", "did you mean two?"),
        (Settings(name=""), "is not one of", "did you mean one?"),
        (Settings(even=0), "even is out of range: 0", "at least 2"),
        (Settings(even=3), "it is odd", ""),
    ],
)
def test_what_breaks_a_rule_is_named(settings: Settings, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(settings, rules_of(Settings))
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_what_keeps_the_rules_passes_and_so_does_none() -> None:
    check(Settings(), rules_of(Settings))
    check(Settings(share=1, name="two", even=4), rules_of(Settings))


@pytest.mark.parametrize("name", BOUNDED)
def test_a_recipes_value_outside_its_bounds_is_refused(name: str) -> None:
    rule = BOUNDED[name]
    wrong = [rule.low - 1, *([rule.low] if rule.ends[0] == "(" else []), *([rule.high] if rule.high == 1 else [])]
    for value in wrong:
        with pytest.raises(UsageError, match=f"{name} is"):
            read_recipe([f"--{name}={value}"])


@pytest.mark.parametrize("name", CHOSEN)
def test_a_recipes_choice_is_one_of_its_names(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: `x{CHOSEN[name].names[-1]}` is not one of"):
        read_recipe([f"--{name}=x{CHOSEN[name].names[-1]}"])


@pytest.mark.parametrize("size", ["--prepare_size=256", "--prepare_size 320 256", "--groups=sometimes", "--freeze=all"])
def test_what_a_function_refuses_is_refused(size: str) -> None:
    with pytest.raises(UsageError):
        read_recipe(size.split())
