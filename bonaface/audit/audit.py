"""An audit of a data set before any training: leaks, duplicates, broken files, imbalance.

A detector that is trained on a set where the fakes are PNG and the photographs JPEG learns PNG. The audit measures how
well such facts alone separate the classes and names those that do; its verdict has three levels:

========== ============================================================================================
clean      nothing found that a detector could learn instead of the difference between real and fake
warning    something to consider before the figures are trusted
leak       a shortcut reveals the classes, or splits share images: figures from these files mean little
========== ============================================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from bonaface.audit.appearance import NAMES as APPEARANCE_NAMES
from bonaface.audit.appearance import appearance
from bonaface.audit.findings import DuplicateGroup, Finding, list_findings
from bonaface.audit.leaks import Leak, measure_leak
from bonaface.audit.report import summary_lines, write_audit
from bonaface.audit.result import FACT_NAMES, Audit
from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.duplicates import Thumbnails, duplicate_groups, file_thumbnail, near_duplicates
from bonaface.data.listing import Listing, image_bytes, list_data, whole_reason
from bonaface.data.rows import BrokenFile, left_out
from bonaface.data.splits import merge_groups
from bonaface.errors import UsageError
from bonaface.imaging.faces import FaceDetector
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import ImageError, decode_image
from bonaface.pools import cancelled_on_error

FAST_FILES, LEAK_FILES, APPEARANCE_FILES = 100_000, 20_000, 3_000
HIDDEN_FACTS = ["height"]  # used, but never named: width and aspect say it


def audit_dataset(
    data: Listing | FaceData,
    *,
    fast: bool = False,
    detector: FaceDetector | None = None,
    seed: int = 0,
    workers: int | None = None,
    whole_reasons: bool = False,
) -> Audit:
    """Audit the rows of a data set.

    Args:
        data: what ``list_data`` gives (``check="none"`` is enough: unreadable files are found here), or a FaceData.
        fast: file facts and duplicates, not the appearance, on 100,000 files at most: seconds instead of minutes.
        detector: finds the faces for the appearance leak; default: YuNet where its weights are found, else Haar.
        seed: of the folds and samples.
        workers: threads; default one a CPU core.
        whole_reasons: give the full sentence of a listing's full check for each broken file, not only its kind.
    """
    rows, splits_given = _rows_of(data)
    n_rows = len(rows)
    if fast:
        rows = balanced_subset(rows, FAST_FILES, seed) if len(rows) > FAST_FILES else rows
    with cancelled_on_error(ThreadPoolExecutor(workers or os.cpu_count())) as pool:
        files, thumbnails, broken = scan_files(rows, data.labels, pool, thumbnails=True, whole_reasons=whole_reasons)
        duplicates = _find_duplicates(files, thumbnails, splits_given)
        copies = {path: group.paths[0] for group in duplicates for path in group.paths}
        files["unit"] = files["group"]
        files["group"] = merge_groups(list(files["group"]), [copies.get(path, path) for path in files["path"]])
        chosen = _sample(files, LEAK_FILES // 5 if fast else LEAK_FILES, seed)
        audit = Audit(
            origin=data.origin,
            labels=data.labels,
            real_label=data.real_label,
            files=files,
            broken=[*data.broken, *broken],
            duplicates=duplicates,
            facts_leak=_leak(chosen[[*FACT_NAMES, *HIDDEN_FACTS]], chosen, data.real_label, FACT_NAMES, seed),
            units=data.units,
        )
        if not fast:
            detector = detector or FaceDetector()
            _look(audit, rows, pool, detector, seed)
    audit.findings = list_findings(
        files, audit.broken, duplicates, audit.facts_leak, audit.appearance_leak, audit.looks, data.real_label
    )
    if fast and n_rows > FAST_FILES:
        text = f"only {FAST_FILES:,} of {n_rows:,} files were searched for duplicates and broken files"
        audit.findings.append(Finding("warning", "duplicates", text, "`python -m bonaface audit` searches all of them"))
    return audit


def run_audit_command(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    strict: bool = False,
    *,
    real_label: str | None = None,
    groups: str = "auto",
) -> int:
    """``python -m bonaface audit``: print a summary, write ``audit.json`` and ``audit.html`` to ``out`` (where given).

    Returns:
        The exit code: 3 with ``strict`` on a leak, else 0.
    """
    listing = list_data(data, real_label=real_label, check="none", groups=groups)
    if out is not None:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to {out}: {error.strerror}", "choose another folder with --out") from error
    audit = audit_dataset(listing)
    print("\n".join(summary_lines(audit)))
    if out is not None:
        print(f"report: {write_audit(audit, Path(out), listing.rows)}")
    return 3 if strict and audit.level == "leak" else 0


# --- gathering ---------------------------------------------------------------------------------------------------


def _rows_of(data: Listing | FaceData) -> tuple[datasets.Dataset, bool]:
    """All rows with a column ``split``, and whether the splits are the data set's own."""
    if isinstance(data, Listing):
        return data.rows, any(data.rows["split"])
    parts = [rows.add_column("split", [name] * len(rows)) for name, rows in data.splits.items()]
    return datasets.concatenate_datasets(parts), len(data.made_splits) < len(data.splits)


def scan_files(
    rows: datasets.Dataset,
    labels: Sequence[str],
    pool: ThreadPoolExecutor,
    *,
    thumbnails: bool,
    whole_reasons: bool = False,
) -> tuple[pd.DataFrame, Thumbnails | None, list[BrokenFile]]:
    """Facts, content hash and (where wanted) thumbnail of every file, each read once."""

    def one(image: Mapping[str, Any], path: str) -> tuple[dict[str, Any], Any] | ImageError:
        try:
            data = image_bytes(image)
            facts = inspect_image(data, name=path)
            small = file_thumbnail(data, facts, path) if thumbnails else None
        except ImageError as error:
            return error
        pixels = facts.width * facts.height
        found = asdict(facts) | {"aspect": facts.width / facts.height, "bytes_per_pixel": facts.n_bytes / pixels}
        return found | {"sha256": hashlib.sha256(data).hexdigest()}, small

    records, smalls, broken = [], [], []
    for row, result in _mapped(rows, one, pool, "reading files"):
        about = {"path": row["path"], "label": labels[row["label"]], "source": row["source"]}
        if isinstance(result, ImageError):
            reason = whole_reason(result) if whole_reasons else result.reason
            broken.append(BrokenFile(row["path"], reason, about["label"], about["source"]))
        else:
            records.append(about | {"split": row["split"], "group": row["group"]} | result[0])
            smalls.append(result[1])
    if not records:
        raise UsageError(f"none of the files can be read: {left_out(broken)}", "fix or replace these files")
    files = pd.DataFrame(records)
    files["jpeg_quality"] = files["jpeg_quality"].astype("Int64")
    return files, np.stack(smalls) if thumbnails else None, broken


def _mapped(
    rows: datasets.Dataset, function: Callable[..., Any], pool: ThreadPoolExecutor, what: str
) -> Iterator[tuple[dict[str, Any], Any]]:
    """(row, function(image, path)) in order; bytes of a few hundred rows are in memory at a time."""
    with tqdm(total=len(rows), desc=what, unit="file", leave=False, disable=None) as bar:
        for batch in rows.iter(256):
            results = pool.map(function, batch["image"], batch["path"])
            for i, result in enumerate(results):
                yield {name: column[i] for name, column in batch.items() if name != "image"}, result
                bar.update()


def _find_duplicates(files: pd.DataFrame, thumbnails: Thumbnails | None, splits_given: bool) -> list[DuplicateGroup]:
    """Groups of two or more files; the same bytes count whether or not thumbnails are there."""
    first = files.groupby("sha256", sort=False)["path"].transform(lambda paths: paths.index[0]).to_numpy(np.int64)
    links = [(first, np.arange(len(files)))]
    if thumbnails is not None:
        unique = np.unique(first)
        near = near_duplicates(thumbnails[unique])
        links.append((unique[near.first], unique[near.second]))
    group = duplicate_groups(len(files), *(np.concatenate(side) for side in zip(*links, strict=True)))
    found = []
    for _, part in files.groupby(group, sort=True):
        if len(part) > 1:
            kind = "exact" if part["sha256"].nunique() == 1 else "near"
            splits = tuple(sorted(set(part["split"]))) if splits_given else ()
            found.append(DuplicateGroup(kind, tuple(part["path"]), tuple(sorted(set(part["label"]))), splits))
    return found


def _look(audit: Audit, rows: datasets.Dataset, pool: ThreadPoolExecutor, detector: FaceDetector, seed: int) -> None:
    """Fill in the appearance of a sample of the images."""

    def one(image: Mapping[str, Any], path: str) -> dict[str, float | str] | None:
        try:
            return appearance(decode_image(image_bytes(image), name=path), detector)
        except ImageError:
            return None

    wanted = set(_sample(audit.files, APPEARANCE_FILES, seed)["path"])
    picked = rows.select([i for i, path in enumerate(rows["path"]) if path in wanted])
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pool is the parallelism
    try:
        found = list(_mapped(picked, one, pool, "examining faces"))
    finally:
        cv2.setNumThreads(threads)
    looks = [{"path": row["path"]} | look for row, look in found if look is not None]
    if not looks:
        return
    audit.face_detector, audit.looks = detector.name, pd.DataFrame(looks)
    chosen = audit.files.set_index("path").loc[audit.looks["path"]].reset_index()
    facts = audit.looks[list(APPEARANCE_NAMES)]
    audit.appearance_leak = _leak(facts, chosen, audit.real_label, APPEARANCE_NAMES, seed)


def _sample(files: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """At most n files, the same share of every source."""
    if len(files) <= n:
        return files
    part = files.groupby(["label", "source"], group_keys=False).sample(frac=n / len(files), random_state=seed)
    return part.sort_index().reset_index(drop=True)


def _leak(facts: pd.DataFrame, files: pd.DataFrame, real_label: str, names: Mapping[str, str], seed: int) -> Leak:
    fake = (files["label"] != real_label).to_numpy()
    return measure_leak(facts, fake, list(files["source"]), list(files["group"]), names, seed=seed)
