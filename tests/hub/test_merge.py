"""A card with two authors: what a person wrote is never lost, ours is never stale, and nothing changes twice."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.errors import UsageError
from bonaface.hub.merge import compose, merge, personal

OLD = compose({"license": "unknown", "tags": ["a"]}, {"about": "# Faces\n\nold", "use": "old use", "limits": "few"})
NEW = compose(
    {"license": "unknown", "tags": ["a", "b"], "base_model": "x/y"},
    {"about": "# Faces\n\nnew", "use": "new use", "data": "much", "limits": "many"},
)


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_what_nobody_touched_is_replaced() -> None:
    assert merge(OLD, NEW) == (NEW, [])
    assert not personal(NEW)


def test_a_changed_section_stays_and_the_others_are_renewed() -> None:
    merged, kept = merge(OLD.replace("old use", "my use"), NEW)
    assert kept == ["use"]
    assert "my use" in merged
    assert "new use" not in merged
    assert "# Faces\n\nnew" in merged
    assert merged.index("much") < merged.index("many")


def test_a_deleted_section_stays_away_and_a_new_one_comes() -> None:
    begin, end = OLD.index("<!-- bonaface:begin use"), OLD.index("<!-- bonaface:begin limits")
    merged, kept = merge(OLD[:begin] + OLD[end:], NEW)
    assert kept == ["use"]
    assert "use" not in merged.split("-->", 1)[1].replace("bonaface:", "")
    assert "much" in merged


def test_text_around_the_sections_stays_where_it_is() -> None:
    edited = OLD.replace("<!-- bonaface:begin use", "A word from me.\n\n<!-- bonaface:begin use") + "\n## Thanks\n"
    merged, _ = merge(edited, NEW)
    assert merged.index("new\n") < merged.index("A word from me.") < merged.index("new use") < merged.index("## Thanks")


def test_metadata_of_a_person_stays_and_ours_is_renewed() -> None:
    edited = OLD.replace("license: unknown", "license: mit\nlanguage: en")
    merged, kept = merge(edited, NEW)
    assert metadata(merged) == {"license": "mit", "language": "en", "tags": ["a", "b"], "base_model": "x/y"}
    assert kept == ["metadata.license"]
    without = OLD.replace("tags:\n- a\n", "")
    merged, kept = merge(without, NEW)
    assert "tags" not in metadata(merged)
    assert kept == ["metadata.tags"]


def test_a_card_of_somebody_else_is_kept_whole_above_ours() -> None:
    theirs = "---\nlicense: mit # mine\n---\n\n# By me\n\nWords.\n"
    merged, kept = merge(theirs, NEW)
    assert merged.index("Words.") < merged.index("# Faces")
    assert metadata(merged)["license"] == "mit"
    assert kept == ["metadata.license"]


def test_lines_that_end_as_in_a_browser_are_no_edit() -> None:
    assert merge(OLD.replace("\n", "\r\n"), NEW) == (NEW, [])
    assert merge(NEW.replace("\n", "\r\n"), NEW)[0] == NEW.replace("\n", "\r\n")


def test_broken_metadata_is_not_overwritten() -> None:
    with pytest.raises(UsageError, match="not YAML"):
        merge("---\nlicense: [mit\n---\n\n# By me\n", NEW)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(OLD)), st.text("ab\n-<!> :#", max_size=8)), max_size=4))
def test_any_edit_survives_and_the_second_merge_changes_nothing(edits: list[tuple[int, str]]) -> None:
    """Wherever somebody types, in text, comments or metadata: it is kept or refused, and merged once is merged."""
    edited = OLD
    for at, text in edits:
        edited = edited[:at] + text + edited[at:]
    try:
        merged, _ = merge(edited, NEW)
    except UsageError:
        return
    words = [text.strip() for text in personal(edited) if not text.startswith("deleted ")]
    assert all(text in merged for text in words if ": " not in text)
    assert merge(merged, NEW)[0] == merged


def test_metadata_that_is_a_list_is_named() -> None:
    with pytest.raises(UsageError, match="not a list of"):
        merge("---\n- a\n- b\n---\ntext\n", NEW)
