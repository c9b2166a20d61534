"""Words and templates of the page. Every value is escaped: file names, labels and metadata are strangers' text."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

WORDS = {"real": "Real", "fake": "AI-generated", "uncertain": "Uncertain", "error": "Not readable"}


def render(template: str, **values: Any) -> str:
    """HTML of ``templates/<template>.html.j2``."""
    return _environment().get_template(f"{template}.html.j2").render(words=WORDS, **values)


@lru_cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"plain": _plain, "score": score, "image": image_uri}
    return environment


def _plain(value: object) -> str:
    """Without control and text-direction characters, which could make a name read as another."""
    from bonaface.report.pages import (
        plain,  # with matplotlib; the first page has no stranger's text and need not wait for it
    )

    return plain(value)


def score(p_fake: float) -> str:
    """A score in [0, 1] with two digits, more where they would all be 0 or 9."""
    if 0 < p_fake < 0.01 or 0.99 < p_fake < 1:
        return f"{p_fake:.4f}"
    return f"{p_fake:.2f}"


def image_uri(image: Image.Image, side: int = 320) -> str:
    """A JPEG ``data:`` address within ``side`` pixels, re-encoded, so that no metadata is included."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
