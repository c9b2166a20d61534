"""The fields of an XMP packet (ISO 16684-1), read by an XML parser that expands nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from xml.parsers import expat

from bonaface.imaging.containers import Container

IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
MAX_DEPTH = 64  # of elements in one another; honest packets have about ten
_OTHER_IMAGES = {"Ingredients", "Pantry"}  # xmpMM: what was placed into this image, and the metadata that it had


def xmp_fields(packet: bytes) -> list[tuple[str, str, str]]:
    """(namespace, property, value) of attributes and elements; of a broken packet, what precedes the break.

    One that is nested deeper than MAX_DEPTH counts as broken there. What it says of other images is left out. Nothing
    is expanded: a packet with a document type, which XMP does not have, is not read beyond it.
    """
    found: list[tuple[str, str, str]] = []
    path: list[tuple[str, str]] = []
    parser = expat.ParserCreate(namespace_separator=" ")

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) == MAX_DEPTH:
            raise ValueError("too deep")
        path.append(_split(name))
        for attribute, value in attributes.items():
            namespace, local = _split(attribute)
            add(_property(path) if namespace == _RDF else (namespace, local), value)

    def text(value: str) -> None:
        add(_property(path), value)

    def add(name: tuple[str, str], value: str) -> None:
        if value.strip() and not any(local in _OTHER_IMAGES for _, local in path):
            found.append((*name, value))

    def refuse(*_: Any) -> None:
        raise ValueError("a document type")

    parser.buffer_text, parser.buffer_size = True, max(1, len(packet))  # no text in pieces
    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: path.pop()
    parser.StartDoctypeDeclHandler = refuse
    with contextlib.suppress(expat.ExpatError, ValueError):
        parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    return found


def _split(name: str) -> tuple[str, str]:
    """Namespace and local name; the namespace is "" where there is none."""
    namespace, _, local = name.rpartition(" ")
    return namespace, local


def _property(path: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The innermost element that is a property and not the grammar around it (rdf:Alt, rdf:li, ...)."""
    return next((name for name in reversed(path) if name[0] != _RDF), ("", ""))


def gif_xmp(container: Container) -> bytes | None:
    """XMP stands in a GIF as it is, not in sub-blocks, with 257 bytes behind it that lead a reader out of it."""
    if container.kind != "GIF":
        return None
    blocks = (block for block in container.payloads("application") if block[1:12] == b"XMP DataXMP")
    return next((block[12:].rpartition(b">")[0] + b">" for block in blocks), None)
