"""The page's words and looks, from the app's own: its sentences, templates, style sheet and theme."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bonaface.inference import unfamiliar
from bonaface.inference.detector import Detector, Result
from bonaface.provenance.evidence import SOURCE_TYPES, Evidence
from bonaface.provenance.read import A1111, CREDIT, EDITORS, MIDJOURNEY, NAMES, NOTE, OWN_FIELDS, PROGRAM_FIELD
from bonaface.provenance.xmp import IPTC_EXTENSION
from bonaface.web.markup import WORDS, render, score
from bonaface.web.one import KINDS, MOST_LABELS
from bonaface.web.theme import STYLE, Calm
from bonaface.web.wording import REMEDIES, WARNINGS, Wording

STATIC = Path(__file__).parent / "static"
VERDICTS = ("real", "fake", "uncertain")
GRID = 200  # what a score has meant is told for 0, 1/GRID, 2/GRID, … 1
PATTERNS = {
    "names": NAMES, "editors": EDITORS, "program_field": PROGRAM_FIELD, "credit": CREDIT, "parameters": A1111,
    "midjourney": MIDJOURNEY,
}  # fmt: skip


def sentences(detector: Detector, folder: Path) -> dict[str, Any]:
    """All that the page's script says of a result."""
    wording = Wording(detector, folder)
    unlike = replace(_result(detector, "uncertain"), warnings=(unfamiliar.REASON,))
    results = {verdict: _result(detector, verdict) for verdict in VERDICTS} | {"unlike": unlike}
    return {
        "verdicts": WORDS,
        "beside": {name: wording.beside(result) for name, result in results.items()},
        "why": {name: wording.why(result) for name, result in results.items()},
        "warnings": {name: [name[:1].upper() + name[1:], text] for name, text in WARNINGS.items()},
        "unlike": unfamiliar.REASON,
        "meanings": _meanings(wording, _result(detector, "uncertain"), unlike),
        "remedies": REMEDIES,
        "kinds": KINDS,
        "note": NOTE,
        "provenance": {
            **{name: _for_script(pattern) for name, pattern in PATTERNS.items()},
            "own_fields": OWN_FIELDS,
            "source_types": SOURCE_TYPES,
            "iptc_extension": IPTC_EXTENSION,
        },
    }


def index_html(detector: Detector, name: str, folder: str, **facts: Any) -> str:
    """``index.html`` of a page whose files lie in ``folder``."""
    band = detector.band
    values = {
        "name": name,
        "folder": folder,
        "labels": detector.labels,
        "real_label": detector.real_label,
        "band": band,
        "band_note": detector.facts.band.note if detector.facts.band else "",
        "templates": {name: Markup(_movable(html)) for name, html in _templates(detector).items()},  # noqa: S704 - ours
        "limitations": Markup(render("limits")),  # noqa: S704 - ours
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STATIC), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"score": score}
    return environment.get_template("index.html.j2").render(values | facts)


def style_sheet() -> str:
    """The theme's colours and fonts as variables, the app's style sheet, and what only the page has."""
    theme = Calm()
    names = ("body_background_fill", "body_text_color", "button_primary_background_fill", "button_primary_text_color",
             "button_secondary_background_fill", "button_secondary_text_color")  # fmt: skip
    light = {name: getattr(theme, name) for name in names}
    dark = {name: getattr(theme, f"{name}_dark", None) or value for name, value in light.items()}
    root = f":root {{ --font: {theme.font}; {_variables(light)} }}\n.dark {{ {_variables(dark)} }}\n"
    return root + STYLE.read_text(encoding="utf-8") + (STATIC / "page.css").read_text(encoding="utf-8")


def _variables(values: Mapping[str, str]) -> str:
    return " ".join(f"--{name.replace('_', '-')}: {value};" for name, value in values.items())


def _templates(detector: Detector) -> dict[str, str]:
    """The app's cards with one of everything in them, for the script to copy and fill."""
    low, high = detector.band or (0.0, 1.0)
    cards = {
        f"verdict-{verdict}": render(
            "verdict", result=_result(detector, verdict), eyebrow="This model says", low=low, high=high,
            beside="-", in_short="-", why="-", remarks=[], warnings=[("-", "-")],
            labels=[(label, 0.5) for label in detector.labels[:MOST_LABELS]],
        )
        for verdict in VERDICTS
    }  # fmt: skip
    faces = [{"image": "", "verdict": verdict, "p_fake": 0.5} for verdict in VERDICTS]
    said = [Evidence("unclear", "-", "-")]
    return cards | {
        "error": render("notice", kind="error", title="This file could not be read", command="", lines=["-", "-"]),
        "faces": render("faces", faces=faces),
        "provenance-some": render("provenance", said=said, kinds=KINDS, note="-", credentials="not read", empty=False),
        "provenance-none": render("provenance", said=[], kinds=KINDS, note="-", credentials="", empty=False),
    }


def _for_script(pattern: re.Pattern[str]) -> tuple[str, str]:
    """A pattern and its flags, as JavaScript writes them."""
    return pattern.pattern, ("i" if pattern.flags & re.IGNORECASE else "") + ("s" if pattern.flags & re.DOTALL else "")


def _movable(html: str) -> str:
    """Widths and places as data: the page's policy allows no style in markup, so its script sets them."""
    return re.sub(r'style="(width|left): ([^%"]+)%"', r'data-\1="\2"', html)


def _result(detector: Detector, verdict: str) -> Result:
    return Result({}, 0.5, verdict, detector.band)


def _meanings(wording: Wording, result: Result, unlike: Result) -> dict[str, Any]:
    """What the app says of each score i / GRID, in short and at length: ``lines[at[i]]``.

    ``unlike`` is what it says in short, and adds at length, for an image that is unlike the training data.
    """
    told: dict[tuple[str, ...], int] = {}
    at = []
    for i in range(GRID + 1):
        scored = replace(result, p_fake=i / GRID)
        at.append(told.setdefault((wording.in_short(scored), *wording.remarks(scored)), len(told)))
    more = wording.remarks(unlike)[len(wording.remarks(result)) :]
    return {"lines": [list(lines) for lines in told], "at": at, "unlike": [wording.in_short(unlike), *more]}
