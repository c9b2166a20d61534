"""Every line of docs/reliability.md names a test that exists."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]


def test_there_are_many_lines() -> None:
    assert len(LINES) > 30


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("::")[-1].strip("`| "))
def test_a_line_names_a_test_that_exists(line: str) -> None:
    ((path, name),) = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)` \|$", line)
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), line
