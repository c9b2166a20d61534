"""What a model knows of itself survives its configuration; what is damaged or newer is refused by name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT

from bonaface.errors import UsageError
from bonaface.imaging import FACE_MARGIN
from bonaface.models.facts import (
    VERSION,
    Calibration,
    HardestSource,
    ModelFacts,
    ResemblesFacts,
    UnfamiliarFacts,
    UnseenWorth,
)
from bonaface.stats.certificates import thresholds, uncertain_band

WHOLE = ModelFacts(
    real_label="real",
    face_margin=None,
    data_fingerprint="0123456789abcdef",
    train_sources=("cam", "gan"),
    versions={"torch": "2.9"},
    calibration=Calibration(1.5, (0.1, -0.1), folded=True, n=77, ece_before=0.2),
    thresholds=thresholds([0.1] * 70),
    band=uncertain_band([0.1] * 70 + [0.9] * 70, [False] * 70 + [True] * 70, sources=["cam"] * 70 + ["gan"] * 70),
    unfamiliar=UnfamiliarFacts(10, 0.4, 0.99, 50, bank=99, file="unfamiliar.safetensors", sources=("cam", "gan")),
    resembles=ResemblesFacts(True, 3.5, ("gan", "net"), 70, 0.6, 0.5, 0.7, 0.4, 0.8, 0.7, 0.9, 0.1, 0.6),
    judged_on="140 predictions",
    unseen=UnseenWorth(140, 4, 0.2, 0.1, 0.5, None, HardestSource("gan", "fake", 70, 0.5)),
)


@pytest.mark.parametrize("facts", [WHOLE, ModelFacts(), ModelFacts(calibration_note="not calibrated: no image")])
def test_a_configuration_gives_back_what_was_written(facts: ModelFacts) -> None:
    block = json.loads(json.dumps(facts.to_block()))
    assert block["version"] == VERSION
    assert ModelFacts.from_block(block) == facts


def test_the_shipped_models_block_loses_nothing() -> None:
    block = json.loads((ROOT / "models" / "bonaface-small" / "config.json").read_text())["bonaface"]
    facts = ModelFacts.from_block(block)
    assert facts.to_block() == block
    assert facts.trained_on == block["unfamiliar"]["sources"]


def test_a_model_of_others_has_no_facts_and_a_margin_that_is_null_is_one() -> None:
    assert ModelFacts.of_config(SimpleNamespace(num_labels=2)) == ModelFacts(face_margin=FACE_MARGIN)
    assert ModelFacts.from_block({"face_margin": None}).face_margin is None
    assert ModelFacts.from_block({"a key of tomorrow": 1}) == ModelFacts()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": VERSION + 1}, f"newer bonaface.*version {VERSION + 1}"),
        ({"version": "1"}, "bonaface.version"),
        ({"version": True}, "bonaface.version"),
        ({"real_label": 1}, "bonaface.real_label"),
        ({"face_margin": -0.1}, "bonaface.face_margin"),
        ({"calibration": {"bias": [0.0, 0.0], "folded": True}}, "bonaface.calibration.temperature"),
        ({"calibration": {"temperature": 0, "bias": [0.0, 0.0], "folded": True}}, "bonaface.calibration.temperature"),
        ({"calibration": {"temperature": 1, "bias": [0.0, "x"], "folded": True}}, "bonaface.calibration.bias.1"),
        ({"calibration": {"temperature": 1, "bias": [0.0], "folded": True}}, "bonaface.calibration.bias has 1 value"),
        ({"band": {"low": 0.4}}, "bonaface.band.high"),
        ({"band": {"low": "0.4", "high": 0.6}}, "bonaface.band.low"),
        ({"band": {"low": float("nan"), "high": 0.6}}, "bonaface.band.low"),
        ({"band": {"low": 0.7, "high": 0.6}}, "bonaface.band.*above"),
        ({"thresholds": [{"fpr": 0.05}]}, "bonaface.thresholds.0.threshold"),
        ({"unfamiliar": {"sources": ["a"]}}, "bonaface.unfamiliar.neighbour"),
        ({"unseen": {"n": 1}}, "bonaface.unseen.folds"),
    ],
)
def test_what_is_damaged_or_newer_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    config = SimpleNamespace(num_labels=2, bonaface=WHOLE.to_block() | change)
    with pytest.raises(UsageError, match=f"my model.*{message}"):
        ModelFacts.of_config(config, "my model")


def test_a_block_that_is_no_object_is_refused() -> None:
    with pytest.raises(UsageError, match="bonaface is not valid"):
        ModelFacts.from_block([1])
