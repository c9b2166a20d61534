"""One statement of a file about its origin, with its text made safe to show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

MAX_TEXT = 300  # characters of any text from the file
MAX_PARSED = 200_000  # characters of a text field that are looked at
MAX_PARSED_TOGETHER = 2_000_000  # of all of a file's fields
MAX_STATEMENTS = 100  # of one file, without its content credentials

Says = Literal["camera", "generated", "edited", "unclear"]


@dataclass(frozen=True)
class Evidence:
    """One statement of the file about itself.

    Attributes:
        says: "camera", "generated", "edited" (parts may be generated) or "unclear".
        source: where it was found, e.g. "EXIF" or "PNG text `parameters`".
        text: what it says, untrusted, at most ``MAX_TEXT`` characters.
        verified: of content credentials alone: the signature is valid. Who signed is another question.
    """

    says: Says
    source: str
    text: str
    verified: bool = False


# IPTC NewsCodes: https://cv.iptc.org/newscodes/digitalsourcetype/
SOURCE_TYPES: dict[str, tuple[Says, str]] = {
    "trainedalgorithmicmedia": ("generated", "created by a trained model"),
    "algorithmicmedia": ("generated", "created by an algorithm"),
    "compositewithtrainedalgorithmicmedia": ("edited", "a composite with parts from a trained model"),
    "compositesynthetic": ("edited", "a composite with synthetic parts"),
    "algorithmicallyenhanced": ("edited", "enhanced by an algorithm"),
    "humanedits": ("edited", "edited by a person"),
    "minorhumanedits": ("edited", "small edits by a person"),
    "compositecapture": ("edited", "a composite of photographs"),
    "digitalcreation": ("edited", "drawn with software"),
    "digitalart": ("edited", "drawn with software"),
    "virtualrecording": ("generated", "recorded from a virtual scene"),
    "digitalcapture": ("camera", "taken with a digital camera"),
    "computationalcapture": ("camera", "taken with a digital camera, computed from several frames"),
    "negativefilm": ("camera", "scanned from a negative"),
    "positivefilm": ("camera", "scanned from a positive"),
    "print": ("camera", "scanned from a print"),
}


def source_type(value: str) -> tuple[str, Says, str]:
    """The name of a digital source type (its URI's last part), and what it says."""
    name = re.split(r"[/:#]", value.strip().rstrip("/"))[-1][:60]
    return name, *SOURCE_TYPES.get(name.lower(), ("unclear", "an unknown source type"))


def text_of(value: Any) -> str:
    """A text field in whatever form the file has it; "" for anything that is none."""
    if isinstance(value, bytes):
        value = _decoded(value)
    return str(value).strip("\0 \r\n\t") if isinstance(value, str) else ""


def _decoded(value: bytes) -> str:
    """EXIF 2.3, 4.6.5: UserComment starts with the name of its code; Windows' XP fields are UTF-16 LE."""
    if value[:8] == b"UNICODE\0":
        body = value[8:]
        big = body[:2] == b"\xfe\xff" or body[:1] == b"\0"
        return body.decode("utf-16-be" if big else "utf-16-le", "replace")
    if value[:8] in (b"ASCII\0\0\0", b"\0" * 8):
        value = value[8:]
    if value[1::2][:20].count(0) > 5:
        return value.decode("utf-16-le", "replace")
    return value.decode("utf-8", "replace")


def clean(text: str) -> str:
    """One line without control or bidirectional characters, at most MAX_TEXT long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT])
    line = re.sub(r" +", " ", line).strip()
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
