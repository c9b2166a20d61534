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
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_curve

from bonaface.errors import UsageError
from bonaface.files import atomic_path
from bonaface.models.facts import ResemblesFacts
from bonaface.stats.intervals import auc_interval, clopper_pearson

FILE = "resembles.safetensors"
FEWEST_IMAGES, FEWEST_SOURCES = 15, 3  # training images of a source, for its mean; sources, to leave one out
NAMED = 2  # sources at most

FloatArray = NDArray[np.float64]


class Fakes(NamedTuple):
    """Features (n, width) of generated images, and the source of each."""

    features: ArrayLike
    sources: ArrayLike

    def of(self, names: ArrayLike) -> Fakes:
        """Those of some sources."""
        kept = np.isin(np.asarray(self.sources, dtype=str), np.asarray(names, dtype=str))
        return Fakes(np.asarray(self.features)[kept], np.asarray(self.sources, dtype=str)[kept])


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
        return _relative(_unit(features) @ self.projection, self.means)

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


def fit_resembles(training: Fakes, choosing: Fakes, judging: Fakes) -> tuple[Resembles, ResemblesFacts] | None:
    """Means and directions from ``training``, the threshold from ``choosing``, what both are worth from ``judging``.

    An unseen source is imitated: each is left out in turn, its images are measured to what remains, and so are those
    of the others. The threshold has the highest balanced accuracy in telling the two apart. It is off where an
    interval includes chance: of the images whose own source is the nearest, the share of the largest source; of the
    area under the ROC curve for leaving out, one half.

    Returns:
        None with fewer than ``FEWEST_SOURCES`` sources of ``FEWEST_IMAGES`` images, or without images to choose or
        judge on.
    """
    counted = np.unique(np.asarray(training.sources, dtype=str), return_counts=True)
    names = counted[0][counted[1] >= FEWEST_IMAGES]
    training, choosing, judging = (part.of(names) for part in (training, choosing, judging))
    if len(names) < FEWEST_SOURCES or not len(choosing.sources) or not len(judging.sources):  # type: ignore[arg-type]
        return None
    rows, own = _unit(training.features), np.searchsorted(names, training.sources)
    means = np.array([rows[own == i].mean(axis=0) for i in range(len(names))])
    covariance = ledoit_wolf(rows - means[own], assume_centered=True)[0]
    root = cholesky(covariance + 1e-9 * np.eye(len(covariance)), lower=True)
    white = solve_triangular(root, means.T, lower=True).T
    basis = np.linalg.svd(white - white.mean(axis=0), full_matrices=False)[2][: len(names) - 1].T
    projection = solve_triangular(root, basis, lower=True, trans="T")
    means = means @ projection

    known, left_out = _leave_one_out(_unit(choosing.features) @ projection, names, choosing.sources, means)
    fpr, tpr, thresholds = roc_curve(*_told_apart(known, left_out))
    threshold = float(thresholds[1:][np.argmax((tpr - fpr)[1:])])
    found = Resembles(tuple(map(str, names)), projection.astype(np.float32), means.astype(np.float32), threshold)
    return found, _worth(found, judging)


def _worth(found: Resembles, judging: Fakes) -> ResemblesFacts:
    names, n = np.array(found.names), len(judging.sources)  # type: ignore[arg-type]
    distances = found.distances(judging.features)
    known, left_out = _leave_one_out(_unit(judging.features) @ found.projection, names, judging.sources, found.means)
    hits = int((names[distances.argmin(axis=1)] == judging.sources).sum())
    low, high = clopper_pearson(hits, n)
    chance = max(1 / len(names), float(np.unique(judging.sources, return_counts=True)[1].max() / n))
    auc, interval = auc_interval(*_told_apart(known, left_out))
    return ResemblesFacts(
        on=bool(low > chance and interval.low > 0.5),
        threshold=found.threshold,
        sources=found.names,
        n=n,
        accuracy=hits / n,
        accuracy_low=float(low),
        accuracy_high=float(high),
        chance=chance,
        auc=auc,
        auc_low=float(interval.low),
        auc_high=float(interval.high),
        none_known=float((distances.min(axis=1) >= found.threshold).mean()),
        none_left_out=float((left_out >= found.threshold).mean()),
    )


def _leave_one_out(
    rows: FloatArray, names: ArrayLike, sources: ArrayLike, means: NDArray[np.floating]
) -> tuple[FloatArray, FloatArray]:
    """Distances (n,) to the nearest mean: while another source is left out (on average), and while the own one is."""
    own = np.searchsorted(np.asarray(names), np.asarray(sources))
    known, left_out = np.zeros(len(rows)), np.zeros(len(rows))
    for i in range(len(means)):
        nearest = _relative(rows, np.delete(means, i, axis=0)).min(axis=1)
        left_out[own == i] = nearest[own == i]
        known[own != i] += nearest[own != i] / (len(means) - 1)
    return known, left_out


def _relative(rows: FloatArray, means: NDArray[np.floating]) -> FloatArray:
    """Squared distances (n, k) less those to the middle of the means."""
    middle = means.mean(axis=0, keepdims=True)
    return cdist(rows, means, "sqeuclidean") - cdist(rows, middle, "sqeuclidean")


def _told_apart(known: FloatArray, left_out: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
    return np.repeat([False, True], [len(known), len(left_out)]), np.concatenate([known, left_out])


def _unit(features: ArrayLike) -> FloatArray:
    rows = np.asarray(features, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
