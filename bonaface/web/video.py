"""The tab that checks a clip, and the webcam live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from bonaface.imaging.images import ImageError
from bonaface.web.jobs import Job, Jobs
from bonaface.web.live import build_live
from bonaface.web.markup import image_uri, render
from bonaface.web.one import notice, verdict_html
from bonaface.web.panels import PRIVATE, panel
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import FilesInput, Upload

if TYPE_CHECKING:
    from bonaface.inference.detector import Result
    from bonaface.video.judge import ClipResult
    from bonaface.video.persons import Person
    from bonaface.web.judge import Judge

AT_ONCE = 2  # clips that are checked at a time; others wait
SECONDS_BETWEEN_UPDATES = 0.4


class Stopped(Exception):
    """The visitor stopped the check, or is gone."""


@dataclass
class _Progress:
    """Called after every frame of a clip, in the thread that checks it."""

    job: Job
    done: int = 0
    most: int = 0

    def __call__(self, done: int, most: int) -> None:
        self.done, self.most = done, most
        if self.job.stopped.is_set():
            raise Stopped


class VideoTab:
    """The tab's components and what they do; ``jobs`` keeps each visitor's check and the page to download."""

    def __init__(self, service: Service, jobs: Jobs) -> None:
        self.service, self.jobs = service, jobs
        self._pool = ThreadPoolExecutor(AT_ONCE, "clips")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.file = FilesInput(
                    label="Video, or animated GIF, WebP or PNG", file_count="single", height=170, elem_id="clip",
                    file_types=["video", ".gif", ".webp", ".png", ".apng", ".avif", ".mkv", ".ts"], type="filepath",
                )  # fmt: skip
                with gr.Row():
                    self.start = gr.Button("Check the clip", variant="primary", elem_id="clip-start", min_width=120)
                    self.stop = gr.Button("Stop", elem_id="clip-stop", min_width=90)
                self.progress = panel(self._ready_note(), elem_id="clip-progress")
                panel(limits_html(), elem_id="clip-limits")
                with gr.Accordion("Webcam, live", open=False, elem_id="live-part"):
                    build_live(service)
            with gr.Column(scale=7, min_width=300):
                self.verdict = panel(_empty(), elem_id="clip-verdict")
                self.persons = panel("", elem_id="clip-persons")
                self.page = gr.DownloadButton("Download timeline", interactive=False, elem_id="clip-page")
        outputs = [self.progress, self.verdict, self.persons, self.page]
        self.start.click(self.check, self.file, outputs, concurrency_limit=AT_ONCE, show_progress="hidden", **PRIVATE)
        self.stop.click(self.halt, None, None, queue=False, **PRIVATE)

    def check(self, uploads: list[Upload], request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Check what was uploaded: the progress, then the result."""
        nothing = gr.DownloadButton(value=None, interactive=False)
        if not uploads or uploads[0].path is None:
            yield self._ready_note(), notice("error", "No clip", ["Choose a video first."]), "", nothing
            return
        session = request.session_hash or ""
        job = self.jobs.new(session)
        yield _bar("Reading the clip …"), _empty(), "", nothing
        try:
            if self.service.situation.status == "loading":
                yield _bar("The model is loading …"), _empty(), "", nothing
            judge = self.service.judge()
            seen = _Progress(job)
            future = self._pool.submit(judge.clip, uploads[0].path, seen)
            for text in self._waited(future, seen, session):
                yield text, gr.skip(), gr.skip(), gr.skip()
            result = future.result()
            yield (
                _bar(f"{result.frames} frames checked.", 1),
                *shown(judge, result),
                _page(job, result, uploads[0].name),
            )
        except (ImageError, NotReady) as error:
            yield self._ready_note(), notice("error", "This clip cannot be checked", [f"{error}."]), "", nothing
        except Stopped:
            yield self._ready_note(), notice("empty", "Stopped", ["The check was stopped."]), "", nothing

    def halt(self, request: gr.Request) -> None:
        """End the check after the frame in progress."""
        self.jobs.stop(request.session_hash or "")

    def _waited(self, future: Future[ClipResult], seen: _Progress, session: str) -> Iterator[str]:
        """The progress, until the check has ended."""
        while not future.done():
            time.sleep(SECONDS_BETWEEN_UPDATES)
            self.jobs.of(session)  # in use
            if seen.done and not future.done():
                yield _bar(f"{seen.done} of at most {seen.most} frames checked", seen.done, seen.most)

    def _ready_note(self) -> str:
        limits = self.service.limits
        most = f"{limits.upload_bytes / 1e6:.0f} MB and {limits.clip_seconds / 60:.0f} minutes"
        return f'<p class="bf-note">At most {most}. The clip is deleted when you leave.</p>'


def shown(judge: Judge, result: ClipResult) -> tuple[str, str]:
    """The card with the verdict on the person with the highest score, and what is known of each person."""
    from bonaface.report.style import LIGHT, figure_data_uri
    from bonaface.stats.figures import percent
    from bonaface.video.timeline import clock, frame_image, person_name, plot

    worst, n = result.worst, len(result.persons)
    eyebrow = f"This model says of {person_name(worst).lower()}" + f" of {n}, with the highest score" * (n > 1)
    persons = [
        {
            "name": person_name(person),
            "verdict": person.verdict,
            "p_fake": person.p_fake,
            "span": f"{clock(person.start)} to {clock(person.end)}",
            "frames": len(person.sightings),
            "outside": percent(person.outside_band, 0),
            "images": [
                {"uri": image_uri(frame_image(s)), "p_fake": s.p_fake, "time": clock(s.time)} for s in person.telling
            ],
        }
        for person in result.persons
    ]
    card = verdict_html(judge, result_of(result, worst), eyebrow)
    return card, render("clip", plot=figure_data_uri(plot(result, LIGHT)), persons=persons)


def result_of(clip: ClipResult, person: Person) -> Result:
    """A person's score and verdict as those of an image."""
    from bonaface.inference.detector import Result

    labels, warnings = person.middle.labels, clip.warnings_of(person)
    return Result(labels, person.p_fake, person.verdict, clip.band, warnings=warnings)


def limits_html() -> str:
    """What a clip's verdict does not say."""
    from bonaface.video.limits import LIMITS

    return render("clip_limits", lines=LIMITS)


def _page(job: Job, result: ClipResult, name: str) -> Any:
    from bonaface.video.timeline import write_timeline

    path = job.path / "bonaface-timeline.html"
    write_timeline(result, name, path)
    return gr.DownloadButton(value=str(path), interactive=True)


def _bar(text: str, done: int = 0, total: int = 1) -> str:
    return render("progress", text=text, done=done, total=total, what="Frames checked")


def _empty() -> str:
    lines = [
        "Choose a clip, then click “Check the clip”. Up to 64 frames, spread over it, are searched for faces.",
        "Each person gets one verdict, from the frame whose score is in the middle.",
    ]
    return notice("empty", "Nothing checked yet", lines)
