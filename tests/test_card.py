"""A card says what metrics.json says, in a form that huggingface_hub's own classes read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bonafide.metrics import predictions_frame
from bonafide.report import write_report
from hub.card import write_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scores = [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]]
    table = predictions_frame(
        scores,
        ["fake", "fake", "real", "real"],
        labels=["fake", "real"],
        real_label="real",
        path=list("abcd"),
        source=["gan|x", "gan|x", "cam", "<img src=x>"],
        split="test",
    )
    counts = [{"split": "train", "label": "fake", "source": "gan|<img onerror=1>`", "n": 1234}]
    facts = {"model": "timm/resnet18.a1_in1k", "data": "../secret/faces", "counts": counts}
    write_report(tmp_path, table, labels=["fake", "real"], real_label="real", facts=facts, n_resamples=50)
    config = {"model_type": "resnet", "bonafide": {"data_fingerprint": "0123456789abcdef"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_metadata_reads_back_to_the_same_figures(folder: Path) -> None:
    card = ModelCard.load(write_card(folder))
    figures = json.loads((folder / "report" / "metrics.json").read_text())["figures"]
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["roc_auc"] == figures["auc"]["value"] == 1.0
    assert values["accuracy"] == figures["accuracy"]["value"] == 0.75
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.library_name == "transformers"
    assert card.data.base_model == "timm/resnet18.a1_in1k"


def test_text_has_data_and_no_path_of_this_machine_and_no_markup_of_others(folder: Path) -> None:
    text = write_card(folder).read_text()
    assert "| train | fake | gan\\|&lt;img onerror=1>' | 1,234 |" in text
    assert "0123456789abcdef" in text
    assert "secret" not in text
    assert "<img" not in text


def test_the_plain_cnn_says_what_it_needs(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bonafide_plain_cnn"}))
    assert "import bonafide" in write_card(folder).read_text()
