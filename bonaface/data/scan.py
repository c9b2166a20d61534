"""What one reading of a file tells: the facts of its header, the digest of its bytes and a thumbnail, or what is wrong.

The audit needs no more of most files, and :func:`bonaface.data.prepare.prepare` keeps what it found, so that a file
that was prepared is not read again for its audit.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm.auto import tqdm

from bonaface.data.duplicates import SIDE, Thumbnails, file_thumbnail, thumbnail
from bonaface.data.listing import image_bytes, whole_reason
from bonaface.data.rows import BrokenFile
from bonaface.files import atomic_path
from bonaface.imaging.header import ImageFacts, inspect_image
from bonaface.imaging.images import ImageError
from bonaface.pools import cancelled_on_error


@dataclass(frozen=True, eq=False)
class Scan:
    """A file that can be read."""

    facts: ImageFacts
    sha256: str  # of its bytes
    thumbnail: Thumbnails

    def to_json(self) -> dict[str, Any]:
        """As a line of JSON has it; facts that are None are left out."""
        return {
            "sha256": self.sha256,
            "thumbnail": base64.b64encode(self.thumbnail.tobytes()).decode(),
            "original": {name: value for name, value in asdict(self.facts).items() if value is not None},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Scan:
        """The inverse of :meth:`to_json`; other keys are passed over."""
        return _restored(record["original"], record["sha256"], base64.b64decode(record["thumbnail"]))


Scans = Mapping[str, Scan | str]  # by path: a file's scan, or why it cannot be used


def scan_bytes(data: bytes, name: str, image: Image.Image | None = None) -> Scan:
    """Scan a file's bytes; ``image`` is what they decode to, where that is known. Raises ImageError."""
    facts = inspect_image(data, name=name)
    small = thumbnail(image) if image is not None else file_thumbnail(data, facts, name)
    return Scan(facts, hashlib.sha256(data).hexdigest(), small)


def scan_rows(rows: datasets.Dataset, known: Scans | None = None, workers: int | None = None) -> dict[str, Scan | str]:
    """``known``, and the scans of all other rows, each of which is read once, in threads (default one per core)."""
    found = dict(known or {})
    rest = rows.select([i for i, path in enumerate(rows["path"]) if path not in found])
    with cancelled_on_error(ThreadPoolExecutor(workers or os.cpu_count())) as pool:
        found.update((row["path"], scan) for row, scan in map_images(rest, _scan, pool, "reading files"))
    return found


def map_images(
    rows: datasets.Dataset, function: Callable[..., Any], pool: ThreadPoolExecutor, what: str
) -> Iterator[tuple[dict[str, Any], Any]]:
    """(row, function(image, path)) in order; bytes of a few hundred rows are in memory at a time."""
    with tqdm(total=len(rows), desc=what, unit="file", leave=False, disable=None) as bar:
        for batch in rows.iter(256):
            results = pool.map(function, batch["image"], batch["path"])
            for i, result in enumerate(results):
                yield {name: column[i] for name, column in batch.items() if name != "image"}, result
                bar.update()


def broken_files(rows: datasets.Dataset, labels: Sequence[str], scans: Scans) -> list[BrokenFile]:
    """The rows that cannot be used, by their scans."""
    about = zip(rows["path"], rows["label"], rows["source"], strict=True)
    reasons = ((path, scans[path], labels[label], source) for path, label, source in about)
    return [BrokenFile(path, scan, label, source) for path, scan, label, source in reasons if isinstance(scan, str)]


def write_scans(path: Path, scans: Scans, scratch: Path) -> None:
    """Keep scans in a Parquet file; ``scratch`` as :func:`bonaface.files.atomic_path` takes it."""
    given = [scan if isinstance(scan, Scan) else None for scan in scans.values()]
    columns = {
        "path": list(scans),
        "reason": [scan if isinstance(scan, str) else None for scan in scans.values()],
        "facts": [scan and asdict(scan.facts) for scan in given],
        "sha256": [scan and scan.sha256 for scan in given],
        "thumbnail": [scan and scan.thumbnail.tobytes() for scan in given],
    }
    with atomic_path(path, scratch) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_scans(path: Path) -> dict[str, Scan | str]:
    """What :func:`write_scans` kept; empty where there is no such file, or a damaged one."""
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return {}
    return {row["path"]: row["reason"] or _restored(row["facts"], row["sha256"], row["thumbnail"]) for row in rows}


def _scan(image: Mapping[str, Any] | None, path: str) -> Scan | str:
    try:
        return scan_bytes(image_bytes(image), path)
    except ImageError as error:
        return whole_reason(error, image, path)


def _restored(facts: Mapping[str, Any], sha256: str, small: bytes) -> Scan:
    known: dict[str, Any] = dict.fromkeys(field.name for field in fields(ImageFacts)) | dict(facts)
    return Scan(ImageFacts(**known), sha256, np.frombuffer(small, np.uint8).reshape(SIDE, SIDE))
