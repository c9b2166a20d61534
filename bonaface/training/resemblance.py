"""What a trained model tells of the sources that fakes resemble: learned from its training split, judged on others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cholesky, solve_triangular
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_curve

from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.inference.resembles import FILE, FloatArray, Resembles, relative, unit
from bonaface.inference.rows import OutputsOf
from bonaface.inference.unfamiliar import BANK_SIZE
from bonaface.models.facts import ResemblesFacts
from bonaface.stats.intervals import auc_interval, clopper_pearson

FEWEST_IMAGES, FEWEST_SOURCES = 15, 3  # training images of a source, for its mean; sources, to leave one out


class Fakes(NamedTuple):
    """Features (n, width) of generated images, and the source of each."""

    features: ArrayLike
    sources: ArrayLike

    def of(self, names: ArrayLike) -> Fakes:
        """Those of some sources."""
        kept = np.isin(np.asarray(self.sources, dtype=str), np.asarray(names, dtype=str))
        return Fakes(np.asarray(self.features)[kept], np.asarray(self.sources, dtype=str)[kept])


def learn_resemblance(data: FaceData, outputs: OutputsOf, folder: Path) -> ResemblesFacts | None:
    """Learn it from the fakes in ``train``; ``validation`` chooses the threshold, ``calibration`` judges.

    What it is told by goes to ``folder`` if it is on. None where the last layer is not linear, or there are too few
    sources or images (see :func:`fit_resembles`). Every process of a distributed run calls
    it and gets the same.
    """
    train = data.splits["train"]
    fake = np.array(train["label"]) != data.real_index
    names, counts = np.unique(np.array(train["source"], dtype=str)[fake], return_counts=True)
    names = names[(counts >= FEWEST_IMAGES) & (names != "")]
    (folder / FILE).unlink(missing_ok=True)
    if len(names) < FEWEST_SOURCES:
        return None
    parts = []
    for split in ("train", "validation", "calibration"):
        rows = data.splits[split]
        fake = np.array(rows["label"]) != data.real_index
        rows = rows.select(np.flatnonzero(fake & np.isin(np.array(rows["source"], dtype=str), names)))
        rows = balanced_subset(rows, max(BANK_SIZE, FEWEST_IMAGES * len(names)))
        features = outputs(f"resemblance: {split}", rows).features
        if features is None:
            return None
        parts.append(Fakes(features, rows["source"]))
    fitted = fit_resembles(*parts)
    if fitted is None:
        return None
    if fitted[1].on and PartialState().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        fitted[0].save(folder)
    return fitted[1]


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
    rows, own = unit(training.features), np.searchsorted(names, training.sources)
    means = np.array([rows[own == i].mean(axis=0) for i in range(len(names))])
    covariance = ledoit_wolf(rows - means[own], assume_centered=True)[0]
    root = cholesky(covariance + 1e-9 * np.eye(len(covariance)), lower=True)
    white = solve_triangular(root, means.T, lower=True).T
    basis = np.linalg.svd(white - white.mean(axis=0), full_matrices=False)[2][: len(names) - 1].T
    projection = solve_triangular(root, basis, lower=True, trans="T")
    means = means @ projection

    known, left_out = _leave_one_out(unit(choosing.features) @ projection, names, choosing.sources, means)
    fpr, tpr, thresholds = roc_curve(*_told_apart(known, left_out))
    threshold = float(thresholds[1:][np.argmax((tpr - fpr)[1:])])
    found = Resembles(tuple(map(str, names)), projection.astype(np.float32), means.astype(np.float32), threshold)
    return found, _worth(found, judging)


def _worth(found: Resembles, judging: Fakes) -> ResemblesFacts:
    names, n = np.array(found.names), len(judging.sources)  # type: ignore[arg-type]
    distances = found.distances(judging.features)
    known, left_out = _leave_one_out(unit(judging.features) @ found.projection, names, judging.sources, found.means)
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
        nearest = relative(rows, np.delete(means, i, axis=0)).min(axis=1)
        left_out[own == i] = nearest[own == i]
        known[own != i] += nearest[own != i] / (len(means) - 1)
    return known, left_out


def _told_apart(known: FloatArray, left_out: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
    return np.repeat([False, True], [len(known), len(left_out)]), np.concatenate([known, left_out])
