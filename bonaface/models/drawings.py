"""Was a model trained on nothing but the embedded sample's drawn portraits? The names of its training sources tell.

They are in the sample's folders and its metadata.csv, stay when it is copied, cut down, prepared or published, and
every model keeps those of its training (:attr:`bonaface.models.facts.ModelFacts.trained_on`, and in its report).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bonaface.errors import UsageError
from bonaface.files import read_json
from bonaface.models.facts import ModelFacts

REAL = ("camera_a", "camera_b")
FAKE = ("gen_nearest", "gen_bilinear", "gen_transposed")
WARNING = "trained on drawn portraits only"
MEANING = "This model was trained on drawn portraits only. Its scores of photographs mean nothing."


def only_drawings(sources: Iterable[str]) -> bool:
    """Whether these sources are the sample's and no other: at least one of each class, none without a name."""
    named = set(sources)
    return bool(named & set(REAL)) and bool(named & set(FAKE)) and named <= {*REAL, *FAKE}


def knows_only_drawings(folder: Path) -> bool:
    """Whether the model in this folder, by its configuration or else its report, was trained on drawings alone.

    A damaged file counts as no here; loading the model reports it.
    """
    for file, key in ((folder / "config.json", "bonaface"), (folder / "report" / "metrics.json", "facts")):
        try:
            sources = ModelFacts.from_block(read_json(file).get(key)).trained_on
        except UsageError:
            continue
        if sources:
            return only_drawings(sources)
    return False
