"""The options of an evaluation or a comparison: which images, labels, degradations and hardware."""

from __future__ import annotations

from dataclasses import dataclass

from bonaface.errors import UsageError
from bonaface.stats.certificates import PRIOR

QUICK_IMAGES = 300


@dataclass(frozen=True)
class EvaluationOptions:
    """Frozen, and checked when it is made.

    Attributes:
        split: a split's name, "all", or "auto" (see :func:`bonaface.evaluation.data.evaluation_data`).
        max_images: of each split, shared out over labels and sources; None for all, or QUICK_IMAGES when ``quick``.
        groups: which folders are groups, as in :func:`bonaface.data.listing.list_data`; None for what the model's
            recipe says.
        real_label: the model's or the data's, if its name does not show which it is.
        fake_label: the only one of the model's labels that counts as fake; all but the real one when None.
        robustness: score every image again under every degradation at every strength; at two when ``quick``.
        prior: the base rate, share of fakes among all images, that sentences about false positives suppose; in (0, 1).
        faces: look for a face in each image, for the coverage; ``yunet`` are the face detector's weights.
        engine, device, dtype: as in :meth:`bonaface.inference.detector.Detector.from_pretrained`.
        batch_size: images that the model is given at once.
        threads: that decode and degrade; chosen by the machine when None.
        n_resamples, seed: of the bootstrap.

    Raises:
        UsageError: a prior that is not between 0 and 1.
    """

    split: str = "auto"
    max_images: int | None = None
    groups: str | None = None
    real_label: str | None = None
    fake_label: str | None = None
    robustness: bool = True
    quick: bool = False
    prior: float = PRIOR
    faces: bool = False
    yunet: str | None = None
    engine: str = "auto"
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 128
    threads: int | None = None
    n_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise UsageError(
                f"--prior must be between 0 and 1, not {self.prior}",
                "give the share of fakes among all images, such as 0.1",
            )

    @property
    def limit(self) -> int | None:
        """The most images of a split."""
        return self.max_images or (QUICK_IMAGES if self.quick else None)
