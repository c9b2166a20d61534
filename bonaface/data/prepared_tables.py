"""The end of a preparation: duplicates dropped and grouped, the tables written, the folder marked as finished."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from bonaface.data.duplicates import near_duplicate_groups
from bonaface.data.listing import Listing
from bonaface.data.prepared import FINISHED, SCANS, WORK, PrepareSummary
from bonaface.data.rows import BrokenFile, left_out
from bonaface.data.scan import Scan, write_scans
from bonaface.data.splits import merge_groups
from bonaface.errors import UsageError
from bonaface.files import write_bytes
from bonaface.imaging.header import ImageFacts


def finish(
    listing: Listing, records: Mapping[str, dict[str, Any]], parameters: Mapping[str, Any], out: Path
) -> PrepareSummary:
    """Drop exact duplicates, group near ones, write the tables, and mark the folder as finished."""
    rows = listing.rows.remove_columns("image")
    facts = {row["path"]: {**row, "label": listing.labels[row["label"]]} for row in rows}
    dropped = {file.path: (file.reason, file.label, file.source) for file in listing.broken}
    for path, reason in _reasons_to_drop(facts, records).items():
        dropped[path] = (reason, facts[path]["label"], facts[path]["source"])
        (out / records[path].get("file_name", "-")).unlink(missing_ok=True)
    kept = [path for path in facts if path not in dropped]
    for label in listing.labels:
        if not any(facts[path]["label"] == label for path in kept):
            unusable = [BrokenFile(path, *why) for path, why in dropped.items() if why[1] == label]
            raise UsageError(
                f"no usable file labelled {label} in {listing.origin}: {left_out(unusable)}",
                "fix these files: they are broken, or the same file is under two labels",
            )
    scans = {path: records[path].get("dropped") or Scan.from_json(records[path]) for path in facts}
    near = near_duplicate_groups(kept, np.stack([scans[path].thumbnail for path in kept]))
    groups = merge_groups([facts[path]["group"] for path in kept], [near.get(path, path) for path in kept])
    table = [_metadata_row(facts[p], records[p], group) for p, group in zip(kept, groups, strict=True)]
    lost = [
        {"original_path": path, "reason": reason, "label": label, "source": source}
        for path, (reason, label, source) in sorted(dropped.items())
    ]
    summary = PrepareSummary(
        found=len(facts) + len(listing.broken),
        written=len(kept),
        dropped=dict(sorted(Counter(row["reason"].split(":")[0] for row in lost).items())),
        no_face=_count(row["label"] for row in table if row["face"] == "none" and parameters["faces"]),
        upscaled=_count(row["label"] for row in table if row["crop_side"] < row["side"]),
        near_duplicate_groups=sum(n > 1 for n in Counter(near.get(path, path) for path in kept).values()),
        detector=str(parameters["detector"]),
        units=listing.units,
    )
    write_bytes(out / "dropped.csv", _csv(lost, ["original_path", "reason", "label", "source"]), out / WORK)
    write_bytes(out / "metadata.csv", _csv(table, list(table[0])), out / WORK)
    write_scans(out / SCANS, scans, out / WORK)
    end = {"parameters": parameters, "summary": asdict(summary)}
    write_bytes(out / FINISHED, json.dumps(end, indent=2).encode(), out / WORK)
    shutil.rmtree(out / WORK)
    return summary


def _reasons_to_drop(facts: Mapping[str, dict[str, Any]], records: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    reasons = {path: record["dropped"] for path, record in records.items() if "dropped" in record}
    copies: dict[str, list[str]] = {}
    for path in facts:
        if path not in reasons:
            copies.setdefault(records[path]["sha256"], []).append(path)
    for paths in copies.values():
        if len({facts[path]["label"] for path in paths}) > 1:
            reasons |= {path: "same file under two labels: " + " = ".join(paths) for path in paths}
        else:
            reasons |= dict.fromkeys(paths[1:], f"duplicate: same file as {paths[0]}")
    return reasons


def _metadata_row(facts: Mapping[str, Any], record: Mapping[str, Any], group: str) -> dict[str, Any]:
    original = record["original"]
    return {
        "file_name": record["file_name"],
        "label": facts["label"],
        "source": facts["source"],
        **({"family": facts["family"]} if "family" in facts else {}),
        "group": group,
        "split": facts["split"],
        "original_path": facts["path"],
        "original_sha256": record["sha256"],
        **{f"original_{f.name}": original.get(f.name, "") for f in fields(ImageFacts)},
        **{key: record[key] for key in ("face", "face_score", "n_faces")},
        **{f"face_{key}": v for key, v in zip(("x0", "y0", "x1", "y1"), record["face_box"], strict=True)},
        **{key: record[key] for key in ("crop_side", "side", "quality")},
    }


def _count(labels: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(labels).items()))


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")
