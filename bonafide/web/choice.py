"""Which model the app serves when it is not told."""

from __future__ import annotations

from pathlib import Path

from bonafide.shipped import shipped_model

HOW_TO_MAKE_ONE = "make demo"


def default_model(root: Path) -> str | None:
    """The newest finished run below ``root/runs``, else the shipped model, else None.

    A run is finished when it has its model and the report's figures, which are written last.
    """
    finished = [
        figures
        for figures in (root / "runs").glob("*/report/metrics.json")
        if (figures.parent.parent / "config.json").is_file()
    ]
    if finished:
        return str(max(finished, key=lambda figures: figures.stat().st_mtime).parent.parent)
    return shipped_model(root)
