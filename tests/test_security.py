"""SECURITY.md states the limits that the code has, and what it never does."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from functools import reduce
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from decode_memory import KINDS, decoded, hostile

from bonaface.imaging.images import decode_image

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
LIMITS = re.findall(r"^\| [^|]+ \| ([\d,]+) \| `([\w.]+)` \|$", TEXT, re.MULTILINE)
MEMORY = dict(re.findall(r"^\| ([A-Za-z, ]+) \| ([\d.]+) \| [\d.]+ \|$", TEXT, re.MULTILINE))
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "decode_memory.json").read_text(encoding="utf-8"))
MODULES = sorted((ROOT / "bonaface").rglob("*.py"))


def test_there_is_a_table_of_limits_and_one_of_memory() -> None:
    assert len(LIMITS) > 20
    assert set(MEMORY) == set(KINDS) == set(MEASURED["formats"])


@pytest.mark.parametrize(("value", "name"), LIMITS, ids=[name for _, name in LIMITS])
def test_a_stated_limit_is_the_one_in_the_code(value: str, name: str) -> None:
    package, module, *attributes = name.split(".")
    assert int(value.replace(",", "")) == reduce(
        getattr, attributes, importlib.import_module(f"bonaface.{package}.{module}")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_stated_memory_is_above_what_was_measured(kind: str) -> None:
    assert MEASURED["formats"][kind]["memory"] <= float(MEMORY[kind]) <= MEASURED["formats"][kind]["memory"] + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_reading_an_image_takes_no_more_memory_than_stated(kind: str) -> None:
    """Here of 16 megapixels, 8 of HEIC, and of what every reading needs 16 MB."""
    pixels = 16_000_000
    assert decoded(kind, 4 * pixels if kind == "HEIC" else pixels)[0] <= float(MEMORY[kind]) + 16e6 / (3 * pixels / 2)


def test_no_file_is_said_to_take_longer_than_stated() -> None:
    (stated,) = re.findall(r"at most ([\d.]+) s of processor time", TEXT)
    seconds = [each["seconds"] for each in MEASURED["formats"].values()] + list(MEASURED["hostile_seconds"].values())
    assert max(seconds) <= float(stated)
    assert len(MEASURED["hostile_seconds"]) > 5


def called(node: ast.Call) -> str:
    """``torch.load`` of ``torch.load(...)``."""
    return ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "bonaface")))
def test_nothing_is_done_that_is_never_done(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "marshal", "shelve", "dill", "joblib", "requests", "urlopen", "urlretrieve"}
        if isinstance(node, ast.Call):
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert not called(node).endswith((".urlopen", ".urlretrieve"))
            assert called(node) not in {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
            assert options.get("shell", "False") == "False"
            assert options.get("allow_pickle", "False") == "False"
            if called(node) == "torch.load":
                assert options.get("weights_only") == "True"


@pytest.mark.slow
def test_what_costs_most_within_the_limits_is_read_or_refused_in_seconds() -> None:
    import time

    for name, data in hostile(megapixels=4).items():
        started = time.process_time()
        try:
            decode_image(data)
        except ValueError as error:
            raise AssertionError(name) from error  # within the limits, so it must be read
        assert time.process_time() - started < 5, name
