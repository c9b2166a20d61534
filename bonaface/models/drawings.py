"""Does a model know nothing but the embedded sample's drawn portraits? The names of its training sources tell.

They stand in the sample's folders and its metadata.csv, come along where it is copied, cut down, prepared or published,
and every model keeps those of its training (``train_sources`` among the facts in config.json, and in its report).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REAL = ("camera_a", "camera_b")
FAKE = ("gen_nearest", "gen_bilinear", "gen_transposed")
WARNING = "knows drawn portraits only"
MEANING = "The model was trained on drawn portraits alone. What it says about a photograph means nothing."


def only_drawings(sources: Iterable[str]) -> bool:
    """Whether these sources are the sample's and no other: at least one of each class, none without a name."""
    named = set(sources)
    return bool(named & set(REAL)) and bool(named & set(FAKE)) and named <= {*REAL, *FAKE}


def train_sources(facts: Mapping[str, Any]) -> list[str]:
    """The sources that a model was trained on, by the facts in its configuration; empty where they are not known."""
    return list(facts.get("train_sources") or (facts.get("unfamiliar") or {}).get("sources") or [])


def knows_only_drawings(folder: Path) -> bool:
    """Whether the model in this folder, by its configuration or else its report, was trained on drawings alone."""
    facts = (_read(folder / "config.json").get("bonaface"), _read(folder / "report" / "metrics.json").get("facts"))
    known = (train_sources(found) for found in facts if isinstance(found, dict))
    return only_drawings(next(filter(None, known), []))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
