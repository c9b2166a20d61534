"""A card with two authors: this program, which rewrites it with every push, and a person who edits it in between.

What we write is between comments with a digest of it::

    <!-- bonaface:begin use 1f2e3d4c -->
    ## What it is for
    …
    <!-- bonaface:end use -->

A section whose text still has its digest is ours and is replaced; one that a person changed is kept, one that a person
deleted stays deleted, and everything outside the comments is kept. The same holds for each key of the metadata;
their digests, and the names of all sections that were ever written, are in one more comment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bonaface.errors import UsageError

_FRONT = re.compile(r"\A\s*---\n(.*?)(?:\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
_LEDGER = re.compile(r"<!-- bonaface:card (\{.*?\}) -->\n?")
_SECTION = re.compile(
    r"<!-- bonaface:begin (?P<key>[\w-]+) (?P<digest>[0-9a-f]{8}) -->\n(?P<body>.*?)\n<!-- bonaface:end (?P=key) -->",
    re.DOTALL,
)


@dataclass
class _Part:
    """A section (``key``), or the text of a person between two of them (no key)."""

    body: str
    key: str = ""
    digest: str = ""

    @property
    def is_ours(self) -> bool:
        return bool(self.key) and digest(self.body) == self.digest

    def __str__(self) -> str:
        if not self.key:
            return self.body
        return f"<!-- bonaface:begin {self.key} {self.digest} -->\n{self.body}\n<!-- bonaface:end {self.key} -->"


@dataclass
class _Card:
    front: str = ""  # YAML as it is written
    metadata: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of our metadata, as last written
    known: list[str] = field(default_factory=list)  # sections that were written once
    parts: list[_Part] = field(default_factory=list)

    def __str__(self) -> str:
        ledger = json.dumps({"metadata": self.digests, "sections": self.known}, sort_keys=True)
        body = "\n\n".join(str(part) for part in self.parts if str(part).strip())
        return f"---\n{self.front}\n---\n\n<!-- bonaface:card {ledger} -->\n\n{body}\n"


def read_card(file: Path) -> str:
    """A card's text. Raises UsageError where it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8", "save it as UTF-8") from error


def digest(value: Any) -> str:
    """8 hex digits of a text or of metadata; space at either end does not count."""
    text = value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def compose(metadata: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """A card of ours: metadata, and sections by their names, in order; empty ones are left out."""
    parts = [_Part(text.strip(), key, digest(text)) for key, text in sections.items() if text.strip()]
    digests = {key: digest(value) for key, value in metadata.items()}
    return str(_Card(_dump(metadata), dict(metadata), digests, [part.key for part in parts], parts))


def merge(old: str, new: str) -> tuple[str, list[str]]:
    """The card ``new``, which :func:`compose` made, over the one that is there, and what of the latter was kept.

    The second result names the sections (``use``) and metadata (``metadata.license``) of ours that a person changed or
    deleted. Merged once more, the card does not change.

    Raises:
        UsageError: the metadata of the card that is there is not YAML.
    """
    theirs, ours = _parse(old), _parse(new)
    metadata, digests, kept = _merge_metadata(theirs, ours)
    fresh = {part.key: part for part in ours.parts if part.key}
    parts: list[_Part] = []
    for part in theirs.parts:
        if not part.key or not part.is_ours:
            parts.append(part)
            kept += [part.key] if part.key else []
        elif part.key in fresh:
            parts.append(fresh[part.key])
    order = list(fresh)
    for position, key in enumerate(order):
        if any(part.key == key for part in parts):
            continue
        if key in theirs.known:
            kept.append(key)
            continue
        before = [i for i, part in enumerate(parts) if part.key in order[:position]]
        parts.insert(before[-1] + 1 if before else len(parts), fresh[key])
    known = list(dict.fromkeys([*ours.known, *theirs.known]))
    front = theirs.front if metadata == theirs.metadata else _dump(metadata)
    merged = str(_Card(front, metadata, digests, known, parts))
    same = _normal(merged) == _normal(old)
    return (old if same else merged), kept


def personal(card: str) -> set[str]:
    """What a person wrote in a card: texts outside our sections, changed sections, changed metadata."""
    found = _parse(card)
    texts = {part.body.strip() for part in found.parts if not part.is_ours}
    texts |= {f"{key}: {value}" for key, value in found.metadata.items() if digest(value) != found.digests.get(key)}
    gone = [key for key in found.known if key not in {part.key for part in found.parts}]
    return {text for text in texts if text} | {f"deleted {key}" for key in gone}


def _merge_metadata(theirs: _Card, ours: _Card) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    merged: dict[str, Any] = {}
    kept = []
    for key in dict.fromkeys([*theirs.metadata, *ours.metadata]):
        written = theirs.digests.get(key)
        if key not in theirs.metadata:
            if written is None:
                merged[key] = ours.metadata[key]
            else:
                kept.append(f"metadata.{key}")  # deleted
        elif written is None or digest(theirs.metadata[key]) != written:
            merged[key] = theirs.metadata[key]
            kept += [f"metadata.{key}"] if key in ours.metadata and merged[key] != ours.metadata[key] else []
        elif key in ours.metadata:
            merged[key] = ours.metadata[key]
    return merged, ours.digests, kept


def _parse(text: str) -> _Card:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    card = _Card()
    if found := _FRONT.match(text):
        card.front, text = found[1], text[found.end() :]
        try:
            card.metadata = yaml.safe_load(card.front) or {}
        except yaml.YAMLError as error:
            raise UsageError("the card's metadata is not YAML", "fix the text between its --- lines") from error
        if not isinstance(card.metadata, dict):
            raise UsageError("the card's metadata is not a list of `key: value`", "fix the text between its --- lines")
    if ledger := _LEDGER.search(text):
        try:
            noted = json.loads(ledger[1])
            card.digests, card.known = dict(noted["metadata"]), list(noted["sections"])
        except (ValueError, KeyError, TypeError):
            pass  # somebody changed it: then all of the metadata counts as theirs
        text = text[: ledger.start()] + text[ledger.end() :]
    position = 0
    for section in _SECTION.finditer(text):
        card.parts.append(_Part(text[position : section.start()].strip("\n")))
        card.parts.append(_Part(section["body"], section["key"], section["digest"]))
        position = section.end()
    card.parts.append(_Part(text[position:].strip("\n")))
    card.parts = [part for part in card.parts if part.key or part.body.strip()]
    return card


def _dump(metadata: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000).strip()


def _normal(card: str) -> str:
    return "\n".join(line.rstrip() for line in card.replace("\r\n", "\n").strip().split("\n") if line.strip())
