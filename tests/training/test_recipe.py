"""Command line beats recipe beats default; a slip in either is named with the nearest valid name, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonaface.errors import UsageError
from bonaface.training.options import Recipe
from bonaface.training.recipe import changed_keys, read_recipe

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_command_line_beats_recipe_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "model: vit\nnum_train_epochs: 7\nlearning_rate: 1e-4\nhigh_pass_stem: true\n")
    recipe, args, said = read_recipe([path, "--num_train_epochs", "3", "--balance=label"])
    assert recipe.model == "vit"
    assert recipe.high_pass_stem is True
    assert recipe.balance == "label"
    assert args.num_train_epochs == 3
    assert args.learning_rate == 1e-4  # YAML reads 1e-4 as text
    assert args.weight_decay == 0.05
    assert args.output_dir == "runs/mine"
    assert said["num_train_epochs"] == 3
    assert said["learning_rate"] == 1e-4


def test_no_arguments_mean_the_sample(tmp_path: Path) -> None:
    recipe, args, _ = read_recipe([])
    assert recipe.data == ["sample"]
    assert args.output_dir == "runs/sample"


def test_what_is_stored_means_the_same_run(tmp_path: Path) -> None:
    import yaml

    _, args, said = read_recipe(["--model", "vit", "--image_size", "64", "--lr_scheduler_type", "linear"])
    path = write(tmp_path / "recipe.yaml", yaml.safe_dump(said))
    _, _, again = read_recipe([path])
    assert again == said
    assert changed_keys(said, again, args) == []


def test_a_stored_recipe_binds_nobody_to_a_machine_without_a_gpu() -> None:
    """Only who said ``use_cpu`` meant it."""
    assert "use_cpu" not in read_recipe([])[2]
    assert read_recipe(["--use_cpu", "True"])[2]["use_cpu"] is True


def test_changed_keys_name_what_would_change_the_result_only() -> None:
    _, args, first = read_recipe(["--seed", "1"])
    _, _, second = read_recipe(["--output_dir", "elsewhere", "--dataloader_num_workers", "0", "--learning_rate", "0.5"])
    assert changed_keys(first, second, args) == ["learning_rate: 0.001 -> 0.5", "seed: 1 -> 42"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("modle: vit\n", "unknown key `modle`", "did you mean model?"),
        ("num_train_epochs: lots\n", "invalid float value: 'lots'", "--help"),
        ("augmentation: robst\n", "`robst` is not one of", "did you mean robust?"),
        ("balance: sauce\n", "`sauce` is not one of", "did you mean source?"),
        ("- a\n- b\n", "contains no keys", "key: value"),
        ("a: [b\n", "is not YAML", "key: value"),
        ("validation_size: 0.6\ntest_size: 0.4\n", "leave nothing", "less than 1"),
        (
            "early_stopping_patience: 3\neval_strategy: 'no'\nload_best_model_at_end: false\n",
            "needs evaluations",
            "epoch",
        ),
        ("image_size: [1, 2]\n", "image_size takes one value", "image_size: 1"),
        ("max_train_samples: -3\n", "max_train_samples is out of range: -3", "at least 2"),
        ("image_size: 0\n", "image_size is out of range: 0", "at least 8"),
        ("image_size: 40960\n", "image_size is out of range: 40960", "at most 4096"),
        ("seed: -1\n", "seed is out of range: -1", "at least 0"),
        ("image_size: 64\nresize: 32\n", "smaller than image_size", "at least as large"),
    ],
)
def test_slips_in_a_recipe(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(UsageError) as caught:
        read_recipe([path])
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_slips_on_the_command_line() -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe(["--learning_rat", "1"])
    assert "unknown flag `--learning_rat`" in str(caught.value)
    assert caught.value.hint == "did you mean --learning_rate?"
    with pytest.raises(UsageError, match="unknown flag `--learning-rat`") as caught:
        read_recipe(["--learning-rat=1"])
    assert caught.value.hint == "did you mean --learning-rate?"
    with pytest.raises(UsageError, match="must come first"):
        read_recipe(["--seed", "1", "mine.yaml"])
    with pytest.raises(UsageError, match="no recipe at"):
        read_recipe(["nowhere.yaml"])
    with pytest.raises(UsageError, match="invalid int value"):
        read_recipe(["--seed", "x"])


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid(path: Path) -> None:
    recipe, _, _ = read_recipe([str(path)])
    assert recipe != Recipe()
