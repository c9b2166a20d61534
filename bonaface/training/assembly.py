"""The data of a recipe: one set or several, listed, audited, aligned, put together and split.

Several sets (``data: {old: DATA1, new: DATA2}``) become one, whose rows also carry ``dataset``, the name of their set;
paths and groups are prefixed with it. Stages choose among the sets (``mix``), the report gives each its own figures.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import concatenate_datasets

from bonaface.audit.audit import FAST_FILES, audit_dataset
from bonaface.audit.result import Audit
from bonaface.data.alignment import SIZE_RANGE
from bonaface.data.dataset import FaceData, balanced_subset, hold_out_calibration, split_listing
from bonaface.data.dialects import read_table
from bonaface.data.labels import SPLITS
from bonaface.data.listing import Listing, find_broken, list_data, without_broken
from bonaface.data.prepare import prepare
from bonaface.data.prepared import face_margin, is_prepared, prepared_folder
from bonaface.data.rows import BrokenFile
from bonaface.data.sample import write_sample
from bonaface.errors import UsageError
from bonaface.models.load import checkpoint_labels
from bonaface.training.options import Recipe, named_data


@dataclass(frozen=True)
class Assembly:
    """What a recipe's data is before it is split.

    ``listing`` is what will be trained on (aligned copies where the recipe asks for them), ``audit`` speaks of the raw
    files (None where it was switched off), ``groups`` names copies of one image: path -> group.
    """

    listing: Listing
    audit: Audit | None
    groups: Mapping[str, str] | None
    margin: float | None  # around the faces, as a share of their side, where they were cut out


def assemble(recipe: Recipe) -> Assembly:
    """List the recipe's data, audit it, and align it where the recipe says so.

    Raises:
        UsageError: no such data, sets whose labels differ, a size for what is prepared already, or a leak where
            ``strict_audit`` forbids it (exit code 3).
    """
    order = checkpoint_labels(recipe.model)
    folders = {
        name: str(write_sample(Path("data/sample"))) if data == "sample" else data
        for name, data in named_data(recipe.data).items()
    }
    raw = [name for name, folder in folders.items() if recipe.prepare and not is_prepared(folder)]
    if recipe.prepare_size and not raw:
        raise UsageError(
            f"prepare_size has no effect: {', '.join(folders.values())} is already prepared",
            "leave it out, or give the folder that it was prepared from",
        )
    listings = _list_all(folders, recipe, order)
    listing = _join(listings)
    audit, broken = _look(listing, recipe, all_raw=len(raw) == len(folders))
    listing = without_broken(listing, broken)
    if audit and audit.level == "leak" and recipe.strict_audit:
        raise UsageError(
            f"the audit of {listing.origin} says {audit.verdict}",
            "see it with `python -m bonaface audit DATA --out DIR`; remove shortcuts with `python -m bonaface prepare`",
            exit_code=3,
        )
    groups = audit.groups if audit else None
    for name in raw:
        folder, is_new = _aligned(listings[name], recipe)
        folders[name] = str(folder)
        listings[name] = list_data(
            folder,
            real_label=recipe.real_label,
            label_order=order or listing.labels,
            check="none" if is_new else "full",  # files written just now are complete
            groups=recipe.groups,
        )
    if raw:
        prefixes = tuple(f"{name}/" for name in raw)
        units = listing.units  # as the raw folders tell them; a prepared set names its groups itself
        listing = replace(_join(listings), units=units)
        kept = [file for file in broken if len(raw) < len(folders) and not file.path.startswith(prefixes)]
        listing = without_broken(listing, kept)
        groups = None  # the copies that prepare found share a group in its metadata
    return Assembly(listing, audit, groups, face_margin(next(iter(folders.values()))))


def _look(listing: Listing, recipe: Recipe, *, all_raw: bool) -> tuple[Audit | None, list[BrokenFile]]:
    """The audit, and the broken files: they are found in the pass that decodes all files anyway.

    That is the audit's where it looks at all of them, and the alignment where all of them are to be aligned.
    """
    if recipe.audit and len(listing.rows) <= FAST_FILES:
        audit = audit_dataset(listing, fast=True, whole_reasons=True)
        return audit, audit.broken[len(listing.broken) :]
    broken = [] if all_raw else find_broken(listing)
    return (audit_dataset(without_broken(listing, broken), fast=True) if recipe.audit else None), broken


def split_assembly(assembly: Assembly, recipe: Recipe, seed: int) -> FaceData:
    """Train, validation, calibration and test: the recipe's own table of splits, the data's, or made here.

    Copies of one image, which the audit finds, stay together in one split.
    """
    listing, groups = assembly.listing, assembly.groups
    if recipe.splits:
        listing, groups = with_splits(listing, recipe.splits), None
    data = split_listing(
        listing, seed=seed, validation_size=recipe.validation_size, test_size=recipe.test_size, copies=groups
    )
    data = hold_out_calibration(data)
    splits = {}
    for split, rows in data.splits.items():
        limit = recipe.max_train_samples if split == "train" else recipe.max_eval_samples
        splits[split] = balanced_subset(rows, limit, seed) if limit else rows
    data = data.with_splits(splits)
    _ = data.fingerprint  # here, so that one process reads the files
    return data


def with_splits(listing: Listing, table: str | os.PathLike[str]) -> Listing:
    """The rows that a CSV file with the columns ``path`` and ``split`` names, with the splits it gives them.

    Raises:
        UsageError: no such file, a missing column, a split of another name, a path twice, or one that the data lacks.
    """
    hint = "give a CSV file with the columns path and split: train, validation or test for each path of the data"
    known = {path: i for i, path in enumerate(listing.rows["path"])}
    rows = []
    for row in read_table(Path(table), {"path": ("file_name", "filename", "file"), "split": ()}):
        path = row["path"] if row["path"] in known else row["path"].replace("\\", "/")
        rows.append((path, row.get("split", "")))
    given = dict(rows)
    wrong = {
        "is listed twice": [path for path, n in Counter(path for path, _ in rows).items() if n > 1],
        "is not in the data": [path for path in given if path not in known],
        f"has a split that is not one of {', '.join(SPLITS)}": [p for p, split in given.items() if split not in SPLITS],
    }
    for what, paths in wrong.items():
        if paths:
            raise UsageError(f"{table}: {paths[0]} {what}", hint)
    chosen = sorted(known[path] for path in given)
    kept = listing.rows.select(chosen).remove_columns("split")
    return replace(listing, rows=kept.add_column("split", [given[path] for path in kept["path"]]))


def choose_sets(data: FaceData, mix: Mapping[str, float]) -> FaceData:
    """The data with only the rows of the sets that `mix` names; all of it where it is one set."""
    if not mix or "dataset" not in data.splits["train"].column_names:
        return data
    splits = {
        name: rows.select([i for i, owner in enumerate(rows["dataset"]) if owner in mix])
        for name, rows in data.splits.items()
    }
    return data.with_splits(splits)


def _list_all(folders: Mapping[str, str], recipe: Recipe, order: Sequence[str] | None) -> dict[str, Listing]:
    """The sets, of which no file has been opened yet."""
    listings: dict[str, Listing] = {}
    for name, folder in folders.items():
        listing = list_data(folder, real_label=recipe.real_label, label_order=order, check="none", groups=recipe.groups)
        first = next(iter(listings.values()), listing)
        if set(listing.labels) != set(first.labels):
            raise UsageError(
                f"{folder} has the labels {', '.join(listing.labels)}, but {first.origin} has "
                f"{', '.join(first.labels)}",
                "give sets with the same labels",
            )
        listings[name] = listing
        order = order or listing.labels
    return listings


def _join(listings: Mapping[str, Listing]) -> Listing:
    if len(listings) == 1:
        return next(iter(listings.values()))
    first = next(iter(listings.values()))
    parts, broken = [], []
    for name, listing in listings.items():
        rows = listing.rows
        for column in ("path", "group"):
            named = [f"{name}/{value}" for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, named)
        parts.append(rows.add_column("dataset", [name] * len(rows)))
        broken += [replace(file, path=f"{name}/{file.path}") for file in listing.broken]
    origin = ", ".join(f"{name}={listing.origin}" for name, listing in listings.items())
    units = "; ".join(f"{name}: {listing.units}" for name, listing in listings.items() if listing.units)
    return Listing(concatenate_datasets(parts), first.labels, first.real_label, broken, origin, units)


def _aligned(listing: Listing, recipe: Recipe) -> tuple[Path, bool]:
    """The folder of a set's aligned copies, and whether they were made just now."""
    low, high = recipe.prepare_size or SIZE_RANGE
    folder = prepared_folder(listing, (low, high))
    is_new = not is_prepared(folder)
    made = prepare(listing.origin, folder, size_range=(low, high), real_label=listing.real_label, groups=recipe.groups)
    print(f"aligned: {made.written:,} of {made.found:,} files, faces by {made.detector}, in {folder}")
    return folder, is_new
