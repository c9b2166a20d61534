"""What several processes of one run may count on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainingArguments

from bonaface.errors import UsageError
from bonaface.training.checkpoints import COMPLETE, DIVERGED, LOG, kept_stages
from bonaface.training.options import HARMLESS
from bonaface.training.recipe import read_recipe
from bonaface.training.run import Run

ROOT = Path(__file__).resolve().parents[2]
SLOW_READER = """
import sys, time
from pathlib import Path
from accelerate import PartialState
from bonaface.training.run import on_main_process

file, state = Path(sys.argv[1]), PartialState(cpu=True)
if not state.is_main_process:
    time.sleep(1)
    print("read", file.read_text())
on_main_process(file.unlink)
try:
    on_main_process(file.unlink)
except FileNotFoundError:
    print(f"process {state.process_index} of {state.num_processes}: gone")
state.destroy_process_group()
"""


LONG_WORK = """
import time
from datetime import timedelta
from accelerate import PartialState
from bonaface.training.run import on_main_process

state = PartialState(cpu=True, timeout=timedelta(seconds=3))
print("got", on_main_process(lambda: time.sleep(8) or 42))
state.destroy_process_group()
"""


@pytest.mark.slow
def test_the_others_wait_longer_than_a_trainings_group_does(tmp_path: Path) -> None:
    """Aligning a million images takes hours, and a process group gives up after half of one."""
    script = tmp_path / "script.py"
    script.write_text(LONG_WORK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("got 42") == 2


@pytest.mark.slow
def test_the_main_process_waits_for_all_and_its_failure_is_everybodys(tmp_path: Path) -> None:
    """What it does is often to remove: checkpoints that a slower process still loads the best weights from."""
    script, file = tmp_path / "script.py", tmp_path / "weights"
    script.write_text(SLOW_READER)
    file.write_text("whole")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, script, file], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "read whole" in done.stdout
    # Two processes may write into one line.
    assert sorted(re.findall(r"process \d of 2: gone", done.stdout)) == ["process 0 of 2: gone", "process 1 of 2: gone"]


def begun(folder: Path, *flags: str, kept: bool = True) -> Run:
    """A run as its process left it: with a complete checkpoint, or with one that is cut."""
    run = Run(folder / "run")
    run.write_recipe({**read_recipe(list(flags))[2], "data_fingerprint": "0" * 16})
    checkpoint = run.checkpoints / "1-train" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    if kept:
        (checkpoint / COMPLETE).touch()
    return run


def check(run: Run, *flags: str) -> None:
    _, args, said = read_recipe(list(flags))
    run.check_same(said, args)


def test_a_run_that_kept_nothing_takes_any_command(tmp_path: Path) -> None:
    run = begun(tmp_path, "--learning_rate", "1", kept=False)
    check(run, "--learning_rate", "0.1", "--model", "vit")
    run.check_same_data("1" * 16)
    assert not run.checkpoints.joinpath("1-train").exists()  # no later run resumes from it


def test_a_checkpoint_is_defended_against_another_recipe(tmp_path: Path) -> None:
    run = begun(tmp_path)
    with pytest.raises(UsageError, match=r"stage 1-train: learning_rate: 0.001 -> 0.1"):
        check(run, "--learning-rate", "0.1")
    with pytest.raises(UsageError, match=r"seed: 42 -> 1"):
        check(run, "--seed", "1")
    with pytest.raises(UsageError, match="the data has changed"):
        run.check_same_data("1" * 16)
    assert kept_stages(run.checkpoints)


@pytest.mark.parametrize(
    "flags",
    ["--resume_from_checkpoint True", "--report_to tensorboard", "--run_name mine", "--save_total_limit 3"]
    + ["--dataloader-num-workers 0", "--hub_model_id me/mine", "--logging_steps 5", "--log_level error"]
    + [
        "--keep-checkpoints",
        "--skip_memory_metrics False",
        "--eval_accumulation_steps 2",
        "--hub_strategy all_checkpoints",
    ],
)
def test_flags_that_change_no_result_resume(tmp_path: Path, flags: str) -> None:
    check(begun(tmp_path), *flags.split())


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"a: [b\n", b"\xff\xfe\0a"], ids=["list", "broken", "binary"])
def test_a_stored_recipe_that_cannot_be_read_is_an_error_with_a_hint(tmp_path: Path, content: bytes) -> None:
    run = begun(tmp_path)
    run.recipe_file.write_bytes(content)
    for refused in (lambda: check(run), lambda: run.check_same_data("0" * 16)):
        with pytest.raises(UsageError, match=r"recipe\.yaml") as caught:
            refused()
        assert "--output_dir" in caught.value.hint


def test_a_folder_with_only_the_systems_files_is_empty(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".report.71.partial"):
        (tmp_path / name).touch()
    for name in ("@eaDir", "lost+found"):
        (tmp_path / name).mkdir()
    check(Run(tmp_path))
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"contains other files, such as thesis\.tex"):
        check(Run(tmp_path))


def test_no_harmless_flag_is_misspelt() -> None:
    gone = {"logging_dir"}  # of other releases of transformers
    from bonaface.training.flags import FIELDS

    assert HARMLESS - gone <= FIELDS


def test_how_often_is_saved_counts_only_where_the_best_is_loaded(tmp_path: Path) -> None:
    last = ["--load_best_model_at_end", "False"]
    check(begun(tmp_path, *last), *last, "--save_strategy", "steps", "--save_steps", "7")
    steps = ["--save_strategy", "steps", "--eval_strategy", "steps", "--eval_steps", "5"]
    run = begun(tmp_path / "best", *steps, "--save_steps", "5")
    with pytest.raises(UsageError, match="save_steps"):
        check(run, *steps, "--save_steps", "10")


def test_the_run_itself_may_be_named_to_resume_from(tmp_path: Path) -> None:
    run = begun(tmp_path)
    last = run.checkpoints / "1-train" / "checkpoint-5"
    for place in (run.folder, run.checkpoints, last.parent, last):
        check(run, "--resume_from_checkpoint", str(place))
    other = begun(tmp_path / "other")
    for place in (other.folder, last.with_name("checkpoint-4"), "False"):
        with pytest.raises(UsageError, match="--resume_from_checkpoint") as caught:
            check(run, f"--resume_from_checkpoint={place}")
        assert "delete the folder" not in caught.value.hint


def test_data_and_weights_may_be_named_in_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trailing slash, a relative path; where the data lies is no part of a result, its fingerprint is."""
    (tmp_path / "data").mkdir()
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    run = begun(tmp_path, "--data", "data", "--model", "weights")
    check(run, "--data", f"{tmp_path}/data/", "--model", "./weights/")
    check(run, "--data", "moved", "--model", "weights")
    (run.folder / "report").mkdir()
    (run.folder / "report" / "metrics.json").write_text("{}")
    check(run, "--data", f"{tmp_path}/data/", "--model", "weights")
    with pytest.raises(UsageError, match="data: "):  # a finished run is not read again: here the name decides
        check(run, "--data", "moved", "--model", "weights")


def test_a_stage_that_diverged_may_change_and_those_before_it_stay(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    text = "stages: [{{name: head, freeze: backbone}}, {{name: all, learning_rate: {}}}]\n"
    recipe.write_text(text.format(100))
    run = begun(tmp_path, str(recipe))
    shutil.rmtree(run.checkpoints)
    first, second = run.checkpoints / "1-head", run.checkpoints / "2-all"
    for folder, files in ((first, [LOG]), (second / "checkpoint-2", [COMPLETE]), (second, [DIVERGED])):
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            (folder / name).write_text("[]")
    recipe.write_text(text.format(0.1))
    check(run, str(recipe))
    assert first.is_dir()
    assert not second.exists()
    recipe.write_text(text.format(0.1).replace("freeze: backbone", "freeze: none"))
    with pytest.raises(UsageError, match="stage 1-head: freeze: backbone -> none"):
        check(run, str(recipe))


def test_half_of_a_file_is_no_other_file(tmp_path: Path) -> None:
    """What a kill leaves of the first file that a run writes does not make the folder somebody else's."""
    (tmp_path / ".recipe.123.partial.yaml").write_text("lear")
    Run(tmp_path).check_same({}, TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
