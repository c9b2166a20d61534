"""The tab that checks one image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from bonaface.imaging.images import ImageError
from bonaface.web.batcher import Busy
from bonaface.web.evidence_buttons import build_evidence
from bonaface.web.jobs import Jobs
from bonaface.web.markup import image_uri, render
from bonaface.web.panels import PRIVATE, panel
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import ImageFileInput, Upload

if TYPE_CHECKING:
    from bonaface.inference.detector import Result
    from bonaface.inference.faithfulness import Faithfulness
    from bonaface.web.judge import Judge

KINDS = {"camera": "Camera", "generated": "Generated", "edited": "Edited", "unclear": "Unclear"}
FACE_SIDE = 144
MOST_LABELS = 6
BUSY = ("Busy", ["Too many requests are waiting. Try again in a minute."])


class OneTab:
    """The tab's components and what they do. On a phone, the style sheet puts the verdict in front of the image."""

    def __init__(self, service: Service, examples: list[str], jobs: Jobs) -> None:
        self.service = service
        with gr.Row(equal_height=False, elem_id="one"):
            with gr.Column(scale=4, min_width=300):
                image = ImageFileInput(
                    label="Image to check",
                    sources=["upload", "clipboard", "webcam"],
                    height=380,
                    buttons=["fullscreen"],
                    placeholder="Drop an image of a face here,\npaste it, or click to choose",
                    elem_id="image",
                )
                faces = panel("", elem_id="faces")
                build_evidence(service, image, jobs)
                if examples:
                    gr.Examples(
                        examples, image, label="Or try one of these", api_visibility="private", elem_id="examples"
                    )
            with gr.Column(scale=7, min_width=300):
                verdict = panel(empty(), elem_id="verdict")
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        slider = gr.ImageSlider(
                            label="Why? Drag to see the heat map",
                            type="pil",
                            interactive=False,
                            format="jpeg",
                            height=330,
                            max_height=330,
                            buttons=["fullscreen"],
                            elem_id="heat",
                        )
                    with gr.Column(min_width=260):
                        trust = panel(trust_note(), elem_id="trust")
                        provenance = panel(nothing_said(), elem_id="provenance")
        outputs = [verdict, faces, provenance, slider, trust]
        shown = image.change(self.check, image, outputs, show_progress="hidden", concurrency_id="check", **PRIVATE)
        shown.then(
            self.heat,
            image,
            [slider, trust],
            show_progress="minimal",
            show_progress_on=slider,
            concurrency_limit=2,
            **PRIVATE,
        )

    def check(self, upload: Upload | None) -> Iterator[tuple[Any, ...]]:
        """The verdict, each face, what the file says and, cleared, the heat map and its note."""
        if upload is None:
            yield empty(), "", nothing_said(), None, trust_note()
            return
        if self.service.situation.status == "loading":
            yield waiting(), "", nothing_said(), None, trust_note()
        try:
            judge = self.service.judge()
            result = judge.check(upload)
        except NotReady as error:
            yield notice("error", "No model available", [str(error)]), "", nothing_said(), None, trust_note()
            return
        except Busy:
            yield notice("error", *BUSY), "", nothing_said(), None, trust_note()
            return
        yield (
            verdict_html(judge, result),
            faces_html(upload, result),
            provenance_html(judge, upload) + resembles_html(judge, result),
            None,
            trust_note("Drawing the heat map …") if not result.error else trust_note(),
        )

    def heat(self, upload: Upload | None) -> Iterator[tuple[Any, Any]]:
        """The heat map, then how far to trust it."""
        if upload is None or self.service.situation.status != "ready":
            yield None, trust_note()
            return
        judge = self.service.judge()
        try:
            found = judge.heat_map(upload.read())
        except ImageError:
            yield None, trust_note()
            return
        yield (found.image, found.overlay()), trust_note("Testing how far to trust the map …", target=found.target)
        yield gr.skip(), trust_note(target=found.target, trust=judge.trust(found))


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
    from bonaface.web.wording import failure_lines, warnings_of

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
        beside=judge.words.beside(result),
        in_short=judge.words.in_short(result),
        why=judge.words.why(result),
        labels=sorted(result.labels.items(), key=lambda item: -item[1])[:MOST_LABELS],
        remarks=judge.words.remarks(result),
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
    standing = found.credentials if found and found.credentials != "absent" else ""
    return render("provenance", said=said, kinds=KINDS, note=note, credentials=standing, empty=False)


def resembles_html(judge: Judge, result: Result) -> str:
    """One line on the generators that a fake is most like; nothing where that is not told."""
    told = judge.words.resembles(result)
    return render("resembles", told=told) if told else ""


def nothing_said() -> str:
    """In place of what a file says about itself, before there is one."""
    return render("provenance", said=[], kinds=KINDS, note="", credentials="", empty=True)


def trust_note(text: str = "", *, target: str = "", trust: Faithfulness | None = None) -> str:
    """Beside the heat map: what it shows, and whether to trust it, or that this is not known yet."""
    return render("trust", text=text, target=target, trust=trust)
