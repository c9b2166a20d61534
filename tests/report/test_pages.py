"""Text from outside stays text, in HTML, Markdown and JSON; numbers that are none become null."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonaface.files import write_json
from bonaface.report import pages
from bonaface.report.pages import Gallery, Page, Section, Table, Thumbnail


def page(*sections: Section, conclusion: str = "Fine.") -> Page:
    return Page("title", "subtitle", conclusion, [], [], [], sections)


@dataclass
class Broken:
    path: str
    size: float


def test_json_has_no_nan_no_numpy_and_no_surrogates(tmp_path: Path) -> None:
    value = {
        "nan": math.nan,
        "inf": [np.inf, np.float32(1.5), np.int64(2), np.bool_(True)],
        "table": pd.DataFrame({"a": [1.0, np.nan], "b": ["x", "y"]}),
        "array": np.eye(2),
        "row": Broken("a\udcff", math.inf),
        Path("p"): {1},
        "none": None,
    }
    write_json(tmp_path / "x.json", pages.jsonable(value))
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "nan": None,
        "inf": [None, 1.5, 2, True],
        "table": [{"a": 1.0, "b": "x"}, {"a": None, "b": "y"}],
        "array": [[1.0, 0.0], [0.0, 1.0]],
        "row": {"path": "a\\udcff", "size": None},
        "p": [1],
        "none": None,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@settings(deadline=None, max_examples=30)
@given(st.text())
def test_any_text_is_escaped_in_the_page(text: str) -> None:
    hostile = f"<script>{text}</script>"
    html = pages.page_html(
        page(Section("s", hostile, [hostile, Table(pd.DataFrame({hostile: [hostile]}))]), conclusion=hostile)
    )
    assert "<script" not in html
    assert html.count("<h2>") == 1
    html.encode()


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "![x](//evil)",
        "<img src=x>",
        "a|b",
        "`c`",
        "http://evil.example",
        "@someone",
        "# h",
        "www.evil.example",
    ],
)
def test_markdown_shows_the_text_and_makes_nothing_of_it(text: str) -> None:
    shown = pages.markdown_text(text)
    for pattern in ("[x](", "<img", "://", "@some", "www."):
        assert pattern not in shown
    for character in "[]|`#!":
        assert shown.count(character) == shown.count("\\" + character) + (shown.count("&#") if character == "#" else 0)


def test_markdown_leaves_names_readable() -> None:
    assert pages.markdown_text("flux1_dev 94.0 %") == "flux1_dev 94.0 %"
    table = pages.markdown_table(Table(pd.DataFrame({"source": ["a|b"], "n": [1200], "auc": [0.5]})))
    assert table.splitlines() == ["| source | n | auc |", "|---|---:|---:|", "| a\\|b | 1,200 | 0.500 |"]


def test_markdown_has_brief_sections_only_and_no_plots() -> None:
    text = pages.page_markdown(
        page(Section("a", "Long", ["hidden"]), Section("b", "Short", ["shown", Gallery([])], brief=True))
    )
    assert "Short" in text
    assert "shown" in text
    assert "hidden" not in text


def test_thumbnails_are_small_fresh_jpegs_without_metadata() -> None:
    image = Image.effect_noise((900, 600), 90).convert("RGBA")
    image.info["comment"] = b"secret"
    address = pages.thumbnail_uri(image)
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < 60_000
    assert image.size == (900, 600)
    html = pages.page_html(
        page(Section("g", "G", [Gallery([Thumbnail(image, "t", "n"), Thumbnail(None, "t", "n")], "c")]))
    )
    assert html.count("data:image/jpeg") == 1
    assert "no image" in html


def test_cells_read_well() -> None:
    cells = [pages.cell(v) for v in (1234567, 0.12345, 3e-5, math.nan, None, True, np.bool_(False), "x\ny")]
    assert cells == ["1,234,567", "0.123", "3.0e-05", "–", "–", "yes", "no", "x y"]
