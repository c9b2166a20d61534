"""A finished run -> a folder with just the files that would be published: to ship, to copy, or to check first."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from bonaface.errors import UsageError
from bonaface.files import atomic_folder
from bonaface.hub.merge import read_card
from bonaface.hub.privacy import Redactor, refuse_secrets
from bonaface.hub.publish import CARD
from bonaface.hub.push import model_files


def packed_files(folder: Path, *, thumbnails: bool = False) -> dict[str, bytes | Path]:
    """:func:`bonaface.hub.push.model_files` and the folder's own card, freed of local paths. Raises UsageError."""
    files = model_files(folder, thumbnails=thumbnails)
    if (folder / CARD).is_file():
        card = Redactor(folder).text(read_card(folder / CARD)).encode()
        refuse_secrets([(CARD, card)])
        files[CARD] = card
    return files


def pack_model(folder: Path, out: Path, *, thumbnails: bool = False) -> Path:
    """Write the run's model, report and card to ``out``, without this machine's paths and the data set's images.

    Raises:
        UsageError: not a finished run's folder, or ``out`` already exists.
    """
    refuse_existing(out)
    write_folder(out, packed_files(folder, thumbnails=thumbnails))
    return out


def refuse_existing(out: Path) -> None:
    """Raise UsageError for what is neither a new folder nor an empty one."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} already exists", "delete it, or name a new folder")
    if out.is_dir() and (inside := min((path.name for path in out.iterdir()), default=None)):
        raise UsageError(f"{out} already exists, with {inside} in it", "delete it, or name a new folder")


def write_folder(out: Path, files: Mapping[str, bytes | Path]) -> None:
    """All of the files by their names, or none; ``out`` is new or empty."""
    with atomic_folder(out) as partial:
        for name, content in files.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
