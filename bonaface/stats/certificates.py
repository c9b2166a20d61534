"""What n images can guarantee about error rates: certified thresholds and the uncertainty band.

A threshold that errs on 5 % of *these* images errs on more than 5 % of their kind about half the time. A guarantee
needs a test: thresholds are tried from the safest on, each against "its true error is above the limit" with the exact
binomial p-value, until the first that cannot be rejected (fixed-sequence testing: Angelopoulos et al. 2021, "Learn then
Test", section 2.3). The family-wise error is then at most 1 - confidence, whatever the scores look like, as long as
the images are drawn like those that will be judged and nothing about the scores was chosen by them. The sequence here
is every float64 from the safe end on. The count of errors changes only at the scores, so the walk has a closed form:
with k = :func:`allowed_errors`, it ends just before the (k + 1)-th error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bonaface.stats.figures import percent
from bonaface.stats.intervals import clopper_pearson

FPRS = (0.005, 0.01, 0.05)
PRIOR = 0.5


@dataclass(frozen=True)
class Threshold:
    """A threshold for a limit of the false-positive rate.

    Attributes:
        fpr: the limit.
        threshold: the lowest that keeps it; None if there are too few images to guarantee anything.
        fpr_upper: one-sided Clopper-Pearson bound of the share of reals called fake there, at most ``fpr``.
        certified: whether the limit is guaranteed.
        n_real: real images.
        tpr: share of fakes found there.
        note: the guarantee as a sentence, or why there is none.
    """

    fpr: float
    threshold: float | None
    fpr_upper: float | None = None
    certified: bool = False
    n_real: int = 0
    tpr: float | None = None
    note: str = ""


@dataclass(frozen=True)
class SourceErrors:
    """One source and a band: ``n`` images, ``errors`` outside it on the wrong side, whether the guarantee holds."""

    source: str
    is_real: bool
    n: int
    errors: int
    certified: bool


@dataclass(frozen=True)
class Band:
    """The scores between which no verdict is given: p_fake <= ``low`` is called real, >= ``high`` fake.

    Attributes:
        delta: the limit of either error rate.
        confidence: of each guarantee.
        certified: whether both guarantees hold.
        n_real, n_fake: images that it was set on.
        note: the guarantees as a sentence, or why one of them cannot be given.
        sources: one entry for each source and class; empty where sources had no part.

    Raises:
        ValueError: ``low`` above ``high``.
    """

    low: float
    high: float
    delta: float = 0.05
    confidence: float = 0.95
    certified: bool = False
    n_real: int = 0
    n_fake: int = 0
    note: str = ""
    sources: tuple[SourceErrors, ...] = ()

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")


def allowed_errors(n: int, rate: float, confidence: float = 0.95) -> int:
    """The most errors among n images that still prove a true rate of at most ``rate``; -1 where none would.

    The largest k with P(Binomial(n, rate) <= k) <= 1 - confidence.
    """
    if n < 1:
        return -1
    k = int(stats.binom.ppf(1 - confidence, n, rate))
    return k if stats.binom.cdf(k, n, rate) <= 1 - confidence else k - 1


def images_needed(rate: float, confidence: float = 0.95) -> int:
    """How many images without a single error prove a true rate of at most ``rate``: 59 for 5 %, 299 for 1 %."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))


def certified_threshold(scores: ArrayLike, rate: float, confidence: float = 0.95) -> float | None:
    """The lowest threshold that at most ``rate`` of the images of this kind reach (``score >= threshold``).

    ``scores`` (n,) are those of images that should stay below it. With the given confidence the true share is at most
    ``rate``; None where n is too small for any guarantee.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    k = allowed_errors(len(ordered), rate, confidence)
    return None if k < 0 else float(np.nextafter(ordered[k], np.inf))


def too_few(n: int, rate: float, confidence: float = 0.95, what: str = "real images") -> str:
    """Why nothing is guaranteed."""
    return f"not certifiable with {n} {what} (at least {images_needed(rate, confidence)} are needed)"


def thresholds(
    p_real: ArrayLike, fprs: Sequence[float] = FPRS, *, p_fake: ArrayLike = (), confidence: float = 0.95
) -> tuple[Threshold, ...]:
    """For each false-positive rate the lowest threshold that keeps it, with the given confidence.

    ``p_real`` and ``p_fake`` are the scores of real and of fake images of a calibration split.
    """
    real, fake = np.asarray(p_real, dtype=np.float64), np.asarray(p_fake, dtype=np.float64)
    rows = []
    for fpr in fprs:
        threshold = certified_threshold(real, fpr, confidence)
        if threshold is None:
            rows.append(Threshold(fpr, None, n_real=len(real), note=too_few(len(real), fpr, confidence)))
            continue
        errors = int((real >= threshold).sum())
        rows.append(
            Threshold(
                fpr,
                threshold,
                fpr_upper=float(clopper_pearson(errors, len(real), confidence=confidence, side="upper").high),
                certified=True,
                n_real=len(real),
                tpr=float((fake >= threshold).mean()) if len(fake) else None,
                note=f"at most {percent(fpr, None)} of real images are called fake, "
                f"with {percent(confidence, None)} confidence",
            )
        )
    return tuple(rows)


def uncertain_band(
    p: ArrayLike,
    is_fake: ArrayLike,
    *,
    delta: float = 0.05,
    confidence: float = 0.95,
    sources: Sequence[str] | None = None,
) -> Band:
    """The scores between which no verdict is given: p <= ``low`` is called real, p >= ``high`` fake.

    Two guarantees, each with the given confidence: P(called fake | real) <= delta and P(called real | fake) <= delta.
    With 95 % each, both hold together with at least 90 % (union bound). Where ``sources`` (n,) are named, each one with
    enough images (59 at 5 %) gets a guarantee of its own, with the same confidence each, and the band is the widest of
    all. They hold for images drawn like these, not for those of other cameras and generators.

    Args:
        p: p_fake in [0, 1], shape (n,), of images that neither trained the model nor chose it.
        is_fake: bool, shape (n,).

    Returns:
        The band. With too few images a side is set where at most delta of these very images err: nothing is guaranteed
        then.
    """
    scores, fake = np.asarray(p, dtype=np.float64), np.asarray(is_fake, dtype=bool)
    names = np.asarray([""] * len(scores) if sources is None else list(sources), dtype=object)
    # "Called real" is "called fake" of the mirrored score; the sign keeps every digit near 0, 1 - p would not.
    high, high_ok = _edge(scores[~fake], names[~fake], delta, confidence)
    low, low_ok = _edge(-scores[fake], names[fake], delta, confidence)
    low = -low
    if low >= high:  # every cut between the two keeps both guarantees
        high = min(max(0.5, high), low)
        low = float(np.nextafter(high, -np.inf))
    return Band(
        low,
        high,
        delta=delta,
        confidence=confidence,
        certified=high_ok and low_ok,
        n_real=int((~fake).sum()),
        n_fake=int(fake.sum()),
        note=_band_note(fake, (high_ok, low_ok), delta, confidence, by_source=sources is not None),
        sources=() if sources is None else _errors_by_source(scores, fake, names, (low, high), delta, confidence),
    )


def _band_note(
    fake: NDArray[np.bool_], kept: tuple[bool, bool], delta: float, confidence: float, *, by_source: bool
) -> str:
    """The guarantees for real and for fake images as a sentence, or why one of them cannot be given."""
    counts = {"real images": int((~fake).sum()), "fake images": int(fake.sum())}
    missing = [
        too_few(n, delta, confidence, what) for (what, n), fine in zip(counts.items(), kept, strict=True) if not fine
    ]
    if missing:
        return "; ".join([*missing, "the band only describes these images"])
    most = percent(delta, None)
    note = (
        f"at most {most} of real images are called fake, and at most {most} of fakes real, "
        f"with {percent(confidence, None)} confidence each"
    )
    enough = images_needed(delta, confidence)
    return f"{note}; the same holds for each source with at least {enough} images" if by_source else note


def _errors_by_source(
    scores: NDArray[np.float64],
    fake: NDArray[np.bool_],
    names: NDArray[Any],
    band: tuple[float, float],
    delta: float,
    confidence: float,
) -> tuple[SourceErrors, ...]:
    """An entry for each source and class."""
    rows = []
    for is_real, source in sorted(set(zip((~fake).tolist(), names.tolist(), strict=True))):
        mine = (names == source) & (fake != is_real)
        errors = int((scores[mine] >= band[1]).sum() if is_real else (scores[mine] <= band[0]).sum())
        n = int(mine.sum())
        fine = allowed_errors(n, delta, confidence) >= 0
        rows.append(SourceErrors(source, is_real, n, errors, fine))
    return tuple(rows)


def _edge(scores: NDArray[np.float64], names: NDArray[Any], delta: float, confidence: float) -> tuple[float, bool]:
    """The lowest threshold that keeps the guarantee for all images and for each source that is large enough."""
    parts = [scores, *(scores[names == name] for name in set(names))]
    found = [certified_threshold(part, delta, confidence) for part in parts]
    edges = [edge for edge in found if edge is not None]
    if edges:
        return max(edges), True
    from bonaface.stats.metrics import threshold_at_fpr  # with evaluate and datasets, which a detector need not load

    return (threshold_at_fpr(scores, delta) if len(scores) else float(np.nextafter(1.0, 2.0))), False


def verdicts(p: ArrayLike, band: Band) -> NDArray[np.str_]:
    """``real``, ``fake`` or ``uncertain`` for each p_fake, by a band of :func:`uncertain_band`."""
    scores = np.asarray(p, dtype=np.float64)
    return np.where(scores >= band.high, "fake", np.where(scores <= band.low, "real", "uncertain"))


def share_fake_among_called(recall: float, fpr: float, prior: float = PRIOR) -> float:
    """Of the images called fake, the share that is fake, where ``prior`` of all images are (Bayes' rule).

    NaN where nothing would be called fake. The share of reals among the images called real is the same rule the other
    way round: ``share_fake_among_called(share of reals called real, share of fakes called real, 1 - prior)``.
    """
    called_fakes, called_reals = prior * recall, (1 - prior) * fpr
    total = called_fakes + called_reals
    return called_fakes / total if total > 0 else math.nan
