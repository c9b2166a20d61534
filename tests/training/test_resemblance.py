"""What a run tells of the generators that fakes resemble: beside the verdict, and only where it can."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TINTS, tinted, tinted_data, tiny_run

from bonaface.data.dataset import FaceData
from bonaface.evaluation.evaluate import evaluate
from bonaface.evaluation.options import EvaluationOptions
from bonaface.hub.card import Story, card_of
from bonaface.hub.pack import pack_model
from bonaface.inference.detector import Detector
from bonaface.inference.resembles import FILE
from bonaface.inference.scoring import run_predict_command
from bonaface.inference.tables import RESEMBLES, columns
from bonaface.models.facts import ModelFacts
from bonaface.web.evidence import Case, Origin, write_evidence
from bonaface.web.judge import Judge
from bonaface.web.limits import Limits
from bonaface.web.one import resembles_html

FOREIGN = (60, 60, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tinted_data(tmp_path_factory.mktemp("tinted"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: FaceData, plots_not_rendered: None) -> Path:
    run = tiny_run(tmp_path_factory.mktemp("runs") / "tinted", data)
    detector = Detector.from_pretrained(run)
    options = EvaluationOptions(robustness=False, n_resamples=20)
    evaluate(
        detector, data, run, options, details=detector.facts.to_dict() | {"train_sources": detector.facts.trained_on}
    )
    return run


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    return Detector.from_pretrained(folder)


def without(folder: Path, new: Path) -> Path:
    """The same model, as it was before models could tell."""
    shutil.copytree(folder, new, ignore=shutil.ignore_patterns(FILE))
    config = json.loads((new / "config.json").read_text())
    del config["bonaface"]["resembles"]
    (new / "config.json").write_text(json.dumps(config))
    return new


def test_a_run_learns_it_and_says_what_it_is_worth(folder: Path, detector: Detector) -> None:
    facts = detector.facts.resembles
    assert facts is not None
    assert facts.on
    assert set(facts.sources) == set(TINTS)
    assert facts.accuracy_low > facts.chance
    assert (folder / FILE).stat().st_size < 20_000  # of 84 training images, only means and directions


def test_fakes_of_known_sources_are_named_and_nothing_else_changes(
    folder: Path, detector: Detector, tmp_path: Path
) -> None:
    """A folder without the statistics, as all were before, gives the same scores and verdicts and says nothing."""
    images = [tinted(90_000 + i, tint) for i, tint in enumerate([*TINTS.values(), None] * 8)]
    found = detector(images)
    plain = Detector.from_pretrained(without(folder, tmp_path / "plain"))(images)
    kept = [(r.labels, r.p_fake, r.verdict, r.warnings, r.band) for r in found]
    assert kept == [(r.labels, r.p_fake, r.verdict, r.warnings, r.band) for r in plain]
    assert {r.resembles for r in plain} == {None}
    assert all((r.resembles is None) == (r.verdict != "fake") for r in found)
    told = [(r.resembles, name) for r, name in zip(found, [*TINTS, ""] * 8, strict=True) if r.verdict == "fake"]
    assert len(told) > 16
    assert np.mean([names[:1] == (name,) for names, name in told]) > 0.7


def test_an_unseen_source_is_like_none_of_them(detector: Detector) -> None:
    found = [r.resembles for r in detector([tinted(80_000 + i, FOREIGN) for i in range(24)]) if r.verdict == "fake"]
    assert len(found) > 6
    assert np.mean([names == () for names in found]) > 0.5


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_have_the_column_only_where_the_model_can_tell(
    folder: Path, detector: Detector, tmp_path: Path, suffix: str
) -> None:
    import pandas as pd

    for i, tint in enumerate([TINTS["stylegan"], None]):
        (tmp_path / "in").mkdir(exist_ok=True)
        tinted(70_000 + i, tint).save(tmp_path / "in" / f"{i}.png")
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda p: pd.read_json(p, lines=True)}[suffix]
    tables = []
    for model in (folder, without(folder, tmp_path / "plain")):
        run_predict_command([str(tmp_path / "in")], str(model), str(tmp_path / f"{model.name}{suffix}"))
        tables.append(read(tmp_path / f"{model.name}{suffix}"))
    told, plain = tables
    assert list(plain.columns) == columns(detector.labels)
    assert list(told.columns) == columns(detector.labels, [RESEMBLES])
    assert list(told["verdict"]) == ["fake", "real"]
    value = told["resembles"].tolist()
    assert value[0][0] == "stylegan" if suffix == ".jsonl" else value[0].startswith("stylegan")
    assert pd.isna(value[1])


def test_the_terminal_the_app_and_the_evidence_say_it_in_one_line(
    folder: Path, detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tinted(70_000, TINTS["stylegan"]).save(tmp_path / "x.png")
    run_predict_command([str(tmp_path / "x.png")], str(folder))
    assert "most like stylegan" in capsys.readouterr().out
    judge = Judge(str(folder), Limits())
    data = (tmp_path / "x.png").read_bytes()
    result = detector([data])[0]
    shown = resembles_html(judge, result)
    assert "Most like stylegan" in shown
    assert "no part of the verdict" in shown
    none = resembles_html(judge, replace(result, resembles=()))
    assert "Like none of the generators it knows. So are 0" in none
    assert judge.prediction("x", result).resembles[0] == "stylegan"
    page, _ = write_evidence(
        Case.of(detector, "x.png", data, result), judge.words, Origin.of(detector, folder, "m"), tmp_path
    )
    assert "Most like stylegan" in page.read_text()
    plain = Judge(str(without(folder, tmp_path / "plain")), Limits())
    assert resembles_html(plain, plain.detector([data])[0]) == ""


def test_the_report_and_the_card_say_how_often_it_is_right(folder: Path) -> None:
    metrics = json.loads((folder / "report" / "metrics.json").read_text())
    found = metrics["sections"]["resembles"]
    assert found["right"]["n"] == 4 * 21
    assert found["right"]["low"] > 0.4
    assert found["none_known"]["share"] < 0.5
    assert found["none_unseen"] == {"n": 0, "share": None, "low": 0.0, "high": 1.0}
    text = (folder / "report" / "report.md").read_text()
    assert "Of 84 from the 4 known generators, the nearest was right for" in text
    card = card_of(folder, Story())
    assert "it names the generators of its training data that they are most like" in card


def test_it_is_packed_with_the_model(folder: Path, detector: Detector, tmp_path: Path) -> None:
    packed = pack_model(folder, tmp_path / "packed")
    again = Detector.from_pretrained(packed)
    image = tinted(70_000, TINTS["stylegan"])
    assert again.resembles is not None
    assert again([image])[0].resembles == detector([image])[0].resembles
    assert ModelFacts.of_config(again.config).resembles == detector.facts.resembles
