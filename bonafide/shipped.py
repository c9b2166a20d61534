"""The detector that comes with the project, for whoever names no other."""

from __future__ import annotations

from pathlib import Path

from bonafide.errors import UsageError

SHIPPED = Path("models/bonafide-small")
ROOT = Path(__file__).resolve().parent.parent


def shipped_model(root: Path = ROOT) -> str | None:
    """Its folder below ``root``, the project's by default; None in an installation without it."""
    return str(root / SHIPPED) if (root / SHIPPED / "config.json").is_file() else None


def named_or_shipped(model: str | None) -> str:
    """The model that was named, else the shipped one. Raises UsageError where there is neither."""
    found = model or shipped_model()
    if not found:
        raise UsageError("no model was named, and this installation has none of its own", "name one with --model")
    return found
