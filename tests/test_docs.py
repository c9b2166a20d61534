"""The documentation names what there is: its links and anchors lead somewhere, its modules and scripts exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "recipes" / "README.md", *ROOT.glob("models/*/README.md")]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_scripts_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        path, _, place = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if place else []
        assert not place or place in map(anchor, headings), link
    for name in re.findall(r"\b(?:bonaface|benchmarks|recipes|tests|docs)/[a-z0-9_/]+\.(?:py|yaml|md|json)\b", text):
        assert (ROOT / name).exists(), name


def test_the_architecture_names_no_module_that_is_gone() -> None:
    packages = {path.parent.name: path.parent for path in (ROOT / "bonaface").glob("*/__init__.py")}
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## How a data folder travels")[0]
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        names = re.findall(r"`(?:(\w+)?\.)?(\w+)`", row)
        package = names[0][0] or names[0][1]
        for owner, module in names:
            if owner or package != module:
                assert (packages[owner or package] / f"{module}.py").is_file(), row
