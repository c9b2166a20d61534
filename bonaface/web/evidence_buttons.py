"""What saves a result as evidence: a page and a card, on demand, because their heat map is tested for them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bonaface.imaging.images import ImageError
from bonaface.web.batcher import Busy
from bonaface.web.guards import BUSY
from bonaface.web.jobs import Jobs
from bonaface.web.panels import PRIVATE
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import ImageFileInput, Upload


def build_evidence(service: Service, image: ImageFileInput, jobs: Jobs) -> None:
    """Lay the buttons out and connect them; ``jobs`` keeps each visitor's files until the page is closed."""
    with gr.Group(elem_id="evidence"):
        make = gr.Button("Make evidence to keep", elem_id="make-evidence")
        left_out = gr.Checkbox(
            False,
            label="Leave the image out of it",
            info="Its SHA-256 then stands for it, without its name.",
            elem_id="evidence-left-out",
        )
        with gr.Row():
            downloads = [
                gr.DownloadButton(f"Download {what}", interactive=False, min_width=110, elem_id=f"evidence-{what}")
                for what in ("page", "card")
            ]

    def save(upload: Upload | None, without: bool, request: gr.Request) -> list[Any]:
        if upload is None:
            raise gr.Error("Choose an image first.", print_exception=False)
        from bonaface.web.evidence import Case, Origin, write_evidence  # with torch; the page need not wait for it

        try:
            judge = service.judge()
            result = judge.check(upload)
            if result.error:
                raise gr.Error("This file could not be read.", print_exception=False)
            case = Case.of(judge.detector, upload.name, upload.read(), result)
        except (NotReady, ImageError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Busy as error:
            raise gr.Error(BUSY, print_exception=False) from error
        origin = Origin(judge.title, judge.weights, judge.detector.facts.data_fingerprint)
        folder = jobs.new(request.session_hash or "").path
        files = write_evidence(case, judge.words, origin, folder, with_image=not without)
        return [gr.DownloadButton(value=str(file), interactive=True) for file in files]

    def forget() -> list[Any]:
        return [gr.DownloadButton(value=None, interactive=False)] * 2

    make.click(save, [image, left_out], downloads, concurrency_limit=2, **PRIVATE)
    for changed in (image, left_out):
        changed.change(forget, None, downloads, show_progress="hidden", **PRIVATE)
