"""A folder, a metadata file or a Hub data set -> undecoded rows, with the broken files found and left out.

Files are listed here and not by the ``imagefolder`` loader, which takes a source named ``flux1_dev`` for a development
split and ``real/ffhq`` for a label ``ffhq``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from tqdm.auto import tqdm

from bonaface.data.columnar import load_columns
from bonaface.data.labels import find_real_label
from bonaface.data.layout import read_layout
from bonaface.data.metadata import METADATA_NAMES, metadata_files, read_metadata
from bonaface.data.passed_over import PassedOver
from bonaface.data.rows import CONTROL, BrokenFile, FileRow, left_out
from bonaface.data.units import check_groups, find_units
from bonaface.errors import UsageError, is_folder, refuse_undecodable
from bonaface.imaging.images import IMAGE_SUFFIXES, ImageError, decode_image, is_image_name, read_bytes, shown_name
from bonaface.imaging.walk import walk_files
from bonaface.pools import cancelled_on_error


@dataclass
class Listing:
    """All readable rows of a data set before any split is made.

    ``rows`` has the five columns of every data set, ``split`` ("" where the data set names none) and, where its
    metadata has one, ``family`` (generators from the same maker; "" where a row names none).
    """

    rows: datasets.Dataset
    labels: list[str]
    real_label: str
    broken: list[BrokenFile]
    origin: str
    units: str = ""  # which folders were taken for sources, and which are kept whole; "" where there are none
    passed_over: str = ""  # how many files are not images by their names; "" where there are none


def image_bytes(image: Mapping[str, Any] | None) -> bytes:
    """The encoded bytes of one value of the ``image`` column. Raises :class:`ImageError`."""
    if image is None or (image.get("bytes") is None and not image.get("path")):
        raise ImageError("missing", "the row contains no image")
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
        label_order: class order to keep (a checkpoint's own) if it has the same names; else alphabetical.
        check: ``"full"`` decodes every file once and leaves out the broken ones, ``"none"`` trusts them.
        groups: which folders are kept whole, see :data:`units.GROUPS_HELP`; a metadata file's column ``group``
            overrides it.

    Raises:
        UsageError: nothing there, no image, one class only, no real label, or a label whose files are all broken.
    """
    check_groups(groups)
    root = Path(data)
    if is_folder(root):
        refuse_undecodable(root.absolute())  # every row has its file's whole path, as text
        columns, broken, units, passed = _list_folder(root, real_label, groups)
        listing = _finish(columns, broken, str(data), real_label, label_order, check, passed)
        return replace(listing, units=units, passed_over=passed.counted(columns["path"]))
    if root.exists() or not _looks_like_hub_id(str(data)):
        raise UsageError(
            f"no data folder at {data}",
            "give a folder with one subfolder per label, or a Hub data set id (user/name)",
        )
    return _finish(load_columns(str(data)), [], str(data), real_label, label_order, check)


def _looks_like_hub_id(data: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(data.partition("@")[0])
    except HFValidationError:
        return False
    return True


def _list_folder(
    root: Path, real_label: str | None, groups: str
) -> tuple[dict[str, Any], list[BrokenFile], str, PassedOver]:
    """Columns of a folder of image files or, if it has none, of its Parquet files; the broken; the units; the rest."""
    images, tables, parquet, broken, passed = [], [], [], [], PassedOver()
    for found in walk_files(root, _refuse_unreadable, passed.skipped):
        if found.problem:
            broken.append(BrokenFile(_shown(found.path), found.problem, "", ""))
        elif Path(found.path).name.casefold() in METADATA_NAMES:
            tables.append(found.path)
        elif is_image_name(found.path):
            images.append(found.path)
        elif found.path.casefold().endswith(".parquet"):
            parquet.append(found.path)
        else:
            passed.files.append(found.path)
    metadata = metadata_files(root, [*images, *tables])
    if not images and not metadata:
        if parquet:
            return load_columns(str(root), parquet), broken, "", PassedOver()
        why = [f"no images found in {root}", left_out(broken) if broken else "", passed.explained()]
        raise UsageError(
            "; ".join(filter(None, why)),
            f"use a supported file type: {', '.join(sorted(IMAGE_SUFFIXES))}; hidden folders and caches are skipped",
        )
    passed.files += parquet
    if metadata:
        rows, unused = read_metadata(root, metadata, images)
        named = {row.path for row in rows}  # a broken link is reported as the file of its row
        broken = [file for file in broken if file.path not in named] + unused
        columns = _columns(root, rows)
        return columns, broken, _keep_units(columns, rows, groups, sources_given=True), passed.without(named)
    readable = [path for path in images if path == _shown(path)]
    broken += [BrokenFile(_shown(path), "file name is not UTF-8", "", "") for path in images if path != _shown(path)]
    rows = read_layout(root, sorted(readable, key=lambda path: path.split("/")), real_label)
    columns = _columns(root, rows)
    return columns, broken, _keep_units(columns, rows, groups, sources_given=False), passed


def _refuse_unreadable(error: OSError) -> None:
    """An unreadable folder may contain any number of images, so no data set is listed without it."""
    raise UsageError(
        f"cannot read {error.filename}: {str(error.strerror).lower()}", "fix the folder's permissions"
    ) from error


def _keep_units(columns: dict[str, list[Any]], rows: Sequence[FileRow], groups: str, *, sources_given: bool) -> str:
    """Write sources and groups as the folders say, unless a metadata file names groups; what was decided, in words."""
    if columns["group"] != columns["path"]:
        return ""
    inside = [row.inside for row in rows]
    found = find_units(
        columns["label"], columns["source"], columns["path"], groups, sources_given=sources_given, inside=inside
    )
    columns["source"], columns["group"] = found.sources, found.groups
    return found.note


def _shown(name: str) -> str:
    """The name with a question mark for every byte that is not UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _columns(root: Path, rows: Sequence[FileRow]) -> dict[str, Any]:
    """All that is known of the files, before any of them is opened; a file without a group is one of its own."""
    top = root.absolute()
    return {
        "image": [{"path": f"{top}/{row.path}", "bytes": None} for row in rows],
        "path": [row.path for row in rows],
        "label": [row.label for row in rows],
        "source": [row.source for row in rows],
        "split": [row.split for row in rows],
        "group": [row.group or row.path for row in rows],
        "family": [row.family for row in rows],
    }


def _finish(
    columns: dict[str, Any],
    broken: list[BrokenFile],
    origin: str,
    real_label: str | None,
    label_order: Sequence[str] | None,
    check: str,
    passed: PassedOver | None = None,
) -> Listing:
    """Columns -> Listing: labels ordered and judged, broken files found and left out."""
    if not columns["label"]:
        raise UsageError(
            f"no usable images in {origin}: {left_out(broken)}" if broken else f"no images found in {origin}",
            "give a folder that contains the image files, or links to them, beside any metadata file",
        )
    columns["label"] = [label.strip() for label in columns["label"]]
    for name in ("label", "source"):
        if wrong := next((value for value in sorted(set(columns[name])) if CONTROL.search(value)), None):
            raise UsageError(f"{origin} has a {name} with a control character: {wrong[:80]!r}", "rename it")
    labels = sorted((set(columns["label"]) | {file.label.strip() for file in broken}) - {""})
    alike = [names for names in _spelt_alike(labels) if len(names) > 1]
    if alike:
        raise UsageError(
            f"{origin} spells one label in several ways: {', '.join(alike[0])}",
            "rename the folders or rows to one of them",
        )
    if len(labels) < 2:
        why = [f"{origin} contains only one class: {labels[0]}", left_out(broken) if broken else ""]
        why += [passed.explained(columns["path"])] if passed else []
        raise UsageError("; ".join(filter(None, why)), "give real and fake images, in one folder each")
    if label_order is not None and set(label_order) == set(labels):
        labels = list(label_order)
    real = find_real_label(labels, real_label, origin=origin)
    listing = Listing(_to_dataset(columns, labels), labels, real, broken, origin)
    return without_broken(listing, find_broken(listing) if check == "full" else [])


def without_broken(listing: Listing, found: Sequence[BrokenFile]) -> Listing:
    """The listing without rows that were found to be broken since it was made; they join its ``broken``.

    Raises:
        UsageError: a label is left without any row.
    """
    rows, labels, broken = listing.rows, listing.labels, [*listing.broken, *found]
    if found:
        bad = {file.path for file in found}
        rows = rows.select([i for i, path in enumerate(rows["path"]) if path not in bad])
    left = set(rows["label"])
    empty = [label for i, label in enumerate(labels) if i not in left]
    if empty:
        lost = [file for file in broken if file.label in empty]
        raise UsageError(
            f"no readable image labelled {', '.join(empty)} in {listing.origin}: {left_out(lost)}",
            "fix or replace these files",
        )
    return replace(listing, rows=rows, broken=broken)


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
    kinds = datasets.Features(**features)
    table = pa.table({name: pa.array(values[name], type=kind.pa_type) for name, kind in kinds.items()})
    return datasets.Dataset(datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=kinds))


def find_broken(listing: Listing) -> list[BrokenFile]:
    """Decode every image once, in threads: those that cannot be decoded, with the reason."""
    rows = listing.rows.select_columns(["image"])

    def problem(i: int) -> str | None:
        image = rows[i]["image"]
        name = (image or {}).get("path") or ""
        try:
            decode_image(image_bytes(image), name=name)
        except ImageError as error:
            return whole_reason(error, image, name)
        return None

    with cancelled_on_error(ThreadPoolExecutor(os.cpu_count())) as pool:
        checks = pool.map(problem, range(len(rows)))
        progress = tqdm(checks, total=len(rows), desc="checking images", unit="file", leave=False, disable=None)
        bad = {i: reason for i, reason in enumerate(progress) if reason}
    about = listing.rows.remove_columns("image").select(list(bad))
    labels = [listing.labels[label] for label in about["label"]]
    return list(map(BrokenFile, about["path"], bad.values(), labels, about["source"]))


def whole_reason(error: ImageError, image: Mapping[str, Any] | None, name: str) -> str:
    """The error's reason in a word or two, a colon, and its sentence without the file's path or name in front."""
    sentence = str(error)
    for known in filter(None, (name, (image or {}).get("path"))):
        sentence = sentence.removeprefix(f"{shown_name(known)}: ")
    return f"{error.reason}: {sentence}"
