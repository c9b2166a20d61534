"""The data of a recipe: one set or several, listed, aligned, audited, put together and split.

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

from bonaface.audit.audit import audit_dataset
from bonaface.audit.result import Audit
from bonaface.data.alignment import SIZE_RANGE
from bonaface.data.dataset import FaceData, balanced_subset, hold_out_calibration, split_listing
from bonaface.data.dialects import read_table
from bonaface.data.labels import SPLITS
from bonaface.data.listing import Listing, list_data, without_broken
from bonaface.data.prepare import prepare
from bonaface.data.prepared import SCANS, face_margin, is_prepared, prepared_folder
from bonaface.data.sample import write_sample
from bonaface.data.scan import broken_files, read_scans, scan_rows
from bonaface.errors import UsageError
from bonaface.imaging import FACE_MARGIN
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
    """List the recipe's data, align it where the recipe says so, and audit it: each raw file is read once.

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
    made = {name: _aligned(listings[name], recipe) for name in raw}
    scans = {_within(name, path): scan for name in raw for path, scan in read_scans(made[name][0] / SCANS).items()}
    listing = _join(listings)
    scans = scan_rows(listing.rows, scans)  # of the sets that were not aligned just now
    broken = broken_files(listing.rows, listing.labels, scans)
    listing = without_broken(listing, broken)
    audit = audit_dataset(listing, scans=scans, fast=True) if recipe.audit else None
    if audit and audit.level == "leak" and recipe.strict_audit:
        raise UsageError(
            f"the audit of {listing.origin} says {audit.verdict}",
            "see it with `python -m bonaface audit DATA --out DIR`; remove shortcuts with `python -m bonaface prepare`",
            exit_code=3,
        )
    groups = audit.groups if audit else None
    if made:
        prefixes = tuple(_within(name, "") for name in made)
        others = [file for file in broken if not file.path.startswith(prefixes)]
        copies = _list_copies(made, recipe, order or listing.labels)
        units = listing.units  # as the raw folders tell them; a prepared set names its groups itself
        listing = replace(without_broken(_join(listings | copies), others), units=units)
        groups = None  # the copies that prepare found share a group in its metadata
    first = next(iter(folders))
    margin = face_margin(made[first][0] if first in made else folders[first])
    return Assembly(listing, audit, groups, recipe.face_margin if margin is None else margin)


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


def _list_copies(made: Mapping[str, tuple[Path, bool]], recipe: Recipe, order: Sequence[str]) -> dict[str, Listing]:
    """The sets that were aligned, as :func:`_aligned` gives their folders."""
    return {
        name: list_data(
            folder,
            real_label=recipe.real_label,
            label_order=order,
            check="none" if is_new else "full",  # files written just now are complete
            groups=recipe.groups,
        )
        for name, (folder, is_new) in made.items()
    }


def _join(listings: Mapping[str, Listing]) -> Listing:
    if len(listings) == 1:
        return next(iter(listings.values()))
    first = next(iter(listings.values()))
    parts, broken = [], []
    for name, listing in listings.items():
        rows = listing.rows
        for column in ("path", "group"):
            named = [_within(name, value) for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, named)
        parts.append(rows.add_column("dataset", [name] * len(rows)))
        broken += [replace(file, path=_within(name, file.path)) for file in listing.broken]
    origin = ", ".join(f"{name}={listing.origin}" for name, listing in listings.items())
    units = "; ".join(f"{name}: {listing.units}" for name, listing in listings.items() if listing.units)
    return Listing(concatenate_datasets(parts), first.labels, first.real_label, broken, origin, units)


def _within(name: str, path: str) -> str:
    """A path or group of the set of this name, among all sets; a set alone has no name."""
    return f"{name}/{path}" if name else path


def _aligned(listing: Listing, recipe: Recipe) -> tuple[Path, bool]:
    """The folder of a set's aligned copies, and whether they were made just now."""
    low, high = recipe.prepare_size or SIZE_RANGE
    margin = FACE_MARGIN if recipe.face_margin is None else recipe.face_margin
    folder = prepared_folder(listing, (low, high), margin)
    is_new = not is_prepared(folder)
    made = prepare(listing, folder, size_range=(low, high), margin=margin)
    print(f"aligned: {made.written:,} of {made.found:,} files, faces by {made.detector}, in {folder}")
    return folder, is_new
