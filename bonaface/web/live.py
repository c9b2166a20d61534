"""The webcam: a frame a second is judged, and the middle of the last ones shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from bonaface.web.batcher import Busy
from bonaface.web.guards import BUSY
from bonaface.web.markup import render
from bonaface.web.one import notice
from bonaface.web.panels import PRIVATE, panel
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import ImageFileInput, Upload

if TYPE_CHECKING:
    from bonaface.inference.detector import Result
    from bonaface.video.persons import Sighting

EVERY, AT_ONCE, LONGEST = 1.0, 4, 120  # seconds between frames; visitors at a time; seconds of each
LAST = 15  # frames


def build_live(service: Service) -> None:
    """Lay the webcam out and connect it. Its frames come inside the request and are never written to a file."""
    camera = ImageFileInput(
        label="Webcam", sources=["webcam"], streaming=True, height=260, format="jpeg", elem_id="live"
    )  # fmt: skip
    text = panel(waiting(), elem_id="live-verdict")
    recent = gr.State([])

    def check(frame: Upload | None, kept: list[Sighting]) -> tuple[Any, list[Sighting]]:
        if frame is None:
            return gr.skip(), kept
        try:
            result = service.judge(timeout=1).check(frame)
        except NotReady as error:
            return notice("loading", "Not ready", [str(error)]), []
        except Busy:
            return notice("error", "Busy", [BUSY]), kept
        if result.error:
            return gr.skip(), kept
        kept = [*kept, _sighting(result, len(kept))][-LAST:]
        return live_html(kept, result), kept

    camera.stream(
        check, [camera, recent], [text, recent], stream_every=EVERY, time_limit=LONGEST, concurrency_limit=AT_ONCE,
        show_progress="hidden", **PRIVATE,
    )  # fmt: skip


def live_html(kept: list[Sighting], result: Result) -> str:
    """The verdict on the last frames, with the score of the latest one."""
    from bonaface.video.persons import Person

    person = Person(1, tuple(kept))
    return render("live", person=person, latest=result.p_fake, n=len(kept), warnings=result.warnings)


def waiting() -> str:
    """Before the first frame."""
    line = f"A frame a second is checked; the verdict is that of the middle of the last {LAST}. Nothing is stored."
    return f'<p class="bf-note">{line}</p>'


def _sighting(result: Result, number: int) -> Sighting:
    from bonaface.inference.unfamiliar import REASON
    from bonaface.video.persons import Sighting

    far = REASON in result.warnings
    return Sighting(float(number), None, result.p_fake, result.labels, result.verdict, far)
