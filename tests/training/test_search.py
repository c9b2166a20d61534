"""A hyperparameter search as a user runs it: trials that differ, go on after a kill, and end in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import make_faces

from bonaface.cli import train
from bonaface.errors import UsageError
from bonaface.training.optimization import WeightAverage
from bonaface.training.recipe import read_recipe
from bonaface.training.search import DEFAULT_SPACE, SearchTrainer, check_space

pytestmark = pytest.mark.slow
QUICK = ["--dataloader_num_workers", "0", "--bf16", "False", "--use_cpu", "True", "--per_device_train_batch_size", "8"]
QUICK += ["--audit", "False", "--prepare", "False", "--disable_tqdm", "True", "--num_train_epochs", "1"]
SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "augmentation": ["none", "strong"], "mixup": [0.0]}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> str:
    root = tmp_path_factory.mktemp("search")
    data = make_faces(root / "data", {"real/cam": 24, "fake/gan": 24})
    path = root / "r.yaml"
    path.write_text(
        yaml.safe_dump({"data": str(data), "model": tiny_model, "from_scratch": True, "search_space": SPACE})
    )
    return str(path)


def test_a_search_goes_on_and_ends_in_a_recipe(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three trials, the fourth killed; the same command with five adds two and repeats none."""
    flags = [recipe, *QUICK, "--output_dir", str(tmp_path / "run")]
    seen: list[dict[str, Any]] = []
    setup = SearchTrainer._hp_search_setup

    def watch(self: SearchTrainer, trial: Any) -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt
        setup(self, trial)
        rows: Any = self.train_dataset
        seen.append({"lr": self.args.learning_rate, "region": rows.transform.preset.region})

    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "_hp_search_setup", watch)
        with pytest.raises(KeyboardInterrupt):
            train.main([*flags, "--search", "4"])
    assert len({trial["lr"] for trial in seen}) == 3
    assert not (tmp_path / "run").exists()
    train.main([*flags, "--search", "5"])
    folder = tmp_path / "run-search"
    table = pd.read_csv(folder / "trials.csv", float_precision="round_trip")
    assert (table["state"] == "COMPLETE").sum() + (table["state"] == "PRUNED").sum() == 5
    done = table[table["state"] == "COMPLETE"]
    for trial in seen:
        region = {"none": "eval", "strong": "crop"}
        assert ((table["params_learning_rate"] - trial["lr"]).abs() < 1e-12).sum() == 1
        row = table[(table["params_learning_rate"] - trial["lr"]).abs() < 1e-12].iloc[0]
        assert region[row["params_augmentation"]] == trial["region"]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["learning_rate"] == done.iloc[0]["params_learning_rate"]
    assert "best of" in capsys.readouterr().out
    again, args, _ = read_recipe([str(folder / "best.yaml")])
    assert args.learning_rate == best["learning_rate"]
    assert again.augmentation == done.iloc[0]["params_augmentation"]
    train.main([*flags, "--search", "5"])  # nothing left to do
    assert len(pd.read_csv(folder / "trials.csv")) == len(table)


def test_a_trial_trains_as_a_stage_would(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen, with dropout, and its own weights averaged: not those of the model before it."""
    seen: list[tuple[bool, bool, int]] = []
    evaluate = SearchTrainer.evaluate

    def watch(self: SearchTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
        assert self.average is not None
        frozen = not next(self.model.parameters()).requires_grad
        hooked = bool(self.model.classifier._forward_pre_hooks)
        averages = [c for c in self.callback_handler.callbacks if isinstance(c, WeightAverage)]
        assert averages == [self.average]
        seen.append((self.average.model is self.model, frozen and hooked, id(self.model)))
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(SearchTrainer, "evaluate", watch)
    train.main([recipe, *QUICK, "--output_dir", str(tmp_path / "run"), "--search", "2", "--ema_decay", "0.9",
                   "--freeze", "backbone", "--head_dropout", "0.2"])  # fmt: skip
    assert len(seen) == 2
    assert all(own and as_told for own, as_told, _ in seen)


def test_what_cannot_be_searched(recipe: str, tmp_path: Path) -> None:
    told, args, _ = read_recipe([recipe, *QUICK])
    assert check_space(DEFAULT_SPACE, told, args) == DEFAULT_SPACE
    wrong: list[tuple[Any, str]] = [
        ({"learning_rat": [1]}, "unknown key `learning_rat`"),
        ({"freeze": ["backbone"]}, "unknown key `freeze`"),
        ({"learning_rate": 1}, "neither a list of choices nor a range"),
        ({"learning_rate": {"low": 1}}, "neither a list of choices nor a range"),
        ({"learning_rate": {"low": 2, "high": 1}}, "needs numbers low < high"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "above 0 for log"),
        ([], "not a mapping"),
        ({"mixup": {"low": -1, "high": 1}}, "search_space: mixup .*-1.0"),
        ({"augmentation": ["light", "lihgt"]}, "search_space: augmentation: .*lihgt"),
        ({"max_grad_norm": ["much"]}, "search_space: .*max_grad_norm"),
        ({"weight_decay": {"low": -0.1, "high": 0.1}}, "search_space: weight_decay .*-0.1"),
    ]
    for space, message in wrong:
        with pytest.raises(UsageError, match=message):
            check_space(space, told, args)
    staged = tmp_path / "staged.yaml"
    staged.write_text(yaml.safe_dump({**yaml.safe_load(Path(recipe).read_text()), "stages": [{"name": "a"}]}))
    with pytest.raises(UsageError, match="a single stage"):
        train.main([str(staged), *QUICK, "--search", "2", "--output_dir", str(tmp_path / "run")])
