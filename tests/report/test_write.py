"""The report's files: honest words, sound JSON, one page that loads and runs nothing, whatever the names are."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonaface.report import plots
from bonaface.report.pages import Plot, Section
from bonaface.report.write import SCHEMA_VERSION, write_report
from bonaface.stats import metrics
from bonaface.stats.predictions import predictions_frame

HOSTILE = "<img src=x onerror=alert(1)>"
HISTORY = [{"loss": 0.6, "epoch": 1.0, "step": 10}, {"eval_loss": 0.5, "eval_accuracy": 0.8, "epoch": 1.0, "step": 10}]
LABELS = ["fake", "real"]


def predictions(
    n: int = 240,
    splits: tuple[str, ...] = ("test",),
    shift: float = 2.0,
    seed: int = 0,
    labels: list[str] = LABELS,
    **columns: Any,
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % len(labels)
    logits = rng.normal(size=(n, len(labels))) + shift * np.eye(len(labels))[truth]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    columns = {
        "path": [f"{i}.jpg" for i in range(n)],
        "source": [f"{labels[t]}-{i // len(labels) % 2}" for i, t in enumerate(truth)],
        "split": [splits[i // (2 * len(labels)) % len(splits)] for i in range(n)],
    } | columns
    return predictions_frame(scores, truth, labels=labels, real_label="real", **columns)


def report(folder: Path, frame: pd.DataFrame, **options: Any) -> dict[str, Any]:
    return write_report(folder, frame, **({"labels": LABELS, "real_label": "real", "n_resamples": 50} | options))


class Seen(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_the_folder_holds_everything_and_nothing_else(tmp_path: Path) -> None:
    frame = predictions(splits=("train", "validation", "test"))
    result = report(tmp_path, frame, history=HISTORY, details={"title": "T", "recipe": {"learning_rate": 5e-5}})
    names = {path.name for path in (tmp_path / "report").iterdir()}
    plots = {"roc.png", "roc_log.png", "sources.png", "sources_auc.png", "reliability.png", "scores.png"}
    plots |= {"confusion.png", "loss.png", "accuracy.png"}
    assert names == {"metrics.json", "predictions.parquet", "report.html", "report.md"} | plots
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "report/predictions.parquet"), frame)

    def no_constant(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    stored = json.loads((tmp_path / "report/metrics.json").read_text(), parse_constant=no_constant)
    assert stored == result
    assert stored["schema_version"] == SCHEMA_VERSION
    assert stored["split"] == "test"
    assert list(stored["splits"]) == ["train", "validation", "test"]
    expected = metrics.table_metrics(frame[frame["split"] == "test"], LABELS, "real")
    for name, value in metrics.scalars(expected).items():
        assert stored["figures"][name]["value"] == value
    auc = stored["figures"]["auc"]
    assert auc["low"] < auc["value"] < auc["high"]
    assert stored["facts"] == {"title": "T", "recipe": {"learning_rate": 5e-5}}
    assert "5e-05" in (tmp_path / "report/report.html").read_text(encoding="utf-8")


def test_hostile_paths_labels_and_sources_stay_text(tmp_path: Path) -> None:
    labels = [f"fake{HOSTILE}", "real"]
    n = 60
    frame = predictions(
        n, labels=labels, shift=0.2, path=[f"{i}/{HOSTILE}\u202egpj.exe" for i in range(n)], source=f"s{HOSTILE}|$x^{{$"
    )
    section = Section(HOSTILE, HOSTILE, [HOSTILE], data={HOSTILE: HOSTILE}, brief=True)
    report(
        tmp_path,
        frame,
        labels=labels,
        history=HISTORY,
        sections=[section],
        details={
            "title": HOSTILE,
            "model": HOSTILE,
            HOSTILE: HOSTILE,
            "caveats": [HOSTILE],
            "broken": [{"path": HOSTILE, "reason": "truncated", "label": HOSTILE, "source": HOSTILE}],
            "audit": {"verdict": HOSTILE},
        },
        load_thumbnail=lambda path: Image.new("RGB", (50, 40)),
    )
    html = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    seen = Seen(html)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "script" not in seen.tags
    assert "\u202e" not in html
    assert "<img" not in (tmp_path / "report/report.md").read_text(encoding="utf-8")


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    report(tmp_path, predictions(), history=HISTORY, load_thumbnail=lambda path: Image.new("RGB", (50, 40)))
    html = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    seen = Seen(html)
    for name, value in seen.attributes:
        if name in ("src", "srcset", "href", "action", "data", "poster"):
            assert value.startswith("data:image/"), (name, value[:80])
    assert not re.search(r"https?:|@import|url\(", html)
    assert not {"script", "iframe", "link", "object", "embed", "base", "form"} & set(seen.tags)
    assert "default-src 'none'" in html
    assert seen.tags.count("img") == seen.tags.count("source") + html.count("data:image/jpeg")


def test_one_class_is_written_with_nulls_where_nothing_is_defined(tmp_path: Path) -> None:
    frame = predictions()
    reals = report(tmp_path, frame[frame["label"] == "real"])
    assert reals["figures"]["auc"] == {"value": None, "low": None, "high": None}
    assert reals["figures"]["fpr"]["value"] is not None


def test_no_image_at_all_is_still_a_report(tmp_path: Path) -> None:
    nothing = report(tmp_path, predictions()[:0])
    assert "No image was scored" in nothing["conclusion"]
    assert (tmp_path / "report/report.html").stat().st_size > 10_000


def test_many_labels_with_the_real_one_in_the_middle_and_the_words_in_every_file(tmp_path: Path) -> None:
    labels = ["edited", "real", "fake"]
    result = report(tmp_path, predictions(300, labels=labels), labels=labels, details={"caveats": ["Made by us."]})
    assert result["figures"]["n_real"] == 100
    assert np.array(result["figures"]["confusion_matrix"]).shape == (3, 3)
    assert result["figures"]["auc"]["value"] > 0.8
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert result["conclusion"][:40] in text
        assert "Made by us." in text


def test_added_sections_and_lead_blocks_reach_every_file(tmp_path: Path) -> None:
    extra = Plot(
        "robust", "AUC against strength", lambda theme: plots.line_chart({"a": ([1], [2])}, x="x", y="y", theme=theme)
    )
    section = Section("robustness", "Under degradation", ["JPEG 30: fine.", extra], data={"jpeg": math.nan}, brief=True)
    result = report(tmp_path, predictions(), sections=[section], lead=[extra])
    assert result["sections"] == {"robustness": {"jpeg": None}}
    assert (tmp_path / "report/robust.png").is_file()
    assert "JPEG 30: fine." in (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert (tmp_path / "report/report.html").read_text(encoding="utf-8").count("AUC against strength") >= 2
    with pytest.raises(ValueError, match="file name"):
        report(tmp_path, predictions(), lead=[Plot("../up", "", extra.draw)])


def test_the_gallery_shows_the_most_confident_mistakes_first(tmp_path: Path) -> None:
    frame = predictions(shift=0.5)
    asked: list[str] = []

    def load(path: str) -> Image.Image:
        asked.append(path)
        if path == asked[0]:
            raise OSError("gone")
        return Image.new("RGB", (30, 30), "red")

    report(tmp_path, frame, load_thumbnail=load)
    rows = frame.set_index("path").loc[asked]
    assert (rows["label"] != rows["prediction"]).all()
    for (label, _), part in rows.groupby(["label", "source"]):
        gaps = (part["p_fake"] - (label == "fake")).abs()
        assert gaps.is_monotonic_decreasing
        assert len(part) <= 5
    html = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert html.count("no image") == 1
