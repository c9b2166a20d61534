"""The fields of an XMP packet (ISO 16684-1), read by an XML parser that expands nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from xml.parsers import expat

from bonaface.imaging.containers import Container


def xmp_fields(packet: bytes) -> list[tuple[str, str]]:
    """(property without its prefix, value) of attributes and elements; of a broken packet, what precedes the break.

    Nothing is expanded: a packet with a document type, which XMP does not have, is not read beyond it.
    """
    found: list[tuple[str, str]] = []
    path: list[str] = []
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        for attribute, value in attributes.items():
            prefix, _, local = attribute.rpartition(":")
            add(_property(path) if prefix == "rdf" else local, value)

    def text(value: str) -> None:
        add(_property(path), value)

    def add(name: str, value: str) -> None:
        if value.strip():
            found.append((name, value))

    def refuse(*_: Any) -> None:
        raise ValueError("a document type")

    parser.buffer_text, parser.buffer_size = True, max(1, len(packet))  # no text in pieces
    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: path.pop()
    parser.StartDoctypeDeclHandler = refuse
    with contextlib.suppress(expat.ExpatError, ValueError):
        parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    return found


def _property(path: Sequence[str]) -> str:
    """The innermost element that is a property and not the grammar around it (rdf:Alt, rdf:li, ...)."""
    return next((name.rpartition(":")[2] for name in reversed(path) if not name.startswith("rdf:")), "")


def gif_xmp(container: Container) -> bytes | None:
    """XMP stands in a GIF as it is, not in sub-blocks, with 257 bytes behind it that lead a reader out of it."""
    if container.kind != "GIF":
        return None
    blocks = (block for block in container.payloads("application") if block[1:12] == b"XMP DataXMP")
    return next((block[12:].rpartition(b">")[0] + b">" for block in blocks), None)
