"""Which model the app serves by default."""

from __future__ import annotations

from pathlib import Path

from bonaface.models.drawings import knows_only_drawings
from bonaface.models.shipped import shipped_model

HOW_TO_MAKE_ONE = "python train_hf.py --data DATA"


def default_model(root: Path) -> str | None:
    """The newest finished run below ``root/runs``, else the shipped model, else None.

    A run is finished when it has its model and the report's figures, which are written last. One that was trained on
    only the embedded sample is served only if it is named.
    """
    finished = [
        figures
        for figures in (root / "runs").glob("*/report/metrics.json")
        if (figures.parent.parent / "config.json").is_file() and not knows_only_drawings(figures.parent.parent)
    ]
    if finished:
        return str(max(finished, key=lambda figures: figures.stat().st_mtime).parent.parent)
    return shipped_model()
