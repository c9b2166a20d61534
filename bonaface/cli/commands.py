"""What our command lines share: both spellings of flags, quick help, errors in two lines."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from bonaface.errors import usage_errors_exit


class Commands(TyperGroup):
    """Commands whose errors, and Ctrl-C, follow our own rules: click would say "Aborted" and exit with 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with usage_errors_exit():
            return super().invoke(ctx)


def command_line(name: str, text: str) -> typer.Typer:
    """A command line of this name without commands yet, with this help."""
    return typer.Typer(
        name=name,
        help=text,
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"token_normalize_func": lambda flag: flag.replace("_", "-")},  # as train_hf.py takes them
    )
