"""What was measured becomes a finding from its limit on, at the level and with the names that it deserves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bonaface.audit.findings import DuplicateGroup, Finding, list_findings
from bonaface.audit.leaks import Clue, Leak
from bonaface.data.rows import BrokenFile


def leak(auc: float = 0.5, low: float = 0.4, sources: list[tuple[str, float, float]] | None = None, **known) -> Leak:
    table = pd.DataFrame(sources or [], columns=["source", "auc", "auc_low"])
    return Leak(auc, low, 1.0, 10, table, np.zeros(0, bool), np.zeros(0), **known)


def table(*parts: tuple[str, str, int], side: dict[str, int] | None = None) -> pd.DataFrame:
    """Files of these (label, source, number), each a unit of its own, without splits."""
    rows = [(label, source) for label, source, n in parts for _ in range(n)]
    files = pd.DataFrame(rows, columns=["label", "source"])
    width = [(side or {}).get(label, 100) for label in files["label"]]
    names = [f"{i:03d}.jpg" for i in range(len(files))]
    return files.assign(path=names, unit=names, split="", width=width, height=width)


EVEN = [("real", "a", 20), ("real", "b", 20), ("fake", "x", 20), ("fake", "y", 20)]


def found(files: pd.DataFrame | None = None, facts: Leak | None = None, **other) -> list[Finding]:
    files = table(*EVEN) if files is None else files
    known = {"broken": [], "duplicates": [], "appearance": None, "looks": pd.DataFrame(), **other}
    return list_findings(files, facts=facts or leak(), real_label="real", **known)


def test_even_files_without_a_leak_have_no_finding() -> None:
    assert found(appearance=leak(), looks=pd.DataFrame({"path": ["000.jpg"], "face": ["yunet"]})) == []


@pytest.mark.parametrize(
    ("topic", "auc", "low", "level"),
    [("facts", 0.75, 0.65, "leak"), ("facts", 0.74, 0.65, "warning"), ("facts", 0.75, 0.64, "warning"),
     ("facts", 0.65, 0.55, "warning"), ("facts", 0.64, 0.55, None), ("facts", 0.65, 0.54, None),
     ("appearance", 0.95, 0.9, "leak"), ("appearance", 0.94, 0.9, "warning"), ("appearance", 0.95, 0.89, "warning"),
     ("appearance", 0.75, 0.65, "warning"), ("appearance", 0.74, 0.65, None), ("appearance", 0.75, 0.64, None)],
)  # fmt: skip
def test_a_leak_has_its_level_from_both_limits_on(topic: str, auc: float, low: float, level: str | None) -> None:
    measured = leak(auc, low, clues=[Clue(name, 0.9, f"{name} tells") for name in ("width", "format", "size")])
    findings = found(facts=measured) if topic == "facts" else found(appearance=measured)
    assert [finding.level for finding in findings] == ([level] if level else [])
    if level:
        assert findings[0].text.endswith("; width tells; format tells")  # the two that tell most


@pytest.mark.parametrize(
    ("auc", "low", "level"),
    [(0.95, 0.85, "leak"), (0.94, 0.85, "warning"), (0.95, 0.84, "warning"), (0.85, 0.7, "warning"), (0.84, 0.7, None)],
)
def test_a_source_stands_out_although_its_class_does_not(auc: float, low: float, level: str | None) -> None:
    sources = [("a", auc, low), ("b", 0.5, 0.4)]
    (by_facts,) = found(facts=leak(sources=sources)) or [None]
    (by_look,) = found(appearance=leak(sources=sources)) or [None]
    assert (by_facts and by_facts.level) == level
    assert (by_look and by_look.level) == (level and "warning")  # what images show is never more than that
    if by_facts:
        assert f"one source, AUC: a ({auc:.2f})" in by_facts.text
    both = found(facts=leak(sources=[("a", 0.99, 0.9), ("b", 0.9, 0.8), ("c", 0.97, 0.9)]))
    assert [finding.level for finding in both] == ["leak", "warning"]
    assert "some sources, AUC: a (0.99), c (0.97)" in both[0].text


def copies(n: int, labels: tuple[str, ...] = ("real",), splits: tuple[str, ...] = (), kind: str = "exact"):
    return DuplicateGroup(kind, tuple(f"{i:03d}.jpg" for i in range(n)), labels, splits)


@pytest.mark.parametrize("where", [{"labels": ("fake", "real")}, {"splits": ("test", "train")}])
def test_copies_across_labels_or_splits_are_a_leak_from_one_per_cent_on(where: dict) -> None:
    few = table(("real", "a", 100), ("real", "b", 100), ("fake", "x", 100), ("fake", "y", 100))
    levels = [found(few, duplicates=[copies(n, **where)])[0].level for n in (2, 3, 4)]
    assert levels == ["warning", "warning", "leak"]  # of 400
    assert found(duplicates=[copies(2, **where)])[0].level == "leak"  # of 80


def test_other_copies_are_a_warning_that_counts_both_kinds() -> None:
    (finding,) = found(duplicates=[copies(3), copies(2), copies(2, splits=("train",), kind="near")])
    assert finding.level == "warning"
    text = "2 groups of identical files and 1 group of near duplicates, for example 000.jpg and 001.jpg"
    assert finding.text == text


def test_units_in_several_splits_are_named() -> None:
    files = table(*EVEN).assign(split=["train", "test"] * 40)
    files.loc[[3, 4], "unit"] = "anna"
    (finding,) = found(files)
    assert (finding.level, finding.topic) == ("leak", "splits")
    assert "1 group that should" in finding.text
    assert "is in more than one split, for example 003.jpg (test) and 004.jpg (train)" in finding.text
    files.loc[[5, 6], "unit"] = "bea"
    assert "2 groups that should stay whole" in found(files)[0].text
    assert found(files.assign(split="train")) == []


@pytest.mark.parametrize(("lost", "of", "told"), [(3, 30, True), (2, 20, False), (3, 31, False), (4, 40, True)])
def test_images_without_a_face_are_told_from_a_tenth_and_three_on(lost: int, of: int, told: bool) -> None:
    looks = pd.DataFrame(
        {"path": [f"{i:03d}.jpg" for i in range(of)], "face": ["none"] * lost + ["yunet"] * (of - lost)}
    )
    findings = found(looks=looks, appearance=leak())
    assert [finding.text for finding in findings] == (
        [f"no face was found in {lost} of {of} sampled images, mostly in a"] if told else []
    )


def test_broken_files_are_counted_by_reason() -> None:
    broken = [
        BrokenFile(name, reason, "real", "a")
        for name, reason in (("p", "empty: p"), ("q", "missing"), ("r", "empty: r"))
    ]
    (finding,) = found(broken=broken)
    assert finding.text == "3 of 83 files cannot be used (2 empty, 1 missing), such as p"


def test_uneven_classes_single_and_small_sources_and_uneven_sizes_are_warned_of() -> None:
    texts = [f.text for f in found(table(("real", "a", 61), ("real", "b", 61), ("fake", "x", 20), ("fake", "y", 20)))]
    assert texts == ["uneven classes: 122 real against 40 fake"]
    assert found(table(("real", "a", 60), ("real", "b", 60), ("fake", "x", 20), ("fake", "y", 20))) == []
    (single,) = found(table(("real", "a", 40), ("fake", "x", 20), ("fake", "y", 20)))
    assert single.text.startswith("all real images come from one source, a:")
    (small,) = found(table(("real", "a", 21), ("real", "b", 19), ("fake", "x", 20), ("fake", "y", 20)))
    assert small.text == "real sources with fewer than 20 images, too few to test on: b (19)"
    (sizes,) = found(table(*EVEN, side={"real": 201}))
    assert sizes.text == "uneven sizes: real images are about 201 px per side, fake ones 100"
    assert found(table(*EVEN, side={"real": 200})) == []
    assert len(found(table(*EVEN, side={"fake": 201}))) == 1


def test_the_worst_comes_first_and_what_could_not_be_assessed_is_said() -> None:
    findings = found(
        facts=leak(why_not="too few files"), appearance=leak(0.99, 0.98), broken=[BrokenFile("p", "empty", "real", "a")]
    )
    assert [(f.level, f.topic) for f in findings] == [
        ("leak", "appearance"), ("warning", "file facts"), ("warning", "broken files"),
    ]  # fmt: skip
    assert "too few files" in findings[1].text
