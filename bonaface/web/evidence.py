"""What a score has meant on images whose label is known: the nearest scores, and how many of them were fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bonaface.models.facts import UnseenWorth
from bonaface.stats.figures import percent
from bonaface.stats.intervals import clopper_pearson
from bonaface.training.calibrate import KNOWN

FEWEST_NEIGHBOURS, NEIGHBOURS = 20, 50  # 50 give an interval of some 15 points around 90 %; a fifth of all is alike
FEWEST = 60  # images below which nothing is said
UNSEEN = "unseen"
SPLITS = ("calibration", "validation", "test")  # the first had no part in training, selection or temperature
RARE = 0.1  # the base rate of the second sentence


@dataclass(frozen=True)
class Meaning:
    """Of ``n`` known images that scored within ``nearest`` to ``farthest``, ``n_fake`` were fake.

    ``split`` is theirs, or UNSEEN for images of sources left out of training.
    ``low`` and ``high`` bound the share with 95 % confidence (Clopper-Pearson); ``base_rate`` is the share of fakes
    among all images of the ``split``; ``rare_low`` and ``rare_high`` bound the share where only ``RARE`` are fake.
    """

    split: str
    n: int
    n_fake: int
    nearest: float
    farthest: float
    low: float
    high: float
    base_rate: float
    rare_low: float
    rare_high: float

    @property
    def share(self) -> float:
        """Of the images scored like this, the share that was fake."""
        return self.n_fake / self.n


@dataclass(frozen=True)
class KnownScores:
    """Scores of images whose truth is known: ``p_fake`` float64 (n,), ``is_fake`` bool (n,)."""

    split: str
    p_fake: NDArray[np.float64]
    is_fake: NDArray[np.bool_]

    @classmethod
    def of_run(cls, folder: Path, real_label: str) -> KnownScores | None:
        """From a run's files; None where none has enough real and fake images.

        Predictions for sources that were left out of training (``report/unseen.parquet``) go before the splits of
        ``report/predictions.parquet``: a visitor's image is probably from an unseen camera or generator.
        """
        if (folder / KNOWN).is_file():
            table = pd.read_parquet(folder / KNOWN, columns=["label", "p_fake"])
            fake = (table["label"] != real_label).to_numpy()
            if len(table) >= FEWEST and 0 < fake.sum() < len(table):
                return cls(UNSEEN, table["p_fake"].to_numpy(dtype=np.float64), fake)
        file = folder / "report" / "predictions.parquet"
        if not file.is_file():
            return None
        table = pd.read_parquet(file, columns=["split", "label", "p_fake"])
        table = table[np.isfinite(table["p_fake"])]
        for split in SPLITS:
            rows = table[table["split"] == split]
            fake = (rows["label"] != real_label).to_numpy()
            if len(rows) >= FEWEST and 0 < fake.sum() < len(rows):
                return cls(split, rows["p_fake"].to_numpy(dtype=np.float64), fake)
        return None

    def meaning(self, p_fake: float) -> Meaning:
        """Of the images scored like ``p_fake``, how many were fake; ties with the last neighbour count too."""
        distance = np.abs(self.p_fake - p_fake)
        neighbours = int(np.clip(len(distance) // 5, FEWEST_NEIGHBOURS, NEIGHBOURS))
        reach = np.sort(distance)[neighbours - 1]
        near = distance <= reach
        n, n_fake = int(near.sum()), int((near & self.is_fake).sum())
        low, high = clopper_pearson(n_fake, n)
        scores = self.p_fake[near]
        base = float(self.is_fake.mean())
        rare = (_at_base_rate(float(share), base, RARE) for share in (low, high))
        return Meaning(
            self.split, n, n_fake, float(scores.min()), float(scores.max()), float(low), float(high), base, *rare
        )


def _at_base_rate(share: float, base: float, other: float) -> float:
    """A share of fakes at one base rate -> the share at another, the same likelihood ratio given (Bayes' rule)."""
    fakes, reals = share / base * other, (1 - share) / (1 - base) * (1 - other)
    return fakes / (fakes + reals) if fakes + reals else share


def remarks(
    meaning: Meaning | None, calibrated: bool, warnings: Sequence[str] = (), unseen: UnseenWorth | None = None
) -> list[str]:
    """What a score means, in sentences; ``unseen`` as :func:`bonaface.training.calibrate.recalibrate` gives it."""
    from bonaface.inference.unfamiliar import REASON
    from bonaface.web.markup import score

    if meaning is None:
        if calibrated:
            return ["This model is calibrated, but it has no predictions that would show what such a score has meant."]
        return ["This model is not calibrated: the score ranks images but is not the probability that one is fake."]
    known = meaning.split != UNSEEN
    images = f"{meaning.split} images" if known else "images from unseen cameras and generators"
    ends = dict.fromkeys((score(meaning.nearest), score(meaning.farthest)))  # one, where rounding leaves no span
    lines = [
        f"Of the {meaning.n} {images} that scored like this ({' to '.join(ends)}), {percent(meaning.share, 0)} were "
        f"fake (95 % interval {percent(meaning.low, 0)} to {percent(meaning.high, 0)}), compared with "
        f"{percent(meaning.base_rate, 0)} overall.",
        f"If only 1 image in {round(1 / RARE)} were fake, {percent(meaning.rare_low, 0)} to "
        f"{percent(meaning.rare_high, 0)} of the images with this score would be fake.",
    ]
    if unseen and unseen.wrong is not None and not known:
        lines.append(f"Of all its verdicts on such images, {percent(unseen.wrong, 0)} were wrong.")
    elif unseen and unseen.wrong is not None:
        lines.append(
            "Those images come from the cameras and generators in the training data. On images from others, "
            f"{percent(unseen.wrong, 0)} of its verdicts were wrong."
        )
    if REASON in warnings:
        lines.append("This applies to images like those the model was trained on. This image is not like them.")
    return lines
