"""The tab that checks a batch of images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from bonaface.web.archives import ArchiveError
from bonaface.web.jobs import Job, Jobs, check, collect
from bonaface.web.markup import WORDS, render
from bonaface.web.one import notice, trust_note
from bonaface.web.panels import PRIVATE, panel
from bonaface.web.service import NotReady, Service
from bonaface.web.uploads import FilesInput, Upload

if TYPE_CHECKING:
    from bonaface.web.judge import Judge

FILTERS = {"All": None, WORDS["fake"]: "fake", WORDS["uncertain"]: "uncertain", WORDS["real"]: "real"}
FILTERS[WORDS["error"]] = "error"
CORRECT = "Correct verdict"
SECONDS_BETWEEN_UPDATES = 0.4
# One listener for all tiles, those of later results included.
PICK = """element.addEventListener('click', event => {
  const tile = event.target.closest('[data-index]');
  if (tile) trigger('select', {index: Number(tile.dataset.index)});
});"""


class ManyTab:
    """The tab's components and what they do; a visitor's files are found by Gradio's session."""

    def __init__(self, service: Service, jobs: Jobs) -> None:
        self.service, self.jobs = service, jobs
        self._lay_out_inputs()
        self._lay_out_results()
        self._lay_out_detail()
        self.table = panel("", elem_id="table")
        self._connect()

    # --- layout -----------------------------------------------------------------------------------------------------

    def _lay_out_inputs(self) -> None:
        limits = self.service.limits
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                self.files = FilesInput(
                    label="Images, or a zip file of images", file_count="multiple", height=170, elem_id="files",
                    type="filepath",
                )  # fmt: skip
            with gr.Column(scale=4, min_width=300):
                with gr.Row():
                    self.start = gr.Button("Check all", variant="primary", elem_id="start", min_width=120)
                    self.stop = gr.Button("Stop", elem_id="stop", min_width=90)
                self.progress = panel(_ready_note(limits.files, limits.upload_bytes), elem_id="progress")

    def _lay_out_results(self) -> None:
        self.filter = gr.Radio(list(FILTERS), value="All", label="Show", elem_id="filter")
        self.gallery = panel(_empty_gallery(), js_on_load=PICK, elem_id="gallery")
        with gr.Row(elem_id="downloads"):
            self.downloads = [
                gr.DownloadButton(
                    f"Download {kind}", interactive=False, min_width=110, elem_id=f"download-{kind.lower()}"
                )
                for kind in ("CSV", "JSON", "HTML")
            ]

    def _lay_out_detail(self) -> None:
        with gr.Row(equal_height=False, visible=False, elem_id="detail") as self.detail_row:
            with gr.Column(scale=5, min_width=300):
                self.slider = gr.ImageSlider(
                    label="Heat map: drag to compare", type="pil", interactive=False, format="jpeg", height=380,
                    max_height=380, buttons=["fullscreen"], elem_id="detail-heat",
                )  # fmt: skip
            with gr.Column(scale=4, min_width=300):
                self.detail = panel("", elem_id="detail-text")
                self.correct = gr.Checkbox(
                    False, label="Mark wrong verdicts", elem_id="correct",
                    info="Download the marked images as a data set for the next training run.",
                )  # fmt: skip
                with gr.Group(visible=False) as self.corrections:
                    self.truth = gr.Radio([CORRECT], value=CORRECT, label="True label", elem_id="truth")
                    self.make = gr.Button("Create a zip of the marked images", elem_id="make-corrections")
                    self.archive = gr.DownloadButton(
                        "Download marked images", interactive=False, elem_id="download-corrections"
                    )

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        outputs = [self.progress, self.gallery, self.table, *self.downloads, self.detail_row]
        self.start.click(self.check_all, [self.files, self.filter], outputs, concurrency_limit=4, **quiet)
        self.stop.click(self.halt, None, None, queue=False, **PRIVATE)
        self.filter.change(self.show, self.filter, self.gallery, **quiet)
        picked = [self.gallery, self.detail_row, self.slider, self.detail, self.truth]
        self.gallery.select(self.pick, self.filter, picked, concurrency_limit=2, **quiet)
        self.correct.change(lambda on: gr.Group(visible=on), self.correct, self.corrections, **quiet)
        self.truth.input(self.mark, [self.truth, self.filter], [self.gallery, self.archive], **quiet)
        self.make.click(self.pack, None, self.archive, **PRIVATE)

    # --- what a visitor does ----------------------------------------------------------------------------------------

    def check_all(self, uploads: list[Upload], choice: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Check what was uploaded: the progress, then the results."""
        blank = (gr.skip(), gr.skip(), *[gr.DownloadButton(interactive=False, value=None)] * 3, gr.Row(visible=False))
        if not uploads:
            yield trust_note("Choose images or a zip file first."), *[gr.skip()] * 6
            return
        job = self.jobs.new(request.session_hash or "")
        yield _progress("Reading the files …"), *blank
        try:
            collect(job, uploads, self.service.limits)
            if self.service.situation.status == "loading":
                yield _progress("The model is loading …"), *blank
            judge = self.service.judge()
        except (ArchiveError, NotReady) as error:
            yield notice("error", "These files cannot be checked", [str(error)]), *blank
            return
        for progress in _paced(job, check(job, judge)):
            yield progress, *blank
        yield self._results(job, judge, choice)

    def halt(self, request: gr.Request) -> None:
        """End the check after the images in progress."""
        self.jobs.stop(request.session_hash or "")

    def show(self, choice: str, request: gr.Request) -> Any:
        """Another filter of the gallery."""
        job = self._job(request)
        return _gallery(job, choice) if job and job.rows else gr.skip()

    def pick(self, choice: str, event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """A tile was clicked: show its result, then its heat map."""
        job = self._job(request)
        index = getattr(event, "index", None)
        if job is None or not isinstance(index, int) or not 0 <= index < len(job.rows):
            yield (*[gr.skip()] * 5,)
            return
        job.chosen = index
        judge, row, entry = self.service.judge(), job.rows[index], job.entries[index]
        options = [CORRECT, *judge.detector.labels] if entry.path else [CORRECT]
        mark = gr.Radio(options, value=job.marks.get(index, CORRECT))
        tiles = _gallery(job, choice)
        if row["error"] or entry.path is None:
            yield tiles, gr.Row(visible=True), None, render("detail", row=row), mark
            return
        said = render("detail", row=row)
        drawing = said + trust_note("Drawing the heat map …")
        yield tiles, gr.Row(visible=True), None, drawing, mark
        heat = judge.heat_map(entry.path.read_bytes())
        text = said + trust_note(target=heat.target, trust=judge.trust(heat))
        yield gr.skip(), gr.skip(), (heat.image, heat.overlay()), text, gr.skip()

    def mark(self, label: str, choice: str, request: gr.Request) -> tuple[Any, Any]:
        """The visitor says what the chosen image is."""
        job = self._job(request)
        if job is None or job.chosen is None:
            return gr.skip(), gr.skip()
        if label == CORRECT or label not in self.service.judge().detector.labels:
            job.marks.pop(job.chosen, None)
        else:
            job.marks[job.chosen] = label
        return _gallery(job, choice), gr.DownloadButton(value=None, interactive=False)

    def pack(self, request: gr.Request) -> Any:
        """Make the zip of the marked images. Raises gr.Error."""
        from bonaface.web.exports import corrections_zip

        job = self._job(request)
        if job is None or not job.marks:
            raise gr.Error("Mark an image first.", print_exception=False)
        path = corrections_zip(job, job.path / "bonaface-corrections.zip")
        return gr.DownloadButton(f"Download {len(job.marks)} marked images", value=str(path), interactive=True)

    def _job(self, request: gr.Request) -> Job | None:
        return self.jobs.of(request.session_hash or "")

    def _results(self, job: Job, judge: Judge, choice: str) -> tuple[Any, ...]:
        from bonaface.web.exports import summary, write_exports

        buttons = [gr.DownloadButton(value=path, interactive=True) for path in write_exports(job, judge)]
        text = summary(job) + (" Stopped early." if job.stopped.is_set() else "")
        progress = _progress(text, len(job.entries), len(job.entries))
        return progress, _gallery(job, choice), render("table", rows=job.rows), *buttons, gr.Row(visible=False)


def _progress(text: str, done: int = 0, total: int = 1) -> str:
    return render("progress", text=text, done=done, total=total)


def _paced(job: Job, checked: Iterator[int]) -> Iterator[str]:
    """The progress of a check, not more often than a page can show it."""
    total, began, told = len(job.entries), time.monotonic(), 0.0
    for done in checked:
        now = time.monotonic()
        if now - told > SECONDS_BETWEEN_UPDATES:
            told = now
            yield _progress(_pace(done, total, now - began), done, total)


def _gallery(job: Job, choice: str) -> str:
    """Tiles of the rows that match the filter: by score, highest first, failures last."""
    wanted = FILTERS.get(choice)
    rows = [(i, row) for i, row in enumerate(job.rows) if wanted in (None, row["verdict"])]
    rows.sort(key=lambda item: -1.0 if item[1]["p_fake"] is None else item[1]["p_fake"], reverse=True)
    items = [
        {
            "index": i,
            "name": row["path"],
            "verdict": row["verdict"],
            "status": row["status"],
            "p_fake": row["p_fake"],
            "marked": job.marks.get(i, ""),
            "image": job.thumbnail(i),
        }
        for i, row in rows
    ]
    return render("gallery", items=items, chosen=job.chosen, nothing="No file has this verdict.")


def _empty_gallery() -> str:
    lines = [
        "Choose files or a zip file, then click “Check all”. Every file gets a row, even if it cannot be read.",
        "Results are sorted by score. You can download them as CSV, JSON or a single HTML page.",
    ]
    return notice("empty", "Nothing checked yet", lines)


def _ready_note(files: int, upload_bytes: int) -> str:
    text = f"At most {files:,} files and {upload_bytes / 1e6:.0f} MB at a time. Files are deleted when you leave."
    return f'<p class="bf-note">{text}</p>'


def _pace(done: int, total: int, seconds: float) -> str:
    """``37 of 200 checked, about 12 s left``."""
    left = seconds / done * (total - done)
    time_left = f"{left / 60:.0f} min" if left > 90 else f"{max(1, round(left))} s"
    return f"{done:,} of {total:,} checked" + (
        f", about {time_left} left" if done < total else ", writing the results …"
    )
