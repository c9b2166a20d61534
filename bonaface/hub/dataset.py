"""A data set -> the Hub: Parquet that training, the Hub's viewer and ``datasets`` read, and a card with its audit.

Columns: ``image`` (the files as they are, bytes for bytes), ``label``, ``source``, ``group`` (what must stay together
in one split), ``path`` (in the folder that it came from) and, where the data names families, ``family``. The same
files make the same Parquet files, so that unchanged files are not sent again.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from bonaface.audit.audit import audit_dataset
from bonaface.audit.result import Audit
from bonaface.data.labels import SPLITS
from bonaface.data.listing import Listing, image_bytes, list_data, without_broken
from bonaface.data.scan import broken_files, scan_rows
from bonaface.hub import merge
from bonaface.hub.publish import Published, check_login, publish
from bonaface.hub.templates import render_sections
from bonaface.report.pages import Table, markdown_table

SHARD_BYTES = 400_000_000
GROUP_ROWS = 100  # the Hub's viewer reads a row group at a time
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TAGS = ["bonaface", "deepfake-detection", "ai-generated-images", "faces"]


def push_dataset(
    data: str,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,
    real_label: str | None = None,
    fast: bool = False,
) -> Published:
    """Publish a data set in any form that training accepts; files that cannot be read are left out and listed.

    Args:
        fast: audit only file facts and duplicates, which takes seconds, and not the faces.

    Raises:
        UsageError: as :func:`bonaface.data.listing.list_data` and :func:`bonaface.hub.publish.publish`.
    """
    check_login(repo_id)
    listing = list_data(data, real_label=real_label, check="none")
    scans = scan_rows(listing.rows)
    listing = without_broken(listing, broken_files(listing.rows, listing.labels, scans))
    audit = audit_dataset(listing, scans=scans, fast=fast)
    with tempfile.TemporaryDirectory(prefix="bonaface-data-") as folder:
        shards = write_shards(listing, Path(folder))
        card = data_card(listing, audit, repo_id, license)
        return publish(
            repo_id,
            {f"data/{path.name}": path for path in shards},
            lambda there: merge.merge(there, card)[0] if there else card,
            kind="dataset",
            message=f"{len(listing.rows):,} images, their labels, sources and audit",
            private=private,
            revision=revision,
            owned=("data/*.parquet",),
        )


def splits_of(listing: Listing) -> dict[str, list[int]]:
    """Split -> rows; images without a split are in ``train``."""
    named = [split or "train" for split in listing.rows["split"]]
    return {split: rows for split in SPLITS if (rows := [i for i, name in enumerate(named) if name == split])}


def write_shards(listing: Listing, folder: Path, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Parquet files ``SPLIT-00000-of-00003.parquet``, as ``datasets`` names and types them."""
    rows = listing.rows
    columns = ["label", "source", "group", "path", *(["family"] if "family" in rows.column_names else [])]
    features = datasets.Features(image=datasets.Image(), **{name: rows.features[name] for name in columns})
    written = []
    with tqdm(total=len(rows), desc="writing Parquet", unit="image", leave=False, disable=None) as bar:
        for split, chosen in splits_of(listing).items():
            parts: list[Path] = []
            writer, size = None, 0
            for table in _tables(rows.select(chosen), columns, features):
                if writer is None or size > shard_bytes:
                    if writer is not None:
                        writer.close()
                    parts.append(folder / f"{split}-{len(parts):05d}.parquet")
                    writer, size = pq.ParquetWriter(parts[-1], features.arrow_schema, compression="zstd"), 0
                writer.write_table(table)
                size += table.nbytes
                bar.update(len(table))
            if writer is not None:
                writer.close()
            for number, part in enumerate(parts):
                name = f"{split}-{number:05d}-of-{len(parts):05d}.parquet"
                written.append(part.rename(folder / name))
    return written


def _tables(rows: datasets.Dataset, columns: list[str], features: datasets.Features) -> Iterator[pa.Table]:
    """The rows with their images' bytes, a row group at a time."""
    for batch in rows.iter(GROUP_ROWS):
        images = [
            {"bytes": image_bytes(image), "path": Path(path).name}
            for image, path in zip(batch["image"], batch["path"], strict=True)
        ]
        values: dict[str, Any] = {"image": images, **{name: batch[name] for name in columns}}
        schema = features.arrow_schema
        yield pa.table({name: pa.array(values[name], schema.field(name).type) for name in features}, schema=schema)


# --- the card -------------------------------------------------------------------------------------------------------


def data_card(listing: Listing, audit: Audit, repo_id: str, license: str | None) -> str:
    """The data set's contents, sources and audit, as :func:`bonaface.hub.merge.merge` takes it."""
    n, name = len(listing.rows), repo_id.split("/")[-1]
    metadata = {
        "license": license or "unknown",
        "task_categories": ["image-classification"],
        "pretty_name": name,
        "size_categories": [next((word for limit, word in SIZES if n < limit), "n>1M")],
        "tags": TAGS,
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits_of(listing)],
            }
        ],
    }
    sections = render_sections(
        "data_card.md.j2",
        name=name,
        repo_id=repo_id,
        license=license,
        listing=listing,
        counts=_counts(listing),
        n_groups=len(set(listing.rows["group"])),
        broken=Counter(file.reason.split(":")[0] for file in listing.broken),
        audit=audit,
        leaks={
            "file facts (format, size, JPEG tables)": audit.facts_leak,
            "appearance (light, colour, borders, framing)": audit.appearance_leak,
        },
        n_copies=sum(len(group.paths) for group in audit.duplicates),
        n_exif=int(audit.files["has_exif"].sum()),
    )
    return merge.compose(metadata, sections)


def _counts(listing: Listing) -> str:
    """Images by split, label and source: a Markdown table."""
    rows = listing.rows
    counts = Counter(zip([split or "train" for split in rows["split"]], rows["label"], rows["source"], strict=True))
    table = pd.DataFrame(
        [(split, listing.labels[label], source, count) for (split, label, source), count in sorted(counts.items())],
        columns=["split", "label", "source", "images"],
    )
    return markdown_table(Table(table))
