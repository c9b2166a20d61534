"""A model -> a Space: a folder with all that the app needs, published in one commit.

The folder is self-contained: the library and its ``requirements.txt``, an ``app.py`` that names the model, and a
README.md whose front matter tells the Hub how to run it, from the templates in ``hub/templates/space``. A model on the
Hub is named by its commit, so that the Space serves what it was made for; a local model is copied to ``model/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import distribution, requires, version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from bonaface.hub import merge
from bonaface.hub.pack import packed_files, refuse_existing, write_folder
from bonaface.hub.publish import CARD, Published, check_repo_id, hub_errors, publish
from bonaface.hub.templates import render, render_sections
from bonaface.models.download import FACTS, WEIGHTS, model_folder
from bonaface.resources import INSTALLED, PACKAGE, resource

LIBRARY = ("*.py", "*.j2", "*.css")
OWNED = ("bonaface/*", "model/*", "app.py", "requirements.txt", "LICENSE", "Dockerfile")


@dataclass(frozen=True)
class _Model:
    """What the Space serves: an id with its commit and files, or a folder that is copied."""

    repo_id: str = ""
    commit: str = ""
    files: tuple[str, ...] = ()
    folder: Path | None = None


def make_space(
    model: str,
    repo_id: str,
    *,
    docker: bool = False,
    out: Path | None = None,
    private: bool = False,
) -> Published | Path:
    """Make the Space of a model: publish it, or, with ``out``, write its folder.

    Args:
        model: Hub id, with or without ``@revision``, or a model folder.
        docker: run it from a Dockerfile instead of the Hub's own Gradio image.
        out: a new or empty folder.

    Raises:
        UsageError: no such model, ``out`` is not empty, or as :func:`bonaface.hub.publish.publish`.
    """
    return deliver(
        repo_id,
        lambda: space_files(model, repo_id, docker=docker),
        out=out,
        message=f"The app, serving {model_name(model)}",
        private=private,
        owned=OWNED,
        sdk="docker" if docker else "gradio",
    )


def deliver(
    repo_id: str,
    make: Callable[[], tuple[Mapping[str, bytes | Path], str]],
    *,
    out: Path | None,
    message: str,
    private: bool,
    owned: Sequence[str],
    sdk: str,
) -> Published | Path:
    """Publish a Space, or, with ``out``, write its folder; what is refused is refused before anything is made.

    Args:
        make: gives the files by their names, and the README.md.

    Raises:
        UsageError: ``out`` is not empty, or as :func:`bonaface.hub.publish.publish`.
    """
    check_repo_id(repo_id)
    if out is not None:
        refuse_existing(out)
    files, card = make()
    if out is not None:
        write_folder(out, {**files, CARD: card.encode()})
        return out
    return publish(
        repo_id,
        files,
        lambda there: merge.merge(there, card)[0] if there else card,
        kind="space",
        message=message,
        private=private,
        owned=owned,
        sdk=sdk,
    )


def model_name(model: str) -> str:
    """A model as a commit's message names it: a folder's name, or the id."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def space_files(model: str, repo_id: str, *, docker: bool = False) -> tuple[dict[str, bytes | Path], str]:
    """The Space's files by their names, and its README.md. Raises UsageError."""
    found = _find(model)
    files: dict[str, bytes | Path] = {**_library(), "requirements.txt": _requirements(), "LICENSE": _license()}
    if found.folder is not None:
        files |= {f"model/{name}": content for name, content in packed_files(found.folder).items()}
    files["app.py"] = render("space/app.py.j2", model=found).encode()
    if docker:
        files["Dockerfile"] = render("space/Dockerfile").encode()
    return files, _card(found, repo_id, docker)


def _find(model: str) -> _Model:
    folder = model_folder(model, weights=False)
    if Path(model).is_dir():
        return _Model(folder=folder)
    repo_id, commit = model.partition("@")[0], folder.name
    with hub_errors(repo_id):
        listed = HfApi().list_repo_files(repo_id, revision=commit)
    return _Model(repo_id, commit, tuple(f for f in listed if any(fnmatch(f, pattern) for pattern in FACTS + WEIGHTS)))


def _library() -> dict[str, Path]:
    """The package's own files, without what an installation keeps below it of the rest of the project."""
    paths = sorted(path for pattern in LIBRARY for path in PACKAGE.rglob(pattern) if INSTALLED not in path.parents)
    return {f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}": path for path in paths}


def _requirements() -> bytes:
    """A checkout's own list; for an installation, the requirements of its metadata, without extras."""
    if file := resource("requirements.txt"):
        return file.read_bytes()
    return "".join(f"{line}\n" for line in requires(PACKAGE.name) or [] if "extra ==" not in line).encode()


def _license() -> bytes:
    """Beside the package in a checkout, among an installation's metadata."""
    file = resource("LICENSE")
    text = file.read_text(encoding="utf-8") if file else distribution(PACKAGE.name).read_text("licenses/LICENSE")
    return (text or "").encode()


def _card(model: _Model, repo_id: str, docker: bool) -> str:
    name = repo_id.split("/")[-1]
    metadata: dict[str, Any] = {"title": name, "emoji": "🔎", "colorFrom": "indigo", "colorTo": "gray"}
    if docker:
        metadata |= {"sdk": "docker", "app_port": 7860}
    else:
        metadata |= {
            "sdk": "gradio",
            "sdk_version": version("gradio"),
            "python_version": "3.11",
            "app_file": "app.py",
        }
    metadata |= {
        "pinned": False,
        "license": "apache-2.0",
        "short_description": "Is this face a photograph or AI-generated?",
    }
    metadata["startup_duration_timeout"] = "1h"
    if model.repo_id:
        metadata["models"] = [model.repo_id]
        if not docker:
            metadata["preload_from_hub"] = [f"{model.repo_id} {','.join(model.files)} {model.commit}"]
    return merge.compose(metadata, render_sections("space/README.md.j2", name=name, model=model))
