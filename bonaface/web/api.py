"""The endpoints for programs, and the tools of the MCP server: predict, predict_batch, explain, model_info."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component

from bonaface import __version__
from bonaface.imaging.images import ImageError
from bonaface.web.batcher import Busy
from bonaface.web.guards import BUSY
from bonaface.web.schema import Answer, HeatMapAnswer, ModelAnswer, Prediction
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import FilesInput, ImageFileInput, Upload


class Endpoints:
    """What a program may call. The docstrings below are the descriptions that the API and the MCP server give."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def predict(self, image: Upload | None) -> dict[str, Any]:
        """Is this image of a face a photograph or AI-generated? One verdict with its calibrated score.

        Args:
            image: JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF; as text, data:image/…;base64,… and never a URL.
        """
        if image is None:
            raise _refusal("Send an image.")
        judge = self._judge()
        try:
            result = judge.check(image)
        except Busy as error:
            raise _refusal(BUSY) from error
        return judge.prediction(image.name, result).model_dump()

    def predict_batch(self, images: list[Upload]) -> list[dict[str, Any]]:
        """As predict, for many images: one answer each, in order. An unreadable image gets a status and an error.

        Args:
            images: images, as for predict.
        """
        if len(images) > self.service.limits.files:
            raise _refusal(f"You sent more than {self.service.limits.files:,} files. Send fewer at a time.")
        judge = self._judge()
        results = judge.stream([upload.path for upload in images if upload.path])
        return [
            judge.prediction(upload.name, result).model_dump() for upload, result in zip(images, results, strict=True)
        ]

    def explain(self, image: Upload | None) -> tuple[dict[str, Any], Any]:
        """Which areas of the image point to the verdict: its face with the heat map, and how far to trust it.

        Args:
            image: an image, as for predict.
        """
        if image is None:
            raise _refusal("Send an image.")
        judge = self._judge()
        try:
            heat = judge.heat_map(image.read())
        except ImageError as error:
            raise _refusal(str(error)) from error
        return judge.heat_answer(image.name, heat).model_dump(), heat.overlay()

    def model_info(self) -> dict[str, Any]:
        """Which model is loaded: labels, uncertainty band, test figures with intervals, fingerprints, version."""
        situation = self.service.situation
        if situation.status == "ready":
            return self._judge().answer().model_dump()
        empty = ModelAnswer(
            status=situation.status, message=situation.message, name="", version=__version__, weights="",
            data_fingerprint="", labels=[], real_label="", knows_only_drawings=False, band=None, figures={},
            conclusion="",
        )  # fmt: skip
        return empty.model_dump()

    def _judge(self) -> Any:
        try:
            return self.service.judge()
        except NotReady as error:
            raise _refusal(str(error)) from error


def build_api(service: Service) -> None:
    """Add the endpoints; none of their components is shown."""
    api = Endpoints(service)
    with gr.Group(visible=False):
        image, images = ImageFileInput(label="image"), FilesInput(label="images", file_count="multiple")
        prediction = Answer(Prediction, label="prediction")
        predictions = Answer(Prediction, many=True, label="predictions")
        heat, overlay = Answer(HeatMapAnswer, label="explanation"), gr.Image(label="overlay", type="pil", format="png")
        info = Answer(ModelAnswer, label="model")
        endpoints: list[tuple[Callable[..., Any], list[Component], list[Component]]] = [
            (api.predict, [image], [prediction]),
            (api.predict_batch, [images], [predictions]),
            (api.explain, [image], [heat, overlay]),
            (api.model_info, [], [info]),
        ]
        for number, (function, inputs, outputs) in enumerate(endpoints):
            # Without Gradio's queue one request is enough for an answer (`/gradio_api/run/predict`), at half the cost;
            # the batcher and the guard bound what waits. Clients that queue may do so all the same.
            gr.Button(f"api {number}").click(
                function,
                inputs,
                outputs,
                api_name=function.__name__,
                queue=False,
                concurrency_limit=service.limits.together,
            )


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)
