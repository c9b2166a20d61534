"""Which model the app serves by default, and whether a named one exists."""

from __future__ import annotations

from pathlib import Path

from bonaface.errors import UsageError

HOW_TO_MAKE_ONE = "python train_hf.py --data DATA"


def default_model(root: Path) -> str | None:
    """The newest finished run below ``root/runs``, else the shipped model, else None.

    A run is finished when it has its model and the report's figures, which are written last. One that was trained on
    only the embedded sample is served only if it is named.
    """
    # Here: they bring libraries that read the environment, which must have been checked.
    from bonaface.models.drawings import knows_only_drawings
    from bonaface.models.shipped import shipped_model

    finished = [
        figures
        for figures in (root / "runs").glob("*/report/metrics.json")
        if (figures.parent.parent / "config.json").is_file() and not knows_only_drawings(figures.parent.parent)
    ]
    if finished:
        return str(max(finished, key=lambda figures: figures.stat().st_mtime).parent.parent)
    return shipped_model()


def check_model(name: str) -> None:
    """Refuse a folder that does not exist or contains no model, and what the Hub does not have, before the page opens.

    Raises:
        UsageError: as :func:`bonaface.models.download.model_folder`, without fetching the weights.
    """
    if not Path(name).is_dir():
        from bonaface.models.download import model_folder  # here: it brings the Hub's client

        model_folder(name, weights=False)
    elif not (Path(name) / "config.json").is_file():
        raise UsageError(
            f"{name} contains no model: it has no config.json", "give the folder of a run or of an exported model"
        )
