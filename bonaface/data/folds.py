"""The folds of a cross-validation: which images each one trains on, and which it is tested on.

Either images are divided (:func:`k_folds`), or whole sources or families are left out of training, one a fold
(:func:`leave_one_out`) or several (:func:`leave_families_out`). A fold is a table of splits that ``train_hf.py
--splits`` reads.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np
import pandas as pd

from bonaface.data.labels import SPLITS
from bonaface.data.listing import Listing
from bonaface.data.splits import assign_splits, merge_groups, shortage
from bonaface.errors import UsageError
from bonaface.stats.metrics import WORST_MIN_IMAGES

FOLDS, BY_SOURCE, BY_FAMILY, FAMILY_FOLDS = KINDS = (
    "folds",
    "leave-one-source-out",
    "leave-one-family-out",
    "leave-families-out",
)
NAMED = 3  # of the real sources in a fold's title; more are counted
SOURCES_HINT = (
    "put each source in a folder below its label, as in fake/sdxl/x.jpg; with `--groups none` each such folder is one"
)


@dataclass(frozen=True)
class Fold:
    """One training and its test. ``table`` has the columns path and split.

    ``left_out`` counts images that are in no split, for their group (copies, or one person) is in another one.

    ``held_out`` are the sources that only the test has, {"fake": […], "real": […]}; empty where images are divided.
    """

    name: str
    table: pd.DataFrame
    held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: int = 0

    @property
    def title(self) -> str:
        """Its name for a person: with the real sources that it holds out, or how many they are."""
        if not self.held_out:
            return self.name
        real = self.held_out["real"]
        return f"{self.name} / {', '.join(real) if len(real) <= NAMED else f'{len(real)} real sources'}"


def image_table(listing: Listing, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The listing as a table of path, label, source, family, group and is_real; groups are those of copies, merged."""
    rows = listing.rows
    table = pd.DataFrame({name: list(rows[name]) for name in ("path", "source", "group")}, dtype=object)
    table["label"] = [listing.labels[i] for i in rows["label"]]
    table["is_real"] = table["label"] == listing.real_label
    named = rows["family"] if "family" in rows.column_names else [""] * len(rows)
    table["family"] = [family or source for family, source in zip(named, table["source"], strict=True)]
    if groups:
        table["group"] = merge_groups(list(table["group"]), [groups.get(path, path) for path in table["path"]])
    return table


# --- dividing images ----------------------------------------------------------------------------------------------


def k_folds(images: pd.DataFrame, k: int, validation_size: float, seed: int) -> list[Fold]:
    """Every image in the test of one of ``k`` folds, whole groups together, labels and sources spread evenly.

    Raises:
        UsageError: fewer than two folds, or more than a label, or a source of 50 images, has groups.
    """
    if k < 2:
        raise UsageError(f"--folds {k} is too few to compare", "give 2 folds or more")
    for label, part in images.groupby("label"):
        _refuse_too_many(k, f"the label {label}", part["group"].nunique())
    for (_, source), part in images.groupby(["label", "source"]):
        if len(part) >= WORST_MIN_IMAGES:
            _refuse_too_many(k, f"the source {source}", part["group"].nunique())
    names = [f"fold{number}" for number in range(1, k + 1)]
    tested = np.array(_assign(images, dict.fromkeys(names, 1 / k), seed))
    return [_fold(images, name, tested == name, validation_size, seed) for name in names]


def _refuse_too_many(k: int, what: str, groups: int) -> None:
    if groups < k:
        raise UsageError(
            f"--folds {k} is more than the number of groups of images that {what} has: {groups}",
            f"use at most --folds {groups}"
            if groups > 1
            else "use `--groups none` to treat each image on its own; copies stay in one fold all the same",
        )


# --- leaving sources out ------------------------------------------------------------------------------------------


def leave_one_out(
    images: pd.DataFrame, units: Mapping[str, Sequence[str]], validation_size: float, seed: int, what: str = "source"
) -> list[Fold]:
    """A fold for each unit of fake sources, which also holds out one unit of real sources in turn.

    Where there are more of the real ones a fold holds out several, so that every source is unseen once. ``units`` maps
    the name of a source or family to its sources; one that has both real and fake sources counts on both sides. What
    shares a group with a test image (a copy, the same person) is left out of the other splits, so its sources are truly
    unseen; where that would take most of a label, only half of such groups are tested (:func:`_spare_training`).

    Raises:
        UsageError: fewer than two units on a side, or more than two labels.
    """
    _refuse_more_labels(images, what)
    sides = _sides(images, units)
    for is_real, kind in ((False, "fake"), (True, "real")):
        if len(sides[is_real]) < 2:
            plural = what.replace("family", "familie") + "s"
            raise UsageError(
                f"--leave-one-{what}-out needs two {kind} {plural}, but the data has {len(sides[is_real])}",
                f"{SOURCES_HINT}, or use --folds",
            )
    fakes, reals = sides[False], sides[True]
    folds = []
    for number, (name, own) in enumerate(fakes):
        turns = range(number, max(len(reals), number + 1), len(fakes))
        real = sorted(source for turn in turns for source in reals[turn % len(reals)][1])
        tested = np.where(images["is_real"], images["source"].isin(real), images["source"].isin(own))
        folds.append(_fold(images, name, tested, validation_size, seed, {"fake": own, "real": real}))
    return folds


def leave_families_out(
    images: pd.DataFrame, units: Mapping[str, Sequence[str]], k: int, validation_size: float, seed: int
) -> list[Fold]:
    """``k`` folds of whole families, both sides of a test unseen, every image tested once (see :func:`leave_one_out`).

    The families of each side, largest first, go to the fold that has the fewest images of that side. So a small family
    shares a fold with others and is never tested alone, where its interval would be too wide to be useful.

    Raises:
        UsageError: fewer than two folds, fewer families on a side than folds, or more than two labels.
    """
    _refuse_more_labels(images, "family")
    if k < 2:
        raise UsageError(f"--leave-families-out {k} is too few to compare", "give 2 folds or more")
    sides, counts = _sides(images, units), images.groupby(["is_real", "source"]).size()
    dealt: dict[bool, list[list[str]]] = {}
    for is_real, kind in ((False, "fake"), (True, "real")):
        families = sides[is_real]
        if len(families) < k:
            raise UsageError(
                f"--leave-families-out {k} needs {k} {kind} families, but the data has {len(families)}",
                f"use {len(families)}" if len(families) > 1 else SOURCES_HINT,
            )
        size = {name: sum(int(counts[is_real, source]) for source in own) for name, own in families}
        load, dealt[is_real] = [0] * k, [[] for _ in range(k)]
        for name, own in sorted(families, key=lambda family: (-size[family[0]], family[0])):
            place = load.index(min(load))
            load[place] += size[name]
            dealt[is_real][place] += own
    folds = []
    for number, (fake, real) in enumerate(zip(dealt[False], dealt[True], strict=True), start=1):
        tested = np.where(images["is_real"], images["source"].isin(real), images["source"].isin(fake))
        held_out = {"fake": sorted(fake), "real": sorted(real)}
        folds.append(_fold(images, f"fold{number}", tested, validation_size, seed, held_out))
    return folds


def _refuse_more_labels(images: pd.DataFrame, what: str) -> None:
    labels = sorted(images["label"].unique())
    if len(labels) > 2:
        raise UsageError(
            f"leaving a {what} out needs one label for fakes, but the data has the labels {', '.join(labels)}",
            "make the generators sources of one label, or use --folds",
        )


def _sides(images: pd.DataFrame, units: Mapping[str, Sequence[str]]) -> dict[bool, list[tuple[str, list[str]]]]:
    """For fake (False) and real (True) images: units by name, each with its sources on that side."""
    sides = {}
    for is_real in (False, True):
        present = set(images.loc[images["is_real"] == is_real, "source"])
        sides[is_real] = [(name, own) for name in sorted(units) if (own := sorted(present & set(units[name])))]
    return sides


def source_units(images: pd.DataFrame) -> dict[str, list[str]]:
    """Every source on its own."""
    return {source: [source] for source in sorted(images["source"].unique())}


def family_units(images: pd.DataFrame, families: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """Family -> its sources: as ``families`` (names or patterns of sources) says, else the column ``family``.

    A source that neither names is a family of its own.

    Raises:
        UsageError: a name or pattern that no source has, or a source in two families.
    """
    sources = sorted(images["source"].unique())
    owner: dict[str, str] = {}
    for family, patterns in (families or {}).items():
        for pattern in patterns:
            found = fnmatch.filter(sources, pattern)
            if not found:
                near = get_close_matches(pattern, sources, 1)
                hint = f"did you mean {near[0]}?" if near else f"its sources are: {', '.join(sources)}"
                raise UsageError(f"families: {family} names {pattern}, but the data has no such source", hint)
            for source in found:
                _own(owner, source, family)
    mapped = set(owner)
    for source, family in images[["source", "family"]].drop_duplicates().itertuples(index=False):
        if source not in mapped:
            _own(owner, source, family)
    units: dict[str, list[str]] = {}
    for source in sources:
        units.setdefault(owner[source], []).append(source)
    return units


def _own(owner: dict[str, str], source: str, family: str) -> None:
    if owner.setdefault(source, family) != family:
        raise UsageError(
            f"families: the source {source} is in two families, {owner[source]} and {family}", "keep it in one"
        )


# --- both ---------------------------------------------------------------------------------------------------------


def _fold(
    images: pd.DataFrame,
    name: str,
    tested: np.ndarray,
    validation_size: float,
    seed: int,
    held_out: Mapping[str, Sequence[str]] | None = None,
) -> Fold:
    """A fold whose test is the rows ``tested`` (bool); validation is cut from the rest, copies of test images go."""
    held = tested
    if held_out:
        tested = _spare_training(images, tested, seed)
    out = (images["group"].isin(images["group"][tested]).to_numpy(bool) | held) & ~tested
    rest = images[~tested & ~out]
    shares = {"train": 1 - validation_size, "validation": validation_size}
    split = np.where(out, "", "test").astype(object)
    split[~tested & ~out] = _assign(rest, shares, seed)
    table = pd.DataFrame({"path": images["path"], "split": split})[~out].reset_index(drop=True)
    for part in SPLITS:
        have = set(images["label"][split == part])
        if missing := sorted(set(images["label"]) - have):
            why = shortage(list(rest["label"]), list(rest["group"]), list(shares)) if part != "test" else ""
            raise UsageError(
                f"{name}: its {part} split would have no image labelled {', '.join(missing)}"
                + (f" ({why})" if why else ""),
                "add images, use fewer folds, or change --validation_size",
            )
    return Fold(name, table, held_out or {}, int(out.sum()))


def _spare_training(images: pd.DataFrame, tested: np.ndarray, seed: int) -> np.ndarray:
    """The rows to test: all that are held out, or fewer where groups span sources.

    Where every generator was given the same persons, leaving a test's persons out would leave nothing to train on. So
    if it took more than half of a label, one half of these groups is tested and the other is trained on.
    """
    group = images["group"]
    shared = np.unique(group[tested & group.isin(group[~tested])].to_numpy(str))
    lost = group.isin(shared)[~tested].groupby(images["label"][~tested]).mean()
    if not (lost > 0.5).any():
        return tested
    trained = np.random.default_rng(seed).permutation(shared)[: len(shared) // 2]
    return tested & ~group.isin(trained).to_numpy(bool)


def _assign(images: pd.DataFrame, shares: Mapping[str, float], seed: int) -> list[str]:
    return assign_splits(list(images["label"]), list(images["source"]), list(images["group"]), shares, seed)


def folder_names(names: Iterable[str]) -> list[str]:
    """A folder name for each fold, safe on any file system, no two alike."""
    taken: list[str] = []
    for number, name in enumerate(names, start=1):
        safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_") or "fold"
        taken.append(safe if safe.casefold() not in {other.casefold() for other in taken} else f"{safe}-{number}")
    return taken


def make_folds(
    listing: Listing,
    groups: Mapping[str, str] | None,
    *,
    kind: str,
    k: int,
    families: Mapping[str, Sequence[str]] | None,
    validation_size: float,
    seed: int,
) -> list[Fold]:
    """The folds of one of the ``KINDS``. Raises UsageError as the function that makes them."""
    images = image_table(listing, groups)
    if kind == FOLDS:
        return k_folds(images, k, validation_size, seed)
    if kind == BY_SOURCE:
        return leave_one_out(images, source_units(images), validation_size, seed)
    if kind == FAMILY_FOLDS:
        return leave_families_out(images, family_units(images, families), k, validation_size, seed)
    return leave_one_out(images, family_units(images, families), validation_size, seed, "family")
