"""Calibration of a trained model, and what depends on it: thresholds, the uncertainty band, the distance.

Three kinds of data, apart from each other and from the test: one half of the validation split (``validation``) chooses
the epoch and fits temperature and bias; the other half (``calibration``,
:func:`bonaface.data.dataset.hold_out_calibration`) chooses and fits nothing, so it may say what the scores are worth:
calibration error, certified thresholds, the uncertainty band, and how far from the training data is too far.

Calibrating on known sources is misleading for unseen ones. A leave-one-source-out cross-validation
(``python -m bonaface crossval RECIPE --leave-one-source-out``) scores every source by a model that has not seen it.
Those predictions calibrate the model that is trained on all: its ``calibrate_on`` names their file. The result is
evaluated by leaving each fold out once more: its scores are calibrated, and its verdicts given, by the other folds
alone.

The scores then assume that half of all images are fake, whatever the share among the predictions: the balance of the
folds says nothing about an image from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import PartialState
from numpy.typing import NDArray
from transformers import PreTrainedModel

from bonaface.data.dataset import FaceData, balanced_subset
from bonaface.data.folds import FOLDS
from bonaface.errors import UsageError
from bonaface.inference.calibration import apply, fit, fold
from bonaface.inference.rows import OutputsOf
from bonaface.inference.unfamiliar import BANK_SIZE, fit_unfamiliar
from bonaface.models.facts import Calibration, HardestSource, ModelFacts, UnseenWorth
from bonaface.parquet import read_parquet
from bonaface.report.write import write_predictions
from bonaface.stats.certificates import thresholds, uncertain_band, verdicts
from bonaface.stats.metrics import WORST_MIN_IMAGES, all_figures
from bonaface.stats.probabilities import fake_probability

FloatArray = NDArray[np.float64]
KNOWN = Path("report") / "unseen.parquet"  # in a run: its scores of sources left out, with the truth


def calibrate_run(
    model: PreTrainedModel,
    data: FaceData,
    facts: ModelFacts,
    outputs: OutputsOf,
    *,
    folder: Path | None = None,
) -> ModelFacts:
    """Calibrate a trained model and say what its scores are worth: the facts with all that follows from that.

    Fits on ``data.splits["validation"]`` and folds into the model's weights in place where it can. Judges on
    ``data.splits["calibration"]`` (ValueError if there is none): ``calibration`` with ECE and NLL before and after,
    ``thresholds``, ``band``, ``unfamiliar`` (absent where the last layer is not linear), whose bank of training
    features is written to ``folder``. Every process of a distributed run calls it and gets the same.

    Args:
        outputs: the model's, for rows as evaluation sees them.
    """
    if "calibration" not in data.splits:
        raise ValueError("calibrate_run needs a split `calibration`: see hold_out_calibration")

    selects, certifies = data.splits["validation"], data.splits["calibration"]
    fitted, held = outputs("calibrating: validation", selects), outputs("calibrating: calibration", certifies)
    training = (
        outputs("calibrating: training features", balanced_subset(data.splits["train"], BANK_SIZE)) if folder else None
    )
    calibration: Calibration | None = None
    note = ""
    try:
        calibration = fit(fitted.logits, selects["label"])
    except ValueError as error:
        note = f"not calibrated: {error}"
    p = fake_probability(apply(held.logits, calibration), data.real_index)
    if calibration is not None:
        calibration = _judged(calibration, held.logits, certifies["label"], data)
        calibration = replace(calibration, folded=fitted.features is not None and fold(model, calibration))
    fake = np.array(certifies["label"]) != data.real_index
    facts = replace(
        facts,
        calibration=calibration,
        calibration_note=note,
        thresholds=thresholds(p[~fake], p_fake=p[fake]),
        band=uncertain_band(p, fake, sources=certifies["source"]),
    )
    if folder is None or training is None or training.features is None or held.features is None or not len(certifies):
        return facts
    familiar = fit_unfamiliar(training.features, held.features)
    if PartialState().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        familiar.save(folder)
    return replace(facts, unfamiliar=familiar.facts(sorted(set(data.splits["train"]["source"]))))


def _judged(calibration: Calibration, logits: FloatArray, labels: Sequence[int], data: FaceData) -> Calibration:
    """The calibration with what it did on images that it was not fitted on."""
    figures: dict[str, Any] = {}
    for when, applied in (("before", None), ("after", calibration)):
        found = all_figures(labels, apply(logits, applied), labels=data.labels, real_index=data.real_index)
        for name, key in (("ece", "ece"), ("log_loss", "nll")):
            figures[f"{key}_{when}"] = found[name] if np.isfinite(found[name]) else None
    share = float(np.mean(np.array(labels) != data.real_index)) if len(labels) else None
    return replace(calibration, share_fake=share, **figures)


def read_unseen(file: str | Path, labels: Sequence[str]) -> pd.DataFrame:
    """The predictions of a cross-validation that left sources or families out: one row per image and fold.

    Raises:
        UsageError: no such file, not such a table, other labels or none of one, or folds that share their sources with
            the training.
    """
    hint = "give OUT/report/predictions.parquet of `python -m bonaface crossval RECIPE --leave-one-source-out`"
    if not Path(file).is_file():
        raise UsageError(f"cannot read {file}: no such file", hint)
    try:
        rows = read_parquet(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {file}: {error}", hint) from error
    missing = {"fold", "source", "label", *(f"p_{label}" for label in labels)} - set(rows.columns)
    if missing:
        raise UsageError(f"{file} has no column {', '.join(sorted(missing))}", hint)
    p = rows[[f"p_{label}" for label in labels]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():  # NaN is neither
        raise UsageError(f"{file} has scores that are not probabilities", hint)
    if strange := sorted({str(label) for label in rows["label"]} - set(labels)):
        raise UsageError(f"{file} has other labels than the data: {', '.join(strange)}", hint)
    if lacking := sorted(set(labels) - set(rows["label"])):
        raise UsageError(f"{file} has no image labelled {', '.join(lacking)}", hint)
    described = Path(file).with_name("crossval.json")
    try:
        kind = json.loads(described.read_text(encoding="utf-8"))["kind"] if described.is_file() else ""
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{described} is damaged", hint) from error
    if kind == FOLDS:
        raise UsageError(f"{file} comes from folds that trained on every source", hint)
    if rows["fold"].nunique() < 2:
        raise UsageError(f"{file} has only one fold", hint)
    return rows


def recalibrate(
    model: PreTrainedModel,
    facts: ModelFacts,
    unseen: pd.DataFrame,
    labels: Sequence[str],
    real_index: int,
) -> tuple[ModelFacts, pd.DataFrame]:
    """Calibrate a calibrated model once more, on predictions of unseen sources, in place where that can be folded.

    Args:
        model: with what ``facts`` say of its calibration folded in, or not.
        facts: what :func:`calibrate_run` gave.
        unseen: see :func:`read_unseen`; the folds' models were calibrated as this one was.
        labels, real_index: in class order.

    Returns:
        The facts with ``calibration``, ``thresholds``, ``band``, ``judged_on`` and ``unseen`` (None where no fold can
        be judged by the others) anew. And the predictions as the calibrated model would give them: ``fold``,
        ``source``, ``label``, ``p_fake``.
    """
    true, probabilities, logits = _predicted(unseen, labels)
    fake = true != real_index
    even = _even(true)
    whole = replace(fit(logits[even], true[even]), n=len(true))
    after = apply(logits, whole)
    p = fake_probability(after, real_index)
    worth = unseen_worth(unseen, labels, real_index)
    figures = {
        f"{key}_{when}": all_figures(true[even], scores[even], labels=labels, real_index=real_index)[name]
        for when, scores in (("before", probabilities), ("after", after))
        for name, key in (("ece", "ece"), ("log_loss", "nll"))
    }
    facts = replace(
        facts,
        calibration=replace(_both(facts.calibration, whole, model), share_fake=float(fake[even].mean()), **figures),
        calibration_note="",
        thresholds=thresholds(p[~fake], p_fake=p[fake]),
        band=uncertain_band(p, fake),
        judged_on=f"{len(unseen):,} predictions for sources left out of training, {unseen['fold'].nunique()} folds",
        unseen=worth,
    )
    return facts, unseen[["fold", "source", "label"]].assign(p_fake=p).reset_index(drop=True)


def _both(first: Calibration | None, second: Calibration, model: PreTrainedModel) -> Calibration:
    """One calibration that does what two do in turn, folded into the model where the first one is."""
    before = first or Calibration(1.0, (0.0,) * len(second.bias), folded=True)
    bias = np.array(before.bias) + before.temperature * np.array(second.bias)
    folded = before.folded and fold(model, second)
    return Calibration(before.temperature * second.temperature, tuple(bias.tolist()), folded=folded, n=second.n)


def write_known(folder: Path, known: pd.DataFrame) -> None:
    """Keep the second result of :func:`recalibrate` in a run: the app uses it to show what a score meant."""
    (folder / KNOWN).parent.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / KNOWN, known)


def _even(true: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in which every class is as frequent as the largest, its own in turn."""
    classes = [np.flatnonzero(true == number) for number in np.unique(true)]
    most = max(len(rows) for rows in classes)
    return np.concatenate([np.resize(rows, most) for rows in classes])


def _predicted(unseen: pd.DataFrame, labels: Sequence[str]) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """The true classes (n,), the probabilities and their logarithms (n, labels)."""
    probabilities = unseen[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)
    true = np.array([labels.index(label) for label in unseen["label"]])
    return true, probabilities, np.log(np.maximum(probabilities, 1e-300))


def unseen_worth(unseen: pd.DataFrame, labels: Sequence[str], real_index: int) -> UnseenWorth | None:
    """What verdicts on unseen sources are worth: each fold's, by calibration on the others without the sources of both.

    A fold for which the others lack images of some label, as where all share one camera, is left out; None where no
    fold can be judged.

    Args:
        unseen: see :func:`read_unseen`.
        labels, real_index: in class order.
    """
    true, _, logits = _predicted(unseen, labels)
    fake, scores, called = true != real_index, np.empty_like(logits), np.full(len(true), "", dtype=object)
    for name in unseen["fold"].unique():
        mine = (unseen["fold"] == name).to_numpy()
        others = np.flatnonzero(~mine & ~unseen["source"].isin(set(unseen["source"][mine])).to_numpy())
        if len(np.unique(true[others])) < len(labels):
            continue
        others_even = others[_even(true[others])]
        calibration = fit(logits[others_even], true[others_even])
        p, scores[mine] = apply(logits[others], calibration), apply(logits[mine], calibration)
        band = uncertain_band(fake_probability(p, real_index), fake[others])
        called[mine] = verdicts(fake_probability(scores[mine], real_index), band)
    judged = np.flatnonzero(called != "")
    if not len(judged):
        return None
    decided = called[judged] != "uncertain"
    wrong = decided & ((called[judged] == "fake") != fake[judged])
    # A camera that is left out with several generators in turn has its images judged as often: each counts once.
    image = unseen["path"].iloc[judged] if "path" in unseen else pd.Series(judged)
    weight = 1 / image.map(image.value_counts()).to_numpy(dtype=np.float64)
    even = judged[_even(true[judged])]
    figures = {
        key: all_figures(true[even], table[even], labels=labels, real_index=real_index)["ece"]
        for key, table in (("ece_before", np.exp(logits)), ("ece", scores))
    }
    return UnseenWorth(
        n=image.nunique(),
        folds=int(unseen["fold"].iloc[judged].nunique()),
        **figures,
        coverage=float(np.average(decided, weights=weight)),
        wrong=float(np.average(wrong[decided], weights=weight[decided])) if decided.any() else None,
        hardest=_hardest(unseen.iloc[judged], wrong, weight),
    )


def _hardest(unseen: pd.DataFrame, wrong: NDArray[np.bool_], weight: FloatArray) -> HardestSource | None:
    """The source with the largest share of wrong verdicts among those with enough images to be named."""
    shares = unseen[["source", "label"]].assign(n=weight, wrong=wrong)
    rows = shares.groupby(["source", "label"], as_index=False).agg({"n": "sum", "wrong": "mean"})
    rows = rows[rows["n"].round() >= WORST_MIN_IMAGES]
    if rows.empty:
        return None
    worst = rows.nlargest(1, "wrong").iloc[0]
    return HardestSource(str(worst["source"]), str(worst["label"]), round(worst["n"]), float(worst["wrong"]))
