"""TrainingArguments that cannot work are refused by name before any work."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from bonaface.errors import UsageError
from bonaface.stats.metrics import all_figures, scalars
from bonaface.training.arguments import BOUNDS, FIXED, METRICS
from bonaface.training.recipe import read_recipe


@pytest.mark.parametrize("name", BOUNDS)
def test_values_out_of_bounds_are_refused(name: str) -> None:
    low, high, ends = astuple(BOUNDS[name])
    wrong = [low - 1, *([high] if ends[1] == ")" and high < np.inf else []), *([high + 1] if high < np.inf else [])]
    for value in wrong:
        with pytest.raises(UsageError, match=f"{name} is"):
            read_recipe(["--dataloader_num_workers=1", f"--{name}={value}"])
    if name in ("learning_rate", "weight_decay", "adam_beta1"):
        with pytest.raises(UsageError, match=f"{name} is out of range: nan"):
            read_recipe([f"--{name}=nan"])


@pytest.mark.parametrize(
    "flags",
    [["--num_train_epochs=0"], ["--num_train_epochs=nan"], ["--max_steps=0"], ["--max_steps=-2"]]
    + [["--logging_strategy=steps", "--logging_steps=-1"]],
)
def test_a_training_of_no_steps_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is out of range: (-|0|nan)"):
        read_recipe(flags)


def test_flags_that_mean_nothing_for_images_are_refused() -> None:
    for name, (value, _) in FIXED.items():
        other = {False: "True", True: "False", None: "5", "random": "group_by_length"}[value]
        with pytest.raises(UsageError, match=f"{name} .* cannot work here"):
            read_recipe([f"--{name}", other])


def test_the_metrics_are_those_that_an_evaluation_gives() -> None:
    truth, scores = np.arange(20) % 2, np.random.default_rng(0).dirichlet([1, 1], 20)
    given = scalars(all_figures(truth, scores, labels=["fake", "real"], real_index=1))
    assert set(METRICS) == {*given, "loss"}


def test_an_unknown_metric_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(UsageError, match="`f1` is not one of auc, accuracy"):
        read_recipe(["--metric_for_best_model", "f1"])
    with pytest.raises(UsageError) as caught:
        read_recipe(["--metric_for_best_model", "acuracy"])
    assert caught.value.hint == "did you mean accuracy?"


def test_of_a_loss_less_is_better() -> None:
    """The default, more of AUC, would keep the worst weights."""
    assert read_recipe(["--metric-for-best-model", "eval_loss"])[1].greater_is_better is False
    assert read_recipe(["--metric_for_best_model", "accuracy"])[1].greater_is_better is True
    with pytest.raises(UsageError, match="would keep the worst model"):
        read_recipe(["--metric_for_best_model", "loss", "--greater_is_better", "True"])
