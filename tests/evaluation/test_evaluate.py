"""An evaluation from the command to the report: any model, any labels, images that are fair to use, nothing lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_faces, make_image
from PIL import Image
from tiny import SIZES, tiny_data, tiny_run

from bonaface.data.dataset import FaceData, load_data
from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.evaluation import evaluate as evaluation
from bonaface.evaluation.data import align, evaluation_data, load_detector, shared_labels, with_labels
from bonaface.evaluation.evaluate import evaluate, run_evaluate_command
from bonaface.evaluation.options import EvaluationOptions
from bonaface.evaluation.robustness import robustness_remark
from bonaface.evaluation.scores import CLEAN, Variant
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.calibration import apply, uncalibrated
from bonaface.inference.detector import Detector
from bonaface.inference.rows import run_rows
from bonaface.models.load import load_model
from bonaface.report.write import SCHEMA_VERSION
from bonaface.stats import metrics
from bonaface.stats.certificates import verdicts
from bonaface.stats.predictions import score_matrix

OPTIONS = EvaluationOptions()
FEW = EvaluationOptions(robustness=False, n_resamples=20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def data(root: Path) -> FaceData:
    return tiny_data(root / "data")


@pytest.fixture(scope="module")
def folder(root: Path, data: FaceData) -> Path:
    return tiny_run(root / "run", data)


@pytest.fixture(scope="module")
def stranger(root: Path) -> Path:
    """Somebody else's model: other label names, no facts."""
    model, processor = load_model("resnet", ["artificial", "human", "unclear"], image_size=32)
    model.save_pretrained(root / "stranger")
    processor.save_pretrained(root / "stranger")
    return root / "stranger"


@pytest.fixture(scope="module")
def evaluated(root: Path, folder: Path) -> dict[str, Any]:
    """The command itself, on the data that the run was trained on, without splits of its own."""
    options = EvaluationOptions(quick=True, max_images=24, prior=0.1)
    run_evaluate_command(str(folder), str(root / "data"), str(root / "out"), options)
    return json.loads((root / "out/report/metrics.json").read_text())


def test_the_held_out_images_are_found_again(root: Path, data: FaceData, folder: Path, evaluated: dict) -> None:
    """By the fingerprint and the run's recipe: nothing that trained, selected or certified is judged."""
    detector = Detector.from_pretrained(folder)
    images, caveats = evaluation_data(str(root / "data"), OPTIONS, facts=detector.facts, folder=folder)
    assert set(images.splits) == {"test"}
    assert set(images.splits["test"]["path"]) == set(data.splits["test"]["path"])
    assert caveats == []
    assert evaluated["split"] == "test"
    strange = replace(detector.facts, data_fingerprint="0" * 16)
    other, caveats = evaluation_data(str(root / "data"), OPTIONS, facts=strange)
    assert len(other.splits[""]) == 160
    assert "too optimistic" in caveats[0]
    everything, caveats = evaluation_data(
        str(root / "data"), EvaluationOptions(split="all"), facts=detector.facts, folder=folder
    )
    assert len(everything.splits[""]) == 160
    with pytest.raises(UsageError, match="no split"):
        evaluation_data(str(root / "data"), EvaluationOptions(split="tset"))


def test_the_report_holds_all_that_was_asked_for(root: Path, folder: Path, evaluated: dict) -> None:
    assert evaluated["schema_version"] == SCHEMA_VERSION == 2
    assert evaluated["figures"]["auc"]["value"] > 0.7
    macro = evaluated["source_summary"]["macro_auc"]
    assert macro["low"] <= macro["value"] <= macro["high"]
    sections = evaluated["sections"]
    assert {"robustness", "thresholds", "calibration", "unfamiliar", "coverage"} <= set(sections)
    rows = pd.DataFrame(sections["robustness"])
    assert rows["auc"][0] == pytest.approx(evaluated["figures"]["auc"]["value"])
    assert {
        "jpeg",
        "webp",
        "downscale",
        "upscale",
        "blur",
        "noise",
        "crop",
        "brightness",
        "social",
        "screenshot",
    } <= set(rows["degradation"])
    assert sections["coverage"] == {"files": 24, "scored": 24, "unreadable": [], "faceless": None}
    assert [row["rule"] for row in sections["thresholds"]] == ["most likely label", "band"]
    assert {row["prior"] for row in sections["thresholds"]} == {0.1}
    table = pd.read_parquet(root / "out/report/predictions.parquet")
    before = uncalibrated(score_matrix(table, ["fake", "real"]), Detector.from_pretrained(folder).facts.calibration)
    expected = metrics.binary_figures(table["label"] == "fake", before[:, 0])["ece"]
    assert sections["calibration"]["ece_before"] == pytest.approx(expected)
    assert sections["calibration"]["ece_after"] == evaluated["figures"]["ece"]["value"]
    assert sections["calibration"]["ece_degraded_after"] is not None
    html = (root / "out/report/report.html").read_text()
    assert "10.0\N{NO-BREAK SPACE}% of all images are fake (the base rate)" in html
    assert len(robustness_remark(rows)) > 50
    assert robustness_remark(rows) in evaluated["conclusion"]
    assert "gives no verdict" in evaluated["conclusion"]


def test_verdicts_and_distances_stand_in_the_table(root: Path, folder: Path, evaluated: dict) -> None:
    table = pd.read_parquet(root / "out/report/predictions.parquet")
    detector = Detector.from_pretrained(folder)
    far = table["distance"] > detector.unfamiliar.threshold
    expected = np.where(far, "uncertain", verdicts(table["p_fake"], detector.facts.band))
    assert (table["verdict"] == expected).all()
    band = evaluated["sections"]["thresholds"][-1]
    assert band["uncertain"] == pytest.approx((table["verdict"] == "uncertain").mean())
    results = detector([str(root / "data" / path) for path in table["path"][:5]], faces=False)
    np.testing.assert_allclose([r.p_fake for r in results], table["p_fake"][:5], atol=1e-5)
    assert [r.verdict for r in results] == table["verdict"][:5].tolist()


def test_the_training_s_way_to_score_and_the_evaluation_s_are_one(data: FaceData, folder: Path, root: Path) -> None:
    model, processor = load_model(str(folder), data.labels)
    rows = [data.splits[name] for name in ("calibration", "test")]
    outputs = [run_rows(model, ImageRows(part, EvalTransform(processor))) for part in rows]
    p_real = np.concatenate([apply(out.logits)[:, data.real_index] for out in outputs])
    stored = evaluate(
        Detector.from_pretrained(folder), data, root / "again", FEW, splits=("calibration", "test"),
    )  # fmt: skip
    written = pd.read_parquet(root / "again/report/predictions.parquet")
    assert written["path"].tolist() == [path for part in rows for path in part["path"]]
    np.testing.assert_allclose(written["p_fake"], 1 - p_real, atol=1e-6)
    assert list(stored["splits"]) == ["calibration", "test"]
    assert stored["split"] == "test"
    assert "robustness" not in stored["sections"]


def test_broken_files_and_faceless_ones_are_counted(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root / "data", tmp_path / "data")
    for name in ("real/a/000.png", "fake/x/000.png"):
        (tmp_path / "data" / name).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    images, _ = evaluation_data(str(tmp_path / "data"), OPTIONS)
    kept = [i for i, path in enumerate(images.splits[""]["path"]) if path.endswith(("000.png", "001.png", "002.png"))]
    images = images.with_splits({"": images.splits[""].select(kept)})
    seen: list[tuple[int, int]] = []

    def detect(image: Image.Image) -> bool:
        seen.append(image.size)
        return len(seen) > 3

    monkeypatch.setattr(evaluation, "FaceDetector", lambda weights: SimpleNamespace(detect=detect))
    heat = lambda image: Image.new("RGB", image.size, "red")  # noqa: E731
    result = evaluate(
        Detector.from_pretrained(folder), images, tmp_path / "out", replace(FEW, faces=True, threads=1), heat_map=heat,
    )  # fmt: skip
    coverage = result["sections"]["coverage"]
    assert (coverage["files"], coverage["scored"], len(coverage["faceless"])) == (12, 10, 3)
    assert {row["path"] for row in coverage["unreadable"]} == {"real/a/000.png", "fake/x/000.png"}
    assert result["figures"]["n"] == 10
    assert (tmp_path / "out/report/report.html").read_text().count('alt="heat map"') > 0
    assert any("could not be read" in caveat for caveat in result["caveats"])


def test_any_labels_can_be_judged(root: Path, data: FaceData, stranger: Path) -> None:
    """A model with other names needs to be told which is real; other labels than --fake-label count for nothing."""
    with pytest.raises(UsageError) as error:
        load_detector(str(stranger), OPTIONS)
    assert "--real-label" in error.value.hint
    human = EvaluationOptions(real_label="human")
    detector, fakes = load_detector(str(stranger), human)
    assert fakes == ["artificial", "unclear"]
    labels, real = shared_labels(data, [detector])
    assert (labels, real) == (["fake", "real"], "real")
    p = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(align(p, detector, fakes, labels, real), [[0.7, 0.3]])
    chosen, only = load_detector(str(stranger), replace(human, fake_label="artificial"))
    np.testing.assert_allclose(align(p, chosen, only, labels, real), [[0.4, 0.6]])
    with pytest.raises(UsageError, match="no label"):
        load_detector(str(stranger), replace(human, fake_label="nope"))
    run_evaluate_command(
        str(stranger), str(root / "data"), str(root / "stranger_out"), replace(human, robustness=False, max_images=20),
    )  # fmt: skip
    result = json.loads((root / "stranger_out/report/metrics.json").read_text())
    assert result["labels"] == ["fake", "real"]
    assert result["sections"]["calibration"]["stored"] is None
    assert "has no uncertainty band" in (root / "stranger_out/report/report.html").read_text()


def test_labels_of_the_data_fold_into_two(tmp_path: Path, stranger: Path) -> None:
    """Three labels and a model that has others: each generator's label becomes its source."""
    for label in ("real", "gan", "diffusion"):
        for i in range(8):
            make_image(tmp_path / "data" / label / f"{i}.png", i)
    images, _ = evaluation_data(str(tmp_path / "data"), OPTIONS)
    detector, _ = load_detector(str(stranger), EvaluationOptions(real_label="human"))
    labels, _ = shared_labels(images, [detector])
    folded = with_labels(images, labels)
    rows = folded.splits[""]
    assert labels == ["fake", "real"]
    assert rows.features["label"].names == labels
    names = {(labels[label], source) for label, source in zip(rows["label"], rows["source"], strict=True)}
    assert names == {("fake", "gan"), ("fake", "diffusion"), ("real", "real")}
    assert rows["path"] == images.splits[""]["path"]


@pytest.fixture
def few_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two degradations in place of all: the plots of a report take longer than its scores."""
    monkeypatch.setattr(evaluation, "all_variants", lambda quick: [CLEAN, Variant("jpeg", 30), Variant("blur", 2)])


@pytest.mark.usefixtures("few_variants")
def test_several_classes_are_judged_as_they_are(tmp_path: Path) -> None:
    make_faces(tmp_path / "data", {"real": 16, "gan": 16, "diffusion": 16})
    data = load_data(tmp_path / "data", **SIZES)
    model, processor = load_model("resnet", data.labels, image_size=32)
    model.save_pretrained(tmp_path / "m")
    processor.save_pretrained(tmp_path / "m")
    result = evaluate(Detector.from_pretrained(tmp_path / "m"), data, tmp_path, EvaluationOptions(n_resamples=20))
    assert result["labels"] == ["diffusion", "gan", "real"]
    assert np.array(result["figures"]["confusion_matrix"]).sum() == len(data.splits["test"])
    assert len(result["sections"]["robustness"]) == 3


@pytest.mark.usefixtures("few_variants")
def test_one_kind_of_image_is_enough(data: FaceData, folder: Path, tmp_path: Path) -> None:
    """Fakes of a new generator alone: how many are found, and no word about telling them from real ones."""
    rows = data.splits["test"]
    fakes = rows.select([i for i, label in enumerate(rows["label"]) if label != data.real_index][:6])
    one = data.with_splits({"": fakes})
    result = evaluate(Detector.from_pretrained(folder), one, tmp_path, EvaluationOptions(n_resamples=20))
    assert "There were no real images" in result["conclusion"]
    assert result["figures"]["auc"]["value"] is None
    assert result["sections"]["robustness"][0]["recall"] is not None


def test_a_table_of_macro_figures_has_intervals_around_them(data: FaceData, root: Path, evaluated: dict) -> None:
    table = pd.read_parquet(root / "out/report/predictions.parquet")
    summary = metrics.source_summary(metrics.per_source(table, real_label="real"))
    for name in ("macro_auc", "macro_recall", "macro_fpr"):
        stored = evaluated["source_summary"][name]
        assert stored["value"] == pytest.approx(summary[name])
        if stored["low"] is not None:
            assert stored["low"] < stored["high"]
            assert stored["low"] <= stored["value"] <= stored["high"]
    assert evaluated["source_summary"]["macro_auc"]["low"] is not None


@pytest.mark.parametrize(("options", "message"), [({"prior": 1.0}, "--prior"), ({"split": "nope"}, "no split")])
def test_mistakes_are_usage_errors(root: Path, folder: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_evaluate_command(str(folder), str(root / "data"), str(root / "never"), EvaluationOptions(**options))
    assert not (root / "never").exists()
