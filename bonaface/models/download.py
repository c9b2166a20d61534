"""A model's name -> a local folder: a folder as it is, a Hub id from the cache or the Hub, checked byte by byte.

Everything that takes a model takes ``user/name`` and ``user/name@revision`` (a branch, tag or commit). The Hub is asked
for news where it answers; else the last version serves that was downloaded whole, unless the download of a newer one
was begun: that must be finished first, or an older one named by its commit. Only what a model needs comes along, and
never a pickle.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NoReturn

import httpx
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from tqdm.auto import tqdm

from bonaface.errors import UsageError, shorten
from bonaface.proxies import check_proxies

FACTS = ("config.json", "preprocessor_config.json", "processor_config.json", "recipe.yaml", "README.md")
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", "unfamiliar.safetensors",
    "model.onnx", "openvino_model.xml", "openvino_model.bin", "report/*",
)  # fmt: skip
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def model_folder(
    name: str | os.PathLike[str],
    *,
    weights: bool = True,
    code: bool = False,
    otherwise: str = "give a model folder with config.json, model.safetensors and preprocessor_config.json",
) -> Path:
    """The folder of a model.

    Files of the Hub lie in the cache under the digest that the Hub gave them, and are compared with it each time. One
    that differs is fetched once more.

    Args:
        name: a folder, or a Hub id with or without ``@revision``.
        weights: also what its configuration does not need: weights and report.
        code: also Python files, which are run only where ``trust_remote_code`` says so.
        otherwise: what a user can do who has no such model; ends the hint.

    Raises:
        UsageError: no such folder or model, no right to it, no network and nothing in the cache, or damaged files.
    """
    if Path(name).is_dir():
        return Path(name)
    name = os.fspath(name)
    repo_id, _, revision = name.partition("@")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(
            f"cannot load the model {shorten(str(name))}: there is no such folder", f"{otherwise}, or a Hub id"
        ) from error
    patterns = [*FACTS, *(WEIGHTS if weights else ()), *(["*.py"] if code else [])]
    folder = _fetch(name, repo_id, revision or None, patterns, otherwise)
    damaged = damaged_files(folder)
    if damaged:
        _forget(damaged)
        folder = _fetch(name, repo_id, revision or None, patterns, otherwise)
        damaged = damaged_files(folder)
    if damaged:
        _forget(damaged)
        raise UsageError(
            f"cannot load the model {name}: {damaged[0].name} arrives damaged",
            "try again later; if it stays so, what lies between you and the Hub changes files",
        )
    if weights and not any(any(folder.glob(pattern)) for pattern in WEIGHTS if pattern.startswith(("model", "open"))):
        raise UsageError(
            f"cannot load the model {name}: it has no weights as safetensors, and pickles are not loaded",
            "ask its owner for safetensors (the Hub's space safetensors/convert makes them)",
        )
    return folder


def damaged_files(folder: Path) -> list[Path]:
    """Files in the Hub's cache that are not what the Hub said: by git's SHA-1, or the SHA-256 of large ones."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    quiet = True if size < 500_000_000 else None
    damaged = []
    with tqdm(total=size, desc="checking the model", unit="B", unit_scale=True, leave=False, disable=quiet) as bar:
        for path in files:
            expected = path.resolve().name
            if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", expected):
                continue  # a file system without links: the cache holds copies, under their own names
            if len(expected) == 64:
                digest = hashlib.sha256()
            else:
                digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
                    bar.update(len(part))
            if digest.hexdigest() != expected:
                damaged.append(path)
    return damaged


def _forget(files: list[Path]) -> None:
    for path in files:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _fetch(name: str, repo_id: str, revision: str | None, patterns: list[str], otherwise: str) -> Path:
    check_proxies()
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, httpx.TransportError, RuntimeError) as error:  # Xet knows RuntimeError alone
        _explain(error, name, repo_id, revision, otherwise)


def _explain(error: Exception, name: str, repo_id: str, revision: str | None, otherwise: str) -> NoReturn:
    lead, address = f"cannot load the model {name}", f"{constants.ENDPOINT}/{repo_id}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RevisionNotFoundError):
        raise UsageError(f"{lead}: it has no revision `{revision}`", f"{address}/commits/main lists them") from error
    if isinstance(error, GatedRepoError):
        raise UsageError(f"{lead}: its owner wants to be asked", f"ask at {address}, then {LOG_IN}") from error
    if isinstance(error, RepositoryNotFoundError):
        raise UsageError(
            f"{lead}: there is no such folder, and no such model on the Hub that you may see",
            f"check the name; {LOG_IN} for a private one; or {otherwise}",
        ) from error
    if status in (401, 403):
        raise UsageError(f"{lead}: the Hub does not accept the token", f"{LOG_IN} to one that may read it") from error
    if isinstance(error, LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            why = f"the Hub answers {cause.response.status_code}"
        else:
            why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the Hub cannot be reached"
        raise UsageError(
            f"{lead}: there is no such folder, all of it is not in the cache, and {why}",
            f"go online once; or {otherwise}",
        ) from error
    if status is not None or isinstance(error, httpx.TransportError | RuntimeError):
        why = f"the Hub answers {status}" if status else "the line to the Hub broke"
        raise UsageError(f"{lead}: {why}", "try again: what has arrived is kept") from error
    raise UsageError(
        f"{lead}: {str(error).strip().splitlines()[0]}", "try again, and look for room on the disk"
    ) from error
