"""What an audit found, and its ``audit.json``.

``audit.json``, schema 1: ``schema_version``, ``origin``, ``level``, ``verdict``, ``labels``, ``real_label``,
``units``, ``n_files``, ``face_detector``, ``findings`` [{level, topic, text, hint}], ``file_facts`` and ``appearance``
({auc, low, high, n, why_not, sources, clues} or null), ``duplicates`` [{kind, paths, labels, splits}], ``broken``,
``counts``. Undefined numbers are null.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bonaface.audit.findings import LEVELS, DuplicateGroup, Finding
from bonaface.audit.leaks import Leak
from bonaface.data.rows import BrokenFile
from bonaface.stats.figures import percent

FACT_NAMES = {
    "format": "file format",
    "mode": "colour mode",
    "width": "width, px",
    "aspect": "width by height",
    "bytes_per_pixel": "bytes per pixel",
    "jpeg_quality": "JPEG quality",
    "chroma_subsampling": "chroma subsampling",
    "progressive": "progressive JPEG",
    "has_exif": "EXIF metadata",
    "has_icc": "ICC colour profile",
    "has_c2pa": "content credentials (C2PA)",
}


@dataclass
class Audit:
    """All that was found.

    ``files`` has one row per readable file: path, label, source, split, group, unit (the group without copies), sha256
    and facts.
    """

    origin: str
    labels: list[str]
    real_label: str
    files: pd.DataFrame
    broken: list[BrokenFile]
    duplicates: list[DuplicateGroup]
    facts_leak: Leak
    appearance_leak: Leak | None = None
    looks: pd.DataFrame = field(default_factory=pd.DataFrame)  # path and appearance of the images looked at
    face_detector: str | None = None
    findings: list[Finding] = field(default_factory=list)
    units: str = ""  # as Listing.units

    @property
    def level(self) -> str:
        """The worst of the findings' levels."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="clean")

    @property
    def verdict(self) -> str:
        """One line: the level and the reason for it."""
        if self.level == "clean":
            return "clean: no shortcuts found"
        worst = [finding.text for finding in self.findings if finding.level == self.level]
        return f"{self.level}: {worst[0]}" + (f" (and {len(worst) - 1} more)" if len(worst) > 1 else "")

    @property
    def groups(self) -> dict[str, str]:
        """Path -> name of its duplicate group, for those that have one; ``data.load_data(copies=…)`` takes it."""
        return {path: group.paths[0] for group in self.duplicates for path in group.paths}

    def counts(self) -> pd.DataFrame:
        """One row per label and source: images, median size, bytes per pixel, the commonest format and JPEG quality."""
        files = self.files.assign(pixels=np.sqrt(self.files["width"] * self.files["height"]))
        table = files.groupby(["label", "source"], sort=True).agg(
            images=("path", "size"),
            format=("format", _commonest),
            **{"JPEG quality": ("jpeg_quality", _commonest)},
            **{"side, px": ("pixels", "median"), "bytes per pixel": ("bytes_per_pixel", "median")},
        )
        table["side, px"] = table["side, px"].round().astype(int)
        return table.reset_index()

    def to_dict(self) -> dict[str, Any]:
        """The contents of ``audit.json``."""
        return {
            "schema_version": 1,
            "origin": self.origin,
            "level": self.level,
            "verdict": self.verdict,
            "labels": self.labels,
            "real_label": self.real_label,
            "units": self.units,
            "n_files": len(self.files) + len(self.broken),
            "face_detector": self.face_detector,
            "findings": [asdict(finding) for finding in self.findings],
            "file_facts": _leak_dict(self.facts_leak),
            "appearance": _leak_dict(self.appearance_leak) if self.appearance_leak else None,
            "duplicates": [asdict(group) for group in self.duplicates],
            "broken": [asdict(file) for file in self.broken],
            "counts": self.counts(),
        }


def _commonest(values: pd.Series) -> Any:
    counts = values.value_counts(dropna=False)
    most = counts.index[0]
    if pd.isna(most):
        return "–"
    return str(most) if counts.iloc[0] == len(values) else f"{most} ({percent(counts.iloc[0] / len(values), 0)})"


def _leak_dict(leak: Leak) -> dict[str, Any]:
    return {
        "auc": leak.auc,
        "low": leak.low,
        "high": leak.high,
        "n": leak.n,
        "why_not": leak.why_not,
        "sources": leak.sources,
        "clues": [asdict(clue) for clue in leak.clues],
    }
