"""What must not leave this machine with a run: its paths, tokens, and images of the data set."""

from __future__ import annotations

import html
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import get_token

from bonaface.errors import UsageError
from bonaface.report.pages import markdown_text

TOLD = ("config.json", "recipe.yaml", "report/metrics.json")  # where a run stores its options
_TOKEN = re.compile(  # of the Hub, of OpenAI and Anthropic, of GitHub
    rb"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9]{30,}|sk-(?:proj|svcacct|ant-\w{1,10})-[\w-]{30,}"
    rb"|gh[opsu]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"
)
_ROOTED = re.compile(r"^(?:~?/|\.\.?/|[A-Za-z]:[\\/])")
_WORD = re.compile(r"[^\s\"'`<>|,;=()]+")
_THUMBNAIL = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")
_NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="  # one clear pixel


class Redactor:
    """Replaces the paths of this machine, as a run's own files name them, by their last part.

    Args:
        folder: of the run; its ``config.json``, ``recipe.yaml`` and ``report/metrics.json`` are read for paths.
    """

    def __init__(self, folder: Path) -> None:
        found = {path for name in TOLD for text in _texts(_read(folder / name)) for path in paths_in(text)}
        self._names = {path: re.split(r"[\\/]", path.rstrip("\\/"))[-1] for path in found}
        here = [Path.home(), Path.cwd(), folder.resolve().parent, Path(tempfile.gettempdir()).resolve()]
        long = [str(root) for root in sorted(here, reverse=True) if len(root.parts) > 1]
        roots = "|".join(re.escape(root) for name in long for root in dict.fromkeys((name, _as_ascii(name))))
        # Not in the middle of a word, as in images that are written as base64.
        self._roots = re.compile(rf"(?:(?<![\w+/.-])|(?<=file://))(?:{roots})/") if roots else None

    def text(self, text: str) -> str:
        """The text without them, also where HTML, Markdown or JSON escaped them."""
        for path in sorted(self._names, key=len, reverse=True):
            for escaped in (str, html.escape, markdown_text, _as_json, _as_ascii):
                name = escaped(self._names[path])
                # Whole paths alone: /data is no part of an address, nor of /database.
                found = rf"(?:(?<![\w.:/\\-])|(?<=file://)){re.escape(escaped(path))}(?![\w-])"
                text = re.sub(found, name.replace("\\", r"\\"), text)
        return self._roots.sub("", text) if self._roots else text


def paths_in(text: str) -> set[str]:
    """The paths that a text is, or mentions: absolute ones, and those that begin at ``~``, ``.`` or ``..``."""
    words, whole = [word.rstrip(".:") for word in _WORD.findall(text)], text.strip()
    if not re.search(r"[,;=\n]", whole):  # a folder's name may hold spaces
        words.append(whole)
    return {word for word in words if _ROOTED.match(word) and _is_long(word)}


def _is_long(path: str) -> bool:
    """Longer than the unit in "50 images /s"."""
    parts = re.split(r"[\\/]", path.rstrip("\\/"))
    return len(parts) > 2 or (len(parts) == 2 and len(parts[1]) > 1)


def without_thumbnails(page: str) -> str:
    """A report's page without the thumbnails of the data set's images; the plots stay."""
    return _THUMBNAIL.sub(_NOTHING, page)


def refuse_secrets(files: Iterable[tuple[str, bytes]]) -> None:
    """Raise UsageError for a file that contains an access token."""
    mine = (get_token() or "").encode()
    for name, data in files:
        if _TOKEN.search(data) or (len(mine) > 5 and mine in data):
            raise UsageError(f"{name} contains an access token", "remove it, and revoke the token")


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _as_ascii(text: str) -> str:
    """As JSON is written by default, in transformers' config.json."""
    return json.dumps(text)[1:-1]


def _read(path: Path) -> Any:
    """JSON is YAML too, but its own parser is much faster."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(str(key))
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
