"""Calibration by unseen sources: it undoes what known sources made too sure, and says what it is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special
from tiny import learn, tiny_data
from torch import nn

from bonaface.errors import UsageError
from bonaface.inference.calibration import apply
from bonaface.inference.rows import outputs_of
from bonaface.inference.unfamiliar import FILE, Unfamiliar
from bonaface.models.facts import Calibration, ModelFacts
from bonaface.models.load import load_model
from bonaface.report.findings import worth_in_words
from bonaface.stats.figures import percent
from bonaface.stats.metrics import all_figures
from bonaface.training.calibrate import calibrate_run, read_unseen, recalibrate, unseen_worth

LABELS = ["fake", "real"]


def headless() -> nn.Module:
    """A network whose head cannot carry a calibration."""
    model = nn.Linear(3, 2, bias=False)
    model.config = SimpleNamespace(num_labels=2)
    return model


def overconfident(folds: int = 4, n: int = 400, slope: float = 4.0, shift: float = 1.5) -> pd.DataFrame:
    """Predictions whose logits are ``slope`` times too steep and shifted to fake; a fold, a generator and a camera."""
    rng = np.random.default_rng(0)
    tables = []
    for number in range(folds):
        gap = rng.normal(0, 1.5, n)  # true log-odds of fake
        fake = rng.random(n) < special.expit(gap)
        p_fake = special.expit(slope * gap + shift)
        tables.append(
            pd.DataFrame(
                {
                    "fold": f"fold{number}",
                    "source": np.where(fake, f"generator{number}", f"camera{number}"),
                    "label": np.where(fake, "fake", "real"),
                    "p_fake": p_fake,
                    "p_real": 1 - p_fake,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def test_what_other_sources_teach_is_in_the_weights() -> None:
    """The scores are those of the old calibration and the new one, one after the other; facts and weights agree."""
    torch.manual_seed(0)
    model, _ = load_model("resnet", LABELS, image_size=32)
    model.eval()
    pixels = torch.randn(8, 3, 32, 32)
    with torch.inference_mode():
        raw = model(pixel_values=pixels).logits.double().numpy()
    before = Calibration(1.0, (0.0, 0.0), folded=True, n=10)
    facts = recalibrate(model, ModelFacts(calibration=before), overconfident(), LABELS, 1)[0]
    stored = facts.calibration
    assert stored.folded
    assert stored.temperature == pytest.approx(4, rel=0.15)
    assert stored.n == 1600
    with torch.inference_mode():
        scores = model(pixel_values=pixels).logits.double().softmax(-1).numpy()
    assert scores == pytest.approx(apply(raw, replace(stored, folded=False)), abs=1e-6)
    assert stored.ece_after < 0.05 < 0.15 < stored.ece_before


def test_two_calibrations_are_one() -> None:
    """Where the head cannot carry them, the stored facts alone give the scores of both."""
    unseen, logits = overconfident(), np.random.default_rng(1).normal(size=(20, 2))
    first, none = Calibration(2.0, (0.3, -0.3), folded=False), Calibration(1.0, (0.0, 0.0), folded=False)
    second, both = (
        recalibrate(headless(), ModelFacts(calibration=before), unseen, LABELS, 1)[0].calibration
        for before in (none, first)
    )
    assert not both.folded
    halfway = np.log(apply(logits, first))
    assert apply(logits, both) == pytest.approx(apply(halfway, second), abs=1e-12)


def test_its_worth_is_told_by_folds_that_had_no_part() -> None:
    unseen = overconfident()
    facts = recalibrate(headless(), ModelFacts(), unseen, LABELS, 1)[0]
    worth = facts.unseen
    assert worth.n == len(unseen)
    assert worth.folds == 4
    true = (unseen["label"] == "real").astype(int).to_numpy()
    raw = all_figures(true, unseen[["p_fake", "p_real"]].to_numpy(), labels=LABELS, real_index=1)
    assert worth.ece_before == pytest.approx(raw["ece"], abs=0.01)  # the kinds are nearly even here
    assert worth.ece < 0.06
    assert worth.coverage == pytest.approx(0.35, abs=0.15)
    assert 0 < worth.wrong < 0.15
    assert "4 folds" in facts.judged_on
    words = worth_in_words(facts.unseen)
    assert f"{percent(worth.coverage)} of the images" in words
    assert f"of which {percent(worth.wrong)} were wrong" in words
    assert "no verdict at all" in worth_in_words(replace(worth, wrong=None))
    assert worth_in_words(None) == ""


def test_an_image_that_several_folds_test_counts_once() -> None:
    unseen = overconfident()
    unseen["path"] = [f"{row}.jpg" for row in range(len(unseen))]
    once = unseen_worth(unseen, LABELS, 1)
    twice = unseen_worth(pd.concat([unseen, unseen], ignore_index=True), LABELS, 1)
    assert (once.n, twice.n) == (len(unseen), len(unseen))
    assert twice.coverage == pytest.approx(once.coverage, abs=0.1)  # the same images, but the band is surer of itself
    assert twice.hardest.n == once.hardest.n


def test_scores_suppose_that_half_are_fake_whatever_the_folds_hold() -> None:
    """Four fifths of the fakes taken away move no score by much: their share is no fact about a stranger's image."""
    unseen, logits = overconfident(n=2000), np.linspace(-8, 8, 9)[:, None] * np.array([0.5, -0.5])
    kept = (unseen["label"] == "real") | (np.arange(len(unseen)) % 5 == 0)
    scores = []
    for rows in (unseen, unseen[kept]):
        facts = recalibrate(headless(), ModelFacts(), rows, LABELS, 1)[0]
        assert facts.calibration.share_fake == 0.5
        assert facts.calibration.n == len(rows)
        scores.append(apply(logits, replace(facts.calibration, folded=False)))
    assert scores[0] == pytest.approx(scores[1], abs=0.04)


def test_a_fold_that_is_the_other_way_round_is_not_hidden() -> None:
    """One camera that looks like fakes: the figures must show it, although a fit on all folds could absorb it."""
    unseen = overconfident()
    odd = unseen["fold"] == "fold0"
    unseen.loc[odd, ["p_fake", "p_real"]] = unseen.loc[odd, ["p_real", "p_fake"]].to_numpy()
    worth = recalibrate(headless(), ModelFacts(), unseen, LABELS, 1)[0].unseen
    assert worth.wrong > 0.2
    hardest = worth.hardest
    assert hardest.source in {"camera0", "generator0"}
    assert hardest.n == (unseen["source"] == hardest.source).sum()
    where = f"on {hardest.source} ({hardest.label}), where {percent(hardest.wrong)}"
    assert where in worth_in_words(worth)


def test_folds_that_the_others_cannot_judge_are_left_out() -> None:
    """One camera is in two folds: neither has photographs of other cameras beside it, the third has."""
    unseen = overconfident(folds=3)
    unseen["source"] = unseen["source"].replace({"camera1": "camera2"})
    rows = unseen[unseen["fold"] != "fold0"]
    facts = recalibrate(headless(), ModelFacts(), unseen, LABELS, 1)[0]
    assert facts.unseen.folds == 3
    facts = recalibrate(headless(), ModelFacts(), rows, LABELS, 1)[0]
    assert facts.unseen is None
    assert worth_in_words(facts.unseen) == ""
    some = pd.concat([rows, unseen[(unseen["fold"] == "fold0") & (unseen["label"] == "fake")]], ignore_index=True)
    worth = recalibrate(headless(), ModelFacts(), some, LABELS, 1)[0].unseen
    assert (worth.folds, worth.n) == (1, (some["fold"] == "fold0").sum())


def test_other_tables_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "predictions.parquet"
    with pytest.raises(UsageError, match="cannot read"):
        read_unseen(file, LABELS)
    unseen = overconfident()
    unseen.to_parquet(file)
    assert len(read_unseen(file, LABELS)) == len(unseen)
    with pytest.raises(UsageError, match="no column p_photo"):
        read_unseen(file, ["fake", "photo"])
    unseen[unseen["label"] == "real"].to_parquet(tmp_path / "reals.parquet")
    with pytest.raises(UsageError, match="no image labelled fake"):
        read_unseen(tmp_path / "reals.parquet", LABELS)
    (tmp_path / "crossval.json").write_text(json.dumps({"kind": "folds"}))
    with pytest.raises(UsageError, match="trained on every source"):
        read_unseen(file, LABELS)
    (tmp_path / "crossval.json").write_text("[]")
    with pytest.raises(UsageError, match="damaged"):
        read_unseen(file, LABELS)
    (tmp_path / "crossval.json").unlink()
    for nonsense in (np.nan, 3.0, -1.0):
        unseen.assign(p_fake=[nonsense, *unseen["p_fake"][1:]]).to_parquet(file)
        with pytest.raises(UsageError, match="not probabilities"):
            read_unseen(file, LABELS)
    unseen.assign(fold="one").to_parquet(file)
    with pytest.raises(UsageError, match="one fold"):
        read_unseen(file, LABELS)
    unseen.assign(label="cat").to_parquet(file)
    with pytest.raises(UsageError, match="other labels"):
        read_unseen(file, LABELS)
    file.write_text("no table")
    with pytest.raises(UsageError, match="cannot read"):
        read_unseen(file, LABELS)


def test_a_run_is_calibrated_on_one_half_and_judged_on_the_other(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data")
    torch.manual_seed(0)
    model, processor = load_model("resnet", data.labels, image_size=32)
    learn(model, processor, data, sharpness=40.0)
    folder = tmp_path / "run"
    facts = calibrate_run(model, data, ModelFacts(data.real_label), outputs_of(model, processor), folder=folder)
    stored, selects, certifies = facts.calibration, data.splits["validation"], data.splits["calibration"]
    assert stored.n == len(selects) == 32
    assert facts.band.n_real + facts.band.n_fake == len(certifies) == 32
    assert not set(selects["path"]) & set(certifies["path"])
    assert stored.folded
    assert stored.temperature > 1  # it was made too sure
    assert stored.nll_after <= stored.nll_before
    assert [row.fpr for row in facts.thresholds] == [0.005, 0.01, 0.05]
    assert not facts.band.certified  # 16 images of each kind promise nothing
    assert "59 are needed" in facts.band.note
    known = Unfamiliar.load(folder, facts.unfamiliar)
    assert known is not None
    assert known.threshold == facts.unfamiliar.threshold
    assert facts.unfamiliar.sources == ("a", "b", "x", "y")
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_without_a_calibration_split_nothing_is_promised(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", 12)
    data = data.with_splits({name: rows for name, rows in data.splits.items() if name != "calibration"})
    model, processor = load_model("resnet", data.labels, image_size=32)
    with pytest.raises(ValueError, match="hold_out_calibration"):
        calibrate_run(model, data, ModelFacts(), outputs_of(model, processor))
