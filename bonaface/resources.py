"""Files that come with the project: at the top of a checkout, inside the package in an installation."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PLACES = (PACKAGE.parent, PACKAGE / "_resources")


def resource(name: str) -> Path | None:
    """The file or folder of this name, such as ``models/bonaface-small``; None where this installation lacks it."""
    return next((place / name for place in PLACES if (place / name).exists()), None)
