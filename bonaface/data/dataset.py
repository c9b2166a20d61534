"""Rows -> a data set ready for training: three splits, subsets and sampling weights.

Every form of data ends as the same columns: ``image`` (undecoded: a struct of ``bytes`` and ``path``), ``label``
(ClassLabel), ``source`` (camera set or generator), ``group`` (what must stay together in one split) and ``path``
(unique; relative to the data's root).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import datasets
import numpy as np
from PIL import Image

from bonaface.data.labels import SPLITS, find_real_label
from bonaface.data.listing import Listing, image_bytes, list_data
from bonaface.data.rows import BrokenFile
from bonaface.data.splits import HALVES_SEED, assign_splits, calibration_half, merge_groups, shortage
from bonaface.errors import UsageError
from bonaface.imaging.images import ImageError, decode_image
from bonaface.pools import cancelled_on_error

__all__ = [
    "SPLITS",
    "BrokenFile",
    "FaceData",
    "Listing",
    "balanced_subset",
    "class_weights",
    "find_real_label",
    "hold_out_calibration",
    "image_bytes",
    "list_data",
    "load_data",
    "sampling_weights",
    "split_listing",
]


@dataclass(frozen=True)
class FaceData:
    """A data set ready for training: splits with the columns that the module's docstring names.

    Nothing in it is changed in place: :meth:`with_splits` gives the same data with other rows.
    """

    splits: dict[str, datasets.Dataset]  # a DatasetDict
    labels: list[str]
    real_label: str
    broken: list[BrokenFile]
    origin: str
    made_splits: list[str] = field(default_factory=list)
    units: str = ""  # as Listing.units
    passed_over: str = ""  # as Listing.passed_over

    @property
    def real_index(self) -> int:
        """The class id of the real label."""
        return self.labels.index(self.real_label)

    def with_splits(self, splits: Mapping[str, datasets.Dataset]) -> FaceData:
        """The same data, split otherwise or with fewer rows."""
        return replace(self, splits=dataset_dict(splits))

    def limited(self, n: int | None, seed: int = 42) -> FaceData:
        """At most ``n`` images of each split (see :func:`balanced_subset`); all of them when None."""
        if n is None:
            return self
        return self.with_splits({name: balanced_subset(rows, n, seed) for name, rows in self.splits.items()})

    def counts(self) -> list[dict[str, Any]]:
        """Images by split, label and source: ``[{"split", "label", "source", "n"}, …]``."""
        rows = []
        for split, dataset in self.splits.items():
            counts = Counter(zip(dataset["label"], dataset["source"], strict=True))
            rows += [
                {"split": split, "label": self.labels[label], "source": source, "n": n}
                for (label, source), n in sorted(counts.items())
            ]
        return rows

    def describe(self) -> str:
        """What was found, in a few lines for a person."""
        lines = [f"data: {self.origin}, labels {', '.join(self.labels)} (real: {self.real_label})"]
        for split, rows in self.splits.items():
            counts = Counter(rows["label"])
            shares = ", ".join(f"{counts[i]} {label}" for i, label in enumerate(self.labels))
            lines.append(f"  {split:<10} {len(rows):>7,} images: {shares}")
        if self.units:
            lines.append(f"  folders    {self.units}")
        if self.broken:
            example = self.broken[0]
            lines.append(f"  left out   {len(self.broken):>7,} broken files, such as {example.path}: {example.reason}")
        if self.passed_over:
            lines.append(f"  passed over {self.passed_over}")
        return "\n".join(lines)

    def load_image(self, path: str) -> Image.Image:
        """The RGB image of a value of the ``path`` column. Raises ImageError, or KeyError for an unknown path."""
        split, i = self._places[path]
        return decode_image(image_bytes(self.splits[split][i]["image"]), name=path)

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        """Path -> its split and row."""
        return {path: (split, i) for split, rows in self.splits.items() for i, path in enumerate(rows["path"])}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any image, path, label, source or split; the report and the model carry it.

        It reads every file, in threads, the first time it is asked for.
        """
        digest = hashlib.sha256()
        for split, dataset in sorted(self.splits.items()):
            with cancelled_on_error(ThreadPoolExecutor(os.cpu_count())) as pool:
                contents = list(pool.map(content_digest, dataset["image"]))
            columns = (dataset["path"], dataset["label"], dataset["source"], contents)
            for path, label, source, content in sorted(zip(*columns, strict=True)):
                digest.update(f"{split}\0{path}\0{self.labels[label]}\0{source}\0{content}\n".encode())
        return digest.hexdigest()[:16]


def dataset_dict(splits: Mapping[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    """A DatasetDict whose keys are text, never a `NamedSplit`."""
    return cast("dict[str, datasets.Dataset]", datasets.DatasetDict(splits))


def content_digest(image: Mapping[str, Any]) -> str:
    """16 hex digits of a file's bytes, of an undecoded value of the column ``image``."""
    try:
        return hashlib.blake2b(image_bytes(image), digest_size=8).hexdigest()
    except ImageError:
        return "unreadable"


def load_data(
    data: str | os.PathLike[str],
    *,
    real_label: str | None = None,
    label_order: Sequence[str] | None = None,
    seed: int = 42,
    validation_size: float = 0.15,
    test_size: float = 0.15,
    groups: str = "auto",
    copies: Mapping[str, str] | None = None,
    check: str = "full",
) -> FaceData:
    """List a data set and give it the three splits, making those that it lacks.

    Missing splits are cut from what is not yet split (else from ``train``), stratified by label and source, whole
    groups together. ``groups`` says which folders are groups (see :data:`bonaface.data.units.GROUPS_HELP`), unless the
    data has a column ``group``. ``copies`` maps paths to a further group name (near duplicates): files that share
    either kind of group stay together.

    Raises:
        UsageError: as :func:`list_data`; also where ``train`` is missing, or a split lacks one of the classes.
    """
    listing = list_data(data, real_label=real_label, label_order=label_order, check=check, groups=groups)
    return split_listing(listing, seed=seed, validation_size=validation_size, test_size=test_size, copies=copies)


def split_listing(
    listing: Listing,
    *,
    seed: int = 42,
    validation_size: float = 0.15,
    test_size: float = 0.15,
    copies: Mapping[str, str] | None = None,
) -> FaceData:
    """The second half of :func:`load_data`, for callers that look at the listing in between."""
    rows = listing.rows
    if copies:
        merged = merge_groups(rows["group"], [copies.get(path, path) for path in rows["path"]])
        rows = rows.remove_columns("group").add_column("group", merged)
    split = np.array(rows["split"], dtype=object)
    sizes = {"validation": validation_size, "test": test_size}
    made, cut = _make_splits(rows, split, sizes, listing.origin, seed)
    rows = rows.remove_columns("split")
    splits = dataset_dict({name: rows.select(np.flatnonzero(split == name)) for name in SPLITS})
    _check_labels(listing, rows, splits, cut)
    return FaceData(
        splits,
        listing.labels,
        listing.real_label,
        listing.broken,
        listing.origin,
        [split for split in SPLITS if split in made],
        listing.units,
        listing.passed_over,
    )


Cut = list[tuple[np.ndarray, list[str]]]  # which rows were divided into which splits


def _make_splits(
    rows: datasets.Dataset, split: np.ndarray, sizes: Mapping[str, float], origin: str, seed: int
) -> tuple[set[str], Cut]:
    """Fill in the splits that each data set lacks, in ``split``; the names of those made, and how they were cut."""
    owner = np.array(rows["dataset"] if "dataset" in rows.column_names else [""] * len(rows), dtype=object)
    made: set[str] = set()
    cut: Cut = []
    free = np.zeros(len(rows), dtype=bool)  # rows of sets that name no split at all: they are split together
    for name in dict.fromkeys(owner):
        mine = owner == name
        named = set(split[mine]) - {""}
        if not named:
            free |= mine
            continue
        if "train" not in named and "" not in named:
            raise UsageError(
                f"{name or origin} has the splits {', '.join(sorted(named))} but no split to train on",
                "add a folder `train`, or put the label folders at the top so that splits are made",
            )
        absent = {name for name in SPLITS if name not in named}
        pool = np.flatnonzero(mine & (split == ("" if "" in split[mine] else "train")))
        if absent or "" in split[mine]:
            cut.append((pool, ["train", *(name for name in sizes if name in absent)]))
            _cut(rows, split, pool, {name: size for name, size in sizes.items() if name in absent}, seed)
        made |= absent
    if free.any():
        cut.append((np.flatnonzero(free), list(SPLITS)))
        _cut(rows, split, np.flatnonzero(free), sizes, seed)
        made |= set(SPLITS)
    return made, cut


def _check_labels(listing: Listing, rows: datasets.Dataset, splits: Mapping[str, datasets.Dataset], cut: Cut) -> None:
    """Refuse splits without one of the labels."""
    for name, dataset in splits.items():
        missing = [label for i, label in enumerate(listing.labels) if i not in set(dataset["label"])]
        if missing:
            pools = [(pool, parts) for pool, parts in cut if name in parts]
            why = next(filter(None, (_shortage(listing, rows, pool, parts) for pool, parts in pools)), "")
            raise UsageError(
                f"the split `{name}` of {listing.origin} has no image labelled {', '.join(missing)}"
                + (f": {why}" if why else ""),
                "add images or groups; if folders are the groups, `--groups none` treats each image on its own"
                if why
                else "add images, or change --validation_size and --test_size",
            )


def _shortage(listing: Listing, rows: datasets.Dataset, pool: np.ndarray, splits: Sequence[str]) -> str:
    labels = [listing.labels[label] for label in np.array(rows["label"])[pool]]
    return shortage(labels, list(np.array(rows["group"], dtype=object)[pool]), splits)


def _cut(rows: datasets.Dataset, split: np.ndarray, pool: np.ndarray, sizes: Mapping[str, float], seed: int) -> None:
    """Write the splits of the rows in `pool` into `split`: shares as in `sizes`, and the rest for training.

    A row without a split whose group has one already follows it.
    """
    group = np.array(rows["group"], dtype=object)
    apart = np.setdiff1d(np.arange(len(split)), pool)
    settled = {name: chosen for name, chosen in zip(group[apart], split[apart], strict=True) if chosen}
    follows = np.array([settled.get(group[i], "") if split[i] == "" else "" for i in pool], dtype=object)
    split[pool] = follows
    pool = pool[follows == ""]
    label, *columns = (
        np.array(rows[name], dtype=object)[pool] for name in ("label", "source", "dataset") if name in rows.column_names
    )
    sources = list(zip(*columns, strict=True))
    shares = {"train": 1 - sum(sizes.values()), **sizes}
    split[pool] = assign_splits(list(label), sources, list(group[pool]), shares, seed)


def hold_out_calibration(data: FaceData, seed: int = HALVES_SEED) -> FaceData:
    """The data with its validation split halved: ``validation`` to select with, ``calibration`` to certify with."""
    if "calibration" in data.splits:
        return data
    selects, certifies = calibration_half(data.splits["validation"], seed)
    return data.with_splits({**data.splits, "validation": selects, "calibration": certifies})


def balanced_subset(dataset: datasets.Dataset, n: int, seed: int = 42) -> datasets.Dataset:
    """At most `n` rows, shared out evenly over labels and, inside a label, over its sources; seeded.

    A source that has fewer than its share gives what it has, and the others fill up.
    """
    rng = np.random.default_rng(seed)
    labels, sources = np.array(dataset["label"]), np.array(dataset["source"], dtype=object)
    pools: dict[int, dict[str, list[int]]] = {}
    for i in rng.permutation(len(dataset)):
        pools.setdefault(int(labels[i]), {}).setdefault(str(sources[i]), []).append(int(i))
    by_label = {
        label: _round_robin([pool[name] for name in sorted(pool)], len(dataset))
        for label, pool in sorted(pools.items())
    }
    return dataset.select(sorted(_round_robin(list(by_label.values()), n)))


def _round_robin(queues: list[list[int]], n: int) -> list[int]:
    taken: list[int] = []
    for rank in range(max(map(len, queues), default=0)):
        for queue in queues:
            if rank < len(queue) and len(taken) < n:
                taken.append(queue[rank])
    return taken


def sampling_weights(dataset: datasets.Dataset, balance: str) -> np.ndarray:
    """Weights for drawing rows, float64 of shape (n,) with mean 1.

    ``"label"`` makes every label equally likely; ``"source"`` also every source inside its label; ``"source_root"``
    lets a source weigh the root of its size, for data in which one source has three images and another a thousand;
    ``"none"`` makes all rows equally likely.
    """
    labels = np.array(dataset["label"])
    keys = [(label, source) for label, source in zip(labels, dataset["source"], strict=True)]
    if balance == "none":
        return np.ones(len(labels))
    if balance == "label":
        counts = Counter(labels.tolist())
        weights = np.array([1 / counts[label] for label in labels])
    else:
        per_source = Counter(keys)
        weights = np.array([per_source[key] ** (-0.5 if balance == "source_root" else -1.0) for key in keys])
        for label in set(labels.tolist()):
            weights[labels == label] /= weights[labels == label].sum()
    return weights * len(weights) / weights.sum()


def class_weights(dataset: datasets.Dataset, n_labels: int) -> np.ndarray:
    """Loss weights inversely proportional to class frequency, float64 of shape (n_labels,), mean over rows 1."""
    counts = np.bincount(dataset["label"], minlength=n_labels)
    return len(dataset) / (n_labels * np.maximum(counts, 1))
