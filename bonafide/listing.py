"""A folder, a metadata file or a Hub data set -> undecoded rows, with the broken files found and left out.

Files are listed here and not by the ``imagefolder`` loader, which takes a source named ``flux1_dev`` for a development
split and ``real/ffhq`` for a label ``ffhq``.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from tqdm.auto import tqdm

from bonafide.errors import UsageError
from bonafide.images import IMAGE_SUFFIXES, ImageError, decode_image, read_bytes
from bonafide.units import check_groups, find_units

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
REAL_NAMES = frozenset({"real", "bonafide", "genuine", "authentic", "original", "photo", "natural", "pristine"})
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class BrokenFile:
    """A file that was named by the data set but cannot be used, and why."""

    path: str
    reason: str
    label: str
    source: str


@dataclass
class Listing:
    """All readable rows of a data set before any split is made.

    ``rows`` has the five columns of every data set, ``split`` ("" where the data set names none) and, where its
    metadata has one, ``family`` (generators of one making; "" where a row names none).
    """

    rows: datasets.Dataset
    labels: list[str]
    real_label: str
    broken: list[BrokenFile]
    origin: str
    units: str = ""  # which folders were taken for sources, and which are kept whole; "" where there are none


def image_bytes(image: Mapping[str, Any] | None) -> bytes:
    """The encoded bytes of one value of the ``image`` column. Raises :class:`ImageError`."""
    if image is None or (image.get("bytes") is None and not image.get("path")):
        raise ImageError("missing", "the row holds no image")
    return image["bytes"] if image.get("bytes") is not None else read_bytes(image["path"])


def list_data(
    data: str | os.PathLike[str],
    *,
    real_label: str | None = None,
    label_order: Sequence[str] | None = None,
    check: str = "full",
    groups: str = "auto",
) -> Listing:
    """List a data set: a folder, a folder with a metadata file, a folder of Parquet files, or a Hub id.

    Args:
        data: what the user named; see DATA in the README for the forms. A Hub id may end in ``@revision``.
        real_label: the label that means "a photograph"; found by its name when not given.
        label_order: class order to keep (a checkpoint's own) when it holds the same names; else alphabetical.
        check: ``"full"`` decodes every file once and leaves out the broken ones, ``"none"`` trusts them.
        groups: which folders are kept whole, see :data:`bonafide.units.GROUPS_HELP`; a metadata file's column ``group``
            overrides it.

    Raises:
        UsageError: nothing there, no image, one class only, no real label, or a label whose files are all broken.
    """
    check_groups(groups)
    root = Path(data)
    if root.is_dir():
        columns, broken = _list_folder(root)
        if columns is None:
            return _finish(*_list_datasets(str(root), root.name), str(data), real_label, label_order, check)
        units = _keep_units(columns, groups, sources_given=bool(_metadata_files(root)))
        return replace(_finish(columns, broken, str(data), real_label, label_order, check), units=units)
    if root.exists() or not _looks_like_hub_id(str(data)):
        raise UsageError(
            f"no data folder at {data}",
            "give a folder with one sub-folder a label, or a Hub data set id (user/name)",
        )
    return _finish(*_list_datasets(str(data), str(data).split("/")[-1]), str(data), real_label, label_order, check)


def find_real_label(labels: Sequence[str], real_label: str | None = None, *, origin: str = "the data") -> str:
    """The label that means "real": the given one, else the only one with such a name (case and digits ignored).

    Raises:
        UsageError: the given label is not there, or no name (or more than one) says "real".
    """
    if real_label is not None:
        if real_label in labels:
            return real_label
        raise UsageError(f"{origin} has no label `{real_label}`", f"its labels are: {', '.join(labels)}")
    found = [label for label in labels if _plain(label) in REAL_NAMES]
    if len(found) != 1:
        raise UsageError(
            f"cannot tell which label of {origin} is the real one: {', '.join(labels)}",
            "name it with --real-label",
        )
    return found[0]


def _plain(label: str) -> str:
    words = [word for word in label.casefold().replace("-", "_").replace(" ", "_").split("_") if word]
    words = [
        word for word in words if not word.isdigit() and word not in {"images", "image", "faces", "face", "photos"}
    ]
    return "_".join(words)


def _looks_like_hub_id(data: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(data.partition("@")[0])
    except HFValidationError:
        return False
    return True


def _empty_columns() -> dict[str, list[Any]]:
    return {name: [] for name in ("image", "label", "source", "family", "group", "path", "split")}


def _list_folder(root: Path) -> tuple[dict[str, list[Any]] | None, list[BrokenFile]]:
    """Columns of a folder of image files, or None where it holds Parquet files instead."""
    files = _image_files(root)
    metadata = _metadata_files(root)
    if not files and not metadata:
        if any(root.rglob("*.parquet")):
            return None, []
        raise UsageError(f"no image file in {root}", f"known kinds: {', '.join(sorted(IMAGE_SUFFIXES))}")
    columns, broken = _empty_columns(), []
    if metadata:
        for path, split in metadata:
            broken += _add_metadata(columns, root, path, split)
        named = {*columns["path"], *(file.path for file in broken)}
        unnamed = [file.as_posix() for file in files if file.as_posix() not in named]
        return columns, broken + [BrokenFile(path, "not named in the metadata", "", "") for path in unnamed]
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    with_splits = bool(tops) and all(top.casefold() in SPLIT_NAMES for top in tops)
    some_splits = sorted(top for top in tops if top.casefold() in SPLIT_NAMES)
    if some_splits and not with_splits:
        others = sorted(tops - set(some_splits))
        raise UsageError(
            f"{root} mixes split folders ({', '.join(some_splits)}) with others ({', '.join(others)})",
            "put every image below train/, validation/ or test/, or none of them",
        )
    for file in files:
        if file.as_posix() != _shown(file.as_posix()):
            broken.append(BrokenFile(_shown(file.as_posix()), "file name is not UTF-8", "", ""))
            continue
        parts = file.parts[1:] if with_splits else file.parts
        if len(parts) < 2:
            raise UsageError(
                f"{root / file} lies in no label folder",
                "sort images into one folder a label, such as real/ and fake/",
            )
        _add_row(
            columns,
            root,
            file.as_posix(),
            label=parts[0],
            source=parts[1] if len(parts) > 2 else parts[0],
            split=SPLIT_NAMES[file.parts[0].casefold()] if with_splits else "",
        )
    return columns, broken


def _keep_units(columns: dict[str, list[Any]], groups: str, *, sources_given: bool) -> str:
    """Write sources and groups as the folders say, unless a metadata file names groups; what was decided, in words."""
    if columns["group"] != columns["path"]:
        return ""
    found = find_units(columns["label"], columns["source"], columns["path"], groups, sources_given=sources_given)
    columns["source"], columns["group"] = found.sources, found.groups
    return found.note


def _shown(name: str) -> str:
    """The name with a question mark for every byte that is not UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _image_files(root: Path) -> list[Path]:
    """Image files below `root`, relative to it, sorted by name; hidden files and folders are passed over."""
    found = []
    for folder, folders, names in os.walk(root, onerror=_refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        found += [
            relative / name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)


def _refuse_unreadable(error: OSError) -> None:
    """`os.walk` passes over what it cannot read; data must not get lost without a word."""
    raise UsageError(
        f"cannot read {error.filename}: {str(error.strerror).lower()}", "mend the folder's permissions"
    ) from error


def _metadata_files(root: Path) -> list[tuple[Path, str]]:
    """Metadata files of a folder with the split that each speaks for: at the root, or one in each split folder."""
    at_root = [(root / name, "") for name in METADATA_NAMES if (root / name).is_file()]
    if at_root:
        return at_root[:1]
    folders = sorted(path for path in root.iterdir() if path.name.casefold() in SPLIT_NAMES and path.is_dir())
    without = [path.name for path in folders if not any((path / name).is_file() for name in METADATA_NAMES)]
    if folders and 0 < len(without) < len(folders):
        raise UsageError(
            f"{root}: some split folders have a metadata file, and {', '.join(without)} has none",
            "give each one its own, or none of them",
        )
    return [
        (folder / name, SPLIT_NAMES[folder.name.casefold()])
        for folder in folders
        for name in METADATA_NAMES
        if (folder / name).is_file()
    ]


def _read_metadata(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return list(csv.DictReader(file))
            return [json.loads(line) for line in file if line.strip()]
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}", "it must be UTF-8 CSV or one JSON object a line") from error


def _add_metadata(columns: dict[str, list[Any]], root: Path, path: Path, split: str) -> list[BrokenFile]:
    rows, broken = _read_metadata(path), []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UsageError(f"{path}: row {number} is no JSON object", 'as {"file_name": "x.jpg", "label": "real"}')
        name, label = str(row.get("file_name") or "").replace("\0", ""), row.get("label")
        if not name or label in (None, ""):
            raise UsageError(
                f"{path}: row {number} has no {'label' if name else 'file_name'}",
                "every row needs file_name and label; source, family, group and split are optional",
            )
        file = (path.parent / name).resolve()
        label, source = str(label), str(row.get("source") or label)
        relative = os.path.relpath(file, root.resolve())
        if relative.startswith(".."):
            broken.append(BrokenFile(name, "outside the data folder", label, source))
            continue
        named = str(row.get("split") or split)
        if named and named.casefold() not in SPLIT_NAMES:
            raise UsageError(f"{path}: row {number} has the unknown split `{named}`", f"known: {', '.join(SPLITS)}")
        _add_row(
            columns,
            root,
            Path(relative).as_posix(),
            label=label,
            source=source,
            split=SPLIT_NAMES[named.casefold()] if named else "",
            group=str(row.get("group") or ""),
            family=str(row.get("family") or ""),
        )
    twice = [name for name, n in Counter(columns["path"]).items() if n > 1]
    if twice:
        raise UsageError(f"{path} names {twice[0]} more than once", "one row a file")
    return broken


def _add_row(
    columns: dict[str, list[Any]],
    root: Path,
    path: str,
    *,
    label: str,
    source: str,
    split: str,
    group: str = "",
    family: str = "",
) -> None:
    columns["image"].append({"path": str((root / path).absolute()), "bytes": None})
    columns["path"].append(path)
    columns["label"].append(label)
    columns["source"].append(source)
    columns["family"].append(family)
    columns["group"].append(group or path)
    columns["split"].append(split)


def _list_datasets(data: str, name: str) -> tuple[dict[str, Any], list[BrokenFile]]:
    """Columns of a Hub data set, or of a folder of Parquet files, which the same loader reads."""
    try:
        repo_id, _, revision = (data, "", "") if Path(data).exists() else data.partition("@")
        loaded = datasets.load_dataset(repo_id, revision=revision or None)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UsageError(
            f"cannot load the data set {data}: {str(error).splitlines()[0]}",
            "check the id and the network (huggingface-cli login for private ones), or give a folder",
        ) from error
    parts = []
    for split, dataset in loaded.items():
        for key, kind in dataset.features.items():  # Parquet that pandas wrote lacks the word "image"
            if isinstance(kind, dict) and {"bytes", "path"} <= kind.keys():
                dataset = dataset.cast_column(key, datasets.Image(decode=False))
        image = next((key for key, kind in dataset.features.items() if isinstance(kind, datasets.Image)), None)
        label = next((key for key in ("label", "labels") if key in dataset.features), None)
        if image is None or label is None:
            raise UsageError(
                f"{data} has no {'image' if image is None else 'label'} column",
                f"its columns are: {', '.join(dataset.features)}",
            )
        parts.append((SPLIT_NAMES.get(split.casefold(), ""), dataset, image, label))
    columns: dict[str, Any] = _empty_columns()
    images = []
    for split, dataset, image, label in parts:
        images.append(dataset.select_columns([image]).rename_columns({image: "image"} if image != "image" else {}))
        kind = dataset.features[label]
        if any(value is None for value in dataset[label]):
            raise UsageError(f"{data}: a row of the split {split or 'all'} has no label", "every row needs one")
        values = [kind.int2str(v) if isinstance(kind, datasets.ClassLabel) else str(v) for v in dataset[label]]
        paths = [f"{split or 'all'}/{i:07d}" for i in range(len(dataset))]
        columns["label"] += values
        columns["source"] += [str(s) for s in dataset["source"]] if "source" in dataset.features else values
        columns["family"] += (
            [str(f or "") for f in dataset["family"]] if "family" in dataset.features else [""] * len(dataset)
        )
        columns["group"] += [str(g) for g in dataset["group"]] if "group" in dataset.features else paths
        columns["path"] += [str(p) for p in dataset["path"]] if "path" in dataset.features else paths
        columns["split"] += [split] * len(dataset)
    merged = datasets.concatenate_datasets([part.cast_column("image", datasets.Image(decode=False)) for part in images])
    columns["image"] = merged
    if len(set(columns["path"])) < len(columns["path"]):  # names that say nothing
        columns["path"] = [f"{i:07d}/{path}" for i, path in enumerate(columns["path"])]
    return columns, []


def _finish(
    columns: dict[str, Any],
    broken: list[BrokenFile],
    origin: str,
    real_label: str | None,
    label_order: Sequence[str] | None,
    check: str,
) -> Listing:
    """Columns -> Listing: labels ordered and judged, broken files found and left out."""
    columns["label"] = [label.strip() for label in columns["label"]]
    labels = sorted((set(columns["label"]) | {file.label.strip() for file in broken}) - {""})
    alike = [names for names in _spelt_alike(labels) if len(names) > 1]
    if alike:
        raise UsageError(
            f"{origin} spells one label in several ways: {', '.join(alike[0])}",
            "rename the folders or rows to one of them",
        )
    if len(labels) < 2:
        raise UsageError(
            f"{origin} holds one class only: {', '.join(labels) or 'none at all'}",
            "a detector needs real and fake images, a folder each",
        )
    if label_order is not None and set(label_order) == set(labels):
        labels = list(label_order)
    real = find_real_label(labels, real_label, origin=origin)
    rows = _to_dataset(columns, labels)
    if check == "full":
        bad = find_broken(rows)
        broken = broken + [
            BrokenFile(rows[i]["path"], reason, labels[rows[i]["label"]], rows[i]["source"])
            for i, reason in bad.items()
        ]
        if bad:
            rows = rows.select([i for i in range(len(rows)) if i not in bad])
    empty = [label for i, label in enumerate(labels) if i not in set(rows["label"])]
    if empty:
        example = next(f"; {f.path}: {f.reason}" for f in broken if f.label in empty)
        raise UsageError(
            f"no readable image labelled {', '.join(empty)} in {origin} ({len(broken)} broken files{example})",
            "mend or replace these files",
        )
    return Listing(rows, labels, real, broken, origin)


def _spelt_alike(labels: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(label.casefold(), []).append(label)
    return list(groups.values())


def _to_dataset(columns: dict[str, Any], labels: list[str]) -> datasets.Dataset:
    index = {label: i for i, label in enumerate(labels)}
    strings = ["source", "group", "path", "split", *(["family"] if any(columns["family"]) else [])]
    label = datasets.ClassLabel(names=labels)
    values = {"label": [index[name] for name in columns["label"]], **{name: columns[name] for name in strings}}
    rest = _arrow_dataset(values, {"label": label, **{name: datasets.Value("string") for name in strings}})
    images = columns["image"]
    if not isinstance(images, datasets.Dataset):
        images = _arrow_dataset({"image": images}, {"image": datasets.Image(decode=False)})
    return datasets.concatenate_datasets([images, rest], axis=1)


def _arrow_dataset(values: dict[str, list[Any]], features: dict[str, Any]) -> datasets.Dataset:
    """A Dataset straight from Arrow: `Dataset.from_dict` would encode every row in Python."""
    kinds = datasets.Features(features)
    table = pa.table({name: pa.array(values[name], type=kind.pa_type) for name, kind in kinds.items()})
    return datasets.Dataset(datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=kinds))


def find_broken(rows: datasets.Dataset) -> dict[int, str]:
    """Decode every image once, in threads; the row numbers that cannot be decoded, with the reason."""
    images = rows.select_columns(["image"])

    def problem(i: int) -> str | None:
        image = images[i]["image"]
        try:
            decode_image(image_bytes(image), name=(image or {}).get("path") or "")
        except ImageError as error:
            return str(error) if error.reason in str(error) else f"{error.reason}: {error}"
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = pool.map(problem, range(len(images)))
        progress = tqdm(checks, total=len(images), desc="checking images", unit="file", leave=False, disable=None)
        return {i: reason for i, reason in enumerate(progress) if reason}
