"""The page of a model as a static Space: files that the Hub serves as they are, with nothing running there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bonaface.hub import merge
from bonaface.hub.pack import refuse_existing, write_folder
from bonaface.hub.publish import CARD, Published, check_repo_id, publish
from bonaface.hub.templates import render_sections
from bonaface.page.build import HEADERS, page_files

OWNED = ("index.html", "sw.js", "files-*/*")


def make_static_space(
    model: str, repo_id: str, *, out: Path | None = None, private: bool = False, token: str | None = None
) -> Published | Path:
    """Publish the page of a model, or, with ``out``, write its Space's folder.

    Raises:
        UsageError: as :func:`bonaface.page.build.make_page` and :func:`bonaface.hub.publish.publish`.
    """
    check_repo_id(repo_id)
    if out is not None:
        refuse_existing(out)
    files: dict[str, bytes | Path] = dict(page_files(model))
    name = repo_id.split("/")[-1]
    metadata: dict[str, Any] = {
        "title": name, "emoji": "🔎", "colorFrom": "indigo", "colorTo": "gray", "sdk": "static", "pinned": False,
        "license": "apache-2.0", "short_description": "Is this face a photograph or AI-generated?",
        "custom_headers": HEADERS,
    }  # fmt: skip
    card = merge.compose(metadata, render_sections("space/static.md.j2", name=name))
    if out is not None:
        write_folder(out, {**files, CARD: card.encode()})
        return out
    return publish(
        repo_id,
        files,
        lambda there: merge.merge(there, card)[0] if there else card,
        kind="space",
        message=f"The page of {Path(model).resolve().name if Path(model).is_dir() else model}",
        private=private,
        owned=OWNED,
        sdk="static",
        token=token,
    )
