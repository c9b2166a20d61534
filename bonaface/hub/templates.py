"""The templates in ``hub/templates``: the cards of models, data sets and Spaces, and a Space's own files."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import jinja2

from bonaface.errors import UsageError
from bonaface.report.pages import markdown_text
from bonaface.resources import resource
from bonaface.stats.figures import percent

FOLDER = "hub/templates"


def render(template: str, **values: Any) -> str:
    """A template as one text. Raises UsageError where this copy of the project has no templates."""
    return _environment().get_template(template).render(values)


def render_sections(template: str, **values: Any) -> dict[str, str]:
    """Each block of a template by its name, in their order, without those that have nothing below a heading.

    A block is a section that :mod:`bonaface.hub.merge` keeps apart. Raises as :func:`render`.
    """
    loaded = _environment().get_template(template)
    context = loaded.new_context(values)
    found = {key: "".join(block(context)).strip() for key, block in loaded.blocks.items()}
    return {key: text for key, text in found.items() if text and not re.fullmatch(r"#+ .*", text)}


def cell(text: object) -> str:
    """Names are untrusted: nothing in them may end a table cell or start markup."""
    kept = "".join(character if character.isprintable() else " " for character in str(text))
    return kept.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


@lru_cache
def _environment() -> jinja2.Environment:
    folder = resource(FOLDER)
    if folder is None:
        raise UsageError(f"this copy of bonaface lacks {FOLDER}", "use a complete checkout, or install it with pip")
    environment = jinja2.Environment(  # noqa: S701  # Markdown and Python, no HTML: `cell` and `text` escape names
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": cell,
        "text": markdown_text,
        "number": number,
        "share": percent,
        "thousands": "{:,}".format,
        "json": lambda value: json.dumps(value, ensure_ascii=False),
    }
    return environment
