"""Which generators of the training data an image that is called fake resembles most, or none of them.

The nearest class mean (Mensink et al. 2013, "Distance-based image classification", TPAMI 35:2624) under a covariance
that all sources share (Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples and
adversarial attacks", NeurIPS), shrunk (Ledoit and Wolf 2004, J. Multivariate Analysis 88:365), on unit-length features
in front of the last layer. The distance is relative: less that to the middle of all means, so that it says how much
more an image is like one source than like any fake (after Ren et al. 2021, "A simple fix to Mahalanobis distance for
improving near-OOD detection", arXiv:2106.09022). An image farther from every mean than the threshold is like none of
them. Only the directions in which the means differ count (Fisher's discriminants); in all others the two distances are
the same.

What is stored are means and directions, no image and no features of one. It is never part of a score or a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import cdist

from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.models.facts import ResemblesFacts

FILE = "resembles.safetensors"
NAMED = 2  # sources at most

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Resembles:
    """``projection`` float32 (width, r) takes unit-length features to where ``means`` float32 (k, r) lie.

    ``names`` are the k sources; from ``threshold`` on is too far.
    """

    names: tuple[str, ...]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    threshold: float

    def distances(self, features: ArrayLike) -> FloatArray:
        """Relative distances (n, k) of features (n, width) to the sources' means.

        Squared, in variances within a source; below 0 for a mean that is nearer than the middle of all.
        """
        return relative(unit(features) @ self.projection, self.means)

    def named(self, features: ArrayLike) -> list[tuple[str, ...]]:
        """For each of n images the sources within the threshold, nearest first, at most ``NAMED``; empty for none."""
        distances = self.distances(features)
        order = np.argsort(distances, axis=1, kind="stable")[:, :NAMED]
        return [
            tuple(self.names[i] for i in row if found[i] < self.threshold)
            for row, found in zip(order, distances, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write what the configuration does not have into a model folder."""
        with atomic_path(folder / FILE) as partial:
            stored = {"projection": self.projection, "means": self.means}
            save_file({name: np.ascontiguousarray(values) for name, values in stored.items()}, partial)

    @classmethod
    def load(cls, folder: str | Path, facts: ResemblesFacts | None) -> Resembles | None:
        """From a local model folder and what its configuration says; None where it has none, or it is off.

        Raises:
            UsageError: the two do not belong together.
        """
        path = Path(folder) / FILE
        if facts is None or not facts.on or not path.is_file():
            return None
        stored = load_file(path)
        projection, means = stored["projection"], stored["means"]
        if means.shape != (len(facts.sources), projection.shape[1]):
            raise UsageError(f"{path} does not belong to config.json", "restore both from where the model was trained")
        return cls(facts.sources, projection, means, facts.threshold)


def in_words(names: Sequence[str]) -> str:
    """``most like sdxl, flux1_dev``, or that it is like none."""
    return f"most like {', '.join(names)}" if names else "like none of the generators it knows"


def relative(rows: FloatArray, means: NDArray[np.floating]) -> FloatArray:
    """Squared distances (n, k) less those to the middle of the means."""
    middle = means.mean(axis=0, keepdims=True)
    return cdist(rows, means, "sqeuclidean") - cdist(rows, middle, "sqeuclidean")


def unit(features: ArrayLike) -> FloatArray:
    """Rows (n, width) at length 1, as all of this measures them."""
    rows = np.asarray(features, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
