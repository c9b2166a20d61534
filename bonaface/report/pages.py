"""Sections of plots, tables and text, and how they become one self-contained HTML file and a short Markdown one.

A report is a list of :class:`Section`; to add one, pass it to
:func:`bonaface.report.write.write_report`. A section's blocks are plain text (a paragraph), :class:`Plot`,
:class:`Table` or :class:`Gallery`. All text is untrusted: HTML is escaped, Markdown too, and the page may load and
run nothing.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from bonaface.report.style import DARK, LIGHT, Theme, figure_data_uri


@dataclass(frozen=True)
class Plot:
    """A figure drawn for the light and the dark page and saved as ``<name>.png``; ``caption`` says what it shows.

    A ``wide`` one is shown as wide as the page.
    """

    name: str
    caption: str
    draw: Callable[[Theme], Figure]
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table: numbers set right, with three decimals, counts with thousands separators, missing ones as a dash."""

    frame: pd.DataFrame
    caption: str = ""
    folded: bool = False  # collapsed until clicked: for long lists

    @property
    def numeric(self) -> list[bool]:
        """Which columns contain numbers."""
        kinds = pd.api.types
        return [kinds.is_numeric_dtype(kind) and not kinds.is_bool_dtype(kind) for kind in self.frame.dtypes]


@dataclass(frozen=True)
class Thumbnail:
    """A small image, with a second one (its heat map) below it, then a line of text and a fainter one."""

    image: Image.Image | None
    title: str
    note: str
    second: Image.Image | None = None


@dataclass(frozen=True)
class Gallery:
    """Thumbnails side by side."""

    items: Sequence[Thumbnail]
    caption: str = ""


Block = str | Plot | Table | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a report.

    ``key`` names it in ``metrics.json`` (under ``sections``, where ``data`` goes) and in the page's anchors;
    ``blocks`` are shown in order, neighbouring plots side by side. ``brief`` sections also appear in
    ``report.md``, without their plots.
    """

    key: str
    title: str
    blocks: Sequence[Block]
    data: Any = None
    brief: bool = False


@dataclass(frozen=True)
class KeyFigure:
    """A number of the first screen, its 95 % interval and what it means."""

    name: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Page:
    """The whole report: ``conclusion`` is the verdict in words, ``lead`` the blocks of the first screen."""

    title: str
    subtitle: str
    conclusion: str
    caveats: Sequence[str]
    key_figures: Sequence[KeyFigure]
    lead: Sequence[Block]
    sections: Sequence[Section] = field(default_factory=list)


def plain(value: object) -> str:
    """Any value as text that UTF-8 can hold, without control and text-direction characters."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf") else " " for c in text)


def cell(value: object) -> str:
    """A table's cell as text; three decimals, or the power of ten where they would all be 0."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.1e}" if 0 < abs(number) < 5e-4 else f"{number:.3f}"
    return plain(value)


def jsonable(value: Any) -> Any:
    """Plain JSON of nested results: numbers that are not finite become null, tables lists of rows, paths text."""
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, pd.DataFrame):
        return [jsonable(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {plain(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return plain(value)


# --- HTML --------------------------------------------------------------------------------------------------------


def page_html(page: Page) -> str:
    """One file: styles, plots and thumbnails inside, no script, and a policy that forbids loading anything."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"plain": plain, "cell": cell, "thumbnail": thumbnail_uri, "draw": _themed}
    return environment.get_template("report.html.j2").render(page=page, rows_of=rows_of)


def rows_of(blocks: Iterable[Block]) -> list[tuple[str, list[Block]]]:
    """Neighbouring blocks of one kind together: (kind, blocks)."""
    kinds = {str: "text", Plot: "plots", Table: "table", Gallery: "gallery"}
    return [(kind, list(group)) for kind, group in groupby(blocks, lambda block: kinds[type(block)])]


def _themed(plot: Plot) -> dict[str, str]:
    return {"light": figure_data_uri(plot.draw(LIGHT)), "dark": figure_data_uri(plot.draw(DARK))}


def thumbnail_uri(image: Image.Image) -> str:
    """A JPEG ``data:`` address of the image within 224 pixels, re-encoded: no metadata is included."""
    small = image.convert("RGB")
    small.thumbnail((224, 224))  # shown at half that, sharp on dense screens
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(small)).save(buffer, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


# --- Markdown ----------------------------------------------------------------------------------------------------


def markdown_text(value: object) -> str:
    """Text that Markdown shows as it is, without turning it into markup, links, mentions or HTML."""
    text = re.sub(r"([\\`*\[\]|~#!])", r"\\\1", re.sub(r"[ \t\r\n]+", " ", plain(value)))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", text.replace("://", "&#58;//"))


def markdown_table(table: Table) -> str:
    """A pipe table with numbers set right."""
    head = "| " + " | ".join(markdown_text(name) for name in table.frame.columns) + " |"
    rule = "|" + "|".join("---:" if numeric else "---" for numeric in table.numeric) + "|"
    rows = table.frame.itertuples(index=False)
    body = ["| " + " | ".join(markdown_text(cell(value)) for value in row) + " |" for row in rows]
    return "\n".join([head, rule, *body])


def page_markdown(page: Page) -> str:
    """The short form: verdict, caveats, key figures and the brief sections, with third-level headings."""
    parts = [markdown_text(page.conclusion)]
    parts += [f"> {markdown_text(caveat)}" for caveat in page.caveats]
    figures = [(f.name, f"{f.value} {f.interval}".strip(), f.meaning) for f in page.key_figures]
    if figures:
        parts.append(
            markdown_table(Table(pd.DataFrame(figures, columns=["figure", "value (95 % interval)", "meaning"])))
        )
    for section in page.sections:
        blocks = [block for block in section.blocks if isinstance(block, str | Table)] if section.brief else []
        blocks = [block for block in blocks if isinstance(block, str) or not block.folded]
        if blocks:
            parts.append(f"### {markdown_text(section.title)}")
        for block in blocks:
            parts.append(markdown_text(block) if isinstance(block, str) else markdown_table(block))
    return "\n\n".join(parts) + "\n"
