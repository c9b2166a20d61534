"""A card says what metrics.json says, in a form that huggingface_hub's own classes read back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hub_repos import card_errors
from hub_runs import SECRET_PLACE, small_run
from huggingface_hub import ModelCard

from bonaface.errors import UsageError
from bonaface.hub.card import MODEL_INDEX, Story, card_of, write_card
from bonaface.report.write import write_report
from bonaface.stats.predictions import predictions_frame


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("card")
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
    details = {"model": "timm/resnet18.a1_in1k", "data": "../secret/faces", "counts": counts}
    write_report(tmp_path, table, labels=["fake", "real"], real_label="real", details=details, n_resamples=50)
    config = {"model_type": "resnet", "bonaface": {"data_fingerprint": "0123456789abcdef"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "folder"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With calibration, thresholds and recipe, as a training leaves it."""
    folder = small_run(tmp_path_factory.mktemp("runs") / "mine")
    config = json.loads((folder / "config.json").read_text())
    config["bonaface"] |= {
        "calibration": {"temperature": 1.5, "bias": [0.1, -0.1], "folded": True, "n": 77},
        "band": {"low": 0.25, "high": 0.75, "note": "at most 5 % of real images are called fake"},
        "thresholds": [
            {"fpr": 0.01, "threshold": None, "tpr": None, "note": "not certifiable"},
            {"fpr": 0.05, "threshold": 0.75, "tpr": 0.8, "note": "with 95 % confidence"},
        ],
        "unfamiliar": {"neighbour": 10, "threshold": 0.4, "quantile": 0.99, "n": 50},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_metadata_reads_back_to_the_same_figures(folder: Path) -> None:
    card = ModelCard.load(write_card(folder))
    figures = json.loads((folder / "report" / "metrics.json").read_text())["figures"]
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["roc_auc"] == figures["auc"]["value"] == 1.0
    assert values["accuracy"] == figures["accuracy"]["value"] == 0.75
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.library_name == "transformers"
    assert card.data.base_model == "timm/resnet18.a1_in1k"


def test_a_model_made_of_other_weights_names_them(folder: Path) -> None:
    """With pretrained weights it is a derived work; built from scratch it is not."""
    file = folder / "report" / "metrics.json"
    stored = file.read_text()
    for scratch, expected in ((False, "timm/tf_efficientnet_lite0.in1k"), (True, None)):
        metrics = json.loads(stored)
        recipe = {**(metrics["facts"].get("recipe") or {}), "model": "lite0", "from_scratch": scratch}
        metrics["facts"] |= {"model": "lite0", "recipe": recipe}
        file.write_text(json.dumps(metrics))
        assert ModelCard.load(write_card(folder)).data.base_model == expected
    metrics["facts"] |= {"model": "runs/pruned", "base_model": "openai/clip-vit-base-patch16", "recipe": {}}
    file.write_text(json.dumps(metrics))
    assert ModelCard.load(write_card(folder)).data.base_model == "openai/clip-vit-base-patch16"
    metrics["facts"]["base_model"] = None  # trained from a folder of which nothing is known
    file.write_text(json.dumps(metrics))
    assert ModelCard.load(write_card(folder)).data.base_model is None
    file.write_text(stored)
    write_card(folder)


def test_text_has_data_and_no_path_of_this_machine_and_no_markup_of_others(folder: Path) -> None:
    text = write_card(folder).read_text()
    assert "| train | fake | gan\\|&lt;img onerror=1>' | 1,234 |" in text
    assert "0123456789abcdef" in text
    assert "secret" not in text
    assert "<img" not in text


def test_the_plain_cnn_says_what_it_needs(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bonaface_plain_cnn"}))
    assert "import bonaface" in write_card(folder).read_text()


def test_every_figure_is_in_the_model_index_with_its_interval(run: Path) -> None:
    """Through YAML and back: the same numbers, to the last digit."""
    card = ModelCard(card_of(run, Story("user/faces")))
    figures = json.loads((run / "report" / "metrics.json").read_text())["figures"]
    found = {result.metric_type: result for result in card.data.eval_results}
    expected = {kind: figures[key] for key, kind in MODEL_INDEX.items() if figures[key]["value"] is not None}
    assert {kind: result.metric_value for kind, result in found.items()} == {k: f["value"] for k, f in expected.items()}
    for kind, figure in expected.items():
        interval = {"confidence": 0.95, "low": figure["low"], "high": figure["high"]}
        assert found[kind].metric_args == (interval if figure["low"] is not None else None)


def test_no_section_is_empty_and_no_table_is_crooked(run: Path, folder: Path) -> None:
    for place in (run, folder):
        text = re.sub(r"<!--.*?-->", "", ModelCard(card_of(place, Story())).text)
        assert not card_errors(card_of(place, Story()), "model")
        for part in re.split(r"^#{1,2} ", text, flags=re.MULTILINE)[1:]:
            assert len(part.partition("\n")[2].strip()) > 40, part
        assert not re.search(r"\b(None|nan)\b", text)
        tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
        assert tables
        for table in tables:
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().splitlines()}) == 1, table


def test_what_a_run_says_stands_in_the_card(run: Path) -> None:
    story = Story("user/faces", "mit", "CC BY 4.0, asked one by one", ("user/data",))
    text = card_of(run, story)
    for word in (
        "temperature of 1.500",
        "*real* up to 0.250",
        "| 5.0\N{NO-BREAK SPACE}% | 0.750 | 80.0\N{NO-BREAK SPACE}% |",
        "clean: nothing",
    ):
        assert word in text
    assert 'pipeline("image-classification", model="user/faces")' in text
    assert "published under `mit`" in text
    assert "CC BY 4.0, asked one by one" in text
    assert "datasets/user/data" in text
    assert "learning_rate: 0.001" in text
    assert SECRET_PLACE not in text
    assert ModelCard(text).data.base_model is None  # a preset has none


def test_unseen_sources_are_told_or_said_not_to_be(run: Path, tmp_path: Path) -> None:
    assert "Not measured: every source of the test set is also in the training data" in card_of(run, Story())
    report = tmp_path / "loso" / "report"
    report.mkdir(parents=True)
    (report / "crossval.json").write_text(json.dumps({"kind": "leave-one-source-out"}))
    (report / "crossval.md").write_text("AUC 0.711 on what it never saw.\n")
    assert "AUC 0.711 on what it never saw." in card_of(run, Story(unseen=tmp_path / "loso"))
    (report / "crossval.json").write_text(json.dumps({"kind": "folds"}))
    with pytest.raises(UsageError, match="left no source out"):
        card_of(run, Story(unseen=tmp_path / "loso"))
    with pytest.raises(UsageError, match="contains no cross-validation"):
        card_of(run, Story(unseen=tmp_path))


def test_a_card_that_is_there_keeps_what_was_edited(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "mine"))
    file = write_card(folder)
    file.write_text(file.read_text() + "\nA word from me.\n")
    assert "A word from me." in write_card(folder, Story(license="mit")).read_text()
    assert ModelCard.load(file).data.license == "mit"
