"""What a score has meant on images whose label is known: the nearest scores, and how many of them were fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bonaface.models.facts import UnseenWorth
from bonaface.parquet import read_parquet
from bonaface.stats.certificates import Band, uncertain_band, verdicts
from bonaface.stats.figures import percent
from bonaface.stats.intervals import clopper_pearson
from bonaface.training.calibrate import KNOWN

FEWEST_NEIGHBOURS, NEIGHBOURS = 20, 50  # 50 give an interval of some 15 points around 90 %; a fifth of all is alike
FEWEST = 60  # images below which nothing is said
UNSEEN = "unseen"
SPLITS = ("calibration", "validation", "test")  # the first had no part in training, selection or temperature
RARE = 0.1  # the base rate of the second sentence
SMALLEST_TENTHS = (
    0.27  # from here on, tenths are nearer than one in a whole number: 1 in 3 would stand for 0.29 to 0.40
)


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
    """Scores of images whose truth is known: ``p_fake`` float64 (n,), ``is_fake`` bool (n,).

    ``called`` (n,) has their verdicts; None for a model without a band.
    """

    split: str
    p_fake: NDArray[np.float64]
    is_fake: NDArray[np.bool_]
    called: NDArray[np.str_] | None = None

    @classmethod
    def of_run(cls, folder: Path, real_label: str, band: Band | None = None) -> KnownScores | None:
        """From a run's files; None where none has enough real and fake images.

        Predictions for sources that were left out of training (``report/unseen.parquet``) go before the splits of
        ``report/predictions.parquet``: a visitor's image is probably from an unseen camera or generator.
        """
        if (folder / KNOWN).is_file():
            table = read_parquet(folder / KNOWN, columns=["fold", "source", "label", "p_fake"])
            fake = (table["label"] != real_label).to_numpy()
            if len(table) >= FEWEST and 0 < fake.sum() < len(table):
                called = _called_by_other_folds(table, fake, band) if band else None
                return cls(UNSEEN, table["p_fake"].to_numpy(dtype=np.float64), fake, called)
        file = folder / "report" / "predictions.parquet"
        if not file.is_file():
            return None
        table = read_parquet(file, columns=["split", "label", "p_fake"])
        table = table[np.isfinite(table["p_fake"])]
        for split in SPLITS:
            rows = table[table["split"] == split]
            fake = (rows["label"] != real_label).to_numpy()
            if len(rows) >= FEWEST and 0 < fake.sum() < len(rows):
                p_fake = rows["p_fake"].to_numpy(dtype=np.float64)
                return cls(split, p_fake, fake, verdicts(p_fake, band) if band else None)
        return None

    def wrong(self, verdict: str) -> tuple[int, int] | None:
        """How many of the images that got this verdict, and of how many, were not so; None where too few got it."""
        if self.called is None or verdict not in ("real", "fake"):
            return None
        called = self.called == verdict
        n = int(called.sum())
        return (int((called & (self.is_fake != (verdict == "fake"))).sum()), n) if n >= FEWEST_NEIGHBOURS else None

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


def _called_by_other_folds(table: pd.DataFrame, fake: NDArray[np.bool_], band: Band) -> NDArray[np.str_]:
    """Verdicts by bands set on the other folds' sources: on the images that set a band, its errors are too few."""
    p_fake = table["p_fake"].to_numpy(dtype=np.float64)
    called = np.full(len(table), "", dtype="<U9")
    for fold in table["fold"].unique():
        mine = (table["fold"] == fold).to_numpy()
        others = ~mine & ~table["source"].isin(set(table["source"][mine])).to_numpy()
        if 0 < fake[others].sum() < others.sum():
            other = uncertain_band(p_fake[others], fake[others], delta=band.delta, confidence=band.confidence)
            called[mine] = verdicts(p_fake[mine], other)
    return called


def _at_base_rate(share: float, base: float, other: float) -> float:
    """A share of fakes at one base rate -> the share at another, the same likelihood ratio given (Bayes' rule)."""
    fakes, reals = share / base * other, (1 - share) / (1 - base) * (1 - other)
    return fakes / (fakes + reals) if fakes + reals else share


def in_short(meaning: Meaning) -> str:
    """What a score has meant, for somebody in a hurry."""
    images = "images" if meaning.split == UNSEEN else "images from known sources"
    if meaning.n_fake in (0, meaning.n):
        return (
            f"{'All' if meaning.n_fake else 'None'} of the {meaning.n} {images} that scored like this were generated."
        )
    times, of = _ratio(meaning.share)
    return f"{images.capitalize()} that scored like this were generated about {times} {_times(times)} in {of}."


def wrong_in_short(wrong: int, n: int) -> str:
    """How often such verdicts are wrong, for somebody in a hurry."""
    if wrong in (0, n):
        return f"{'All' if wrong else 'None'} of {n} such verdicts were wrong."
    part, of = _ratio(wrong / n)
    return f"About {part} in {of} such verdicts {'is' if part == 1 else 'are'} wrong."


def _ratio(share: float) -> tuple[int, int]:
    """A share in (0, 1) as people say it: 1 in 8, 4 in 10, 19 in 20."""
    if share > 0.5:
        rest, of = _ratio(1 - share)
        return of - rest, of
    return (1, round(1 / share)) if share < SMALLEST_TENTHS else (round(10 * share), 10)


def _times(n: int) -> str:
    return "time" if n == 1 else "times"


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
