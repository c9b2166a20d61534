"""The tab that checks one image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from bonaface.imaging.images import ImageError
from bonaface.web.batcher import Busy
from bonaface.web.markup import image_uri, render
from bonaface.web.panels import panel
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import ImageFileInput, Upload

if TYPE_CHECKING:
    from bonaface.inference.detector import Result
    from bonaface.web.judge import Judge

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
KINDS = {"camera": "Camera", "generated": "Generated", "edited": "Edited", "unclear": "Unclear"}
FACE_SIDE = 144
BUSY = ("Busy", ["Too many requests are waiting. Try again in a minute."])


def build_one(service: Service, examples: list[str]) -> None:
    """Lay the tab out and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            image = ImageFileInput(
                label="Image to check",
                sources=["upload", "clipboard", "webcam"],
                height=380,
                buttons=["fullscreen"],
                placeholder="Drop an image of a face here,\npaste it, or click to choose",
                elem_id="image",
            )
            if examples:
                gr.Examples(examples, image, label="Or try one of these", api_visibility="private", elem_id="examples")
        with gr.Column(scale=6, min_width=300):
            verdict = panel(empty(), elem_id="verdict")
            labels = gr.Label(label="Label confidences", elem_id="labels", num_top_classes=6, show_heading=False)
    faces = panel("", elem_id="faces")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            slider = gr.ImageSlider(
                label="Heat map: drag to compare",
                type="pil",
                interactive=False,
                format="jpeg",
                height=380,
                max_height=380,
                buttons=["fullscreen"],
                elem_id="heat",
            )
            trust = panel(trust_note(), elem_id="trust")
        with gr.Column(scale=6, min_width=300):
            provenance = panel(render("provenance", said=[], kinds=KINDS, note="", empty=True), elem_id="provenance")

    def check(upload: Upload | None) -> Iterator[tuple[Any, ...]]:
        nothing = render("provenance", said=[], kinds=KINDS, note="", empty=True)
        if upload is None:
            yield empty(), None, "", nothing, None, trust_note()
            return
        if service.situation.status == "loading":
            yield waiting(), None, "", nothing, None, trust_note()
        try:
            judge = service.judge()
            result = judge.check(upload)
        except NotReady as error:
            yield notice("error", "No model available", [str(error)]), None, "", nothing, None, trust_note()
            return
        except Busy:
            yield notice("error", *BUSY), None, "", nothing, None, trust_note()
            return
        yield (
            verdict_html(judge, result),
            dict(result.labels) or None,
            faces_html(upload, result),
            provenance_html(judge, upload),
            None,
            trust_note("Drawing the heat map …") if not result.error else trust_note(),
        )

    def heat(upload: Upload | None) -> Iterator[tuple[Any, Any]]:
        if upload is None or service.situation.status != "ready":
            yield None, trust_note()
            return
        judge = service.judge()
        try:
            found = judge.heat_map(upload.read())
        except ImageError:
            yield None, trust_note()
            return
        lead = f"Bright areas point to {found.target}."
        yield (found.image, found.overlay()), trust_note(f"{lead} Testing how far to trust the map …")
        yield gr.skip(), trust_note(f"{lead} {judge.trust(found)}")

    outputs = [verdict, labels, faces, provenance, slider, trust]
    shown = image.change(check, image, outputs, show_progress="hidden", concurrency_id="check", **PRIVATE)
    shown.then(
        heat, image, [slider, trust], show_progress="minimal", show_progress_on=slider, concurrency_limit=2, **PRIVATE
    )


def empty() -> str:
    """The card in place of a verdict before there is one."""
    return render(
        "notice",
        kind="empty",
        title="Nothing checked yet",
        command="",
        lines=[
            "Choose an image to see the verdict here: real, AI-generated or uncertain, and how reliable that is.",
            "No score is proof. Your image is deleted when you leave.",
        ],
    )


def waiting() -> str:
    """While the model loads."""
    lines = ["Your image is checked as soon as it is ready, about ten seconds after the app starts."]
    return notice("loading", "The model is loading", lines)


def notice(kind: str, title: str, lines: list[str], command: str = "") -> str:
    """A card with a message."""
    return render("notice", kind=kind, title=title, lines=lines, command=command)


def verdict_html(judge: Judge, result: Result, eyebrow: str = "This model says") -> str:
    """The card with the verdict, or why there is none."""
    from bonaface.web.wording import failure_lines, warnings_of, why

    if result.error:
        return notice("error", "This file could not be read", failure_lines(result))
    low, high = result.band or (0.0, 1.0)
    low, high = (min(max(edge, 0.0), 1.0) for edge in (low, high))
    return render(
        "verdict",
        result=result,
        eyebrow=eyebrow,
        low=low,
        high=high,
        why=why(result, judge.detector.facts),
        remarks=judge.remarks(result),
        warnings=warnings_of(result),
    )


def faces_html(upload: Upload, result: Result) -> str:
    """A result for each face where there are several; else nothing."""
    if len(result.faces) < 2:
        return ""
    from bonaface.imaging.faces import crop_face
    from bonaface.imaging.images import decode_image

    image = decode_image(upload.read())
    shown = [
        {
            "image": image_uri(crop_face(image, face.box), FACE_SIDE),
            "verdict": face.verdict,
            "p_fake": face.p_fake,
        }
        for face in result.faces
    ]
    return render("faces", faces=shown)


def provenance_html(judge: Judge, upload: Upload) -> str:
    """What the file says about itself."""
    from bonaface.provenance.read import NOTE

    try:
        found = judge.provenance(upload.read())
    except ImageError:
        found = None
    said = found.evidence if found else []
    note = f"{found.trailing}. {NOTE}" if found and found.trailing else NOTE
    return render("provenance", said=said, kinds=KINDS, note=note, empty=False)


def trust_note(text: str = "The heat map of your image will appear here.") -> str:
    """The line under the heat map."""
    return f'<p class="bf-note" role="status">{text}</p>'
