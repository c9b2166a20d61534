"""The parts of the web app by themselves: batches, what a score meant, uploads, words. No server here."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bonaface.errors import UsageError
from bonaface.models.drawings import FAKE, REAL
from bonaface.models.facts import ModelFacts, UnfamiliarFacts, UnseenWorth
from bonaface.models.shipped import shipped_model
from bonaface.stats.certificates import uncertain_band, verdicts
from bonaface.training.calibrate import write_known
from bonaface.web.batcher import Batcher, Busy
from bonaface.web.choice import default_model
from bonaface.web.examples import example_images
from bonaface.web.exports import file_name
from bonaface.web.limits import Limits
from bonaface.web.markup import render, score
from bonaface.web.meaning import FEWEST, KnownScores, in_short, remarks, wrong_in_short
from bonaface.web.page import build_page
from bonaface.web.schema import Answer, HeatMapAnswer, Prediction
from bonaface.web.service import Service
from bonaface.web.uploads import ImageFileInput, Upload

LIMITS = Limits(files=5, unpacked_bytes=2_000_000)
WORTH = UnseenWorth(n=1000, folds=4, ece_before=0.2, ece=0.1, coverage=0.5, wrong=0.257, hardest=None)


def unfamiliar(sources: list[str]) -> dict[str, Any]:
    """What a configuration holds of a model that was trained on these sources, without naming them elsewhere."""
    return ModelFacts(unfamiliar=UnfamiliarFacts(10, 0.4, 0.99, 50, sources=tuple(sources))).to_block()


# --- batches ------------------------------------------------------------------------------------------------------


def test_what_waits_is_run_together_and_everyone_gets_their_own() -> None:
    sizes, gate = [], threading.Event()

    def run(items: list[int]) -> list[int]:
        sizes.append(len(items))
        gate.wait(10)
        return [item * 10 for item in items]

    batcher = Batcher(run, largest=8, waiting=32)
    answers: dict[int, int] = {}
    threads = [threading.Thread(target=lambda i=i: answers.update({i: batcher(i)})) for i in range(17)]
    threads[0].start()
    while not sizes:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    while batcher._queue.qsize() < 16:
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert answers == {i: 10 * i for i in range(17)}
    assert sizes == [1, 8, 8]


def test_an_item_that_fails_fails_alone_and_too_many_are_told_busy() -> None:
    gate = threading.Event()

    def run(items: list[int]) -> list[int]:
        gate.wait(10)
        if 3 in items:
            raise ValueError("three")
        return items

    batcher = Batcher(run, largest=8, waiting=4)
    outcomes: dict[int, object] = {}

    def ask(i: int) -> None:
        try:
            outcomes[i] = batcher(i)
        except (ValueError, Busy) as error:
            outcomes[i] = type(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
    threads[0].start()
    while batcher._queue.qsize():
        time.sleep(0.001)
    time.sleep(0.05)  # the first is being run
    for thread in threads[1:]:
        thread.start()
    while batcher._queue.qsize() < 4:
        time.sleep(0.001)
    ask(9)
    assert outcomes == {9: Busy}
    gate.set()
    for thread in threads:
        thread.join(10)
    assert outcomes == {0: 0, 1: 1, 2: 2, 3: ValueError, 4: 4, 9: Busy}


# --- what a score meant -------------------------------------------------------------------------------------------


def known(n: int = 400, share: float = 0.25) -> KnownScores:
    rng = np.random.default_rng(0)
    fake = np.arange(n) < n * share
    return KnownScores("calibration", np.where(fake, rng.beta(5, 2, n), rng.beta(2, 5, n)), fake)


def test_meaning_counts_the_nearest_known_scores() -> None:
    scores = known()
    found = scores.meaning(0.7)
    nearest = np.argsort(np.abs(scores.p_fake - 0.7))[:50]
    assert (found.n, found.n_fake) == (50, int(scores.is_fake[nearest].sum()))
    assert found.nearest == scores.p_fake[nearest].min()
    assert found.farthest == scores.p_fake[nearest].max()
    assert found.base_rate == 0.25
    assert found.low < found.share < found.high
    assert scores.meaning(0.95).share > found.share > scores.meaning(0.1).share
    assert known(100).meaning(0.7).n == 20  # fewer images, fewer neighbours: they shall still be alike


def test_the_same_score_means_less_where_fakes_are_rare_and_few_images_never_make_it_sure() -> None:
    """Bayes' rule by counting: 1000 images of which 100 are fake, with the rates that the interval's ends imply."""
    found = known().meaning(0.6)
    for share, rare in ((found.low, found.rare_low), (found.high, found.rare_high)):
        among_fakes, among_reals = share / 0.25, (1 - share) / 0.75  # up to one common factor
        assert rare == pytest.approx(100 * among_fakes / (100 * among_fakes + 900 * among_reals))
        assert rare < share
    scores = KnownScores("calibration", np.linspace(0, 1, 100), np.linspace(0, 1, 100) > 0.5)
    sure = scores.meaning(0.9)
    assert sure.share == 1
    assert sure.rare_low < 0.5


def test_known_scores_come_from_the_split_that_chose_nothing(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    rows = [
        (split, label, 0.5) for split in ("test", "calibration") for label in ("real", "fake") for _ in range(FEWEST)
    ]
    table = pd.DataFrame(rows, columns=["split", "label", "p_fake"])
    file = tmp_path / "report" / "predictions.parquet"
    table.to_parquet(file)
    assert KnownScores.of_run(tmp_path, "real").split == "calibration"  # type: ignore[union-attr]
    table[table["split"] == "test"].to_parquet(file)
    assert KnownScores.of_run(tmp_path, "real").split == "test"  # type: ignore[union-attr]
    table.head(FEWEST).to_parquet(file)  # reals alone
    assert KnownScores.of_run(tmp_path, "real") is None


def test_images_of_sources_left_out_speak_before_those_of_known_ones(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    of_known = pd.DataFrame({"split": "test", "label": ["real", "fake"] * FEWEST, "p_fake": 0.5})
    of_known.to_parquet(tmp_path / "report" / "predictions.parquet")
    left_out = pd.DataFrame({"fold": "a", "source": "s", "label": ["real", "real", "fake"] * FEWEST, "p_fake": 0.7})
    write_known(tmp_path, left_out)
    found = KnownScores.of_run(tmp_path, "real")
    assert found is not None
    assert (found.split, len(found.p_fake), found.is_fake.mean()) == ("unseen", 3 * FEWEST, pytest.approx(1 / 3))
    lines = remarks(found.meaning(0.7), True, unseen=WORTH)
    assert "images from unseen cameras and generators that scored like this (0.70)," in lines[0]
    assert lines[-1] == "Of all its verdicts on such images, 26\N{NO-BREAK SPACE}% were wrong."
    write_known(tmp_path, left_out.head(1))  # too few
    assert KnownScores.of_run(tmp_path, "real").split == "test"  # type: ignore[union-attr]


def test_remarks_name_counts_interval_and_base_rate_or_say_what_is_missing() -> None:
    lines = remarks(known().meaning(0.7), True)
    assert lines[0].startswith("Of the 50 calibration images that scored like this")
    assert "95 % interval" in lines[0]
    assert "compared with 25\N{NO-BREAK SPACE}% overall" in lines[0]
    assert "not the probability" in remarks(None, False)[0]
    honest = remarks(known().meaning(0.7), True, unseen=WORTH)[-1]
    assert "On images from others, 26\N{NO-BREAK SPACE}% of its verdicts were wrong." in honest
    assert "from others" not in " ".join(remarks(known().meaning(0.7), True, unseen=replace(WORTH, wrong=None)))
    assert "This image is not like them." in remarks(known().meaning(0.7), True, ["unlike the training data"])[-1]


@pytest.mark.parametrize(
    ("n_fake", "said"),
    [
        (0, "None of the 50 images that scored like this were generated."),
        (50, "All of the 50 images that scored like this were generated."),
        (6, "Images that scored like this were generated about 1 time in 8."),
        (19, "Images that scored like this were generated about 4 times in 10."),
        (48, "Images that scored like this were generated about 24 times in 25."),
    ],
)
def test_somebody_in_a_hurry_gets_one_sentence_without_per_cent(n_fake: int, said: str) -> None:
    meaning = replace(known().meaning(0.7), split="unseen", n=50, n_fake=n_fake)
    assert in_short(meaning) == said
    assert in_short(replace(meaning, split="test")).lower().count("images from known sources that scored") == 1


@given(wrong=st.integers(1, 999))
def test_no_share_is_rounded_by_more_than_a_sixth(wrong: int) -> None:
    """Of the smaller of the two shares: 1 in 8 never stands for 1 in 6."""
    part, of = map(int, re.findall(r"\d+", wrong_in_short(wrong, 1000)))
    rarer, said = min(wrong, 1000 - wrong) / 1000, min(part, of - part) / of
    assert said == pytest.approx(rarer, rel=1 / 6)


def test_how_often_a_verdict_is_wrong_is_counted_with_bands_that_its_fold_did_not_set(tmp_path: Path) -> None:
    """A fold whose reals all score high is wrong about them all, by the others' band; its own would hide it."""
    (tmp_path / "report").mkdir()
    rng = np.random.default_rng(0)
    rows = [
        (f"fold{fold}", f"{label}{fold}", label, score)
        for fold in range(4)
        for label in ("real", "fake")
        for score in rng.uniform(0.8, 1, 300) - (0.8 if label == "real" and fold else 0)
    ]
    write_known(tmp_path, pd.DataFrame(rows, columns=["fold", "source", "label", "p_fake"]))
    table = pd.DataFrame(rows, columns=["fold", "source", "label", "p_fake"])
    own = uncertain_band(table["p_fake"], (table["label"] == "fake").to_numpy())
    scores = KnownScores.of_run(tmp_path, "real", own)
    assert scores is not None
    assert scores.wrong("fake")[0] == pytest.approx(300, abs=15)  # type: ignore[index]
    assert replace(scores, called=verdicts(scores.p_fake, own)).wrong("fake")[0] < 60  # type: ignore[index]
    assert scores.wrong("uncertain") is None
    assert KnownScores.of_run(tmp_path, "real").wrong("fake") is None  # type: ignore[union-attr]


# --- what comes in ------------------------------------------------------------------------------------------------


def test_a_file_that_was_not_uploaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (tmp_path / "other.png").write_bytes(b"secret")
    (uploads / "mine.png").write_bytes(b"mine")
    (uploads / "link.png").symlink_to(tmp_path / "other.png")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    component = ImageFileInput()
    kind = component.data_model
    for path in (tmp_path / "other.png", uploads / "link.png", uploads / ".." / "other.png"):
        with pytest.raises(gr.Error, match="not uploaded"):
            component.preprocess(kind(path=str(path)))
    assert component.preprocess(kind(path=str(uploads / "mine.png"), orig_name="<b>.png")).name == "<b>.png"
    assert component.preprocess(kind(path=str(uploads / "mine.png"))).read() == b"mine"


def test_inline_bytes_are_taken_as_they_are() -> None:
    component = ImageFileInput()
    text = "data:image/png;base64," + base64.b64encode(b"bytes").decode()
    assert component.preprocess(component.data_model(url=text)).read() == b"bytes"
    for damaged in ("data:image/png;base64,%%%", "data:image/png,plain", "nothing"):
        with pytest.raises(gr.Error):
            component.preprocess(component.data_model(url=damaged))


# --- words and files ----------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\u202e${1}{{2}}"


def test_strangers_text_is_escaped_in_every_template() -> None:
    row = {"path": HOSTILE, "verdict": "error", "p_fake": None, "faces": [], "error": HOSTILE, "warnings": HOSTILE}
    item = {
        "index": 0,
        "name": HOSTILE,
        "verdict": "error",
        "status": HOSTILE,
        "p_fake": None,
        "marked": HOSTILE,
        "image": None,
    }
    said = type("Said", (), {"says": "camera", "source": HOSTILE, "text": HOSTILE, "verified": False})
    pages = [
        render("table", rows=[row]),
        render("gallery", items=[item], chosen=None, nothing=""),
        render("detail", row=row),
        render("notice", kind="error", title=HOSTILE, lines=[HOSTILE], command=""),
        render("provenance", said=[said], kinds={"camera": "Camera"}, note="", credentials="", empty=False),
        render("progress", text=HOSTILE, done=0, total=1),
    ]
    for page in pages:
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page
        assert "\u202e" not in page


@given(st.text())
def test_any_text_becomes_a_plain_file_name(text: str) -> None:
    name = file_name(text)
    assert 0 < len(name) <= 80
    assert name == Path(name).name
    assert not name.startswith(".")
    assert name.isascii()


def test_scores_never_pretend_to_be_certain() -> None:
    assert [score(x) for x in (0.5, 0.99994, 0.0001)] == ["0.50", "0.9999", "0.0001"]


def test_the_schemas_of_the_api_stand_alone() -> None:
    """Clients read them without definitions elsewhere; the fields are those of the answers."""
    schema = Answer(HeatMapAnswer).api_info()
    assert "$ref" not in json.dumps(schema)
    assert set(schema["properties"]["prediction"]["properties"]) == set(Prediction.model_fields)
    many = Answer(Prediction, many=True).api_info()
    assert many["type"] == "array"
    assert many["items"]["properties"]["p_fake"]["description"]


# --- heat maps ----------------------------------------------------------------------------------------------------


def test_a_heat_map_is_computed_once_and_then_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the page, which shows it before it knows how far to trust it, and through the API."""
    from served import noise, run_folder

    from bonaface.inference import explain

    computed: list[str] = []
    method = "integrated_gradients"
    drawn = explain.METHODS[method]
    monkeypatch.setitem(explain.METHODS, method, lambda *a: computed.append("map") or drawn(*a))
    monkeypatch.setattr(explain, "measure", lambda *a, measure=explain.measure: computed.append("test") or measure(*a))
    service = Service([str(run_folder())], LIMITS)
    service.start()
    service.judge()
    page = build_page(service, tmp_path)
    listeners = {function.name: function.fn for function in page.fns.values()}
    buffer = io.BytesIO()
    Image.fromarray(noise(1, dark=True)).save(buffer, "PNG")
    upload = Upload("a.png", data=buffer.getvalue())
    (pair, soon), (_, later) = listeners["heat"](upload)
    assert computed == ["map", "test"]
    assert [image.size for image in pair] == [(36, 36)] * 2
    assert "Testing how far to trust the map …" in soon
    assert "Bright areas point to AI generation. <b>This map is " in later
    answer, overlay = listeners["explain"](upload)
    assert computed == ["map", "test"] * 2
    sentence = answer["trust"].partition(". ")[0]
    assert sentence in later
    assert np.array_equal(overlay, pair[1])


# --- which model --------------------------------------------------------------------------------------------------


def test_the_newest_finished_run_is_served_then_the_shipped_model_then_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_model(tmp_path) == shipped_model()
    monkeypatch.setattr("bonaface.resources.INSTALLED", tmp_path)  # an installation without a model
    assert default_model(tmp_path) is None
    for age, name in enumerate(("new", "old", "unfinished")):
        run = tmp_path / "runs" / name
        (run / "report").mkdir(parents=True)
        (run / "config.json").write_text("{}")
        if name != "unfinished":
            (run / "report" / "metrics.json").write_text("{}")
            os.utime(run / "report" / "metrics.json", (1000 - age, 1000 - age))
    assert default_model(tmp_path) == str(tmp_path / "runs" / "new")


@pytest.mark.parametrize("place", ["configuration", "older configuration", "report"])
def test_a_model_that_knows_drawings_only_is_no_default(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the newest run nor one in the shipped model's place, by whatever it says what it was trained on."""
    sources = {"configuration": {"train_sources": [*REAL, *FAKE]}}
    sources["report"] = sources["configuration"]
    sources["older configuration"] = unfamiliar([REAL[0], FAKE[1]])
    for folder in (tmp_path / "runs" / "sample", tmp_path / "models" / "bonaface-small"):
        (folder / "report").mkdir(parents=True)
        config = {} if place == "report" else {"bonaface": sources[place]}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "report" / "metrics.json").write_text(json.dumps({"facts": sources[place]}))
    monkeypatch.setattr("bonaface.models.shipped.resource", tmp_path.joinpath)
    assert default_model(tmp_path) is None
    assert shipped_model() is None
    mine = Path(shutil.copytree(tmp_path / "runs" / "sample", tmp_path / "runs" / "mine"))
    (mine / "config.json").write_text(json.dumps({"bonaface": {"train_sources": [*REAL, *FAKE, "ffhq"]}}))
    os.utime(mine / "report" / "metrics.json", (1000, 1000))  # older than the other
    assert default_model(tmp_path) == str(mine)


def test_examples_are_such_as_the_model_was_meant_for(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()

    def examples_of(sources: list[str]) -> list[str]:
        config = {"bonaface": unfamiliar(sources)}
        (model / "config.json").write_text(json.dumps(config))
        return example_images(str(model), tmp_path)

    drawn = examples_of([*REAL, *FAKE])
    assert [Path(path).parent for path in drawn] == [tmp_path] * 2
    photographs = examples_of(["ffhq", "sdxl"])
    assert [Path(path).name for path in photographs] == ["astronaut.png"]
    assert example_images(None, tmp_path) == photographs


@pytest.mark.parametrize(
    "arguments", [["--auth", "nobody"], ["--auth", ":x"], ["--model", "a", "b", "c"], ["--mcp", "--auth", "me:x"]]
)
def test_options_that_cannot_be_meant_are_refused(arguments: list[str]) -> None:
    from bonaface.web.app import check_options, parse_arguments

    with pytest.raises(UsageError):
        check_options(parse_arguments(arguments))


def test_a_password_may_hold_a_colon_and_nothing_is_shared_by_default() -> None:
    from bonaface.web.app import check_options, parse_arguments

    options = parse_arguments(["--auth", "me:a:b"])
    assert check_options(options) == ("me", "a:b")
    assert not options.share
    assert options.host is None  # then the environment's, else 127.0.0.1
