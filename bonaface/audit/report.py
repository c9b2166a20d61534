"""An audit -> ``audit.json``, a self-contained ``audit.html`` and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from bonaface.audit.appearance import NAMES as APPEARANCE_NAMES
from bonaface.audit.findings import APPEARANCE_LIMITS, FACTS_LIMITS, leak_level
from bonaface.audit.leaks import Leak
from bonaface.audit.result import FACT_NAMES, Audit
from bonaface.data.listing import image_bytes
from bonaface.files import write_json, write_text
from bonaface.imaging.images import ImageError, decode_image
from bonaface.report import plots
from bonaface.report.pages import (
    Block,
    Gallery,
    KeyFigure,
    Page,
    Plot,
    Section,
    Table,
    Thumbnail,
    jsonable,
    page_html,
)

SHEET = 10  # samples of a source
MOST_GROUPS, MOST_OUTLIERS, MOST_SOURCES = 24, 20, 30
WORDS = {
    "clean": "No shortcuts were found.",
    "warning": "Read the warnings before you trust figures from these files.",
    "leak": "These files leak: a detector trained on them as they are would score well for the wrong reasons.",
}

Show = Callable[[str, str, str], Thumbnail]


def write_audit(audit: Audit, out: Path, rows: datasets.Dataset) -> Path:
    """Write both files into the folder ``out``; ``rows`` give the images. Returns the path of ``audit.html``."""
    page = Page(
        title="Data audit",
        subtitle=f"{audit.origin} · {len(audit.files) + len(audit.broken):,} files",
        conclusion=WORDS[audit.level],
        caveats=[f"{_sentence(f.text)}. What to do: {f.hint}.".replace("`", "") for f in audit.findings],
        key_figures=_key_figures(audit),
        lead=_lead(audit),
        sections=_sections(audit, _loader(rows)),
    )
    write_text(out / "audit.html", page_html(page))
    write_json(out / "audit.json", jsonable(audit.to_dict()))  # last: where it exists, the report is complete
    return out / "audit.html"


def summary_lines(audit: Audit) -> list[str]:
    """A dozen lines for the terminal."""
    lines = [f"audit of {audit.origin}: {len(audit.files):,} files, {len(audit.broken):,} broken"]
    if audit.units:
        lines.append(f"  folders     {audit.units}")
    for name, leak in (("file facts", audit.facts_leak), ("appearance", audit.appearance_leak)):
        if leak is not None:
            lines.append(f"  {name:<11} {_figure(leak)} {_span(leak)}".rstrip())
    if audit.face_detector:
        lines.append(f"  faces       by {audit.face_detector}")
    lines += [f"  {finding.level}: {finding.text}\n    -> {finding.hint}" for finding in audit.findings]
    return [*lines, f"verdict: {audit.level}. {WORDS[audit.level]}"]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figure(leak: Leak) -> str:
    return "–" if leak.why_not else f"{leak.auc:.3f}"


def _span(leak: Leak) -> str:
    return leak.why_not or f"({leak.low:.3f} to {leak.high:.3f})"


def _key_figures(audit: Audit) -> list[KeyFigure]:
    facts = KeyFigure(
        "AUC of file facts",
        _figure(audit.facts_leak),
        _span(audit.facts_leak),
        "how well size, format and JPEG tables alone tell real from fake; 0.5 is chance",
    )
    figures = [KeyFigure("Verdict", audit.level, "", "clean, warning or leak"), facts]
    if audit.appearance_leak is not None:
        figures.append(
            KeyFigure(
                "AUC of appearance",
                _figure(audit.appearance_leak),
                _span(audit.appearance_leak),
                "how well colour, light, borders, sharpness and framing alone tell real from fake",
            )
        )
    copies = sum(len(group.paths) - 1 for group in audit.duplicates)
    figures.append(KeyFigure("Copies", f"{copies:,}", "", "files beyond the first of each group of duplicates"))
    figures.append(KeyFigure("Broken", f"{len(audit.broken):,}", "", "files that cannot be used"))
    return figures


def _lead(audit: Audit) -> list[Block]:
    blocks: list[Block] = []
    for name, leak in (("file facts", audit.facts_leak), ("appearance", audit.appearance_leak)):
        if leak is not None and not leak.why_not:
            caption = f"Scores of a small classifier that sees only {name} (cross-validated)."
            draw = partial(plots.score_histogram, leak.is_fake, leak.scores, bins=25)
            blocks.append(Plot(f"scores_{name[:4]}", caption, lambda theme, draw=draw: draw(theme=theme)))  # type: ignore[misc]
    return blocks or ["Too few images to measure how well these facts separate the classes."]


def _sections(audit: Audit, show: Show) -> list[Section]:
    sections = [_leak_section("facts", "File facts", audit, audit.facts_leak, audit.files)]
    if audit.appearance_leak is not None:
        looks = audit.looks.merge(audit.files[["path", "label", "source"]], on="path")
        sections.append(_leak_section("appearance", "Appearance", audit, audit.appearance_leak, looks))
    sections += [_source_section(audit, show), *_duplicate_sections(audit, show), *_outlier_sections(audit, show)]
    if audit.broken:
        table = Table(pd.DataFrame([vars(file) for file in audit.broken])[["path", "reason", "label", "source"]])
        sections.append(Section("broken", "Files that cannot be used", [table]))
    return sections


def _leak_section(key: str, title: str, audit: Audit, leak: Leak, values: pd.DataFrame) -> Section:
    if leak.why_not:
        return Section(key, title, [f"Not assessed: {leak.why_not}."])
    level = leak_level(leak.auc, leak.low, FACTS_LIMITS if key == "facts" else APPEARANCE_LIMITS)
    text = (
        f"A classifier that sees only these facts, not the image, reaches an AUC of {leak.auc:.3f} {_span(leak)} on "
        f"{leak.n:,} images ({level}). "
        if key == "facts"
        else "A classifier that sees a few statistics of the aligned face and its position in the image reaches an "
        f"AUC of {leak.auc:.3f} {_span(leak)} on {leak.n:,} images ({level}); faces by {audit.face_detector}. "
    )
    text += "Each fact on its own:" if leak.clues else "No single fact separates the classes on its own."
    blocks: list[Block] = [text]
    if leak.clues:
        clues = pd.DataFrame([(c.auc, c.text) for c in leak.clues[:8]], columns=["AUC alone", "difference"])
        blocks.append(Table(clues))
    fake = (values["label"] != audit.real_label).to_numpy()
    for clue in [c for c in leak.clues if pd.api.types.is_numeric_dtype(values[c.name])][:3]:
        name = (APPEARANCE_NAMES | FACT_NAMES)[clue.name]
        numbers = values[clue.name].astype(float).to_numpy()
        draw = partial(plots.fact_histogram, numbers[~fake], numbers[fake], name)
        caption = f"{_sentence(name.partition(', ')[0])} of real and of fake images."
        blocks.append(Plot(f"{key}_{clue.name}", caption, lambda theme, draw=draw: draw(theme=theme)))  # type: ignore[misc]
    caption = f"Each source against the whole other class, by {title.lower()}: AUC with its 95 % interval."
    draw = partial(plots.source_bars, leak.sources.head(MOST_SOURCES), value="auc")
    blocks.append(Plot(f"{key}_sources", caption, lambda theme, draw=draw: draw(theme=theme)))  # type: ignore[misc]
    return Section(key, title, blocks)


def _source_section(audit: Audit, show: Show) -> Section:
    blocks: list[Block] = [Table(audit.counts())]
    rng = np.random.default_rng(0)
    for (label, source), part in list(audit.files.groupby(["label", "source"], sort=True))[:MOST_SOURCES]:
        rows = part.iloc[np.sort(rng.permutation(len(part))[:SHEET])]
        sizes = [f"{w} x {h}" for w, h in zip(rows["width"], rows["height"], strict=True)]
        items = [show(path, size, Path(path).name) for path, size in zip(rows["path"], sizes, strict=True)]
        blocks.append(Gallery(items, f"{source} ({label}), {len(part):,} images"))
    return Section("sources", "Sources", blocks)


def _duplicate_sections(audit: Audit, show: Show) -> list[Section]:
    if not audit.duplicates:
        return []
    worst = sorted(audit.duplicates, key=lambda g: (-len(g.labels), -len(g.splits), -len(g.paths)))
    where = audit.files.set_index("path")[["label", "source", "split"]]
    galleries: list[Block] = []
    for group in worst[:MOST_GROUPS]:
        items = []
        for path in group.paths[:8]:
            about = [str(word) for word in where.loc[path] if word]
            items.append(show(path, " · ".join(about), path))
        notes = [f"{len(group.paths)} files", "identical" if group.kind == "exact" else "near duplicates"]
        notes += [f"across {kind}" for kind in ("labels", "splits") if len(getattr(group, kind)) > 1]
        galleries.append(Gallery(items, ", ".join(notes)))
    more = len(worst) - MOST_GROUPS
    text = "Copies may be resized, recompressed, mirrored or cropped by a few per cent." + (
        f" {more:,} further groups are in audit.json." if more > 0 else ""
    )
    return [Section("duplicates", "Duplicates", [text, *galleries])]


def _outlier_sections(audit: Audit, show: Show) -> list[Section]:
    """The images that look least like the rest of their source."""
    if len(audit.looks) < SHEET:
        return []
    looks = audit.looks.merge(audit.files[["path", "source", "label"]], on="path")
    numbers = [name for name in APPEARANCE_NAMES if pd.api.types.is_numeric_dtype(looks[name])]
    grouped = looks.groupby(["label", "source"])[numbers]
    middle = grouped.transform("median")
    spread = grouped.transform(lambda part: part.quantile(0.9) - part.quantile(0.1))
    odd = ((looks[numbers] - middle).abs() / (spread + 0.05 * middle.abs() + 0.02)).clip(upper=5)
    score = odd.mean(axis=1) + 2 * (looks["face"] == "none")
    items = []
    for i in score.nlargest(min(MOST_OUTLIERS, len(looks) // 5)).index:
        why = "no face found" if looks["face"][i] == "none" else APPEARANCE_NAMES[str(odd.loc[i].idxmax())]
        items.append(show(looks["path"][i], looks["source"][i], why.partition(" (")[0].partition(", ")[0]))
    text = "The images that differ most from the rest of their source, and in what most. Check that they are portraits."
    return [Section("outliers", "Outliers", [text, Gallery(items, "Least like their source")])]


def _loader(rows: datasets.Dataset) -> Show:
    places = {path: i for i, path in enumerate(rows["path"])}

    def show(path: str, title: str, note: str) -> Thumbnail:
        try:
            image = decode_image(image_bytes(rows[places[path]]["image"]))
        except ImageError:
            return Thumbnail(None, title, note)
        image.thumbnail((224, 224))
        return Thumbnail(image, title, note)

    return show
