"""A data set -> the Hub: Parquet that training, the Hub's viewer and ``datasets`` read, and a card with its audit.

Columns: ``image`` (the files as they are, bytes for bytes), ``label``, ``source``, ``group`` (what must stay together
in one split), ``path`` (in the folder that it came from) and, where the data names families, ``family``. The same
files make the same Parquet files, so that what has not changed is not sent again.
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

from bonaface.audit.audit import Audit, audit_dataset
from bonaface.data.labels import SPLITS
from bonaface.data.listing import Listing, image_bytes, list_data
from bonaface.hub import merge
from bonaface.hub.publish import Published, check_login, publish
from bonaface.imaging.faces import FaceDetector
from bonaface.report.pages import Table, markdown_table, markdown_text

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
    detector: FaceDetector | None = None,
    shard_bytes: int = SHARD_BYTES,
    token: str | None = None,
) -> Published:
    """Publish a data set in any form that training takes; files that cannot be read are left out and listed.

    Args:
        fast: audit file facts and copies alone, which takes seconds, and not the faces.
        detector: finds the faces for the audit.

    Raises:
        UsageError: as :func:`bonaface.data.listing.list_data` and :func:`bonaface.hub.publish.publish`.
    """
    check_login(repo_id, token)
    listing = list_data(data, real_label=real_label)
    audit = audit_dataset(listing, fast=fast, detector=detector)
    with tempfile.TemporaryDirectory(prefix="bonaface-data-") as folder:
        shards = write_shards(listing, Path(folder), shard_bytes)
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
            token=token,
        )


def splits_of(listing: Listing) -> dict[str, list[int]]:
    """Split -> rows; what the data names no split for is ``train``."""
    named = [split or "train" for split in listing.rows["split"]]
    return {split: rows for split in SPLITS if (rows := [i for i, name in enumerate(named) if name == split])}


def write_shards(listing: Listing, folder: Path, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Parquet files ``SPLIT-00000-of-00003.parquet``, as ``datasets`` names and types them."""
    rows = listing.rows
    columns = ["label", "source", "group", "path", *(["family"] if "family" in rows.column_names else [])]
    features = datasets.Features({"image": datasets.Image(), **{name: rows.features[name] for name in columns}})
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
    """What the data is, where it comes from, and what it gives away, in the form that :func:`merge.merge` takes."""
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
    sections = {
        "about": _about(listing, name),
        "content": _content(listing),
        "audit": _audit(audit),
        "howto": _howto(repo_id),
        "license": _license(license, audit),
    }
    return merge.compose(metadata, sections)


def _about(listing: Listing, name: str) -> str:
    labels = ", ".join(f"`{markdown_text(label)}`" for label in listing.labels)
    named = any(listing.rows["split"])
    splits = "the splits that the data came with" if named else "no splits: whoever trains cuts them, groups together"
    return (
        f"# {markdown_text(name)}\n\n{len(listing.rows):,} pictures of faces with the labels {labels}; "
        f"`{listing.real_label}` means a photograph, every other label a generated picture. It has {splits}.\n\n"
        "Meant to train and to test detectors of generated faces, and for nothing that tells who somebody is. Pictures "
        "may show people who were not asked: whoever uses them answers for having the right to."
    )


def _content(listing: Listing) -> str:
    rows = listing.rows
    counts = Counter(zip([split or "train" for split in rows["split"]], rows["label"], rows["source"], strict=True))
    table = pd.DataFrame(
        [(split, listing.labels[label], source, count) for (split, label, source), count in sorted(counts.items())],
        columns=["split", "label", "source", "images"],
    )
    fields = """| column | |
|---|---|
| `image` | the file, byte for byte as it was, metadata included |
| `label` | its class |
| `source` | the camera set or generator that it comes from |
| `group` | pictures that must stay in one split (one person, one prompt, copies) |
| `path` | its name in the folder that it comes from |"""
    if "family" in rows.column_names:
        fields += "\n| `family` | generators of one making |"
    groups = len(set(rows["group"]))
    parts = [fields, markdown_table(Table(table)), f"{groups:,} groups."]
    if listing.broken:
        reasons = Counter(file.reason.split(":")[0] for file in listing.broken)
        why = ", ".join(f"{n:,} {markdown_text(reason)}" for reason, n in reasons.most_common())
        parts.append(f"{len(listing.broken):,} files were left out: {why}.")
    return "## What is in it\n\n" + "\n\n".join(parts)


def _audit(audit: Audit) -> str:
    def leak(name: str, found: Any) -> str:
        if found is None or found.auc is None or found.auc != found.auc:
            return f"| {name} | not measured | |"
        return f"| {name} | {found.auc:.3f} ({found.low:.3f}–{found.high:.3f}) | {found.n:,} |"

    findings = [f"- **{f.level}**, {f.topic}: {markdown_text(f.text)}. {markdown_text(f.hint)}" for f in audit.findings]
    copies = sum(len(group.paths) for group in audit.duplicates)
    rows = [leak("file facts (format, size, JPEG tables)", audit.facts_leak)]
    rows.append(leak("appearance (light, colour, borders, framing)", audit.appearance_leak))
    table = "| what | AUC (95 %) | images |\n|---|---|---:|\n" + "\n".join(rows)
    return "\n\n".join(
        [
            "## Audit",
            f"**{markdown_text(audit.verdict)}**",
            "How well facts that have nothing to do with generation tell the classes apart, cross-validated: near 0.5 "
            "they tell nothing, near 1 a detector that learns them looks perfect and is worthless.",
            table,
            *(["\n".join(findings)] if findings else []),
            f"{copies:,} files have a copy or near copy among the others; `python -m bonaface audit` lists them, and "
            "`python -m bonaface prepare` takes what gives the classes away.",
        ]
    )


def _howto(repo_id: str) -> str:
    return f"""## How to use it

```python
from datasets import load_dataset

load_dataset("{repo_id}")
```

```
python train_hf.py --data {repo_id}
python -m bonaface evaluate --model USER/MODEL --data {repo_id} --out out/
```"""


def _license(license: str | None, audit: Audit) -> str:
    word = (
        f"Published under `{license}`."
        if license
        else "The publisher has not stated a licence: the pictures keep those of their owners, source by source."
    )
    exif = int(audit.files["has_exif"].sum())
    note = f" {exif:,} files carry EXIF metadata, which may name cameras, places and times." if exif else ""
    return f"## Licence and privacy\n\n{word}{note}"
