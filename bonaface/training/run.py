"""The folder of a training run: its settings, whether it is finished, and the files in it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import yaml
from accelerate import PartialState
from torch import distributed
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments

from bonaface.errors import UsageError
from bonaface.files import locked, write_text
from bonaface.imaging.walk import first_file
from bonaface.models.facts import ModelFacts
from bonaface.models.save import save_model
from bonaface.training.checkpoints import check_resume, drop_all_but, kept_stages
from bonaface.training.options import STAGE_KEYS
from bonaface.training.recipe import changed_keys, read_yaml

T = TypeVar("T")
LONGEST_WORK = timedelta(days=7)  # of one process, while the others wait

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "timm", "pillow", "numpy")


def on_main_process(work: Callable[[], T]) -> T:
    """Do `work` in one process and give its result, or its exception, to all of them.

    It begins when every process has arrived here, since it may remove what another one was still reading. The others
    wait for as long as it takes, in a group of their own: a training's gives up after half an hour, and aligning a
    million images takes longer.
    """
    state = PartialState()
    if state.num_processes == 1:
        return work()
    state.wait_for_everyone()
    waiting = distributed.new_group(backend="gloo", timeout=LONGEST_WORK)
    assert not isinstance(waiting, int)  # that is what processes outside of a group get
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0, group=waiting)
    distributed.destroy_process_group(waiting)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


class Run:
    """A run's folder. ``recipe.yaml`` is written at the start, ``report/metrics.json`` last of all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.recipe_file = self.folder / "recipe.yaml"
        self.checkpoints = self.folder / "checkpoints"

    @property
    def is_finished(self) -> bool:
        """Whether the model and its report are complete."""
        return (self.folder / "report" / "metrics.json").is_file()

    def check_same(self, recipe: dict[str, Any], args: TrainingArguments) -> None:
        """Refuse to mix two runs in one folder. Raises :class:`UsageError`."""
        self._make()
        check_resume(args.resume_from_checkpoint, self.folder, self.checkpoints)
        if not self.recipe_file.is_file():
            if other := first_file(self.folder):
                raise UsageError(f"{self.folder} contains other files, such as {other}", "choose an empty --output_dir")
            return
        stored = self._stored()
        if self.is_finished:
            changed = changed_keys(stored, recipe, args, ignored={"families", "search_space"})
        else:
            changed = self._changed_in_kept(stored, recipe, args)
        if changed:
            raise UsageError(
                f"{self.folder} contains a run with a different recipe ({'; '.join(changed)})",
                "choose another --output_dir, or delete the folder",
            )

    def _stored(self) -> dict[str, Any]:
        try:
            return read_yaml(self.recipe_file)
        except UsageError as error:
            raise UsageError(str(error), "choose another --output_dir, or delete the folder") from error

    def _changed_in_kept(self, stored: dict[str, Any], recipe: dict[str, Any], args: TrainingArguments) -> list[str]:
        """How this run differs from the one to resume; stages with nothing to resume from are removed.

        A stage that has not begun, or that diverged, may change. So may what is done after the training, and the path
        of the data, whose fingerprint is compared instead.
        """
        ignored = {"families", "search_space", "calibrate_on", "data", "splits"}
        kept = kept_stages(self.checkpoints)
        if not changed_keys(stored, recipe, args, ignored=ignored):
            return []
        changed = changed_keys(stored, recipe, args, ignored=ignored | STAGE_KEYS | {"stages"}) if kept else []
        for folder, before, now in zip(kept, stage_settings(stored), stage_settings(recipe), strict=False):
            differences = changed_keys(before, now, args)
            changed += [f"stage {folder.name}: {difference}" for difference in differences]
        if len(stage_settings(recipe)) < len(kept):
            changed.append(f"stages: {len(kept)} or more -> {len(stage_settings(recipe))}")
        if not changed:
            drop_all_but(self.checkpoints, kept)
        return changed

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which no other training writes to the folder; for the main process. Raises UsageError."""
        self._make()
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder))
            except BlockingIOError as error:
                raise UsageError(f"another process is training in {self.folder}", "wait for it, or stop it") from error
            yield

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.folder}: {error.strerror}", "choose another --output_dir"
            ) from error

    def check_same_data(self, fingerprint: str) -> None:
        """Refuse data that is not what the stored recipe was started with. Raises :class:`UsageError`."""
        begun = self.recipe_file.is_file() and (self.is_finished or kept_stages(self.checkpoints))
        stored = self._stored() if begun else {}
        before = stored.get("data_fingerprint", fingerprint)
        if before != fingerprint:
            raise UsageError(
                f"the data has changed since {self.folder} was started (fingerprint {before}, now {fingerprint})",
                "choose another --output_dir, or restore the data",
            )

    def write_recipe(self, recipe: dict[str, Any]) -> None:
        """Store the settings; ``python train_hf.py FOLDER/recipe.yaml`` repeats the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "# The settings of this run. Give this file to `python train_hf.py` to repeat it.\n"
        write_text(self.recipe_file, text + yaml.safe_dump(recipe, sort_keys=True, allow_unicode=True))

    def save_model(
        self, model: PreTrainedModel, processor: BaseImageProcessor, facts: ModelFacts, *, float8: bool = False
    ) -> None:
        """Write the model folder, as :func:`bonaface.models.save.save_model` does, with what is known of the model."""
        model.config.bonaface = facts.to_block()
        save_model(self.folder, model, processor, float8=float8)

    def drop_checkpoints(self) -> None:
        """Remove the optimiser's checkpoints, which contain pickles."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def summary(self, metrics: dict[str, Any]) -> str:
        """The lines at the end of a training: the figures that matter, and where to find the model and the report."""
        figures = metrics["figures"]
        lines = ["", metrics["conclusion"], "", f"{metrics['split']:<28}{'value':>8}   95 % interval"]
        for name in ("auc", "accuracy", "tpr_at_5pct_fpr", "eer", "ece"):
            value, low, high = (figures[name][key] for key in ("value", "low", "high"))
            interval = "" if low is None else f"{low:.3f} to {high:.3f}"
            lines.append(f"  {name:<26}" + ("     n/a" if value is None else f"{value:>8.3f}   {interval}"))
        lines += ["", f"model   {self.folder}", f"report  {self.folder / 'report' / 'report.html'}"]
        return "\n".join(lines)


def stage_settings(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of each stage of a stored recipe, including its name."""
    shared = {key: value for key, value in recipe.items() if key in STAGE_KEYS}
    return [{**shared, **stage} for stage in recipe.get("stages") or [{}]]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
