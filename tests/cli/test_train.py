"""The main job as a user runs it: one command in, a model folder and a report out; kills and repeats."""

from __future__ import annotations

import errno
import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, make_faces
from PIL import Image
from safetensors.numpy import load_file
from transformers import pipeline

from bonaface.cli import train
from bonaface.errors import DivergedError, UsageError
from bonaface.training.trainer import FaceTrainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plots_not_rendered")]


@pytest.fixture(scope="module")
def quick(tiny_model: str) -> list[str]:
    """A recipe that takes seconds."""
    flags = ["--model", tiny_model, "--from_scratch", "--dataloader_num_workers", "0", "--bf16", "False"]
    flags += ["--use_cpu", "True", "--num_train_epochs", "3", "--per_device_train_batch_size", "8"]
    flags += ["--robustness", "none", "--learning_rate", "0.01", "--prepare", "False"]
    return [*flags, "--disable_tqdm", "True"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 40, "fake/gan": 20, "fake/sd": 20})
    (root / "real/cam/000.png").write_bytes(b"not a picture")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train.main(["--data", str(folder), "--output_dir", str(out), *quick])
    return out


def metrics_of(run: Path) -> dict:
    return json.loads((run / "report" / "metrics.json").read_text())


def test_the_folder_is_whole_and_holds_no_pickle(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "README.md"} <= files
    assert {"report/metrics.json", "report/report.html", "report/report.md", "report/predictions.parquet"} <= files
    assert any(name.endswith(".png") for name in files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    config = json.loads((run / "config.json").read_text())
    assert config["id2label"] == {"0": "fake", "1": "real"}
    assert config["bonaface"]["real_label"] == "real"
    assert len(config["bonaface"]["data_fingerprint"]) == 16


def test_the_pipeline_gives_the_predictions_of_the_report(run: Path, folder: Path) -> None:
    """Offline, with named labels, within 1e-4, on every image of the test split."""
    table = pd.read_parquet(run / "report" / "predictions.parquet")
    table = table[table["split"] == "test"]
    stock = pipeline("image-classification", model=str(run))
    for row in table.itertuples():
        scores = {r["label"]: r["score"] for r in stock(Image.open(folder / row.path).convert("RGB"))}
        assert scores["fake"] == pytest.approx(row.p_fake, abs=1e-4)
        assert max(scores, key=scores.get) == row.prediction


def test_the_report_knows_what_was_left_out_and_how_it_was_made(run: Path) -> None:
    facts = metrics_of(run)["facts"]
    assert [file["path"] for file in facts["broken"]] == ["real/cam/000.png"]
    assert facts["splits_made_by_us"] == ["train", "validation", "test"]
    assert facts["versions"]["transformers"]
    assert "real/cam/000.png" in (run / "report" / "report.html").read_text()


def test_a_model_learns(run: Path) -> None:
    """Fake images are three times darker here: anything but a high AUC means a broken pipeline."""
    assert metrics_of(run)["figures"]["auc"]["value"] > 0.95


def test_the_same_command_again_does_nothing(
    run: Path, folder: Path, quick: list[str], capsys: pytest.CaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train.main(["--data", str(folder), "--output_dir", str(run), *quick])
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_another_recipe_in_the_same_folder_is_refused(run: Path, folder: Path, quick: list[str]) -> None:
    with pytest.raises(UsageError, match=r"a different recipe \(learning_rate: 0.01 -> 0.1\)") as caught:
        train.main(["--data", str(folder), "--output_dir", str(run), *quick, "--learning_rate", "0.1"])
    assert "--output_dir" in caught.value.hint


def test_a_folder_with_other_files_is_refused(folder: Path, quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="contains other files"):
        train.main(["--data", str(folder), "--output_dir", str(tmp_path), *quick])


def test_changed_data_is_refused_when_a_run_goes_on(folder: Path, quick: list[str], tmp_path: Path) -> None:
    stored = {"data_fingerprint": "0" * 16}
    _, _, said = train.read_recipe(["--data", str(folder), "--output_dir", str(tmp_path), *quick])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**said, **stored}))
    checkpoint = tmp_path / "checkpoints" / "1-train" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete").touch()
    with pytest.raises(UsageError, match="the data has changed"):
        train.main(["--data", str(folder), "--output_dir", str(tmp_path), *quick])


def test_a_second_fine_tune_starts_from_the_first(run: Path, folder: Path, quick: list[str], tmp_path: Path) -> None:
    flags = ["--data", str(folder), "--output_dir", str(tmp_path / "second"), *quick, "--model", str(run)]
    train.main(
        [
            *flags,
            "--from_scratch",
            "False",
            "--learning_rate",
            "0",
            "--num_train_epochs",
            "1",
            "--max_train_samples",
            "8",
        ]
    )
    first, second = load_file(run / "model.safetensors"), load_file(tmp_path / "second" / "model.safetensors")
    trained = [key for key in first if not key.startswith("classifier")]  # calibration moves the head
    assert all(np.array_equal(first[key], second[key]) for key in trained)


def test_errors_reach_the_terminal_as_two_lines_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_hf.py", "--data", str(tmp_path / "nowhere" / "at" / "all")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "train_hf.py"), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in (said.out + said.err).strip().splitlines()] == ["error", "hint"]


def test_killed_in_the_middle_and_continued_gives_the_same_bits(
    folder: Path, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of an epoch, with drop path and augmentation; a half-written checkpoint is passed over."""
    flags = ["--data", str(folder), *quick, "--per_device_train_batch_size", "4"]
    flags += ["--num_train_epochs", "3", "--eval_strategy", "steps", "--save_strategy", "steps"]
    flags += ["--eval_steps", "5", "--save_steps", "5", "--balance", "source"]
    checkpoints = tmp_path / "killed" / "checkpoints" / "1-train"
    with (tmp_path / "log").open("w+") as log:
        command = [sys.executable, "train_hf.py", *flags, "--output_dir", str(tmp_path / "killed")]
        killed = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 300
        while not list(checkpoints.glob("checkpoint-20/complete")):  # epochs have 14 steps
            assert time.monotonic() < deadline
            assert killed.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not (tmp_path / "killed" / "report" / "metrics.json").exists()
    partial = checkpoints / "checkpoint-40"
    partial.mkdir()
    (partial / "trainer_state.json").write_text("{")
    train.main([*flags, "--output_dir", str(tmp_path / "killed")])
    assert "resuming from" in capsys.readouterr().out
    train.main([*flags, "--output_dir", str(tmp_path / "whole")])
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    tables = [pd.read_parquet(tmp_path / name / "report" / "predictions.parquet") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*tables)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """Five times the files, the same peak: rows hold names, not pixels."""
    command = [sys.executable, "benchmarks/train_memory.py", "--files", "400", "2000", "--steps", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    small, large = (float(line.split()[1]) for line in done.stdout.strip().splitlines()[1:])
    assert large < 1.05 * small


@pytest.mark.parametrize("flags", [["--strict_audit"], ["--strict_audit", "--prepare", "True"]])
def test_a_leak_is_named_and_can_be_refused(tmp_path: Path, quick: list[str], flags: list[str]) -> None:
    """Real images twice the size of fake ones: the audit says so before any training."""
    make_faces(tmp_path / "data", {"real/cam": 60}, size=(80, 80))
    make_faces(tmp_path / "data", {"fake/gan": 60}, size=(40, 40))
    with pytest.raises(UsageError, match=r"the audit of .* says leak") as caught:
        train.main(["--data", str(tmp_path / "data"), "--output_dir", str(tmp_path / "run"), *quick, *flags])
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_training_on_prepared_copies(tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Aligned JPEG copies are trained on; the audit still speaks of the raw files."""
    make_faces(tmp_path / "data", {"real/cam": 30}, size=(200, 200))
    make_faces(tmp_path / "data", {"fake/gan": 30}, size=(160, 160))
    monkeypatch.chdir(tmp_path)
    train.main(["--data", "data", "--output_dir", "run", *quick, "--prepare", "True", "--num_train_epochs", "1"])
    facts = metrics_of(tmp_path / "run")["facts"]
    assert facts["audit"]["level"] == "leak"
    table = pd.read_parquet(tmp_path / "run" / "report" / "predictions.parquet")
    assert all(path.endswith(".jpg") for path in table["path"])
    assert len(list((tmp_path / "prepared").glob("*/metadata.csv"))) == 1


def test_copies_of_one_image_share_a_split(tmp_path: Path) -> None:
    """Each image twice, at two JPEG qualities: near duplicates, found before the splits are made."""
    for label in ("real", "fake"):
        for i in range(20):
            smooth = np.random.default_rng([i, len(label), label == "real"]).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(smooth).resize((96, 96), Image.Resampling.BICUBIC)
            (tmp_path / label).mkdir(exist_ok=True)
            for quality in (92, 85):
                picture.save(tmp_path / label / f"{i}_{quality}.jpg", quality=quality)
    recipe, args, _ = train.read_recipe(["--data", str(tmp_path), "--prepare", "False"])
    data, _ = train.read_data(recipe, args.seed)
    homes = {path: split for split, rows in data.splits.items() for path in rows["path"]}
    assert len(homes) == 80
    apart = [path for path in homes if homes[path] != homes[path.replace("_92", "_85")]]
    assert not apart


def test_an_output_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path, folder: Path, quick: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        train.main(["--data", str(folder), "--output_dir", str(tmp_path / "file" / "run"), *quick])


def test_a_run_that_ended_before_training_does_not_block_the_next(
    folder: Path, quick: list[str], tmp_path: Path
) -> None:
    _, _, said = train.read_recipe(["--data", str(folder), "--output_dir", str(tmp_path), *quick])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**said, "model": "nonsense"}))
    train.main(["--data", str(folder), "--output_dir", str(tmp_path), *quick, "--num_train_epochs", "1"])
    assert (tmp_path / "report" / "metrics.json").is_file()


def test_predictions_to_calibrate_on_that_are_not_there_stop_the_run_before_it_begins(
    tmp_path: Path, folder: Path, quick: list[str]
) -> None:
    """Nothing is left in the folder, so that the corrected command is no other recipe."""
    flags = ["--data", str(folder), "--output_dir", str(tmp_path / "run"), *quick]
    with pytest.raises(UsageError, match="no such file"):
        train.main([*flags, "--calibrate_on", str(tmp_path / "nowhere.parquet")])
    assert not list(tmp_path.rglob("recipe.yaml"))


def test_a_training_that_diverged_and_one_without_room_resume_in_their_folder(
    folder: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN is said and the same folder takes the changed command; a full disk is said and the same command resumes."""
    flags = ["--data", str(folder), "--output_dir", str(tmp_path / "run"), *quick, "--num_train_epochs", "1"]
    with pytest.raises(DivergedError, match=r"diverged: .*step \d+.*learning rate"):
        train.main([*flags, "--learning-rate", "1e30"])
    write = FaceTrainer._save_checkpoint

    def without_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FaceTrainer, "_save_checkpoint", without_room)
    with pytest.raises(UsageError, match="no space left on disk"):
        train.main(flags)
    monkeypatch.setattr(FaceTrainer, "_save_checkpoint", write)
    train.main([*flags, "--resume-from-checkpoint", "True"])
    assert metrics_of(tmp_path / "run")["figures"]["auc"]["value"] is not None
