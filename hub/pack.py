"""A finished run -> a folder with just what would be published of it: to ship, to copy, or to look at before a push."""

from __future__ import annotations

import shutil
from pathlib import Path

from bonafide.errors import UsageError
from hub.privacy import Redactor
from hub.publish import CARD
from hub.push import model_files


def pack_model(folder: Path, out: Path, *, pictures: bool = False) -> Path:
    """Write the run's model, report and card to ``out``, freed of this machine's paths and of the data's pictures.

    Raises:
        UsageError: not a finished run's folder, or ``out`` is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", "delete it, or name a new folder")
    files = model_files(folder, pictures=pictures)
    card = folder / CARD
    if card.is_file():
        files[CARD] = Redactor(folder).text(card.read_text(encoding="utf-8")).encode()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, content in files.items():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)
    if out.is_dir():
        out.rmdir()
    partial.replace(out)
    return out
