"""The tab about the model: what it is, how well it performs, and its limitations."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonaface.stats.figures import FIGURES, KEY_FIGURES, amount, span
from bonaface.web.limits import Limits
from bonaface.web.markup import render

if TYPE_CHECKING:
    from bonaface.web.judge import Judge

MOST_OF_CARD = 60_000  # characters
# Plots of a run's report, in the order in which they are shown, with their text for screen readers.
PLOTS = {
    "sources": "For each source, the number of images and the share called AI-generated, with its 95 % interval.",
    "robustness": "AUC under each degradation, mild (small dot) to strong (large dot); the line is the undegraded AUC.",
    "reliability": "Reliability: the share of fakes among images with a given score; below, the number of images.",
    "roc": "ROC curve: fakes found against false positives, at every threshold.",
    "scores": "Scores of the real and the fake test images.",
}


def about_html(judge: Judge, limits: Limits) -> str:
    """Summary, figures with intervals, sources, plots, limits, fingerprints; from the model's own files alone."""
    from bonaface.stats.intervals import Interval

    def tile(name: str, figure: dict[str, Any]) -> dict[str, str]:
        low, high = (float("nan") if figure[end] is None else figure[end] for end in ("low", "high"))
        value = amount(name, figure["value"])
        return {
            "name": FIGURES[name].name,
            "value": value,
            "interval": span(name, Interval(low, high)),
            "meaning": FIGURES[name].meaning,
        }

    known = judge.metrics.get("figures", {})
    return render(
        "about",
        answer=judge.answer(),
        caveats=judge.caveats,
        band_note=judge.detector.facts.band.note if judge.detector.facts.band else "",
        split=judge.metrics.get("split", "test"),
        figures=[tile(name, known[name]) for name in KEY_FIGURES if isinstance(known.get(name), dict)],
        sources=[_source(row) for row in judge.metrics.get("sources", [])],
        plots=_plots(judge.folder / "report"),
        minutes=round(limits.keep_seconds / 60),
    )


def model_card(judge: Judge) -> str:
    """The model's own card without its metadata, Markdown of strangers: Gradio's Markdown removes scripts from it."""
    file = judge.folder / "README.md"
    if not file.is_file():
        return "This model has no card."
    text = file.read_text(encoding="utf-8", errors="replace")[:MOST_OF_CARD]
    _, begin, rest = text.partition("---\n") if text.startswith("---\n") else ("", "", "")
    return rest.partition("\n---\n")[2] if begin else text


def _source(row: dict[str, Any]) -> dict[str, Any]:
    from bonaface.stats.intervals import Interval

    def figure(name: str, value: float | None, low: float | None, high: float | None) -> str:
        if value is None:
            return "–"
        ends = Interval(*(float("nan") if end is None else end for end in (low, high)))
        return f"{amount(name, value)} {span(name, ends)}".strip()

    rate = row.get("fpr") if row.get("recall") is None else row.get("recall")
    return {
        "source": row["source"] or "unnamed",
        "label": row["label"],
        "n": f"{row['n']:,}",
        "auc": figure("auc", row.get("auc"), row.get("auc_low"), row.get("auc_high")),
        "rate": figure("recall", rate, row.get("rate_low"), row.get("rate_high")),
    }


def _plots(report: Path) -> list[dict[str, str]]:
    found = []
    for name, caption in PLOTS.items():
        file = report / f"{name}.png"
        if file.is_file():
            image = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
            found.append({"image": image, "caption": caption})
    return found
