"""The evidence of one image as an image itself: what people send each other, caveats included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

WIDTH, HEIGHT, EDGE = 1200, 700, 40
PANEL, GAP = 300, 20  # side of the two images, and what is between them
INK, FAINT, LINE = "#1b2429", "#52606a", "#dfe5e8"
TONES = {"real": "#00598c", "fake": "#a34700", "uncertain": "#4f4a63"}
LIMIT = "No score proves that an image is real or fake."


def draw_card(facts: Mapping[str, str], verdict: str, image: Image.Image | None, heat: Image.Image) -> Image.Image:
    """A card of WIDTH x HEIGHT pixels.

    Args:
        facts: as :func:`bonaface.web.evidence.write_evidence` makes them.
        verdict: "real", "fake" or "uncertain", for its colour.
        image, heat: the image, if it is to be shown, and its heat map.
    """
    card = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, WIDTH, 10), fill=TONES[verdict])
    for row, panel in enumerate([image, heat] if image else [heat]):
        fitted = ImageOps.pad(panel, (PANEL, PANEL), color=LINE)
        card.paste(fitted, (EDGE, EDGE + row * (PANEL + GAP)))
    left, right = EDGE + PANEL + EDGE, WIDTH - EDGE
    y = _text(draw, "bonaface: a model's verdict on one image", (left, EDGE), right, 20, FAINT)
    y = _text(draw, facts["verdict"], (left, y + 6), right, 58, TONES[verdict], bold=True)
    y = _text(draw, facts["beside"], (left, y + 6), right, 24, INK, bold=True)
    y = _text(draw, facts["short"], (left, y + 10), right, 26, INK)
    band = f" ({facts['band']})" if facts["band"] else ""
    y = _text(draw, f"Score {facts['score']} for AI-generated, 0 to 1{band}.", (left, y + 14), right, 19, FAINT)
    y = _text(draw, facts["map"], (left, y + 14), right, 19, INK)
    y = _text(draw, facts["said"], (left, y + 14), right, 19, INK)
    y = _text(draw, LIMIT, (left, y + 14), right, 19, INK, bold=True)
    by = f"Model {facts['model']}, weights {facts['weights'] or 'unknown'}, bonaface {facts['version']}"
    foot = ["SHA-256 of the image:", facts["sha256"], f"{by}.", f"Checked on {facts['checked']}."]
    y = HEIGHT - EDGE - 25 * len(foot)
    draw.line((left, y - 12, right, y - 12), fill=LINE, width=2)
    for number, line in enumerate(foot):
        draw.text((left, y + 25 * number), _cut(line, _font(17), right - left), FAINT, _font(17))
    return card


def _text(
    draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], right: int, size: int, colour: str, bold: bool = False
) -> int:
    """Draw text in lines that end before ``right``; the y below it."""
    font, (x, y) = _font(size, bold), at
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= right - x:
            lines[-1] = longer
        else:
            lines.append(word)
    for line in filter(None, lines):
        draw.text((x, y), line, colour, font)
        y += round(1.35 * size)
    return y


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The longest beginning of one line that fits, with an ellipsis where it had to be cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)
