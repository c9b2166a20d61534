"""The detector that comes with the project, the default where no model is given."""

from __future__ import annotations

from bonaface.errors import UsageError
from bonaface.models.drawings import knows_only_drawings
from bonaface.resources import resource

SHIPPED = "models/bonaface-small"


def shipped_model() -> str | None:
    """Its folder; None in an installation without one, or if it was trained on drawings only."""
    folder = resource(SHIPPED)
    return str(folder) if folder and not knows_only_drawings(folder) else None


def named_or_shipped(model: str | None) -> str:
    """The model that was named, else the shipped one. Raises UsageError where there is neither."""
    found = model or shipped_model()
    if not found:
        raise UsageError("no model was given, and this installation comes without one", "give one with --model")
    return found
