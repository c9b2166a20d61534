"""A flag means the same however it is spelt, wherever somebody asks whether it was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bonaface.cli import main as cli
from bonaface.crossval.crossval import run_crossval_command
from bonaface.errors import UsageError
from bonaface.training.flags import FIELDS, flag_parser, given_flags, normalized
from bonaface.training.recipe import read_recipe, stages_of

# `parallelism_config` is of a class that no word can be turned into.
ACTIONS = [action for action in flag_parser()._actions if action.dest in FIELDS - {"parallelism_config"}]
# Every second dash, the first or the last may be an underscore: people mix them.
SPELLINGS = (
    lambda flag: flag.replace("_", "-"),
    lambda flag: flag.replace("_", "-", 1),
    lambda flag: "-".join(flag.rsplit("_", 1)),
)


def value_for(action) -> list[str]:
    if action.dest == "debug":
        return ["underflow_overflow"]
    if action.nargs == 0:
        return []
    if action.choices:
        return [str(list(action.choices)[-1])]
    return [
        {int: "3", float: "0.25"}.get(
            action.type, "" if "dict" in str(action.type) else "true" if "bool" in str(action.type) else "a-b_c"
        )
    ]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.option_strings[0])
def test_every_flag_of_training_means_the_same_in_every_spelling(action) -> None:
    """All fields of a recipe and of TrainingArguments, and the opposites of switches, as two words and with `=`."""
    flag, value = action.option_strings[0], value_for(action)
    parsed = flag_parser().parse_known_args([flag, *value])
    for spell in SPELLINGS:
        word = f"--{spell(flag[2:])}"
        for argv in ([word, *value], ["=".join([word, *value])]):
            assert flag_parser().parse_known_args(normalized(argv)) == parsed
            assert given_flags(argv) == {action.dest: word}


@given(st.text(alphabet="-_=ab 1.", min_size=1))
def test_values_are_left_alone(text: str) -> None:
    """Whatever looks like a flag in a value stays a value; negative numbers are values."""
    assert normalized([f"--run-name={text}"]) == [f"--run_name={text}"]
    assert normalized(["--seed", "-1", text]) == ["--seed", "-1", text]
    assert given_flags(["--learning-rate", "-1e-5", f"--run-name=--seed={text}"]).keys() == {
        "learning_rate",
        "run_name",
    }


def test_a_flag_with_dashes_beats_stages_and_defaults_and_is_stored() -> None:
    recipe, args, said = read_recipe(
        [str(ROOT / "recipes/resnet50_two_stage.yaml"), "--data", "x", "--num-train-epochs", "1", "--adam-beta1=0.8"]
        + ["--per-device-eval-batch-size", "3", "--no-prepare", "--no-dataloader-pin-memory"]
    )
    assert [stage.args.num_train_epochs for stage in stages_of(recipe, args)] == [1, 1]
    assert (args.per_device_eval_batch_size, said["adam_beta1"], recipe.prepare) == (3, 0.8, False)
    assert args.dataloader_pin_memory is False


def test_the_schedule_with_dashes_beats_the_one_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("schedule: plateau\n")
    recipe, args, _ = read_recipe([str(tmp_path / "r.yaml"), "--lr-scheduler-type", "linear"])
    assert (recipe.schedule, args.lr_scheduler_type) == (None, "linear")


def test_the_older_of_two_names_of_a_flag_beats_the_newer_one_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("activation_checkpointing: true\n")
    _, args, _ = read_recipe([str(tmp_path / "r.yaml"), "--gradient-checkpointing", "False"])
    assert not args.activation_checkpointing
    assert not args.gradient_checkpointing


@pytest.mark.parametrize(
    "flag", ["--output-dir=x", "--output_dir=x", "--push-to-hub", "--calibrate-on=x", "--search=3"]
)
def test_a_cross_validation_refuses_flags_that_each_fold_gets_from_it(flag: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_crossval_command(["--model", "cnn", flag])
    assert str(caught.value) == f"{flag.partition('=')[0]} cannot be used in a cross-validation"


def test_commands_take_underscores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes from train_hf.py writes them; what a command passes on keeps its spelling."""
    calls = []
    monkeypatch.setattr(
        "bonaface.crossval.crossval.run_crossval_command", lambda argv, **told: calls.append((argv, told))
    )
    words = ["crossval", "r.yaml", "--leave_one_source_out", "--drop_folds", "--learning-rate", "-1", "--run_name=a_b"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    argv, told = calls[0]
    assert argv == ["r.yaml", "--learning-rate", "-1", "--run_name=a_b"]
    assert (told["by_source"], told["keep_folds"]) == (True, False)
