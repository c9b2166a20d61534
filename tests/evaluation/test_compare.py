"""Models on the same images: the tests are paired, the words follow from them, only fair images take part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_data, tiny_run

from bonaface.data.dataset import FaceData
from bonaface.errors import UsageError
from bonaface.evaluation.compare import compare, paired, run_compare_command
from bonaface.evaluation.compare_page import conclude_comparison
from bonaface.evaluation.options import EvaluationOptions
from bonaface.inference.detector import Detector
from bonaface.stats import metrics
from bonaface.stats.intervals import delong_test, mcnemar
from bonaface.stats.predictions import predictions_frame

LABELS = ["fake", "real"]


def table(noise: float, seed: int, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 2
    clear = np.where(truth == 0, 1.0, -1.0) + rng.normal(size=n)
    p = 1 / (1 + np.exp(-(clear + noise * np.random.default_rng(seed).normal(size=n))))
    return predictions_frame(
        np.stack([p, 1 - p], axis=1), truth, labels=LABELS, real_label="real", path=[f"{i}" for i in range(n)],
        source=[f"s{i % 4}" for i in range(n)],
    )  # fmt: skip


def test_the_pair_is_what_its_tests_say() -> None:
    first, second = table(0.0, 1), table(1.5, 2)
    result = paired(first, second, labels=LABELS, real_label="real", n_resamples=300)
    fake = (first["label"] == "fake").to_numpy()
    assert result["auc"] == delong_test(fake, first["p_fake"], second["p_fake"])
    right = [(t["prediction"] == t["label"]).to_numpy() for t in (first, second)]
    assert result["accuracy"] == mcnemar(*right)
    difference = result["differences"]["auc"]
    assert difference["value"] == pytest.approx(result["auc"]["difference"])
    assert difference["low"] < difference["value"] < difference["high"]
    assert difference["low"] == pytest.approx(result["auc"]["low"], abs=0.02)  # the bootstrap and DeLong agree
    assert difference["high"] == pytest.approx(result["auc"]["high"], abs=0.02)
    words = conclude_comparison(400, [{"first": "A", "second": "B"} | result])
    assert "A ranks better than B" in words
    backwards = paired(second, first, labels=LABELS, real_label="real", n_resamples=10)
    assert "A ranks better than B" in conclude_comparison(400, [{"first": "B", "second": "A"} | backwards])


def test_a_model_does_not_differ_from_itself() -> None:
    result = paired(table(0, 1), table(0, 1), labels=LABELS, real_label="real", n_resamples=50)
    assert result["auc"]["p_value"] == result["accuracy"]["p_value"] == 1
    for difference in result["differences"].values():
        assert difference == {"value": 0, "low": 0, "high": 0}
    assert "no difference in ranking can be shown" in conclude_comparison(9, [{"first": "A", "second": "B"} | result])


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired(table(0, 1), table(0, 1).iloc[::-1].reset_index(drop=True), labels=LABELS, real_label="real")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def data(root: Path) -> FaceData:
    return tiny_data(root / "data", 24)


@pytest.fixture(scope="module")
def models(root: Path, data: FaceData) -> list[str]:
    return [str(tiny_run(root / f"run{seed}", data, seed)) for seed in (0, 1)]


def test_the_command_writes_one_table_and_overlaid_curves(
    root: Path, data: FaceData, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_compare_command(models, str(root / "data"), str(root / "out"), EvaluationOptions(quick=True, max_images=16))
    report = root / "out/report"
    result = json.loads((report / "compare.json").read_text())
    assert result["models"] == models
    assert result["n"] == 16
    assert result["robustness"].keys() == set(models)
    first, second = (pd.read_parquet(report / f"predictions_{i}.parquet") for i in (1, 2))
    assert first["path"].tolist() == second["path"].tolist()
    assert set(first["path"]) <= set(data.splits["test"]["path"])  # held out from both
    expected = metrics.table_metrics(first, data.labels, "real")
    assert result["figures"][models[0]]["auc"]["value"] == expected["auc"]
    assert result["pairs"][0]["first"] == models[0]
    names = {path.name for path in report.iterdir()}
    assert {"compare.html", "compare.md", "compare_roc.png", "compare_jpeg.png"} <= names
    assert "On the same 16 images" in capsys.readouterr().out
    assert "On the same 16 images" in (report / "compare.html").read_text()


def test_three_models_make_three_pairs(data: FaceData, models: list[str], tmp_path: Path) -> None:
    detectors = [Detector.from_pretrained(name) for name in (*models, models[0])]
    named = dict(zip(["A", "B", "A again"], detectors, strict=True))
    test = data.with_splits({"test": data.splits["test"]})
    result = compare(named, test, tmp_path, EvaluationOptions(robustness=False, n_resamples=30))
    assert [(p["first"], p["second"]) for p in result["pairs"]] == [("A", "B"), ("A", "A again"), ("B", "A again")]
    assert result["pairs"][1]["differences"]["auc"] == {"value": 0, "low": 0, "high": 0}
    assert result["robustness"] is None


def test_one_model_is_nothing_to_compare(models: list[str], root: Path) -> None:
    with pytest.raises(UsageError, match="two models"):
        run_compare_command([models[0], models[0]], str(root / "data"), str(root / "never"), EvaluationOptions())
