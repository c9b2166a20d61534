"""What a training saves on its way, and what there is to resume from.

A run's ``checkpoints`` has one folder per stage, ``1-head``; in it ``checkpoint-STEP`` folders, of which each counts
only with the file :data:`COMPLETE`, and, once the stage is finished, its best weights and, last, its :data:`LOG`. A
stage whose loss was no longer finite is marked as :data:`DIVERGED`: with the same settings it would diverge again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bonaface.errors import UsageError

COMPLETE, DIVERGED = "complete", "diverged"  # empty files, written after everything else
BEST, LOG = "best.safetensors", "log.json"


def stage_folder(checkpoints: Path, number: int, name: str) -> Path:
    """The folder of the `number`-th stage, from 0."""
    return checkpoints / f"{number + 1}-{name}"


def last_complete_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint that was written to its end. Trainer's own search also takes partial ones."""
    found = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{COMPLETE}"):
        step = path.parent.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdecimal():  # anything else is none of ours
            found[int(step)] = path.parent
    return str(found[max(found)]) if found else None


def drop_partial_checkpoints(folder: str | Path) -> None:
    """Remove what an interrupted run left unfinished."""
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)


def is_kept(stage: Path) -> bool:
    """Whether a stage's folder has something to resume from: its end, or a complete checkpoint that did not diverge."""
    if (stage / LOG).is_file():
        return True
    return last_complete_checkpoint(stage) is not None and not (stage / DIVERGED).exists()


def kept_stages(checkpoints: Path) -> list[Path]:
    """The stages' folders with something to resume from."""
    return sorted((path for path in checkpoints.glob("*-*") if is_kept(path)), key=_number)


def drop_all_but(checkpoints: Path, kept: list[Path]) -> None:
    """Remove what other stages have left: nothing can be resumed from it."""
    for path in checkpoints.glob("*-*"):
        if path not in kept:
            shutil.rmtree(path)


def check_resume(asked: str | None, folder: Path, checkpoints: Path) -> None:
    """Refuse a ``--resume_from_checkpoint`` that is not what happens anyway.

    A run always resumes from its own last complete checkpoint; the flag may say so, with ``True``, the run's folder or
    that checkpoint.

    Raises:
        UsageError: another checkpoint, or ``False`` where there is one.
    """
    if asked is None or asked.lower() in ("", "true", "yes", "1"):
        return
    kept = kept_stages(checkpoints)
    if asked.lower() in ("false", "no", "0"):
        if kept:
            raise UsageError(
                f"{folder} has a checkpoint, and --resume_from_checkpoint is {asked}",
                f"choose another --output_dir, or delete {checkpoints}",
            )
        return
    last = last_complete_checkpoint(kept[-1]) if kept else None
    ours = {folder, checkpoints, *kept, *([Path(last)] if last else [])}
    if os.path.realpath(asked) not in map(os.path.realpath, ours):  # Path.resolve raises for a link to itself
        raise UsageError(
            f"--resume_from_checkpoint {asked} is not the last complete checkpoint of {folder}"
            + (f", which is {last}" if last else ""),
            "leave it out: runs resume automatically; to train from other weights, give --model FOLDER",
        )


def _number(stage: Path) -> int:
    number = stage.name.partition("-")[0]
    return int(number) if number.isdigit() else 0
