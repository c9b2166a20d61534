"""A model's name -> a local folder: a folder as it is, a Hub id from the cache or the Hub, checked byte by byte.

Everything that takes a model takes ``user/name`` and ``user/name@revision`` (a branch, tag or commit). If the Hub can
be reached, the newest version is used; otherwise the last one that was downloaded completely, unless the download of a
newer one was begun: finish that first, or name an older one by its commit. Only what a model needs is downloaded, and
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

from bonaface.errors import UsageError, is_folder, shorten
from bonaface.proxies import check_proxies

FACTS = ("config.json", "preprocessor_config.json", "processor_config.json", "recipe.yaml", "README.md")
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", "unfamiliar.safetensors",
    "resembles.safetensors", "model.onnx", "openvino_model.xml", "openvino_model.bin", "report/*",
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

    Files of the Hub are cached under the digest that the Hub gave them, and are compared with it each time. One that
    differs is downloaded once more.

    Args:
        name: a folder, or a Hub id with or without ``@revision``.
        weights: also what its configuration does not need: weights and report.
        code: also Python files, which are run only where ``trust_remote_code`` says so.
        otherwise: what else a user can do; ends the hint.

    Raises:
        UsageError: no such folder or model, no right to it, no network and nothing in the cache, or damaged files.
    """
    if is_folder(name):
        return Path(name)
    name = os.fspath(name)
    repo_id, _, revision = name.partition("@")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(
            f"cannot load the model {shorten(str(name))}: no such folder", f"{otherwise}, or a Hub id"
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
            f"cannot load the model {name}: {damaged[0].name} failed its checksum",
            "try again later; if it keeps failing, a proxy between you and the Hub may be changing files",
        )
    if weights and not any(any(folder.glob(pattern)) for pattern in WEIGHTS if pattern.startswith(("model", "open"))):
        raise UsageError(
            f"cannot load the model {name}: it has no safetensors weights, and pickles are never loaded",
            "ask its owner to convert them, for example with the Hub's Space safetensors/convert",
        )
    return folder


def damaged_files(folder: Path) -> list[Path]:
    """Files in the Hub's cache that fail their checksum: git's SHA-1, or the SHA-256 of large ones."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    quiet = True if size < 500_000_000 else None
    damaged = []
    with tqdm(total=size, desc="checking the model", unit="B", unit_scale=True, leave=False, disable=quiet) as bar:
        for path in files:
            expected = path.resolve().name
            if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", expected):
                continue  # a file system without links: the cache contains copies, under their own names
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
    except (
        OSError,
        HfHubHTTPError,
        httpx.TransportError,
        RuntimeError,
    ) as error:  # Xet raises nothing but RuntimeError
        _explain(error, name, repo_id, revision, otherwise)


def _explain(error: Exception, name: str, repo_id: str, revision: str | None, otherwise: str) -> NoReturn:
    lead, address = f"cannot load the model {name}", f"{constants.ENDPOINT}/{repo_id}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RevisionNotFoundError):
        raise UsageError(
            f"{lead}: it has no revision `{revision}`", f"find its revisions at {address}/commits/main"
        ) from error
    if isinstance(error, GatedRepoError):
        raise UsageError(f"{lead}: it is a gated model", f"request access at {address}, then {LOG_IN}") from error
    if isinstance(error, RepositoryNotFoundError):
        raise UsageError(
            f"{lead}: no such folder, and no such model on the Hub that you have access to",
            f"check the name; if the model is private, {LOG_IN}; or {otherwise}",
        ) from error
    if status in (401, 403):
        raise UsageError(
            f"{lead}: the Hub does not accept the token", f"{LOG_IN} to one that can read the model"
        ) from error
    if isinstance(error, LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            why = f"the Hub answered {cause.response.status_code}"
        else:
            why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the Hub cannot be reached"
        raise UsageError(
            f"{lead}: no such folder, no complete copy in the cache, and {why}",
            f"connect to the Hub once, or {otherwise}",
        ) from error
    if status is not None or isinstance(error, httpx.TransportError | RuntimeError):
        why = f"the Hub answered {status}" if status else "the connection to the Hub was lost"
        raise UsageError(f"{lead}: {why}", "try again: the download resumes") from error
    raise UsageError(
        f"{lead}: {str(error).strip().splitlines()[0]}", "try again, and check the free disk space"
    ) from error
