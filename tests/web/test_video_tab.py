"""The tab of clips by itself: it tells its progress, stops when told to, and keeps nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from clips import clip_model, scene, write_video

from bonaface.imaging.images import ImageError
from bonaface.web.jobs import Jobs
from bonaface.web.judge import Judge
from bonaface.web.limits import Limits
from bonaface.web.live import LAST, live_html
from bonaface.web.service import Situation
from bonaface.web.uploads import Upload
from bonaface.web.video import VideoTab

REQUEST: Any = SimpleNamespace(session_hash="visitor")


class ServiceOf:
    """A service whose judge does as it is told."""

    def __init__(self, clip: Any) -> None:
        self.limits, self.situation = Limits(), Situation("ready", "")
        self._clip = clip

    def judge(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(clip=self._clip)


def tab_of(clip: Any, jobs: Jobs) -> VideoTab:
    with gr.Blocks():
        return VideoTab(ServiceOf(clip), jobs)  # type: ignore[arg-type]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Limits(), tmp_path)


def test_stop_ends_a_check_after_the_frame_in_progress(jobs: Jobs, tmp_path: Path) -> None:
    seen: list[int] = []
    told = threading.Event()

    def clip(_: Path, progress: Any) -> None:
        for done in range(1, 1000):
            progress(done, 1000)
            seen.append(done)
            told.wait(60 if done == 3 else 0)

    tab = tab_of(clip, jobs)
    steps = tab.check([Upload("a.mp4", tmp_path / "a.mp4")], REQUEST)
    assert "Reading" in next(steps)[0]
    assert "3 of at most 1000 frames checked" in next(steps)[0]
    tab.halt(REQUEST)
    told.set()
    assert "Stopped" in list(steps)[-1][1]
    assert seen == [1, 2, 3]


def test_a_visitor_who_leaves_ends_it_too_and_leaves_no_file(jobs: Jobs, tmp_path: Path) -> None:
    def clip(_: Path, progress: Any) -> None:
        while True:
            progress(1, 9)

    tab = tab_of(clip, jobs)
    steps = tab.check([Upload("a.mp4", tmp_path / "a.mp4")], REQUEST)
    next(steps)
    next(steps)
    jobs.drop("visitor")
    assert "Stopped" in list(steps)[-1][1]
    assert not list(tmp_path.iterdir())


def test_why_a_clip_cannot_be_checked_is_said_without_a_path_of_ours(jobs: Jobs, tmp_path: Path) -> None:
    """By a real judge, whose limit of length is short."""
    model = clip_model(tmp_path / "model")
    judge = Judge(str(model), Limits(clip_seconds=1))
    long = write_video(tmp_path / "a.mp4", [scene(size=(160, 120))] * 40)
    broken = tmp_path / "b.mp4"
    broken.write_bytes(b"no video at all, just text")
    for path, said in ((long, "Lasts 0 minutes; the limit is 0"), (broken, "Not a video, contains text")):
        with pytest.raises(ImageError, match=said) as error:
            judge.clip(path, lambda *_: None)
        assert str(tmp_path) not in str(error.value)
        tab = tab_of(judge.clip, jobs)
        assert said in list(tab.check([Upload(path.name, path)], REQUEST))[-1][1]


def test_without_a_file_there_is_nothing_to_check(jobs: Jobs) -> None:
    tab = tab_of(None, jobs)
    assert "Choose a video first" in list(tab.check([], REQUEST))[-1][1]


def test_the_webcam_shows_the_middle_of_the_last_frames() -> None:
    from bonaface.inference.detector import Result
    from bonaface.video.persons import Sighting

    kept = [Sighting(float(i), None, p, {"fake": p}, "real") for i, p in enumerate([0.1, 0.2, 0.9])]
    text = live_html(kept, Result({}, 0.9, "fake", None, warnings=("<b>",)))
    assert "score 0.20" in text
    assert "latest scored 0.90" in text
    assert "<b>" not in text
    assert len(kept) < LAST
