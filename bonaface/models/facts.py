"""What a model folder says about its model: the block ``bonaface`` of its config.json, as a frozen dataclass.

The block is a JSON object: ``version`` and the fields below, nested as they are. What is not known is left out; a
block without a version is of version 1. Keys that this version does not have are ignored. A change that an older
reader would misunderstand takes a new version, which older readers refuse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bonaface.errors import UsageError
from bonaface.imaging import FACE_MARGIN
from bonaface.stats.certificates import Band, Threshold

VERSION = 1
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Calibration:
    """Calibrated logits are ``(logits + bias) / temperature``.

    Attributes:
        bias: for each label, in class order.
        folded: whether the weights have it already.
        n: images that it was fitted on.
        share_fake: the share of fakes that the scores suppose; None where it is not known.
        ece_before, ece_after, nll_before, nll_after: expected calibration error and negative log-likelihood (nats) on
            images that it was not fitted on.
    """

    temperature: Annotated[float, Field(gt=0)]
    bias: tuple[float, ...]
    folded: bool
    n: int = 0
    method: str = "temperature+bias"
    share_fake: Share | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    nll_before: float | None = None
    nll_after: float | None = None


@dataclass(frozen=True)
class UnfamiliarFacts:
    """The distance beyond which an image is unlike the training data (see :mod:`bonaface.inference.unfamiliar`).

    Attributes:
        quantile: share of familiar images that stay within the threshold, in the mean.
        n: images that set the threshold.
        bank: training images whose features the distance is measured to; ``file`` has them.
        sources: of the training images.
    """

    neighbour: Annotated[int, Field(gt=0)]
    threshold: float
    quantile: Share
    n: int
    method: str = "knn"
    bank: int = 0
    file: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResemblesFacts:
    """Whether the model can tell which training sources a fake resembles (see :mod:`bonaface.inference.resembles`).

    Attributes:
        on: whether its figures exclude chance; else nothing of it is used.
        threshold: the relative distance, which may be negative, from which an image is like none of the ``sources``.
        n: fakes of these sources that judged it, and neither trained nor chose anything.
        accuracy: share of them whose own source is the nearest, with its 95 % interval.
        chance: that share for whoever always names the largest source.
        auc: how well the distance tells sources left out from known ones, with its 95 % interval (DeLong).
        none_known, none_left_out: share that is like none of them, of known sources and of those left out.
    """

    on: bool
    threshold: float
    sources: tuple[str, ...]
    n: int
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    chance: Share
    auc: Share
    auc_low: Share
    auc_high: Share
    none_known: Share
    none_left_out: Share


@dataclass(frozen=True)
class HardestSource:
    """The source with the largest share of wrong verdicts, of ``n`` images."""

    source: str
    label: str
    n: int
    wrong: Share


@dataclass(frozen=True)
class UnseenWorth:
    """What a calibration on unseen sources is worth, by folds that each had it from the others.

    Attributes:
        n: images.
        ece_before, ece: expected calibration error before and after.
        coverage: share of images with a verdict.
        wrong: share of those verdicts that were wrong; None where there was none.
        hardest: None where every source is small.
    """

    n: int
    folds: int
    ece_before: float
    ece: float
    coverage: Share
    wrong: Share | None
    hardest: HardestSource | None


@dataclass(frozen=True)
class ModelFacts:
    """All that a model folder says beyond its network and its image processor; without arguments, nothing is known.

    Attributes:
        real_label: None where it must be found by name.
        face_margin: the border that training left around faces, as a share of the face box on each side; None for a
            model of whole images.
        data_fingerprint: 16 hex digits of the training data (:meth:`bonaface.data.dataset.FaceData.fingerprint`).
        train_sources: the sources that it was trained on (see ``trained_on``).
        versions: of Python and the packages that trained it.
        calibration_note: why there is no calibration.
        judged_on: what thresholds and band were chosen on, in words; "" for the run's own calibration split.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)

    real_label: str | None = None
    face_margin: Annotated[float, Field(ge=0)] | None = FACE_MARGIN
    data_fingerprint: str = ""
    train_sources: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    calibration_note: str = ""
    thresholds: tuple[Threshold, ...] = ()
    band: Band | None = None
    unfamiliar: UnfamiliarFacts | None = None
    resembles: ResemblesFacts | None = None
    judged_on: str = ""
    unseen: UnseenWorth | None = None

    @property
    def trained_on(self) -> list[str]:
        """The sources that the model was trained on; empty where they are not known."""
        return list(self.train_sources or (self.unfamiliar.sources if self.unfamiliar else ()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON without what is not known; ``face_margin`` says something also where it is null."""
        told = _ADAPTER.dump_python(self, mode="json")
        return {name: value for name, value in told.items() if name == "face_margin" or value not in ("", None, [], {})}

    def to_block(self) -> dict[str, Any]:
        """What goes into config.json, as ``config.bonaface``."""
        return {"version": VERSION, **self.to_dict()}

    @classmethod
    def from_block(cls, block: Any, origin: str = "the model") -> ModelFacts:
        """From config.json's block; None stands for a model trained elsewhere, about which nothing is known.

        Args:
            origin: the model's name in errors.

        Raises:
            UsageError: a newer version, or a damaged block; names the field.
        """
        if block is None:
            return cls()
        damaged = "restore config.json from where the model was trained or published"
        version = block.get("version", 1) if isinstance(block, Mapping) else None
        if type(version) is not int or version < 1:
            where = "bonaface.version" if isinstance(block, Mapping) else "bonaface"
            raise UsageError(f"the configuration of {origin} is damaged: {where} is not valid", damaged)
        if version > VERSION:
            raise UsageError(
                f"{origin} was made by a newer bonaface: its facts have version {version}, and this one reads up to "
                f"version {VERSION}",
                "upgrade bonaface",
            )
        try:
            return _ADAPTER.validate_json(json.dumps(block))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, ("bonaface", *first["loc"])))
            raise UsageError(
                f"the configuration of {origin} is damaged: {place}: {first['msg'].lower()}", damaged
            ) from error

    @classmethod
    def of_config(cls, config: Any, origin: str = "the model") -> ModelFacts:
        """From a model's configuration (transformers' ``PretrainedConfig``).

        Raises:
            UsageError: as :meth:`from_block`; also where the calibration is not one of the model's labels.
        """
        facts = cls.from_block(getattr(config, "bonaface", None), origin)
        if facts.calibration is not None and len(facts.calibration.bias) != config.num_labels:
            raise UsageError(
                f"the configuration of {origin} is damaged: bonaface.calibration.bias has "
                f"{len(facts.calibration.bias)} values for {config.num_labels} labels",
                "restore config.json from where the model was trained or published",
            )
        return facts


_ADAPTER = TypeAdapter(ModelFacts)
