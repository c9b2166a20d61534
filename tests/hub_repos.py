"""What the stand-in for the Hub keeps: repositories with their commits, what shall fail, and its rules for cards."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

LARGE = (".safetensors", ".parquet", ".png", ".onnx", ".bin", ".jpg")
LICENSES = {"apache-2.0", "mit", "unknown", "other", "cc-by-4.0"}
TASKS = {"image-classification"}


def blob_id(data: bytes) -> str:
    """As git names the content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """Commits by their id, each with all its files; the first one is the Hub's own."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")

    def add(self, branch: str, files: dict[str, bytes], message: str = "by hand") -> str:
        """A further commit, whose files are these and no others."""
        sha = hashlib.sha1(f"{self.name}{len(self.commits)}{message}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = dict(files), sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """All files of a branch or commit. KeyError where there is none."""
        return self.commits[self.branches.get(revision, revision)]

    def edit(self, **files: str) -> None:
        """A person changes files in the browser; ``README_md`` stands for ``README.md``."""
        changed = {name.replace("_", "."): text.encode() for name, text in files.items()}
        self.add("main", self.files() | changed)


@dataclass
class Fault:
    """What happens to requests that match, so many times."""

    method: str
    path: str
    action: str  # "status", "before", "after" (the connection is cut), "body" (cut in the middle), "stall", "corrupt"
    times: int
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


def entry(path: str, data: bytes) -> dict[str, Any]:
    """A file in a listing."""
    found: dict[str, Any] = {"type": "file", "oid": blob_id(data), "size": len(data), "path": path}
    if path.endswith(LARGE):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return found


def card_errors(content: str, kind: str) -> list[str]:
    """What the Hub would refuse of a card's metadata: a part of its rules, enough to notice nonsense."""
    found = re.match(r"\s*---\n(.*?)\n---", content, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    errors = []
    if data.get("license") not in {None, *LICENSES}:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    if data.get("pipeline_tag") not in {None, *TASKS}:
        errors.append('"pipeline_tag" must be a known task')
    for key in ("tags", "datasets", "task_categories"):
        if not (isinstance(data.get(key, []), list) and all(isinstance(word, str) for word in data.get(key, []))):
            errors.append(f'"{key}" must be a list of words')
    for name in [*data.get("datasets", []), *([data["base_model"]] if "base_model" in data else [])]:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            errors.append(f'"{name}" is no repository')
    for model in data.get("model-index", []):
        for result in model["results"]:
            wrong = [m for m in result["metrics"] if "type" not in m or not isinstance(m.get("value"), int | float)]
            if wrong or "type" not in result["task"] or not {"name", "type"} <= set(result["dataset"]):
                errors.append('"model-index" lacks a type, a name or a value')
    if kind == "space":
        if data.get("sdk") not in ("gradio", "docker", "static"):
            errors.append('"sdk" must be gradio, docker or static')
        if len(data.get("short_description", "")) > 60:
            errors.append('"short_description" is longer than 60 characters')
        colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
        if not {data.get("colorFrom"), data.get("colorTo")} <= colours:
            errors.append('"colorFrom" must be a known colour')
    return errors
