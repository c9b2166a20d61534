"""How to tell that a folder was made by :func:`bonaface.data.prepare.prepare`, and from what."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from bonaface.data.alignment import SIZE_RANGE
from bonaface.data.listing import Listing
from bonaface.imaging import FACE_MARGIN

FINISHED = "prepare.json"  # written last: if it exists, the folder is complete
SCANS = "scans.parquet"  # what was found in the raw files, for their audit
WORK = ".prepare"  # journal and unfinished files; removed at the end


@dataclass(frozen=True)
class PrepareSummary:
    """The result of a preparation; counts are files."""

    found: int
    written: int
    dropped: dict[str, int]  # by kind of reason
    no_face: dict[str, int]  # by label; their centre square was used
    upscaled: dict[str, int]  # by label; their crop was smaller than the side drawn
    near_duplicate_groups: int  # groups of two or more
    detector: str
    units: str = ""  # which folders were taken for sources, and which are kept whole


def listing_fingerprint(listing: Listing) -> str:
    """Changes with any path, label, source, split, group or file size."""
    digest = hashlib.sha256()
    for row in listing.rows:
        image = row["image"]
        try:
            size = len(image["bytes"]) if image["bytes"] is not None else Path(image["path"]).stat().st_size
        except OSError:
            size = -1
        facts = [row["path"], listing.labels[row["label"]], row["source"], row["split"], row["group"], size]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]


def prepared_folder(listing: Listing, size_range: tuple[int, int] = SIZE_RANGE, margin: float = FACE_MARGIN) -> Path:
    """Where the aligned copy of a data set is kept: named after it, its fingerprint, and an unusual size or margin."""
    size = "" if size_range == SIZE_RANGE else f"-{size_range[0]}-{size_range[1]}"
    border = "" if margin == FACE_MARGIN else f"-margin{margin:g}"
    return Path("prepared") / f"{Path(listing.origin).name}-{listing_fingerprint(listing)}{size}{border}"


def face_margin(folder: str | os.PathLike[str]) -> float | None:
    """The margin that :func:`prepare` left around the faces of a folder; None where it did not make or crop it."""
    if not is_prepared(folder):
        return None
    parameters = json.loads((Path(folder) / FINISHED).read_text())["parameters"]
    return parameters["margin"] if parameters["faces"] else None


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Whether :func:`prepare` made this folder."""
    return (Path(folder) / FINISHED).is_file()
