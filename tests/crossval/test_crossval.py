"""Cross-validation as a user runs it: folds trained by the main job, pooled, resumed, and refused where they must be.

The folds are real trainings of a tiny model, in processes of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import make_faces
from transformers import ResNetConfig
from typer.testing import CliRunner

from bonaface.cli.main import app
from bonaface.crossval.crossval import run_crossval_command
from bonaface.crossval.jobs import FoldProcess, run_jobs
from bonaface.data.folds import Fold
from bonaface.errors import UsageError
from bonaface.report.findings import worth_in_words
from bonaface.training.calibrate import read_unseen, unseen_worth

pytestmark = pytest.mark.slow
COLUMNS = ["path", "fold", "label", "source", "p_fake", "verdict", "distance"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    return make_faces(root, {"real/cam": 54, "real/phone": 14, "fake/gan": 54, "fake/sd": 14}, size=(24, 24))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, folder: Path) -> Path:
    """A recipe that takes seconds."""
    path = tmp_path_factory.mktemp("recipes") / "quick.yaml"
    values = {"data": str(folder), "model": tiny_model, "from_scratch": True, "prepare": False, "audit": False}
    values |= {"bf16": False, "use_cpu": True, "num_train_epochs": 1, "per_device_train_batch_size": 16}
    values |= {"robustness": "none"}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def out(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, trained side by side by the command line, flags of the main job among its own."""
    out = tmp_path_factory.mktemp("runs") / "cv"
    words = ["crossval", str(recipe), "--folds", "2", "--seed", "7", "--out", str(out), "--jobs", "2"]
    result = CliRunner().invoke(app, [*words, "--learning_rate", "0.01"], catch_exceptions=False)
    assert result.exit_code == 0
    assert str(out / "report" / "report.html") in result.output
    return out


def result_of(out: Path) -> dict:
    return json.loads((out / "report" / "crossval.json").read_text())


def test_every_image_is_tested_once_and_all_are_pooled(out: Path, folder: Path) -> None:
    table = pd.read_parquet(out / "report" / "predictions.parquet")
    assert set(COLUMNS) <= set(table.columns)
    assert sorted(table["path"]) == sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    for name, rows in table.groupby("fold"):
        own = pd.read_csv(out / "folds" / name / "splits.csv")
        assert set(rows["path"]) == set(own["path"][own["split"] == "test"])
        run = pd.read_parquet(out / "folds" / name / "run" / "report" / "predictions.parquet").set_index("path")
        np.testing.assert_array_equal(rows["p_fake"], run.loc[list(rows["path"]), "p_fake"])


def test_flags_reach_the_main_job(out: Path) -> None:
    told = yaml.safe_load((out / "folds" / "fold1" / "run" / "recipe.yaml").read_text())
    assert (told["learning_rate"], told["seed"], told["num_train_epochs"]) == (0.01, 7, 1)
    assert (out / "folds" / "fold1" / "log.txt").read_text().startswith("$ ")


def test_the_figures_are_those_of_the_folds(out: Path) -> None:
    result = result_of(out)
    assert (result["schema_version"], result["kind"], result["real_label"]) == (1, "folds", "real")
    aucs = []
    for fold in result["folds"]:
        metrics = json.loads((out / "folds" / fold["folder"] / "run" / "report" / "metrics.json").read_text())
        for name in ("auc", "accuracy", "ece", "tpr_at_5pct_fpr"):
            assert fold[name] == pytest.approx(metrics["figures"][name]["value"])
        band = metrics["sections"]["thresholds"][-1]
        assert band["rule"] == "band"
        assert (fold["band_recall"], fold["band_fpr"]) == (band["recall"], band["fpr"])
        assert fold["uncertain"] == band["uncertain"]
        aucs.append(fold["auc"])
        assert fold["small"]  # 34 images on either side
    assert result["worst"] is None
    assert result["over_folds"]["auc"] == {
        "mean": pytest.approx(np.mean(aucs)),
        "sd": pytest.approx(np.std(aucs, ddof=1)),
        "n": 2,
    }
    assert result["pooled"]["n"] == sum(fold["n"] for fold in result["folds"]) == 136


def test_the_report_has_words_table_and_plots(out: Path) -> None:
    report = out / "report"
    html, words = (report / "report.html").read_text(), (report / "crossval.md").read_text()
    assert "By fold" in html
    assert {"folds_auc.png", "folds_roc.png", "metrics.json"} <= {path.name for path in report.iterdir()}
    assert "On new images from known generators and cameras, a detector trained with this recipe reaches AUC" in words
    assert "| mean ± sd |" in words
    assert result_of(out)["unseen"] is None
    assert "| fold2 (small) | 34 | 34 |" in words


def test_only_what_is_missing_is_trained_again(out: Path, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv, options = [str(recipe), "--seed", "7", "--learning_rate", "0.01"], {"folds": 2, "out": out}
    before = (out / "report" / "predictions.parquet").read_bytes()
    run_crossval_command(argv, **options)
    assert "is finished" in capsys.readouterr().out
    kept = (out / "folds" / "fold1" / "run" / "report" / "metrics.json").stat().st_mtime_ns
    (out / "folds" / "fold2" / "run" / "report" / "metrics.json").unlink()
    run_crossval_command(argv, **options, keep_folds=False)
    printed = capsys.readouterr().out
    assert "fold2    " in printed.split("136 images")[1]
    assert "fold1                                    AUC" not in printed
    assert kept > 0
    assert not list(out.glob("folds/*/run"))
    again = pd.read_parquet(out / "report" / "predictions.parquet")
    first = out / "first.parquet"
    first.write_bytes(before)
    pd.testing.assert_frame_equal(again, pd.read_parquet(first))
    first.unlink()
    run_crossval_command(argv, **options)  # folds that were not to be kept are not missing
    assert "is finished" in capsys.readouterr().out


def test_a_folder_in_which_no_fold_kept_anything_takes_the_changed_command(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first command failed in every fold, as one with a learning rate that is too high does."""
    out = tmp_path / "cv"

    def fail(*_: object) -> None:
        raise UsageError("a fold failed", "")

    monkeypatch.setattr("bonaface.crossval.crossval.run_jobs", fail)
    for words in (["--learning_rate", "9"], ["--learning-rate", "0.1", "--seed", "3"]):
        with pytest.raises(UsageError, match="a fold failed"):
            run_crossval_command([str(recipe), *words], folds=2, out=out)
    told = yaml.safe_load((out / "crossval.yaml").read_text())["recipe"]
    assert (told["learning_rate"], told["seed"]) == (0.1, 3)


def test_another_recipe_in_the_same_folder_is_refused(out: Path, recipe: Path) -> None:
    with pytest.raises(UsageError, match=r"another cross-validation \(folds: 2 -> 3; learning_rate: 0.01 -> 0.1\)"):
        run_crossval_command([str(recipe), "--seed", "7", "--learning_rate", "0.1"], folds=3, out=out)


def test_left_out_sources_are_unseen_and_small_ones_never_the_worst(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "loso"
    run_crossval_command([str(recipe)], by_source=True, out=out, jobs=2)
    result = result_of(out)
    assert [fold["held_out"] for fold in result["folds"]] == [
        {"fake": ["gan"], "real": ["cam"]},
        {"fake": ["sd"], "real": ["phone"]},
    ]
    assert [fold["small"] for fold in result["folds"]] == [False, True]
    assert result["worst"]["name"] == "gan"
    for fold in result["folds"]:
        metrics = json.loads((out / "folds" / fold["folder"] / "run" / "report" / "metrics.json").read_text())
        held = {*fold["held_out"]["fake"], *fold["held_out"]["real"]}
        assert not held & set(metrics["facts"]["train_sources"])
        counts = metrics["facts"]["counts"]
        assert {row["source"] for row in counts if row["split"] == "test"} == held
        assert not held & {row["source"] for row in counts if row["split"] != "test"}
    assert "from unseen generators and unseen cameras" in result["conclusion"]
    assert "With each of 2 folds of unseen sources judged by a calibration on the others" in result["conclusion"]
    pooled = json.loads((out / "report" / "metrics.json").read_text())
    assert "outside its training data" in pooled["conclusion"]


def test_families_are_dealt_whole_and_judged_together(recipe: Path, tmp_path: Path) -> None:
    """Two folds of unseen families; the large ones have a row of their own, the small ones none."""
    out = tmp_path / "families"
    words = ["crossval", str(recipe), "--leave-families-out", "2", "--out", str(out), "--jobs", "2"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    result = result_of(out)
    assert result["kind"] == "leave-families-out"
    assert [fold["held_out"]["fake"] for fold in result["folds"]] == [["gan"], ["sd"]]
    rows = result["families"]["rows"]
    assert {row["family"] for row in rows} == {"cam", "gan"}
    assert result["families"]["auc_low"] <= result["families"]["auc"] <= result["families"]["auc_high"]
    report = (out / "report" / "crossval.md").read_text()
    assert "each family weighted by the square root of its size" in report
    predictions = read_unseen(out / "report" / "predictions.parquet", result["labels"])  # as a training reads them
    worth = unseen_worth(predictions, result["labels"], result["labels"].index(result["real_label"]))
    assert worth is not None
    assert result["unseen"] == asdict(worth)
    assert worth_in_words(worth) in report
    assert worth_in_words(worth) in (out / "report" / "report.html").read_text()


def test_a_fold_that_fails_is_named_with_the_end_of_its_log(recipe: Path, tmp_path: Path) -> None:
    model = tmp_path / "without-weights"
    ResNetConfig(id2label={0: "fake", 1: "real"}).save_pretrained(model)
    flags = ["--dataloader_num_workers", "0", "--model", str(model)]
    with pytest.raises(UsageError, match=r"(?s)fold fold1 failed \(exit code 2\); its log.*without-weights") as caught:
        run_crossval_command([str(recipe), *flags], folds=2, out=tmp_path / "cv", jobs=1)
    assert caught.value.exit_code == 2
    assert "log.txt" in caught.value.hint
    assert not (tmp_path / "cv" / "folds" / "fold2" / "log.txt").exists()


def test_a_model_that_is_not_there_is_named_before_any_fold(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-model-here: no such folder"):
        run_crossval_command(
            [str(recipe), "--model", str(tmp_path / "no-model-here")], folds=2, out=tmp_path / "cv", jobs=1
        )
    assert not (tmp_path / "cv" / "folds").exists()


@pytest.mark.parametrize(
    ("flags", "options", "message", "hint"),
    [
        ([], {"folds": 1}, "--folds 1 is too few", "2 folds or more"),
        ([], {"folds": 60}, "--folds 60 is more than the number of groups", "use at most --folds"),
        ([], {"folds": 2, "by_source": True}, "--folds and --leave-one-source-out exclude", "one of them"),
        (["--learning_rat", "1"], {}, "unknown flag `--learning_rat`", "learning_rate"),
        (["--fold", "5"], {}, "unknown flag `--fold`", "--folds"),
        (["--output_dir", "x"], {}, "--output_dir cannot be used", "--out"),
        (["--push_to_hub", "True"], {}, "--push_to_hub cannot be used", "train a model on all images"),
        (["--calibrate_on", "x.parquet"], {}, "--calibrate_on cannot be used", "bonaface train"),
        (["--splits=x.csv"], {}, "--splits cannot be used", "makes its own"),
        (["--data", "/nowhere/at/all"], {}, "no data folder", "folder"),
    ],
)
def test_mistakes_are_named_before_any_training(
    recipe: Path, tmp_path: Path, flags: list[str], options: dict, message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run_crossval_command([str(recipe), *flags], **options, out=tmp_path / "cv")
    assert hint in caught.value.hint
    assert not (tmp_path / "cv").exists()


def test_a_family_of_no_source_is_named_before_any_training(recipe: Path, tmp_path: Path) -> None:
    with_families = tmp_path / "families.yaml"
    with_families.write_text(recipe.read_text() + "families: {one: [gann]}\n")
    with pytest.raises(UsageError, match="families: one names gann") as caught:
        run_crossval_command([str(with_families)], by_family=True, out=tmp_path / "cv")
    assert caught.value.hint == "did you mean gan?"
    one = tmp_path / "one.yaml"
    one.write_text(recipe.read_text() + "families: {one: [gan, sd]}\n")
    with pytest.raises(UsageError, match="needs two fake families, but the data has 1"):
        run_crossval_command([str(one)], by_family=True, out=tmp_path / "cv")


def test_a_folder_with_other_files_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"contains other files, such as thesis\.tex"):
        run_crossval_command([str(recipe)], folds=2, out=tmp_path)


def test_changed_data_is_refused_when_folds_go_on(out: Path, recipe: Path, tmp_path: Path) -> None:
    trained = tmp_path / "folds" / "fold1" / "run" / "checkpoints" / "1-train"
    trained.mkdir(parents=True)
    (trained / "log.json").write_text("[]")
    shutil.copy(out / "crossval.yaml", tmp_path)
    table = (out / "folds" / "fold1" / "splits.csv").read_text()
    (tmp_path / "folds" / "fold1" / "splits.csv").write_text(table.replace("real/cam/001.png", "real/cam/gone.png"))
    with pytest.raises(UsageError, match="the data has changed"):
        run_crossval_command([str(recipe), "--seed", "7", "--learning_rate", "0.01"], folds=2, out=tmp_path)


def test_a_fold_that_still_runs_elsewhere_is_not_started_again(tmp_path: Path) -> None:
    """A fold outlives a killed cross-validation; two trainings in one folder would spoil each other."""
    fcntl = pytest.importorskip("fcntl")
    job = FoldProcess(Fold("fold1", pd.DataFrame()), tmp_path, [sys.executable, "-c", "raise SystemExit(5)"])
    with (tmp_path / "log.txt").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="fold1 is being trained by another process"):
            run_jobs([job], 1, os.environ)
    with pytest.raises(UsageError, match="fold1 failed") as caught:
        run_jobs([job], 1, os.environ)
    assert caught.value.exit_code == 5
