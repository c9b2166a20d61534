"""The tab that compares two models on one image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from bonaface.web.batcher import Busy
from bonaface.web.one import BUSY, notice, verdict_html, waiting
from bonaface.web.panels import PRIVATE, panel
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import ImageFileInput, Upload


def build_compare(service: Service) -> None:
    """Lay the tab out and connect it; without a second model, say how to add one."""
    if len(service.models) < 2:
        lines = ["Start the app with two models to compare their verdicts on one image."]
        panel(notice("empty", "Only one model is loaded", lines, "python app.py --model runs/one runs/other"))
        return
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            image = ImageFileInput(
                label="Image for both models", sources=["upload", "clipboard", "webcam"], height=320,
                buttons=["fullscreen"], elem_id="compare-image",
            )  # fmt: skip
        columns = []
        for number in (1, 2):
            with gr.Column(scale=5, min_width=300):
                lines = ["Choose an image to see the verdict here."]
                columns.append(panel(notice("empty", f"Model {number}", lines), elem_id=f"compare-verdict-{number}"))

    def check(upload: Upload | None) -> Iterator[tuple[Any, ...]]:
        if upload is None:
            lines = ["Choose an image to see the verdict here."]
            yield notice("empty", "Model 1", lines), notice("empty", "Model 2", lines)
            return
        yield waiting(), waiting()
        found: list[Any] = []
        for number in (0, 1):
            try:
                judge = service.judge(number)
                result = judge.check(upload)
                found.append(verdict_html(judge, result, f"{judge.title} says"))
            except NotReady as error:
                found.append(notice("error", "No model available", [str(error)]))
            except Busy:
                found.append(notice("error", *BUSY))
        yield tuple(found)

    image.change(check, image, columns, show_progress="hidden", **PRIVATE)
