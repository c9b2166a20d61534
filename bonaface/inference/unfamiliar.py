"""Is an image unlike anything in the training data? A distance on the features in front of the last layer.

The distance of an image is that of its unit-length feature vector to the k-th nearest among those of training images
(Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", ICML). Beyond the threshold the score
means little, and the verdict is "uncertain", reason "unlike the training data".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from bonaface.files import atomic_path
from bonaface.models.facts import UnfamiliarFacts
from bonaface.stats.intervals import Interval, auc_interval

FILE = "unfamiliar.safetensors"
REASON = "unlike the training data"
NEIGHBOUR = 10
BANK_SIZE = 2000
_ROWS = 4096  # rows whose similarities to the bank are held at once


@dataclass(frozen=True)
class Unfamiliar:
    """Unit-length features of training images, ``bank`` float32 (m, width), and the distance that is too far."""

    bank: NDArray[np.float32]
    neighbour: int
    threshold: float
    quantile: float  # share of familiar images that stay within the threshold, in the mean
    n: int  # images that set the threshold

    def distance(self, features: ArrayLike) -> NDArray[np.float64]:
        """Distances (n,) in [0, 2] of features (n, width)."""
        return _distances(self.bank, _unit(features), self.neighbour)

    def facts(self, sources: Sequence[str] = ()) -> UnfamiliarFacts:
        """What goes into the model folder's configuration; ``sources`` are those of the training images."""
        return UnfamiliarFacts(
            self.neighbour,
            self.threshold,
            self.quantile,
            self.n,
            bank=len(self.bank),
            file=FILE,
            sources=tuple(sources),
        )

    def save(self, folder: Path) -> None:
        """Write the bank into a model folder."""
        with atomic_path(folder / FILE) as partial:
            save_file({"bank": self.bank}, partial)

    @classmethod
    def load(cls, folder: str | Path, facts: UnfamiliarFacts | None) -> Unfamiliar | None:
        """From a local model folder and what its configuration says; None where it has none."""
        path = Path(folder) / FILE  # never the name in the configuration, which could point anywhere
        if facts is None or facts.method != "knn" or not path.is_file():
            return None
        return cls(load_file(path)["bank"], facts.neighbour, facts.threshold, facts.quantile, facts.n)


def fit_unfamiliar(
    training: ArrayLike, calibration: ArrayLike, *, quantile: float = 0.99, neighbour: int = NEIGHBOUR
) -> Unfamiliar:
    """Training features (m, width) as the bank; the threshold from features (n, width) that trained nothing.

    The threshold is the ceil((n + 1) q)-th smallest distance: a further image of the same kind lies beyond it with a
    chance of at most 1 - q (split conformal prediction; Vovk et al. 2005). Fewer than q / (1 - q) images (99 at 99 %)
    give the largest distance, and ``quantile`` says what that is worth: n / (n + 1).

    Raises:
        ValueError: no features on either side.
    """
    bank, rest = _unit(training), _unit(calibration)
    if not len(bank) or not len(rest):
        raise ValueError("the distance needs features of training and of calibration images")
    neighbour, n = min(neighbour, len(bank)), len(rest)
    distances = np.sort(_distances(bank, rest, neighbour))
    rank = min(math.ceil((n + 1) * quantile - 1e-9), n)
    return Unfamiliar(bank, neighbour, float(distances[rank - 1]), min(quantile, n / (n + 1)), n)


def unfamiliar_auroc(familiar: ArrayLike, foreign: ArrayLike) -> tuple[float, Interval]:
    """How well distances separate held-out sources from familiar ones: AUROC with its 95 % interval (DeLong)."""
    near, far = np.asarray(familiar, dtype=float), np.asarray(foreign, dtype=float)
    return auc_interval(np.repeat([False, True], [len(near), len(far)]), np.concatenate([near, far]))


def _unit(features: ArrayLike) -> NDArray[np.float32]:
    rows = np.asarray(features, dtype=np.float64)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _distances(bank: NDArray[np.float32], rows: NDArray[np.float32], neighbour: int) -> NDArray[np.float64]:
    """By torch's threads: NumPy's, beside them, double the time that the network takes for a single image."""
    found, known = np.empty(len(rows)), torch.from_numpy(bank).T
    for start in range(0, len(rows), _ROWS):
        similar = (torch.from_numpy(rows[start : start + _ROWS]) @ known).numpy()
        nearest = np.partition(similar, len(bank) - neighbour, axis=1)[:, len(bank) - neighbour]
        found[start : start + _ROWS] = np.sqrt(np.maximum(2.0 - 2.0 * nearest.astype(np.float64), 0.0))
    return found
