"""The page of a model as a static Space: files that the Hub serves as they are, with nothing running there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bonaface.hub import merge
from bonaface.hub.publish import Published
from bonaface.hub.space import deliver, model_name
from bonaface.hub.templates import render_sections
from bonaface.page.build import HEADERS, page_files

OWNED = ("index.html", "sw.js", "files-*/*")


def make_static_space(model: str, repo_id: str, *, out: Path | None = None, private: bool = False) -> Published | Path:
    """Publish the page of a model, or, with ``out``, write its Space's folder.

    Raises:
        UsageError: as :func:`bonaface.page.build.make_page` and :func:`bonaface.hub.space.deliver`.
    """

    def make() -> tuple[dict[str, bytes | Path], str]:
        return dict(page_files(model)), _card(repo_id)

    message = f"The page of {model_name(model)}"
    return deliver(repo_id, make, out=out, message=message, private=private, owned=OWNED, sdk="static")


def _card(repo_id: str) -> str:
    name = repo_id.split("/")[-1]
    metadata: dict[str, Any] = {
        "title": name, "emoji": "🔎", "colorFrom": "indigo", "colorTo": "gray", "sdk": "static", "pinned": False,
        "license": "apache-2.0", "short_description": "Is this face a photograph or AI-generated?",
        "custom_headers": HEADERS,
    }  # fmt: skip
    return merge.compose(metadata, render_sections("space/static.md.j2", name=name))
