"""Files -> one commit on the Hub: all or nothing, none if nothing has changed, retried if the connection fails."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import httpx
from huggingface_hub import (
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import get_session, validate_repo_id

from bonaface.errors import UsageError
from bonaface.hub.privacy import refuse_secrets
from bonaface.proxies import check_proxies

CARD = "README.md"
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before another attempt, where the Hub does not say how long
SILENCE = 120.0  # seconds after which a Hub that neither takes nor sends a byte counts as gone
LONGEST_WAIT = 300.0  # seconds; if the Hub asks for a longer wait, there is no other attempt
# Too many requests, a Hub in trouble, and a commit of somebody else in between: the next attempt starts from that one.
PASSING = {408, 409, 412, 429, 500, 502, 503, 504}
# What the client raises if the connection fails; uploads in chunks (Xet) raise nothing but RuntimeError.
BROKEN_LINE = (httpx.TransportError, ConnectionError, TimeoutError, RuntimeError)
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token with write access"

Files = Mapping[str, bytes | Path]
MergeCard = Callable[[str | None], str]  # the card that is there -> the card that shall be there


@dataclass(frozen=True)
class Published:
    """The state on the Hub: ``commit`` is its head, ``changed`` our commit's files, none if nothing had changed."""

    url: str
    commit: str
    changed: tuple[str, ...]

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.url} is already up to date (commit {self.commit[:8]})"
        return f"{self.url}: {len(self.changed)} files in one commit ({self.commit[:8]})"


def publish(
    repo_id: str,
    files: Files,
    merge_card: MergeCard,
    *,
    kind: str = "model",
    message: str,
    private: bool = False,
    revision: str | None = None,
    owned: Sequence[str] = (),
    sdk: str | None = None,
    token: str | None = None,
) -> Published:
    """Bring a repository to these files, with one commit at most.

    Every attempt compares what is there with what shall be there and sends the difference on top of the commit that it
    looked at. So a call that failed, or whose answer got lost, can be repeated: what did arrive is not sent again.

    Args:
        repo_id: ``user/name``; the repository is created if it is missing.
        files: names in the repository -> contents, or files to read them from; without the card.
        kind: "model", "dataset" or "space".
        private: nobody else may see it; refused if the repository exists and is not private.
        revision: a branch, created from ``main`` if it is missing.
        owned: patterns of names that are ours (``report/*``); what they match and is not among ``files`` is deleted,
            and named on stderr.
        sdk: of a Space, "gradio" or "docker".

    Raises:
        UsageError: no login, no right to write, a card that the Hub refuses, or no connection after several attempts.
    """
    check_repo_id(repo_id)
    check_proxies()
    api = HfApi(token=token)
    place = _Place(api, repo_id, kind, revision)
    for number, wait in enumerate([*WAITS, None]):
        try:
            return _attempt(place, files, merge_card, message, private, owned, sdk)
        except (*BROKEN_LINE, HfHubHTTPError, ValueError) as error:
            pause = _pause(error, wait)
            if pause is None:
                _explain(error, repo_id, kind, number + 1)
            print(f"{_reason(error)}; retrying in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def check_repo_id(repo_id: str) -> None:
    """Raise UsageError for what is not the name of a repository."""
    try:
        validate_repo_id(repo_id)
        good = repo_id.count("/") == 1
    except HFValidationError:
        good = False
    if not good:
        raise UsageError(
            f"`{repo_id}` is not a repository name", "give USER/NAME, with only letters, digits, - _ and ."
        )


def check_login(repo_id: str, token: str | None = None) -> None:
    """Check for a login with write access, before hours of training. Raises UsageError."""
    check_repo_id(repo_id)
    if not (token or get_token()):
        raise UsageError("you are not logged in to the Hub", LOG_IN)
    with hub_errors(repo_id):
        who = HfApi(token=token).whoami()
    owner, mine = repo_id.split("/")[0], [who.get("name"), *(org.get("name") for org in who.get("orgs") or [])]
    if owner not in mine:
        raise UsageError(f"the token belongs to {who.get('name')}, who may not publish as {owner}", LOG_IN)
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise UsageError(f"the token of {who.get('name')} is read-only", LOG_IN)


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn failures of requests to the Hub into UsageError."""
    check_proxies()
    try:
        yield
    except (httpx.TransportError, ConnectionError, HfHubHTTPError) as error:
        _explain(error, repo_id, "model", 1)


@dataclass(frozen=True)
class _Place:
    api: HfApi
    repo_id: str
    kind: str
    revision: str | None

    @property
    def branch(self) -> str:
        return self.revision or constants.DEFAULT_REVISION

    @property
    def url(self) -> str:
        prefix = constants.REPO_TYPES_URL_PREFIXES.get(self.kind, "")
        branch = f"/tree/{self.revision}" if self.revision else ""
        return f"{self.api.endpoint}/{prefix}{self.repo_id}{branch}"


def _attempt(
    place: _Place,
    files: Files,
    merge_card: MergeCard,
    message: str,
    private: bool,
    owned: Sequence[str],
    sdk: str | None,
) -> Published:
    api = place.api
    get_session().timeout = SILENCE  # by default the client waits for ever
    where: dict[str, Any] = {"repo_id": place.repo_id, "repo_type": place.kind}
    if not (api.token or get_token()):
        raise UsageError("you are not logged in to the Hub", LOG_IN)
    api.create_repo(**where, private=True if private else None, exist_ok=True, space_sdk=sdk)
    if private and not api.repo_info(**where, timeout=SILENCE).private:
        raise UsageError(f"{place.repo_id} already exists and is public", "make it private in its settings first")
    if place.revision:
        api.create_branch(**where, branch=place.revision, exist_ok=True)
    info = api.repo_info(**where, revision=place.branch, timeout=SILENCE)
    assert info.sha is not None
    there = {
        item.path: item.lfs.sha256 if item.lfs else item.blob_id
        for item in api.list_repo_tree(**where, recursive=True, revision=info.sha)
        if isinstance(item, RepoFile)
    }
    card = merge_card(_read_card(place, info.sha) if CARD in there else None).encode()
    refuse_secrets([(CARD, card)])  # a person may have written one into it
    wanted = {**files, CARD: card}
    operations: list[CommitOperation] = [
        CommitOperationAdd(name, content)
        for name, content in wanted.items()
        if there.get(name) not in content_ids(content)
    ]
    gone = [name for name in there if name not in wanted and any(fnmatch(name, pattern) for pattern in owned)]
    if gone:
        print(f"deleting files that are no longer part of it: {', '.join(sorted(gone))}", file=sys.stderr)
    operations += [CommitOperationDelete(name) for name in gone]
    if not operations:
        return Published(place.url, info.sha, ())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        done = api.create_commit(
            **where, operations=operations, commit_message=message, revision=place.branch, parent_commit=info.sha
        )
    return Published(place.url, done.oid, tuple(operation.path_in_repo for operation in operations))


def _read_card(place: _Place, commit: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = hf_hub_download(
            place.repo_id,
            CARD,
            repo_type=place.kind,
            revision=commit,
            local_dir=folder,
            token=place.api.token,
            endpoint=place.api.endpoint,
        )
        return Path(file).read_text(encoding="utf-8")


def content_ids(content: bytes | Path) -> set[str]:
    """Both digests by which the Hub may list a content: git's SHA-1 of the blob, and the SHA-256 of large files."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    git, large = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), hashlib.sha256()
    for part in _parts(content):
        git.update(part)
        large.update(part)
    return {git.hexdigest(), large.hexdigest()}


def _parts(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while part := file.read(1 << 20):
            yield part


# --- what went wrong ------------------------------------------------------------------------------------------------


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from: the client wraps a failed upload in a RuntimeError."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _status(error: BaseException) -> int | None:
    return next((e.response.status_code for e in _causes(error) if isinstance(e, HfHubHTTPError)), None)


def _line_broke(error: BaseException) -> bool:
    if isinstance(error, OfflineModeIsEnabled) or _status(error) is not None:
        return False
    return any(isinstance(e, BROKEN_LINE) for e in _causes(error))


def _pause(error: Exception, wait: float | None) -> float | None:
    """Seconds before another attempt; None if another attempt is useless."""
    status = _status(error)
    if wait is None or not (status in PASSING or _line_broke(error)):
        return None
    for e in _causes(error):
        if isinstance(e, HfHubHTTPError) and (asked := e.response.headers.get("Retry-After", "")).isdigit():
            return max(float(asked), 0.0) if float(asked) <= LONGEST_WAIT else None
    return wait


def _reason(error: BaseException) -> str:
    status = _status(error)
    if status == 412:
        return "somebody else changed the repository in the meantime"
    if status is not None:
        return f"the Hub answered {status}"
    last = list(_causes(error))[-1]
    return f"the connection to the Hub failed ({type(last).__name__}: {' '.join(str(last).split())[:200]})"


def _explain(error: BaseException, repo_id: str, kind: str, attempts: int) -> NoReturn:
    status, what = _status(error), f"the {kind} {repo_id}"
    again = "nothing is ever published in part; give the same command again"
    if isinstance(error, OfflineModeIsEnabled):
        raise UsageError("HF_HUB_OFFLINE is set, which forbids access to the Hub", "unset it to publish") from error
    if status == 401:
        raise UsageError("the Hub did not accept the token", LOG_IN) from error
    if status in (403, 404):
        raise UsageError(f"the token may not write to {what}", f"{LOG_IN} to {repo_id.split('/')[0]}") from error
    if status == 429:
        raise UsageError("the Hub received too many requests (429)", f"wait a while; {again}") from error
    if status is not None and status not in PASSING:
        text = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the Hub refused the upload: {text}", f"fix what it names, then publish {what} again"
        ) from error
    if isinstance(error, ValueError):
        raise UsageError(" ".join(str(error).split())[:300], "fix the card's metadata") from error
    raise UsageError(f"{_reason(error)}; {attempts} attempts failed", again) from error
