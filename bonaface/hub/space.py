"""A model -> a Space: a folder with everything that the app needs, published in one commit.

The folder runs from its own files: the project's ``app.py``, library and ``requirements.txt``, a ``start.py`` that
names the model, and a README.md whose front matter tells the Hub how to run it. A model of the Hub is named by its
commit, so that the Space serves what it was made for; a model folder comes along, below ``model/``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from bonaface.errors import UsageError
from bonaface.hub import merge
from bonaface.hub.pack import packed_files, refuse_existing, write_folder
from bonaface.hub.publish import CARD, Published, check_repo_id, hub_errors, publish
from bonaface.models.download import FACTS, WEIGHTS, model_folder

ROOT = Path(__file__).resolve().parents[2]
APP_FILES = ("app.py", "requirements.txt", "LICENSE")
LIBRARY = ("*.py", "*.j2", "*.css")
START = '''"""The Space's entry point: the app with this Space's model."""

import sys
from pathlib import Path

from bonaface.web.app import main
from bonaface.errors import usage_errors_exit

MODEL = {model}

if __name__ == "__main__":
    with usage_errors_exit():
        main(["--model", MODEL, "--host", "0.0.0.0", *sys.argv[1:]])
'''


@dataclass(frozen=True)
class _Model:
    """What the Space serves: an id with its commit and files, or a folder that comes along."""

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
    token: str | None = None,
) -> Published | Path:
    """Make the Space of a model: publish it, or, with ``out``, write its folder.

    Args:
        model: Hub id, with or without ``@revision``, or a model folder.
        docker: run it from a Dockerfile instead of the Hub's own Gradio image.
        out: a new or empty folder.

    Raises:
        UsageError: no such model, ``out`` holds something, or as :func:`bonaface.hub.publish.publish`.
    """
    check_repo_id(repo_id)
    if out is not None:
        refuse_existing(out)
    files, card = space_files(model, repo_id, docker=docker, token=token)
    if out is not None:
        write_folder(out, {**files, CARD: card.encode()})
        return out
    return publish(
        repo_id,
        files,
        lambda there: merge.merge(there, card)[0] if there else card,
        kind="space",
        message=f"The app, serving {Path(model).resolve().name if Path(model).is_dir() else model}",
        private=private,
        owned=("bonaface/*", "model/*", *APP_FILES, "start.py", "Dockerfile"),
        sdk="docker" if docker else "gradio",
        token=token,
    )


def space_files(
    model: str, repo_id: str, *, docker: bool = False, token: str | None = None
) -> tuple[dict[str, bytes | Path], str]:
    """The Space's files by their names, and its README.md. Raises UsageError."""
    found = _find(model, token)
    files: dict[str, bytes | Path] = dict(_app_files())
    if found.folder is not None:
        files |= {f"model/{name}": content for name, content in packed_files(found.folder).items()}
        place = 'str(Path(__file__).parent / "model")'
    else:
        place = json.dumps(f"{found.repo_id}@{found.commit}")
    files["start.py"] = START.format(model=place).encode()
    if docker:
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        start = "# The app of this Space, with its model.\n" + text[text.index("FROM ") :]
        files["Dockerfile"] = start.replace('["python", "app.py"]', '["python", "start.py"]').encode()
    return files, _card(found, repo_id, docker)


def _find(model: str, token: str | None) -> _Model:
    folder = model_folder(model, weights=False)
    if Path(model).is_dir():
        return _Model(folder=folder)
    repo_id, commit = model.partition("@")[0], folder.name
    with hub_errors(repo_id):
        listed = HfApi(token=token).list_repo_files(repo_id, revision=commit)
    return _Model(repo_id, commit, tuple(f for f in listed if any(fnmatch(f, pattern) for pattern in FACTS + WEIGHTS)))


def _app_files() -> dict[str, Path]:
    files = {name: ROOT / name for name in APP_FILES}
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise UsageError(f"{missing[0]} is not beside the package", "make Spaces in a checkout of the project")
    for pattern in LIBRARY:
        files |= {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "bonaface").rglob(pattern))}
    return files


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
            "app_file": "start.py",
        }
    metadata |= {
        "pinned": False,
        "license": "apache-2.0",
        "short_description": "Is this face a photograph or generated?",
    }
    metadata["startup_duration_timeout"] = "1h"
    if model.repo_id:
        metadata["models"] = [model.repo_id]
        if not docker:
            metadata["preload_from_hub"] = [f"{model.repo_id} {','.join(model.files)} {model.commit}"]
    serves = (
        f"[{model.repo_id}](https://huggingface.co/{model.repo_id}) at the commit `{model.commit}`"
        if model.repo_id
        else "the model in `model/`"
    )
    text = f"""# {name}

Says of a picture of a face whether it looks like a photograph or like the work of a generator, and when it cannot tell.
It serves {serves}; what it is worth stands in its card, and in the tab *About*.

Pictures are deleted when the page is closed, after 15 minutes at the latest. Nothing is fetched from an address.

The same here, without the Hub: `pip install -r requirements.txt`, then `python start.py --host 127.0.0.1`. A private
model needs a secret `HF_TOKEN` in the Space's settings."""
    return merge.compose(metadata, {"space": text})
