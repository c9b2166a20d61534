"""The detector that comes with the project, for whoever names no other."""

from __future__ import annotations

from pathlib import Path

from bonaface.errors import UsageError
from bonaface.models.drawings import knows_only_drawings

SHIPPED = Path("models/bonaface-small")
ROOT = Path(__file__).resolve().parent.parent


def shipped_model(root: Path = ROOT) -> str | None:
    """Its folder below ``root``, the project's by default; None without one, or where it knows drawings only."""
    folder = root / SHIPPED
    return str(folder) if (folder / "config.json").is_file() and not knows_only_drawings(folder) else None


def named_or_shipped(model: str | None) -> str:
    """The model that was named, else the shipped one. Raises UsageError where there is neither."""
    found = model or shipped_model()
    if not found:
        raise UsageError("no model was named, and this installation has none of its own", "name one with --model")
    return found
