"""Files that come with the project: at the top of a checkout, inside the package in an installation."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = PACKAGE / "_resources"  # made when a wheel is built: see [tool.setuptools.package-dir] in pyproject.toml


def resource(name: str) -> Path | None:
    """The file or folder of this name, such as ``models/bonaface-small``; None where this copy lacks it.

    An installation never looks beside the package, where other distributions have their folders.
    """
    found = (INSTALLED if INSTALLED.is_dir() else PACKAGE.parent) / name
    return found if found.exists() else None
