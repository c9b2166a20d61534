"""Parquet files, in a folder or on the Hub -> columns of undecoded rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import httpx

from bonaface.data.labels import split_named
from bonaface.errors import UsageError
from bonaface.proxies import check_proxies


def load_columns(data: str, files: Sequence[str] | None = None) -> dict[str, Any]:
    """Columns of a data set: ``image`` (a datasets.Dataset of that column), and lists for all others.

    Args:
        data: a Hub id, which may end in ``@revision``, or a folder.
        files: the folder's Parquet files, relative to it; None for a Hub id.

    Raises:
        UsageError: it cannot be loaded, lacks the image or label column, or has a row without a label.
    """
    columns: dict[str, Any] = {name: [] for name in ("label", "source", "family", "group", "path", "split")}
    images = []
    for name, loaded in _load(data, files).items():
        split, rows = split_named(str(name)), _undecoded(data, loaded)
        images.append(rows.select_columns(["image"]))
        for column, values in _values(data, split, rows).items():
            columns[column] += values
    columns["image"] = datasets.concatenate_datasets(images)
    if len(set(columns["path"])) < len(columns["path"]):  # names that do not tell files apart
        columns["path"] = [f"{i:07d}/{path}" for i, path in enumerate(columns["path"])]
    return columns


def _load(data: str, files: Sequence[str] | None) -> datasets.DatasetDict:
    try:
        if files is None:
            check_proxies()
            repo_id, _, revision = data.partition("@")
            return datasets.load_dataset(repo_id, revision=revision or None)
        if set(files) == _seen_by_loader(data):  # which also reads splits and classes from the folder's data card
            return datasets.load_dataset(data)
        splits: dict[str, list[str]] = {}
        for file in files:
            splits.setdefault(_split_in_name(file), []).append(str(Path(data, file)))
        return datasets.load_dataset("parquet", data_files=splits)
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UsageError(
            f"cannot load the data set {data}: {str(error).splitlines()[0]}",
            "check the id and the network (`hf auth login` for private data sets), or give a folder",
        ) from error


def _seen_by_loader(folder: str) -> set[str]:
    """What ``load_dataset`` finds in a folder: nothing behind linked folders, but also what a system left there."""
    found = (path.relative_to(folder) for path in Path(folder).rglob("*.parquet"))
    return {path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)}


def _split_in_name(file: str) -> str:
    """The split that a word of the file's path names, the last of them first; ``train`` where there is none."""
    words = re.split(r"[^a-zA-Z]+", file)
    return next((split for word in reversed(words) if (split := split_named(word))), "train")


def _undecoded(data: str, rows: datasets.Dataset) -> datasets.Dataset:
    """The rows with their image column called ``image`` and their label column ``label``."""
    for name, kind in rows.features.items():  # Parquet that pandas wrote lacks the word "image"
        if isinstance(kind, dict) and {"bytes", "path"} <= kind.keys():
            rows = rows.cast_column(name, datasets.Image(decode=False))
    image = next((name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    label = next((name for name in ("label", "labels") if name in rows.features), None)
    if image is None or label is None:
        raise UsageError(
            f"{data} has no {'image' if image is None else 'label'} column",
            f"rename one of its columns: {', '.join(rows.features)}",
        )
    new = {old: name for old, name in ((image, "image"), (label, "label")) if old != name}
    return rows.rename_columns(new).cast_column("image", datasets.Image(decode=False))


def _values(data: str, split: str, rows: datasets.Dataset) -> dict[str, list[str]]:
    """All columns but the image, as text; columns that the data set lacks are derived from those it has."""
    kind, n = rows.features["label"], len(rows)
    if any(value is None for value in rows["label"]):
        raise UsageError(f"{data}: a row of the split {split or 'all'} has no label", "give every row a label")
    labels = [str(kind.int2str(v) if isinstance(kind, datasets.ClassLabel) else v) for v in rows["label"]]
    numbers = [f"{split or 'all'}/{i:07d}" for i in range(n)]
    missing: dict[str, list[str]] = {"source": labels, "family": [""] * n, "group": numbers, "path": numbers}
    given = {
        name: ["" if value is None else str(value) for value in rows[name]] if name in rows.features else default
        for name, default in missing.items()
    }
    return {"label": labels, "split": [split] * n, **given}
