"""Clips on the command line: a row for each person among those of images, resumed alike, and a page to look at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from clips import clip_detector, clip_model, portrait, scene, write_video
from PIL import Image

from bonaface.imaging.inputs import find_inputs
from bonaface.inference.detector import Detector
from bonaface.inference.scoring import run_predict_command, score_files
from bonaface.inference.tables import CLIP_COLUMNS
from bonaface.report.clip_plots import clock
from bonaface.video.frames import Sampling
from bonaface.video.kinds import is_input_name
from bonaface.video.rows import ClipScorer, timeline_name

HOSTILE = "<img src=x onerror=alert(1)>.mp4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and, among them, a clip of two persons, an animation, and one that is no clip."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, seed in (("a.png", 0), ("d.jpg", 5)):
        portrait(seed).save(folder / name)
    frames = [scene((0, 5 + i, 60), (5, 390 - i, 80), side=240) for i in range(12)]
    write_video(folder / "b.mp4", frames)
    still = [portrait(0, 96).point(lambda level, i=i: level + i) for i in range(4)]
    still[0].save(folder / "c.gif", save_all=True, append_images=still[1:], duration=250)
    (folder / "e.mov").write_bytes(b"this is not a video, but it is named like one")
    return folder


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_folder_of_images_and_clips_is_one_table(
    model: Path, folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"scores.{suffix}"
    scorer = ClipScorer(Sampling(), tmp_path / "timelines")
    assert run_predict_command([str(folder)], str(model), str(out), clips=scorer) == 0
    table = read(out)
    assert [Path(p).name for p in table["path"]] == ["a.png", "b.mp4", "b.mp4", "c.gif", "d.jpg", "e.mov"]
    assert tuple(table.columns[-5:]) == CLIP_COLUMNS
    assert table["person"].fillna(0).tolist() == [0, 1, 2, 1, 0, 0]
    clips = table[table["person"].notna()]
    assert (clips["frames"] > 0).all()
    assert (clips["start"] <= clips["end"]).all()
    assert clips["end"].max() < 1
    assert clips["outside_band"].between(0, 1).all()
    assert table["n_faces"].tolist()[1:3] == [1, 1]
    seen = table["faces"][1] if suffix == "jsonl" else json.loads(table["faces"][1])
    assert len(seen) == table["frames"][1]
    assert set(seen[0]) == {"time", "box", "p_fake", "verdict"}
    assert table["verdict"][5] == "error"
    assert "not a video" in table["error"][5]
    assert len(list((tmp_path / "timelines").iterdir())) == 2
    assert "5 files:" in (said := capsys.readouterr().out)
    assert "3 persons in clips" in said


def test_images_alone_have_the_table_they_had(model: Path, folder: Path, tmp_path: Path) -> None:
    run_predict_command([str(folder / "a.png")], str(model), str(tmp_path / "s.csv"), clips=ClipScorer(Sampling()))
    assert not set(CLIP_COLUMNS) & set(read(tmp_path / "s.csv").columns)


def test_a_run_that_was_killed_resumes_behind_a_clip(model: Path, folder: Path, tmp_path: Path) -> None:
    """With the same bytes in the end, though batches are cut across clips."""
    detector = clip_detector(model)
    paths = list(find_inputs([folder], wanted=is_input_name))
    judged: list[str] = []

    class Counting(ClipScorer):
        def rows(self, path: str, detector: Detector, faces: bool | None) -> list[dict[str, Any]]:
            judged.append(Path(path).name)
            return super().rows(path, detector, faces)

    def killed(_: Detector, path: str, __: object) -> None:
        if path.endswith("d.jpg"):
            raise KeyboardInterrupt

    options: dict[str, Any] = {"batch_size": 2, "clips": Counting(Sampling())}
    score_files(paths, detector, tmp_path / "whole.csv", **options)
    with pytest.raises(KeyboardInterrupt):
        score_files(paths, detector, tmp_path / "s.csv", each=killed, **options)
    judged.clear()
    summary = score_files(paths, detector, tmp_path / "s.csv", **options)
    assert summary.continued_from == 2
    assert judged == ["c.gif", "e.mov"]
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_the_terminal_shows_each_person(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_predict_command([str(folder / "b.mp4")], str(model), clips=ClipScorer(Sampling(fps=5))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"person 1, 0\.0 to 0\.4 s, 3 frames, \d+% with a verdict", lines[1])
    assert "person 2" in lines[2]
    assert lines[3].startswith("1 file:")


def test_a_timeline_is_one_page_that_loads_and_runs_nothing(model: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [scene((0, 5, 60), (5, 390, 80), side=240)] * 5)
    hostile = path.rename(tmp_path / HOSTILE)
    rows = ClipScorer(Sampling(), tmp_path / "pages").rows(str(hostile), clip_detector(model), None)
    (page,) = (tmp_path / "pages").iterdir()
    assert page.name == timeline_name(str(hostile))
    assert re.fullmatch(r"[\w.-]+\.html", page.name)
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "Person 2" in text
    assert 'class="wide"' in text
    assert "face swap" in text
    assert f"{max(row['p_fake'] for row in rows):.2f}" in text
    assert text.count("data:image/jpeg") >= 4  # telling frames


def test_an_image_in_the_journal_of_another_sampling_is_not_mixed_in(folder: Path) -> None:
    assert ClipScorer(Sampling(fps=1)).options != ClipScorer(Sampling()).options
    assert Image.open(folder / "c.gif").is_animated


def test_times_are_written_as_people_say_them() -> None:
    assert [clock(s) for s in (0, 4.51, 59.6, 75, 3723)] == ["0 s", "4.5 s", "1:00", "1:15", "1:02:03"]
