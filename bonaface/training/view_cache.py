"""What the frozen part of a network makes of views of each image, kept on disk: the rest then trains in minutes.

Views are drawn as training draws them. What is kept is a function of the image file, the frozen weights, the image
processor, the augmentation and the seed alone. It lies in a folder named after all but the first, image by image, so
folds of a cross-validation, also at the same time, later runs, and a run that was killed compute only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import BaseImageProcessor

from bonaface.data.dataset import content_digest
from bonaface.data.loading import ImageRows, NormalisedRows
from bonaface.errors import UsageError
from bonaface.files import atomic_path, locked, write_json
from bonaface.imaging.transforms import EvalTransform, TrainTransform, sample_seed
from bonaface.training.run import on_main_process

FOLDER = Path("features")  # beside `prepared`, in the working directory
BLOCK = 1024  # images a file
PATIENCE = 60.0  # seconds to wait in silence for a block that another process is computing
VERSION = 2  # raise it where the same settings would give other numbers

Run = Callable[[ImageRows], NDArray[Any]]  # n rows -> an array whose first axis is n


class _SeededRows(NormalisedRows):
    """Rows drawn with a seed of their own each."""

    def __init__(self, rows: Dataset, transform: EvalTransform | TrainTransform, seeds: list[int]) -> None:
        super().__init__(rows, transform)
        self.seeds = seeds

    def seed_of(self, epoch: int, row: int, copy: int) -> int:
        return self.seeds[row]


@dataclass(frozen=True)
class CachedView:
    """One view of n rows: row i is ``blocks[block[i]][place[i]]``, read from disk when asked for."""

    blocks: list[NDArray[Any]]
    block: NDArray[np.int64]
    place: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.block)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.blocks[self.block[row]][self.place[row]]

    def whole(self) -> NDArray[np.float32]:
        """All rows, float32 (n, …)."""
        return np.stack([self[row] for row in range(len(self))]).astype(np.float32)


class ViewCache:
    """Views of images as a frozen network sees them, computed where they are missing.

    Args:
        weights: the frozen tensors by name.
        run: what the frozen network makes of rows.
        folder: where the caches of all networks lie.
    """

    def __init__(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        processor: BaseImageProcessor,
        augmentation: str,
        seed: int,
        run: Run,
        folder: Path = FOLDER,
    ) -> None:
        self.seed, self.run = seed, run
        self.drawing, self.evaluating = TrainTransform(processor, augmentation), EvalTransform(processor)
        self.place = folder / _key(weights, processor, self.drawing, seed)

    def drawn(self, rows: Dataset, views: int) -> list[CachedView]:
        """Views 0 to ``views`` - 1 of the rows, each with a seed of the run's, the view's and the file's."""
        return [self._view(rows, f"{view:03d}", self.drawing, view) for view in range(views)]

    def plain(self, rows: Dataset) -> CachedView:
        """The rows as evaluation sees them."""
        return self._view(rows, "eval", self.evaluating, 0)

    def _view(self, rows: Dataset, name: str, transform: Any, view: int) -> CachedView:
        digests = [content_digest(image) for image in rows["image"]]
        on_main_process(lambda: self._complete(rows, digests, name, transform, view))
        blocks: list[NDArray[Any]] = []
        known: dict[str, tuple[int, int]] = {}
        for file, listed in self._blocks(name):
            known |= {digest: (len(blocks), place) for place, digest in enumerate(listed)}
            blocks.append(np.load(file, mmap_mode="r"))
        found = np.array([known[digest] for digest in digests], dtype=np.int64).reshape(-1, 2)
        return CachedView(blocks, found[:, 0], found[:, 1])

    def _complete(self, rows: Dataset, digests: list[str], name: str, transform: Any, view: int) -> None:
        """Compute what is missing, block by block; what another process is computing is waited for instead."""
        first = {digest: i for i, digest in reversed(list(enumerate(digests)))}  # copies of a file are one image
        in_order = sorted(first, key=first.__getitem__)
        if not (missing := self._missing(in_order, name)):
            return
        self.place.mkdir(parents=True, exist_ok=True)
        total = len(missing)
        with tqdm(total=total, desc=f"features, view {name}", unit="image", leave=False, disable=None) as bar:
            while missing:
                with ExitStack() as claim:
                    with locked(self.place, patience=math.inf):
                        busy = self._busy(
                            name
                        )  # before looking at what is whole, or what ends in between is in neither
                        missing = self._missing(in_order, name)
                        block = [digest for digest in missing if digest not in busy][:BLOCK]
                        if block:
                            file = self._file(name, block)
                            write_json(file.with_suffix(".json"), block, indent=None)
                            claim.enter_context(locked(file.with_suffix(".json")))
                    bar.update(total - len(missing) - bar.n)
                    if block:
                        seeds = [sample_seed(self.seed, view, int(digest, 16)) for digest in block]
                        values = self.run(_SeededRows(rows.select([first[d] for d in block]), transform, seeds))
                        assert len(values) == len(block)
                        with atomic_path(file) as partial:  # last, so that what is there is complete
                            np.save(partial, values)
                        if self._missing(block, name):
                            raise UsageError(
                                f"{file} cannot be read back", "work on a disk that can map files to memory"
                            )
                if missing and not block:
                    try:
                        with locked(busy[missing[0]], patience=PATIENCE):
                            pass
                    except BlockingIOError:
                        bar.write(f"waiting for another process to finish {busy[missing[0]].with_suffix('.npy')}")

    def _missing(self, digests: list[str], name: str) -> list[str]:
        known = {digest for _, listed in self._blocks(name) for digest in listed}
        return [digest for digest in digests if digest not in known]

    def _busy(self, name: str) -> dict[str, Path]:
        """The images that another process is computing, and the file that it has locked meanwhile."""
        found: dict[str, Path] = {}
        whole = {file.with_suffix(".json") for file, _ in self._blocks(name)}
        for file in set(self.place.glob(f"{name}-*.json")) - whole:
            try:
                with locked(file, patience=0):
                    pass  # of a process that was killed
            except BlockingIOError:
                found |= dict.fromkeys(json.loads(file.read_text(encoding="utf-8")), file)
        return found

    def _file(self, name: str, digests: list[str]) -> Path:
        return self.place / f"{name}-{hashlib.sha256(''.join(digests).encode()).hexdigest()[:16]}.npy"

    def _blocks(self, name: str) -> Iterator[tuple[Path, list[str]]]:
        """The files of a view that are whole, and the images in them."""
        for file in sorted(self.place.glob(f"{name}-*.npy")):
            try:
                listed = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
                if len(np.load(file, mmap_mode="r")) == len(listed):
                    yield file, listed
            except (OSError, ValueError, EOFError):
                continue


def _key(
    weights: Iterable[tuple[str, torch.Tensor]], processor: BaseImageProcessor, drawing: TrainTransform, seed: int
) -> str:
    """24 hex digits of everything that decides what is kept, but for the images."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    finder = drawing.faces.name if drawing.faces else None
    facts = [VERSION, asdict(drawing.preset), finder, seed, processor.to_dict()]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]
