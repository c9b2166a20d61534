"""Trainings of several stages: what each may change, what it starts from, and that no kill shows in the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, make_faces
from safetensors.numpy import load_file
from transformers import pipeline

from bonaface.cli import train
from bonaface.errors import UsageError
from bonaface.training.recipe import read_recipe, stages_of
from bonaface.training.trainer import FaceTrainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plots_not_rendered")]
QUICK = ["--dataloader_num_workers", "0", "--bf16", "False", "--use_cpu", "True", "--per_device_train_batch_size", "8"]
QUICK += ["--robustness", "none", "--audit", "False", "--prepare", "False", "--disable_tqdm", "True"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 32, "fake/gan": 16, "fake/sd": 16})


def write(path: Path, **recipe: Any) -> str:
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model.safetensors")


class Killed(Exception):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The process ends in the middle of the `steps`-th training step from now."""
    left = [steps]
    step = FaceTrainer.training_step

    def dying(self: FaceTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return step(self, *args, **kwargs)

    monkeypatch.setattr(FaceTrainer, "training_step", dying)


STAGES = [
    {
        "name": "head",
        "freeze": "backbone",
        "num_train_epochs": 2,
        "schedule": "plateau",
        "lr_scheduler_kwargs": {"patience": 0},
        "warmup_steps": 3,
        "early_stopping_patience": 1,
        "mixup": 0.3,
    },
    {"name": "all", "num_train_epochs": 3, "schedule": "one_cycle", "ema_decay": 0.9, "layer_decay": 0.7},
    {"name": "lora", "num_train_epochs": 2, "schedule": "linear", "lora_rank": 2},
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, folder: Path, tiny_model: str) -> str:
    path = tmp_path_factory.mktemp("recipe") / "two.yaml"
    return write(
        path, data=str(folder), model=tiny_model, from_scratch=True, stages=STAGES, learning_rate=0.01,
        head_dropout=0.2, eval_strategy="steps", save_strategy="steps", eval_steps=3, save_steps=3, seed=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def steps() -> list[int]:
    """How many training steps the whole run took."""
    return [0]


@pytest.fixture(scope="module")
def whole(recipe: str, tmp_path_factory: pytest.TempPathFactory, steps: list[int]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    step = FaceTrainer.training_step

    def counted(self: FaceTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        steps[0] += 1
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceTrainer, "training_step", counted)
        train.main([recipe, *QUICK, "--output_dir", str(out)])
    return out


def test_the_log_counts_on_through_the_stages(whole: Path) -> None:
    report = (whole / "report" / "report.html").read_text()
    assert "Accuracy and AUC by epoch" in report
    stored = yaml.safe_load((whole / "recipe.yaml").read_text())
    assert stored["stages"] == STAGES
    assert not (whole / "checkpoints").exists()


@pytest.mark.parametrize(("step", "begun"), [(5, ["1-head"]), (16, ["1-head", "2-all"]), (-8, None)])
def test_killed_in_any_stage_and_continued_gives_the_same_bits(
    recipe: str,
    whole: Path,
    tmp_path: Path,
    step: int,
    begun: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[int],
) -> None:
    """In the first stage (plateau, patience, mixup, frozen), the second (average, layer decay), the third (LoRA).

    A negative step counts from the end.
    """
    command = [recipe, *QUICK, "--output_dir", str(tmp_path / "killed")]
    with monkeypatch.context() as patch:
        kill_at(patch, step if step > 0 else steps[0] + step)
        with pytest.raises(Killed):
            train.main(command)
    stages = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert stages == (begun or ["1-head", "2-all", "3-lora"])
    train.main(command)
    first, second = weights(whole), weights(tmp_path / "killed")
    assert all(np.array_equal(first[key], second[key]) for key in first)
    tables = [pd.read_parquet(run / "report" / "predictions.parquet") for run in (whole, tmp_path / "killed")]
    pd.testing.assert_frame_equal(*tables)


def test_a_stage_starts_from_the_best_of_the_last_and_freezes_what_it_says(
    folder: Path, tiny_model: str, tmp_path: Path
) -> None:
    """The second stage trains the head alone, so that the body ends as the first one left it."""
    stages = [{"name": "all", "num_train_epochs": 1}, {"name": "head", "freeze": "backbone", "num_train_epochs": 1}]
    path = write(tmp_path / "r.yaml", data=str(folder), model=tiny_model, from_scratch=True, stages=stages)
    train.main([path, *QUICK, "--output_dir", str(tmp_path / "run"), "--keep_checkpoints"])
    places = [tmp_path / "run" / "checkpoints" / name / "best.safetensors" for name in ("1-all", "2-head")]
    first, second = load_file(places[0]), load_file(places[1])
    moved = {key for key in first if not np.array_equal(first[key], second[key])}
    assert moved == {"classifier.weight", "classifier.bias"}
    log = json.loads((places[1].parent / "log.json").read_text())
    assert log
    best = load_file(sorted(places[1].parent.glob("checkpoint-*"))[0] / "model.safetensors")
    assert all(np.array_equal(best[key], second[key]) for key in second)


def test_low_rank_updates_are_merged_into_a_stock_model(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    """The pipeline loads the folder without peft."""
    path = write(tmp_path / "r.yaml", data=str(folder), model=tiny_model, from_scratch=True, lora_rank=2)
    train.main([path, *QUICK, "--output_dir", str(tmp_path / "run"), "--num_train_epochs", "2",
                   "--learning_rate", "0.05", "--seed", "5", "--keep_checkpoints"])  # fmt: skip
    after = weights(tmp_path / "run")
    assert not [key for key in after if "lora" in key or "base_layer" in key]
    checkpoint = sorted((tmp_path / "run" / "checkpoints" / "1-train").glob("checkpoint-*"))[-1]
    assert (checkpoint / "adapter_model.safetensors").is_file()
    stock = pipeline("image-classification", model=str(tmp_path / "run"))
    table = pd.read_parquet(tmp_path / "run" / "report" / "predictions.parquet")
    row = table[table["split"] == "test"].iloc[0]
    scores = {r["label"]: r["score"] for r in stock(str(folder / row.path))}
    assert scores["fake"] == pytest.approx(row.p_fake, abs=1e-4)


def test_a_hidden_head_says_what_it_needs(
    folder: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "r.yaml", data=str(folder), model=tiny_model, from_scratch=True, head_hidden_size=8)
    train.main([path, *QUICK, "--output_dir", str(tmp_path / "run"), "--num_train_epochs", "1"])
    assert "will need `import bonaface`" in capsys.readouterr().out
    assert "import bonaface" in (tmp_path / "run" / "README.md").read_text()
    code = "import sys, bonaface; from transformers import pipeline\n"
    code += "print(pipeline('image-classification', sys.argv[1])(sys.argv[2]))"
    picture = next((folder / "real" / "cam").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(picture)], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'fake'" in done.stdout


def test_two_processes_run_each_kind_of_stage(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    """Frozen with a plateau and mixup; averaged with layer decay and one-cycle; low-rank: on two CPU processes.

    Together they score every image once, and one of them writes the report.
    """
    path = write(
        tmp_path / "r.yaml", data=str(folder), model=tiny_model, from_scratch=True, stages=STAGES, head_dropout=0.2,
    )  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train_hf.py"]
    done = subprocess.run(
        [*command, path, *QUICK, "--output_dir", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())["facts"]
    assert facts["processes"] == 2
    table = pd.read_parquet(tmp_path / "run" / "report" / "predictions.parquet")
    assert table["path"].is_unique
    expected = Counter[str]()
    for row in facts["counts"]:
        expected[row["split"]] += row["n"]
    assert table["split"].value_counts().to_dict() == {k: n for k, n in expected.items() if k != "train"}
    assert [f"stage {i} of 3" in done.stdout for i in (1, 2, 3)] == [True] * 3
    assert done.stdout.count("report  ") == 1


def test_the_command_line_beats_a_stage(recipe: str, tmp_path: Path) -> None:
    """And what is stored means the same run again, stages included."""
    read, args, said = read_recipe([recipe, "--num_train_epochs", "1", "--learning_rate", "0.5"])
    assert [stage.args.num_train_epochs for stage in stages_of(read, args)] == [1, 1, 1]
    assert {stage.args.learning_rate for stage in stages_of(read, args)} == {0.5}
    again = write(tmp_path / "again.yaml", **said)
    read, args, said_again = read_recipe([again])
    assert said_again == said
    assert [stage.args.num_train_epochs for stage in stages_of(read, args)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("flag", "value", "scheduler"),
    [("lr_scheduler_type", "polynomial", "polynomial"), ("schedule", "constant", "constant_with_warmup")],
)
def test_either_name_of_a_schedule_on_the_command_line_beats_the_recipe(
    recipe: str, tmp_path: Path, flag: str, value: str, scheduler: str
) -> None:
    one = write(tmp_path / "one.yaml", schedule="plateau")
    for path in (recipe, one):
        read, args, said = read_recipe([path, f"--{flag}", value])
        assert {stage.args.lr_scheduler_type.value for stage in stages_of(read, args)} == {scheduler}
        read, args, _ = read_recipe([write(tmp_path / "again.yaml", **said)])
        assert {stage.args.lr_scheduler_type.value for stage in stages_of(read, args)} == {scheduler}


def test_a_recipe_without_stages_is_one() -> None:
    recipe, args, _ = read_recipe(["--schedule", "plateau"])
    (stage,) = stages_of(recipe, args)
    assert stage.name == "train"
    assert stage.args.lr_scheduler_type == "reduce_lr_on_plateau"


@pytest.mark.parametrize(
    ("stages", "message", "hint"),
    [
        ([{"name": "a", "learning_rat": 1}], "stage 1 (a): unknown key `learning_rat`", "learning_rate"),
        ([{"name": "a"}, {"name": "b", "image_size": 32}], "stage 2 (b): unknown key `image_size`", "--help"),
        ([{"name": "a", "num_train_epochs": "many"}], "stage 1 (a): argument --num_train_epochs", "--help"),
        ([{"name": "a", "freeze": "all"}], "freezes everything", "backbone"),
        ([{"name": "a", "freeze": "all_but_last_0"}], "freezes everything", "backbone"),
        ([{"name": "a", "freeze": "bakbone"}], "is not one of none, backbone", "backbone"),
        ([{"name": "a", "schedule": "one-cycle"}], "`one-cycle` is not one of", "did you mean one_cycle?"),
        ([{"name": "a", "ema_decay": 1.5}], "ema_decay is out of range: 1.5", "less than 1"),
        ([{"name": "a", "lora_rank": 2, "freeze": "backbone"}], "cannot be combined", "LoRA"),
        ([{"name": "a"}, {"name": "a"}], "needs a unique name", "name: head"),
        ([{"name": "a", "mix": ["b=-1"]}], "no positive weight", "mix"),
        ({"a": 1}, "stages is not a list", "backbone"),
        ([], "stages is not a list", "backbone"),
    ],
)
def test_slips_in_a_stage(tmp_path: Path, stages: Any, message: str, hint: str) -> None:
    path = write(tmp_path / "bad.yaml", stages=stages)
    with pytest.raises(UsageError) as caught:
        read_recipe([path])
    assert str(tmp_path / "bad.yaml") in str(caught.value)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_patience_without_evaluations_is_refused_in_a_stage(tmp_path: Path) -> None:
    stages = [{"name": "a", "early_stopping_patience": 2}]
    path = write(
        tmp_path / "r.yaml", stages=stages, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    with pytest.raises(UsageError, match=r"stage 1 \(a\): early_stopping_patience needs evaluations"):
        read_recipe([path])


def test_freezing_more_blocks_than_there_are_ends_before_training(
    folder: Path, tiny_model: str, tmp_path: Path
) -> None:
    stages = [{"name": "a", "num_train_epochs": 1}, {"name": "b", "freeze": "all_but_last_50"}]
    path = write(tmp_path / "r.yaml", data=str(folder), model=tiny_model, from_scratch=True, stages=stages)
    with pytest.raises(UsageError, match="all_but_last_50, but"):
        train.main([path, *QUICK, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "checkpoints").exists()
