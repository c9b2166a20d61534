"""``bonaface crossval``: one recipe trained and tested several times, each time on different images.

``--folds K`` divides the images into K folds, stratified by label and source, with copies of an image in the same
fold: every image is tested once. ``--leave-one-source-out`` makes a fold for each generator, and each fold also holds
out one real source in turn, so that both classes of its test are unseen. ``--leave-one-family-out`` does so with
families, generators from the same maker: as the recipe's ``families: {family: [source or pattern, …]}`` says, else the
data's column ``family``; a source that neither names is a family of its own. ``--leave-families-out K`` divides whole
families into K folds: the measure to choose by if there are many small sources.

A fold is just ``bonaface train`` with a table of splits, so each can be repeated by hand::

    OUT/crossval.yaml                 the options; the same command resumes where it stopped
    OUT/folds/NAME/splits.csv         path, split (train, validation or test; calibration is cut from validation)
    OUT/folds/NAME/log.txt            the command and its output
    OUT/folds/NAME/run/               the fold's model and report
    OUT/report/                       the report of all folds: see :mod:`bonaface.crossval.report`
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

from bonaface.crossval.jobs import FoldProcess, environment, run_jobs
from bonaface.crossval.report import FoldRun, write_crossval_report
from bonaface.data.folds import (
    BY_FAMILY,
    BY_SOURCE,
    FAMILY_FOLDS,
    FOLDS,
    Fold,
    family_units,
    folder_names,
    image_table,
    make_folds,
)
from bonaface.errors import UnknownNameError, UsageError
from bonaface.files import write_text
from bonaface.imaging.walk import first_file
from bonaface.training.assembly import Assembly, assemble
from bonaface.training.checkpoints import kept_stages
from bonaface.training.flags import given_flags
from bonaface.training.options import Recipe
from bonaface.training.recipe import changed_keys, read_recipe, read_yaml
from bonaface.training.rehearsal import rehearse
from bonaface.training.run import Run

OWN_FLAGS = (FOLDS, BY_SOURCE, BY_FAMILY, FAMILY_FOLDS, "out", "jobs", "keep-folds", "drop-folds")


def run_crossval_command(
    argv: Sequence[str],
    *,
    folds: int | None = None,
    by_source: bool = False,
    by_family: bool = False,
    family_folds: int | None = None,
    out: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    keep_folds: bool = True,
) -> None:
    """Make the folds of a recipe, train those that are not finished, and write the report of all.

    Args:
        argv: what ``train_hf.py`` takes: ``[RECIPE.yaml] [--flag value …]``.
        folds: number of folds to divide the images into; 5 if nothing else is given.
        by_source, by_family: leave out whole sources or families instead, one per fold.
        family_folds: leave families out, divided into this many folds.
        out: the folder; ``runs/RECIPE-crossval`` when not given.
        jobs: folds at a time; by default one a core on a CPU, else 1.
        keep_folds: keep the folds' models and reports.

    Raises:
        UsageError: a mistake in the recipe or the flags, folds that the data does not allow, a folder that contains
            another cross-validation, or a fold that failed.
    """
    kind = _kind(folds, by_source, by_family, family_folds)
    _refuse_own_flags(argv)
    recipe, args, said = _read(argv)
    k = next((number for number in (family_folds, folds) if number is not None), 5)
    name = Path(argv[0]).stem if argv and not argv[0].startswith("-") else "sample"
    plan = Plan(name, Path(out) if out else Path("runs") / f"{name}-crossval", kind, k, recipe, args, said)
    _check(plan)
    rehearse(recipe, args)
    _check_same(plan.folder, plan.asked, args)
    if _is_finished(plan.folder):
        print(f"{plan.folder} is finished: its report is {plan.report}. Nothing to do.")
        return

    assembly = assemble(recipe)
    queue = _train_folds(plan, assembly, argv, jobs)
    result = _report(plan, assembly, queue, kept=keep_folds)
    if not keep_folds:
        for job in queue:
            shutil.rmtree(job.run.folder)
    print(f"\n{result['conclusion']}\n\nreport  {plan.report}")


@dataclass(frozen=True)
class Plan:
    """A cross-validation as it was asked for."""

    name: str
    folder: Path
    kind: str  # one of :data:`bonaface.data.folds.KINDS`
    k: int
    recipe: Recipe
    args: TrainingArguments
    said: dict[str, Any]  # the recipe as it is stored

    @property
    def asked(self) -> dict[str, Any]:
        """The contents of ``crossval.yaml``."""
        folds = {"folds": self.k} if self.kind in (FOLDS, FAMILY_FOLDS) else {}
        return {"kind": self.kind, **folds, "recipe": self.said}

    @property
    def report(self) -> Path:
        """The page of all folds."""
        return self.folder / "report" / "report.html"


def _train_folds(plan: Plan, assembly: Assembly, argv: Sequence[str], jobs: int | None) -> list[FoldProcess]:
    """Make the folds and train those that are not finished."""
    made = make_folds(
        assembly.listing,
        assembly.groups,
        kind=plan.kind,
        k=plan.k,
        families=plan.recipe.families,
        validation_size=plan.recipe.validation_size,
        seed=plan.args.seed,
    )
    on_cpu = bool(plan.args.use_cpu)
    side_by_side = min(jobs or ((os.cpu_count() or 1) if on_cpu else 1), len(made))
    few_threads = side_by_side > 1 and on_cpu  # more would wait for each other
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_text(plan.folder / "crossval.yaml", yaml.safe_dump(plan.asked, sort_keys=True, allow_unicode=True))
    queue = _write_folds(plan.folder, made, argv, ["--dataloader_num_workers", "0"] if few_threads else [])
    _describe(assembly, made)
    run_jobs(queue, side_by_side, environment(few_threads))
    return queue


def _report(plan: Plan, assembly: Assembly, queue: Sequence[FoldProcess], *, kept: bool) -> dict[str, Any]:
    """Write the report of all folds; gives its ``crossval.json``."""
    listing, audit = assembly.listing, assembly.audit
    by_family = plan.kind in (BY_FAMILY, FAMILY_FOLDS)
    return write_crossval_report(
        plan.folder,
        [FoldRun(job.fold, job.run.folder) for job in queue],
        listing,
        kind=plan.kind,
        details={
            "title": f"{plan.name}: {plan.recipe.model} on {listing.origin}",
            "model": plan.recipe.model,
            "data": listing.origin,
            "recipe": plan.said,
            "broken": [asdict(file) for file in listing.broken],
            "audit": {"level": audit.level, "verdict": audit.verdict} if audit else None,
        },
        families=family_units(image_table(listing), plan.recipe.families) if by_family else {},
        kept=kept,
    )


# --- options ------------------------------------------------------------------------------------------------------


def _kind(folds: int | None, by_source: bool, by_family: bool, family_folds: int | None) -> str:
    given = {
        FOLDS: folds is not None,
        BY_SOURCE: by_source,
        BY_FAMILY: by_family,
        FAMILY_FOLDS: family_folds is not None,
    }
    asked = [name for name, is_given in given.items() if is_given]
    if len(asked) > 1:
        raise UsageError(f"--{' and --'.join(asked)} exclude each other", "give one of them")
    return asked[0] if asked else FOLDS


def _check(plan: Plan) -> None:
    if plan.recipe.splits:
        raise UsageError("a cross-validation makes its own splits", "remove `splits` from the recipe")
    if plan.recipe.calibrate_on:
        raise UsageError("a cross-validation calibrates each fold separately", "remove `calibrate_on` from the recipe")
    if plan.kind == FOLDS and plan.k < 2:
        raise UsageError(f"--folds {plan.k} is too few", "give 2 folds or more")


def _refuse_own_flags(argv: Sequence[str]) -> None:
    """Flags of ``train_hf.py`` that each fold gets from here."""
    instead = {
        "output_dir": "name the folder of all folds with --out",
        "splits": "leave it out: a cross-validation makes its own splits",
        "search": "search with `bonaface train` first, and use the best recipe that it writes",
        "resume_from_checkpoint": "leave it out: each fold resumes from its own last complete checkpoint",
        "push_to_hub": "leave it out: train a model on all images, and push that",
        "calibrate_on": "leave it out: give the finished cross-validation to `bonaface train --calibrate_on`",
    }
    for field, flag in given_flags(argv).items():
        if field in instead:
            raise UsageError(f"{flag} cannot be used in a cross-validation", instead[field])


def _read(argv: Sequence[str]) -> tuple[Recipe, TrainingArguments, dict[str, Any]]:
    """As :func:`bonaface.training.recipe.read_recipe`; a flag that it does not know may be one of ours, misspelt."""
    try:
        return read_recipe(argv)
    except UnknownNameError as error:
        near = get_close_matches(error.name.replace("_", "-"), OWN_FLAGS, 1, 0.8)
        if near:
            raise UsageError(str(error), f"did you mean --{near[0]}?") from error
        raise


def _check_same(folder: Path, asked: Mapping[str, Any], args: TrainingArguments) -> None:
    """Refuse to mix two cross-validations in one folder."""
    file = folder / "crossval.yaml"
    if not file.is_file():
        if folder.is_dir() and (other := first_file(folder)):
            raise UsageError(f"{folder} contains other files, such as {other}", "choose an empty folder with --out")
        return
    stored = read_yaml(file)
    changed = [
        f"{key}: {stored.get(key)} -> {asked.get(key)}"
        for key in ("kind", "folds")
        if stored.get(key) != asked.get(key)
    ]
    changed += changed_keys(stored.get("recipe") or {}, dict(asked["recipe"]), args)
    if changed and not _holds_work(folder):
        shutil.rmtree(folder / "folds", ignore_errors=True)
        return
    if changed:
        raise UsageError(
            f"{folder} contains another cross-validation ({'; '.join(changed)})",
            "choose another --out, or delete the folder",
        )


def _holds_work(folder: Path) -> bool:
    """Whether there is a report, a finished fold or one to resume."""
    runs = [Run(path) for path in (folder / "folds").glob("*/run")]
    return (folder / "report").is_dir() or any(run.is_finished or kept_stages(run.checkpoints) for run in runs)


def _is_finished(folder: Path) -> bool:
    """Whether there is a report and no fold's run was deleted afterwards (unless folds were not to be kept)."""
    file = folder / "report" / "crossval.json"
    if not file.is_file():
        return False
    stored = json.loads(file.read_text(encoding="utf-8"))
    return not stored["kept"] or all(
        Run(folder / "folds" / fold["folder"] / "run").is_finished for fold in stored["folds"]
    )


def _write_folds(folder: Path, folds: Sequence[Fold], argv: Sequence[str], more: Sequence[str]) -> list[FoldProcess]:
    """Each fold's table of splits, and its command. Raises UsageError if the folds were made from other images."""
    queue, begun = [], _holds_work(folder)
    for fold, name in zip(folds, folder_names(fold.name for fold in folds), strict=True):
        place = folder / "folds" / name
        table, text = place / "splits.csv", fold.table.to_csv(index=False, lineterminator="\n")
        if begun and table.is_file() and table.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"the data has changed since {folder} was started", "choose another --out, or restore the data"
            )
        place.mkdir(parents=True, exist_ok=True)
        write_text(table, text)
        own = ["--splits", str(table), "--output_dir", str(place / "run"), "--robustness", "none", "--audit", "False"]
        queue.append(FoldProcess(fold, place, [sys.executable, "-m", "bonaface", "train", *argv, *own, *more]))
    return queue


def _describe(assembly: Assembly, folds: Sequence[Fold]) -> None:
    listing = assembly.listing
    print(f"data: {listing.origin}, {len(listing.rows):,} images, labels {', '.join(listing.labels)}")
    if listing.units:
        print(f"folders: {listing.units}")
    if assembly.audit:
        print(f"audit: {assembly.audit.verdict}")
    for fold in folds:
        counts = fold.table["split"].value_counts()
        sizes = ", ".join(f"{counts[split]:,} {split}" for split in ("train", "validation", "test"))
        left = f"; {fold.left_out:,} left out: their group is in another split" if fold.left_out else ""
        print(f"  {fold.title:<40} {sizes}{left}", flush=True)
