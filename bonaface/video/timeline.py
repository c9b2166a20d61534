"""A clip's result as one self-contained page: scores over time, each person's figures and most telling frames."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from bonaface.files import write_text
from bonaface.report.clip_plots import clock, score_timeline
from bonaface.report.pages import Gallery, Page, Plot, Section, Table, Thumbnail, page_html
from bonaface.report.style import Theme
from bonaface.stats.figures import percent
from bonaface.video.judge import ClipResult
from bonaface.video.limits import LIMITS
from bonaface.video.persons import Person, Sighting


def write_timeline(result: ClipResult, name: str, path: Path) -> None:
    """Write the page; ``name`` is the clip's, and untrusted. Raises OSError."""
    write_text(path, page_html(timeline_page(result, name)))


def timeline_page(result: ClipResult, name: str) -> Page:
    """The page's contents."""
    return Page(
        title=name,
        subtitle=f"{clock(result.duration)}, {result.size[0]} x {result.size[1]} pixels; {result.frames} frames judged",
        conclusion=conclusion(result),
        caveats=[*[f"Warning: {warning}." for warning in result.warnings], *LIMITS],
        key_figures=[],
        lead=[Plot("timeline", _caption(result), lambda theme: plot(result, theme), wide=True)],
        sections=[
            Section("persons", "Persons", [Table(person_table(result))]),
            *[_telling(person, len(result.persons)) for person in result.persons],
        ],
    )


def conclusion(result: ClipResult) -> str:
    """The verdict on the clip, in a sentence."""
    worst, n = result.worst, len(result.persons)
    which = f"person {worst.number} of {n}, who has the highest score" if n > 1 else "the only person"
    if worst.middle.box is None:
        which = "whole frames"
    return f"{worst.verdict.capitalize()}, by the score of {which}: {worst.p_fake:.2f}."


def plot(result: ClipResult, theme: Theme) -> Figure:
    """Scores of all persons over time."""
    persons = {
        person_name(person): ([s.time for s in person.sightings], [s.p_fake for s in person.sightings], person.p_fake)
        for person in result.persons
    }
    return score_timeline(persons, result.duration, result.band, theme=theme)


def person_table(result: ClipResult) -> pd.DataFrame:
    """A row for each person."""
    rows = [
        {
            "person": person_name(person),
            "verdict": person.verdict,
            "score": person.p_fake,
            "from": clock(person.start),
            "to": clock(person.end),
            "frames": len(person.sightings),
            "frames with a verdict": percent(person.outside_band, 0),
            "remarks": "; ".join(result.warnings_of(person)[len(result.warnings) :]),
        }
        for person in result.persons
    ]
    table = pd.DataFrame(rows)
    return table if any(table["remarks"]) else table.drop(columns="remarks")


def person_name(person: Person) -> str:
    """``Person 2``; whole frames are nobody's."""
    return f"Person {person.number}" if person.middle.box else "Whole frames"


def frame_image(sighting: Sighting) -> Image.Image:
    """The small image that was kept of a frame."""
    return Image.open(io.BytesIO(sighting.image))


def _caption(result: ClipResult) -> str:
    band = " Scores in the white band between the colours get no verdict." if result.band else ""
    return f"A dot is a frame; the line is the person's score, the middle of the frames'.{band}"


def _telling(person: Person, n: int) -> Section:
    title = "Most telling frames" + f" of person {person.number}" * (n > 1)
    shown = []
    for s in person.telling:
        middle = ", the middle" if s is person.middle else ""
        shown.append(Thumbnail(frame_image(s), f"{s.p_fake:.2f}, {s.verdict}", f"at {clock(s.time)}{middle}"))
    return Section(f"person-{person.number}", title, [Gallery(shown, "Highest, middle and lowest score.")])
