"""Which images a model is tested on, and how its labels match the data set's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray
from transformers import AutoConfig

from bonaface.data.dataset import (
    SPLITS,
    FaceData,
    Listing,
    dataset_dict,
    hold_out_calibration,
    list_data,
    split_listing,
)
from bonaface.errors import RealLabelError, UsageError
from bonaface.evaluation.options import EvaluationOptions
from bonaface.inference.detector import Detector
from bonaface.models.download import model_folder
from bonaface.models.facts import ModelFacts
from bonaface.stats.predictions import predictions_frame

FloatArray = NDArray[np.float64]

# --- which label is which -----------------------------------------------------------------------------------------


def load_detector(name: str, options: EvaluationOptions) -> tuple[Detector, list[str]]:
    """Any image classifier, and which of its labels count as fake.

    Without ``fake_label`` every label that is not the real one is fake. With it, that one alone is: other labels count
    for nothing, and the two probabilities are scaled to add up to 1.

    Raises:
        UsageError: the model cannot be loaded, has no such label, or its real label is unknown.
    """
    real_label, fake_label = options.real_label, options.fake_label
    if fake_label is not None and real_label is None:
        config = AutoConfig.from_pretrained(model_folder(name))
        others = [label for label in config.id2label.values() if label != fake_label]
        real_label = others[0] if len(others) == 1 else None
    try:
        detector = Detector.from_pretrained(
            name, real_label=real_label, engine=options.engine, device=options.device, dtype=options.dtype
        )
    except RealLabelError as error:
        raise UsageError(str(error), f"{error.hint}; for the model, name it with --real-label") from error
    if fake_label is not None and fake_label not in detector.labels:
        raise UsageError(f"{name} has no label `{fake_label}`", f"choose one of: {', '.join(detector.labels)}")
    fakes = [label for label in detector.labels if label != detector.real_label]
    return detector, [fake_label] if fake_label is not None else fakes


def shared_labels(data: FaceData, detectors: Sequence[Detector]) -> tuple[list[str], str]:
    """Labels that data and models can all be judged by: the data's own where the models have the same, else two."""
    if all(set(d.labels) == set(data.labels) and d.real_label == data.real_label for d in detectors):
        return data.labels, data.real_label
    fakes = [label for label in data.labels if label != data.real_label]
    return sorted([fakes[0] if len(fakes) == 1 else "fake", data.real_label]), data.real_label


def with_labels(data: FaceData, labels: list[str]) -> FaceData:
    """The data with other labels: all that are not the real one become one. A source that is not named is the label."""
    if labels == data.labels:
        return data
    fake = next(label for label in labels if label != data.real_label)
    splits = {}
    for name, rows in data.splits.items():
        old = [data.labels[i] for i in rows["label"]]
        new = [labels.index(label if label == data.real_label else fake) for label in old]
        sources = [source or label for source, label in zip(rows["source"], old, strict=True)]
        columns = {"label": (new, ClassLabel(names=labels)), "source": (sources, None)}
        for column, (values, feature) in columns.items():
            rows = rows.remove_columns(column).add_column(column, values)
            rows = rows.cast_column(column, feature) if feature is not None else rows
        splits[name] = rows
    return replace(data.with_splits(splits), labels=labels)


def align(scores: FloatArray, detector: Detector, fakes: Sequence[str], labels: list[str], real: str) -> FloatArray:
    """A model's probabilities (..., its classes) as those of ``labels`` (..., k): by name, else real against fake."""
    if set(detector.labels) == set(labels) and detector.real_label == real:
        result = scores[..., [detector.labels.index(label) for label in labels]]
    else:
        fake = next(i for i, label in enumerate(labels) if label != real)
        result = np.empty((*scores.shape[:-1], 2))
        result[..., 1 - fake] = scores[..., detector.labels.index(detector.real_label)]
        result[..., fake] = scores[..., [detector.labels.index(label) for label in fakes]].sum(axis=-1)
    total = result.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, result / total, np.where(np.isnan(total), np.nan, 0.5))


# --- which images -------------------------------------------------------------------------------------------------


def evaluation_data(
    data: str,
    options: EvaluationOptions,
    *,
    facts: ModelFacts | None = None,
    folder: Path | None = None,
) -> tuple[FaceData, list[str]]:
    """The images to test a model on, as one split, and what the reader must know about them.

    ``options.split`` is ``auto``, ``all`` or a split's name. ``auto`` takes the data set's own test split where it has
    one; if the model was trained on this data (by its fingerprint), the images that were held out for the
    test; else all. Files are not opened here: those that cannot be read are found when they are scored.

    Args:
        facts, folder: of the model, if there is one; groups are found as its recipe did.

    Raises:
        UsageError: no such data or split, or no real label.
    """
    facts, recipe = facts or ModelFacts(), _recipe_of(folder)
    listing = _list(data, options.real_label, options.groups or recipe.get("groups", "auto"))
    split = options.split
    named = set(listing.rows["split"]) - {""}
    caveats: list[str] = []
    if not named and split in ("auto", *SPLITS):
        trained = _held_out(listing, facts, recipe, "test" if split == "auto" else split)
        if trained is not None:
            return trained, caveats
    if split == "auto":
        split = next((name for name in ("test", "validation") if name in named), "all")
        if not named and facts.data_fingerprint:
            caveats.append(
                "The model was trained on a data set with a different fingerprint, so all images here were used. If "
                "some of them were training images, the figures are too optimistic."
            )
    if split != "all" and split not in named:
        raise UsageError(
            f"{data} has no split `{split}`", f"choose one of: all{''.join(', ' + n for n in sorted(named))}"
        )
    rows = listing.rows
    if split != "all":
        rows = rows.select([i for i, name in enumerate(rows["split"]) if name == split])
    name = "" if split == "all" else split
    splits = dataset_dict({name: rows.remove_columns("split")})
    listed = (listing.labels, listing.real_label, listing.broken, listing.origin)
    return FaceData(splits, *listed, units=listing.units, passed_over=listing.passed_over), caveats


def _list(data: str, real_label: str | None, groups: str) -> Listing:
    """``real_label`` may name the model's label, the data's, or both."""
    try:
        return list_data(data, real_label=real_label, check="none", groups=groups)
    except RealLabelError:
        if real_label is None:
            raise
        return list_data(data, check="none", groups=groups)


def _recipe_of(folder: Path | None) -> dict[str, Any]:
    """The recipe of a model folder's run; empty if there is none."""
    if folder is None or not (folder / "recipe.yaml").is_file():
        return {}
    return yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) or {}


def _held_out(listing: Listing, facts: ModelFacts, recipe: Mapping[str, Any], split: str) -> FaceData | None:
    """The split that the model's own training held out, made again from the same data; None if the data differs.

    The run's recipe has the seed and the sizes of its splits; a file that broke since changes the fingerprint.
    """
    wanted = facts.data_fingerprint
    if not wanted:
        return None
    sizes = {name: recipe[name] for name in ("seed", "validation_size", "test_size") if name in recipe}
    try:
        data = split_listing(listing, **sizes)
    except UsageError:
        return None
    for candidate in (data, hold_out_calibration(data)):
        if candidate.fingerprint == wanted and split in candidate.splits:
            return candidate.with_splits({split: candidate.splits[split]})
    return None


def predictions_of(rows: Dataset, scores: FloatArray, data: FaceData, split: str) -> pd.DataFrame:
    """The predictions table of some rows of the data and their probabilities (n, k) in its class order.

    Rows of several data sets keep the name of theirs in a column ``dataset``.
    """
    columns = {name: rows[name] for name in ("path", "source", "group")}
    table = predictions_frame(
        scores, rows["label"], labels=data.labels, real_label=data.real_label, split=split, **columns
    )
    return table.assign(dataset=rows["dataset"]) if "dataset" in rows.column_names else table
