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

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pandas as pd

from bonaface.audit.appearance import NAMES as APPEARANCE_NAMES
from bonaface.audit.appearance import appearance
from bonaface.audit.findings import DuplicateGroup, Finding, list_findings
from bonaface.audit.leaks import Leak, measure_leak
from bonaface.audit.report import summary_lines, write_audit
from bonaface.audit.result import FACT_NAMES, Audit
from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.duplicates import Thumbnails, duplicate_groups, near_duplicates
from bonaface.data.listing import Listing, image_bytes, list_data
from bonaface.data.rows import left_out
from bonaface.data.scan import Scan, Scans, broken_files, map_images, scan_rows
from bonaface.data.splits import merge_groups
from bonaface.errors import UsageError
from bonaface.imaging.faces import FaceDetector
from bonaface.imaging.images import ImageError, decode_image
from bonaface.pools import cancelled_on_error

FAST_FILES, LEAK_FILES, APPEARANCE_FILES = 100_000, 20_000, 3_000
HIDDEN_FACTS = ["height"]  # used, but never named: width and aspect say it


def audit_dataset(
    data: Listing | FaceData,
    *,
    scans: Scans | None = None,
    fast: bool = False,
    detector: FaceDetector | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Audit:
    """Audit the rows of a data set.

    Args:
        data: what ``list_data`` gives (``check="none"`` is enough: unreadable files are found here), or a FaceData.
        scans: of files that were read already; only the others are read.
        fast: file facts and duplicates, not the appearance, on 100,000 files at most: seconds instead of minutes.
        detector: finds the faces for the appearance leak; default: YuNet where its weights are found, else Haar.
        seed, workers: of the folds and samples; threads, by default one per CPU core.
    """
    rows, splits_given = _rows_of(data)
    n_rows = len(rows)
    if fast and n_rows > FAST_FILES:
        rows = balanced_subset(rows, FAST_FILES, seed)
    scans = scan_rows(rows, scans, workers)
    broken = broken_files(rows, data.labels, scans)
    if len(broken) == len(rows):
        raise UsageError(f"none of the files can be read: {left_out(broken)}", "fix or replace these files")
    files, thumbnails = _gather(rows, data.labels, scans)
    duplicates = _find_duplicates(files, thumbnails, splits_given)
    _join_copies(files, duplicates)
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
        with cancelled_on_error(ThreadPoolExecutor(workers or os.cpu_count())) as pool:
            _look(audit, rows, pool, detector or FaceDetector(), seed)
    audit.findings = list_findings(
        files, audit.broken, duplicates, audit.facts_leak, audit.appearance_leak, audit.looks, data.real_label
    )
    if fast and n_rows > FAST_FILES:
        text = f"only {FAST_FILES:,} of {n_rows:,} files were searched for duplicates"
        audit.findings.append(Finding("warning", "duplicates", text, "`python -m bonaface audit` searches all of them"))
    return audit


def _join_copies(files: pd.DataFrame, duplicates: Sequence[DuplicateGroup]) -> None:
    """Put copies into one group, in place; ``unit`` keeps the group that the data gave."""
    copies = {path: group.paths[0] for group in duplicates for path in group.paths}
    files["unit"] = files["group"]
    files["group"] = merge_groups(list(files["group"]), [copies.get(path, path) for path in files["path"]])


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


def _gather(rows: datasets.Dataset, labels: Sequence[str], scans: Scans) -> tuple[pd.DataFrame, Thumbnails]:
    """What is known of every file that can be read, and their thumbnails."""
    records, smalls = [], []
    columns = ("path", "source", "split", "group", "label")
    for path, source, split, group, label in zip(*(rows[name] for name in columns), strict=True):
        if isinstance(scan := scans[path], Scan):
            facts = scan.facts
            shape = {
                "aspect": facts.width / facts.height,
                "bytes_per_pixel": facts.n_bytes / (facts.width * facts.height),
            }
            about = {"path": path, "label": labels[label], "source": source, "split": split, "group": group}
            records.append(about | asdict(facts) | shape | {"sha256": scan.sha256})
            smalls.append(scan.thumbnail)
    files = pd.DataFrame(records)
    files["jpeg_quality"] = files["jpeg_quality"].astype("Int64")
    return files, np.stack(smalls)


def _find_duplicates(files: pd.DataFrame, thumbnails: Thumbnails, splits_given: bool) -> list[DuplicateGroup]:
    """Groups of two or more files."""
    first = files.groupby("sha256", sort=False)["path"].transform(lambda paths: paths.index[0]).to_numpy(np.int64)
    unique = np.unique(first)
    near = near_duplicates(thumbnails[unique])
    ends = np.concatenate([first, unique[near.first]]), np.concatenate([np.arange(len(files)), unique[near.second]])
    group = duplicate_groups(len(files), *ends)
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
        found = list(map_images(picked, one, pool, "examining faces"))
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
