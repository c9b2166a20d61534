"""Command lines of ``train_hf.py``: which fields of a recipe or of `TrainingArguments` they set, however spelt.

``--learning_rate 1e-5``, ``--learning-rate=1e-5`` and, for a switch, ``--no_prepare`` and ``--no-prepare`` are all
accepted. To find out whether a flag was given, use :func:`given_flags`, never the words themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import NoReturn

from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import DataClassType

from bonaface.errors import UnknownNameError, UsageError
from bonaface.training.options import Recipe

FIELDS = {f.name for kind in (Recipe, TrainingArguments) for f in fields(kind) if f.init}


class FlagParser(HfArgumentParser):
    """Every field of :class:`Recipe` and of `TrainingArguments` as a flag."""

    def __init__(self) -> None:
        super().__init__(
            (DataClassType(Recipe), DataClassType(TrainingArguments)),
            allow_abbrev=False,
            prog="bonaface train",
            usage="%(prog)s [RECIPE.yaml] [--flag value …]",
            description="Fine-tune a classifier on image folders.",
        )

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`UsageError` where argparse would end the process."""
        raise UsageError(message, "run `python train_hf.py --help` for a list of all flags")

    def field_of(self, word: str) -> str | None:
        """The field that a word of a command line sets; None where the word is no flag, as a value is not."""
        action = self._option_string_actions.get(_underscored(word).partition("=")[0])
        return action.dest if action else None

    def takes_list(self, field: str) -> bool:
        """Whether the flag of a field takes several values."""
        return self._option_string_actions[f"--{field}"].nargs in ("+", "*")


@cache
def flag_parser() -> FlagParser:
    """The parser, built once."""
    return FlagParser()


def normalized(argv: Sequence[str]) -> list[str]:
    """The same command line with underscores in the names of its flags; values stay as they are."""
    parser = flag_parser()
    return [_underscored(word) if parser.field_of(word) else word for word in argv]


def given_flags(argv: Sequence[str]) -> dict[str, str]:
    """The fields that a command line sets, and how it spells the flag of each: ``{"prepare": "--no-prepare"}``."""
    parser = flag_parser()
    named = ((parser.field_of(word), word.partition("=")[0]) for word in argv)
    return {field: flag for field, flag in named if field}


def nearest(word: str, known: set[str]) -> str:
    """A hint: the valid name that is nearest to a wrong one."""
    near = difflib.get_close_matches(word, sorted(known), 1)
    return f"did you mean {near[0]}?" if near else "run `python train_hf.py --help` for a list"


def refuse_unknown(word: str, known: set[str], kind: str, where: str) -> None:
    """Raise :class:`UnknownNameError` where a key, or the name of a data set, is not a known one."""
    if word not in known:
        raise UnknownNameError(f"{where}unknown {kind} `{word}`", nearest(word, known), word)


def refuse_unknown_word(word: str) -> NoReturn:
    """A word of the command line that is neither a flag nor the value of one, named as it was written."""
    name = word.partition("=")[0]
    if not name.startswith("-"):
        raise UnknownNameError(f"unknown argument `{name}`", nearest(name, FIELDS), name)
    bare = name.lstrip("-")
    dashes = "-" in bare
    near = difflib.get_close_matches(bare.replace("-", "_"), sorted(FIELDS), 1)
    flag = f"--{near[0].replace('_', '-') if dashes else near[0]}" if near else ""
    raise UnknownNameError(
        f"unknown flag `{name}`",
        f"did you mean {flag}?" if flag else "run `python train_hf.py --help` for a list",
        bare,
    )


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
