"""Hyperparameter search: many short trainings on one split, the best of them as a recipe.

``train_hf.py RECIPE --search N`` tries what the recipe's ``search_space`` allows, by optuna's TPE sampler (Bergstra et
al. 2011) through ``Trainer.hyperparameter_search``, and stops hopeless trials early (median pruning). Figures are of
the validation split; the test split is never used. Trials are kept in ``study.db``: after an interruption, the same
command resumes, and a larger N adds trials.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments, set_seed

from bonaface.data.dataset import FaceData
from bonaface.data.loading import EpochSampler, ImageRows
from bonaface.errors import DivergedError, UsageError
from bonaface.files import atomic_path, write_text
from bonaface.imaging.transforms import TrainTransform
from bonaface.training.balance import drawing_weights
from bonaface.training.build import build_trainer
from bonaface.training.conflicts import check_recipe
from bonaface.training.flags import nearest
from bonaface.training.optimization import add_dropout, freeze, learnable
from bonaface.training.options import STAGE_KEYS, Recipe, weights_of
from bonaface.training.recipe import stages_of, with_keys
from bonaface.training.rules import blame
from bonaface.training.trainer import FaceTrainer, mixing

if TYPE_CHECKING:
    import optuna

DEFAULT_SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-3, "high": 0.3, "log": True},
    "label_smoothing_factor": [0.0, 0.05, 0.1],
    "augmentation": ["standard", "light", "robust"],
}
# What changes the model itself or the stage's data, and so cannot change from trial to trial.
NOT_SEARCHED = {
    "name", "freeze", "head_only", "mix", "lora_rank", "ema_decay", "layer_decay", "schedule", "lr_scheduler_type",
    "lr_scheduler_kwargs", "early_stopping_patience", "max_train_samples", "optim", "optim_args",
}  # fmt: skip
HINT = "write, for example, `search_space: {learning_rate: {low: 1.0e-4, high: 1.0e-2}, mixup: [0.0, 0.2]}`"


def check_space(space: Any, recipe: Recipe, args: TrainingArguments) -> dict[str, Any]:
    """The search space of a recipe: for each key a list of choices, or a range ``{low, high, log}``.

    Raises:
        UsageError: an unknown key, with the nearest valid name; neither a list nor a range; a choice, or an end of a
            range, that the recipe may not have.
    """

    def check_value(key: str, value: Any) -> None:
        stage = with_keys(recipe, args, {"name": "trial", key: value})
        check_recipe(stage.recipe, stage.args)

    if not isinstance(space, dict) or not space:
        raise UsageError("search_space is not a mapping", HINT)
    known = STAGE_KEYS - NOT_SEARCHED
    for key, choice in space.items():
        if key not in known:
            raise UsageError(f"search_space: unknown key `{key}`", nearest(str(key), known))
        for value in choice if isinstance(choice, list) and choice else _ends(key, choice):
            blame("search_space: ", partial(check_value, key, value))
    return space


def _ends(key: str, choice: Any) -> tuple[float, float]:
    """Both ends of a range."""
    if not isinstance(choice, dict) or not {"low", "high"} <= set(choice) <= {"low", "high", "log"}:
        raise UsageError(f"search_space: `{key}` is neither a list of choices nor a range", HINT)
    low, high = choice["low"], choice["high"]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high))
    if not numbers or not low < high or (choice.get("log") and low <= 0):
        raise UsageError(f"search_space: `{key}` needs numbers low < high, above 0 for log", HINT)
    return low, high


class SearchTrainer(FaceTrainer):
    """A trainer whose recipe changes from trial to trial too, not only its arguments."""

    space: dict[str, Any]
    processing: BaseImageProcessor

    def suggest(self, trial: Any) -> dict[str, Any]:
        """A value for every key of the space; the same each time for the same trial."""
        return {key: _suggest(trial, key, choice) for key, choice in self.space.items()}

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        """A fresh model for a trial, as a stage would train it."""
        model = cast(PreTrainedModel, super().call_model_init(trial).to(self.args.device))
        freeze(model, self.recipe.freeze, learnable(model))
        if self.recipe.head_dropout and not self.recipe.head_hidden_size:
            add_dropout(model, self.recipe.head_dropout)
        self.follow(model)
        return model

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's own; settings that diverge are pruned and do not end the search."""
        try:
            return super().train(*args, **kwargs)
        except DivergedError as error:
            from optuna import TrialPruned

            raise TrialPruned(str(error)) from error

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        if trial is None:
            return
        ours = {key: value for key, value in self.suggest(trial).items() if hasattr(self.recipe, key)}
        self.recipe = replace(self.recipe, **ours)
        rows = self.train_dataset
        assert isinstance(rows, ImageRows)
        rows.transform = TrainTransform(self.processing, self.recipe.augmentation)
        weights = drawing_weights(rows.origin, self.recipe.balance, weights_of(self.recipe.mix))
        self.sampler.weights = EpochSampler(len(rows), 0, weights).weights
        self.mix = mixing(self.recipe, self.n_labels)


def search(
    build: Callable[[], tuple[PreTrainedModel, BaseImageProcessor]],
    data: FaceData,
    recipe: Recipe,
    args: TrainingArguments,
    said: dict[str, Any],
) -> Path:
    """Try ``recipe.search`` settings (including those of an earlier call) and write the best as a recipe.

    ``build`` gives a fresh model and its processor. Leaves ``best.yaml``, ``trials.csv`` and ``study.db`` in the
    folder ``<output_dir>-search`` and returns the first.

    Raises:
        UsageError: no optuna, a recipe of several stages or with LoRA, several processes, or a wrong search space.
    """
    _refuse_unsearchable(recipe, args)
    import optuna

    space = check_space(recipe.search_space or DEFAULT_SPACE, recipe, args)
    folder = Path(f"{args.output_dir}-search")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings: dict[str, Any] = {
        "study_name": "search",
        "storage": f"sqlite:///{folder.resolve() / 'study.db'}",
        "direction": "maximize",
        "load_if_exists": True,
    }
    study = _open_study(settings, folder, {"space": space, "fingerprint": data.fingerprint})
    left = (recipe.search or 0) - len(_ended(study))
    if left > 0:
        trainer = _trainer(build, data, recipe, args, folder, space)
        trainer.hyperparameter_search(
            hp_space=lambda trial: {k: v for k, v in trainer.suggest(trial).items() if not hasattr(recipe, k)},
            compute_objective=lambda metrics: metrics["eval_auc"],
            n_trials=left,
            backend="optuna",
            sampler=optuna.samplers.TPESampler(seed=args.seed + len(study.trials)),
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=2),
            **settings,
        )
    return _write_best(optuna.load_study(study_name="search", storage=settings["storage"]), folder, said)


def _refuse_unsearchable(recipe: Recipe, args: TrainingArguments) -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("--search needs the package optuna", "pip install 'bonaface[search]'")
    if recipe.stages:
        raise UsageError(
            "--search tunes a single stage, but the recipe has several", "make a recipe of the stage to tune"
        )
    if recipe.lora_rank:
        raise UsageError("--search cannot be combined with lora_rank", "search without it, then add it")
    if args.world_size > 1:
        raise UsageError("--search runs in one process", "start it without torchrun")


def _open_study(settings: dict[str, Any], folder: Path, same: dict[str, Any]) -> optuna.Study:
    """The study in the folder; a new one where nothing has been tried yet. Refuses one of another space or data."""
    import optuna

    study = optuna.create_study(**settings)
    if dict(study.user_attrs) != same and not _ended(study):
        optuna.delete_study(study_name=settings["study_name"], storage=settings["storage"])
        study = optuna.create_study(**settings)
    if study.user_attrs and dict(study.user_attrs) != same:
        raise UsageError(
            f"{folder} contains a search with another search_space or other data", "choose another --output_dir"
        )
    for key, value in same.items():
        study.set_user_attr(key, value)
    return study


def _ended(study: optuna.Study) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _write_best(study: optuna.Study, folder: Path, said: dict[str, Any]) -> Path:
    """The table of trials, and the best one as a recipe, whose path it gives."""
    table = study.trials_dataframe(attrs=("number", "value", "params", "state", "duration"))
    with atomic_path(folder / "trials.csv") as partial:
        table.sort_values("value", ascending=False).to_csv(partial, index=False)
    best = {**said, **study.best_params}
    comment = (
        f"# The best of {len(study.trials)} trials: validation AUC {study.best_value:.4f}, chosen on that split.\n"
    )
    write_text(folder / "best.yaml", comment + yaml.safe_dump(best, sort_keys=True, allow_unicode=True))
    print(f"best of {len(study.trials)} trials: validation AUC {study.best_value:.4f} with {study.best_params}")
    print(f"recipe  {folder / 'best.yaml'}\ntrials  {folder / 'trials.csv'}")
    return folder / "best.yaml"


def _trainer(
    build: Callable[[], tuple[PreTrainedModel, BaseImageProcessor]],
    data: FaceData,
    recipe: Recipe,
    args: TrainingArguments,
    folder: Path,
    space: dict[str, Any],
) -> SearchTrainer:
    """Trials keep no checkpoints: an interrupted trial starts again."""
    short: dict[str, Any] = {"save_strategy": "no", "load_best_model_at_end": False, "output_dir": str(folder)}
    (stage,) = stages_of(recipe, replace(args, **short))
    model, processor = build()
    trainer = build_trainer(model, processor, data, stage, kind=SearchTrainer)
    assert isinstance(trainer, SearchTrainer)
    trainer.space, trainer.processing = space, processor

    def fresh() -> PreTrainedModel:
        set_seed(args.seed)
        return build()[0]

    trainer.model_init = fresh
    return trainer


def _suggest(trial: Any, key: str, choice: Any) -> Any:
    if isinstance(choice, list):
        return trial.suggest_categorical(key, choice)
    kind = trial.suggest_int if all(isinstance(choice[end], int) for end in ("low", "high")) else trial.suggest_float
    return kind(key, choice["low"], choice["high"], log=bool(choice.get("log")))
