"""A stand-in for the Hub's HTTP API on the loopback, for the real ``huggingface_hub`` client, and what can go wrong.

Repositories are in memory: commits with their files, branches, large files by their SHA-256. Who asks without a token,
with a wrong one or in a foreign namespace is treated as the Hub treats him. A test says what is to fail with
:meth:`HubServer.fail`, :meth:`HubServer.cut` and :meth:`HubServer.corrupt`, and reads what was asked in ``log``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hub_repos import LARGE, Fault, Refusal, Repo, blob_id, card_errors, entry

TOKENS = {"hf_test": ("user", "write"), "hf_read": ("user", "read"), "hf_other": ("stranger", "write")}
PREFIXES = {"datasets": "dataset", "spaces": "space", "models": "model"}


class HubServer:
    """The stand-in; it listens on 127.0.0.1 as long as :func:`hub_server` lasts."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self.url = ""

    def repo(self, name: str, kind: str = "model") -> Repo:
        """A repository that is there. KeyError where it is not."""
        return self.repos[kind, name]

    def fail(self, method: str, path: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer matching requests with a status; ``Retry_After="1"`` is a header."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.faults.append(Fault(method, path, "status", times, status, named))

    def cut(self, method: str, path: str, when: str, times: int = 1) -> None:
        """Hang up: ``before`` anything is done, ``after`` it was done, or in the middle of the ``body``."""
        self.faults.append(Fault(method, path, when, times))

    def stall(self, method: str, path: str, times: int = 1) -> None:
        """Send half of the answer, and then nothing, without hanging up."""
        self.faults.append(Fault(method, path, "stall", times))

    def corrupt(self, path: str, times: int = 1) -> None:
        """Send another byte in the middle of a file."""
        self.faults.append(Fault("GET", path, "corrupt", times))

    def fault(self, method: str, path: str) -> Fault | None:
        """The next one that is meant for this request."""
        with self.lock:
            for found in self.faults:
                if found.times and found.method == method and re.search(found.path, path):
                    found.times -= 1
                    return found
        return None

    def commits_asked(self) -> int:
        """How many commits were sent."""
        return sum(line.startswith("POST") and "/commit/" in line for line in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urllib.parse.urlsplit(self.path)
        self.route, self.query = urllib.parse.unquote(address.path), urllib.parse.parse_qs(address.query)
        with self.hub.lock:
            self.hub.log.append(f"{self.command} {self.route}")
        self.fault = self.hub.fault(self.command, self.route)
        action = self.fault.action if self.fault else ""
        if self.fault and action == "status":
            self._answer(self.fault.status, {"error": "as the test wants"}, self.fault.headers)
        elif action == "before":
            self.close_connection = True
        else:
            try:
                with self.hub.lock:
                    done = self._handle(body)
                if action == "after":
                    self.close_connection = True
                else:
                    done()
            except Refusal as refusal:
                headers = {"X-Error-Code": refusal.code} if refusal.code else {}
                self._answer(refusal.status, refusal.body, headers | {"X-Error-Message": str(refusal)})

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.action == "body":
            data, self.close_connection = data[: len(data) // 2], True
        if self.fault and self.fault.action == "corrupt" and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        if self.fault and self.fault.action == "stall":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.hub.ended.wait(60)
            self.close_connection = True
            return
        self.wfile.write(data)

    # --- who asks for what ----------------------------------------------------------------------------------------

    def _user(self) -> tuple[str, str] | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if token and token not in TOKENS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def _repo(self, kind: str, name: str, *, write: bool = False, files: bool = False) -> Repo:
        user, repo = self._user(), self.hub.repos.get((kind, name))
        owner = name.split("/")[0]
        if repo is None or (repo.private and (user is None or user[0] != owner)):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if repo.gated and files and (user is None or user[0] != owner):
            raise Refusal(403 if user else 401, f"Access to {kind} {name} is restricted", "GatedRepo")
        if write and (user is None or user != (owner, "write")):
            raise Refusal(403, "You don't have the rights to write here")
        return repo

    def _handle(self, body: bytes) -> Callable[[], None]:
        """Do what is asked and give what sends the answer."""
        for pattern, method in ROUTES:
            verb, _, path = pattern.partition(" ")
            found = re.fullmatch(path, self.route)
            if self.command in verb.split("|") and found:
                return (
                    method(self, *found.groups(), body)
                    if "POST" in verb or "PUT" in verb
                    else method(self, *found.groups())
                )
        raise Refusal(404, f"nothing at {self.route}", "EntryNotFound")

    def _json(self, value: Any, status: int = 200) -> Callable[[], None]:
        return lambda: self._answer(status, value)

    # --- reading --------------------------------------------------------------------------------------------------

    def whoami(self) -> Callable[[], None]:
        user = self._user()
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        access = {"accessToken": {"displayName": "test", "role": user[1]}}
        return self._json({"type": "user", "name": user[0], "orgs": [], "auth": access})

    def info(self, kinds: str, name: str, revision: str | None = None) -> Callable[[], None]:
        repo = self._repo(PREFIXES[kinds], name)
        sha = self._commit(repo, revision or "main")
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        facts = {"id": name, "sha": sha, "private": repo.private, "gated": repo.gated and "auto", "siblings": siblings}
        return self._json(facts | {"tags": [], "downloads": 0, "likes": 0, "sdk": repo.sdk})

    def refs(self, kinds: str, name: str) -> Callable[[], None]:
        repo = self._repo(PREFIXES[kinds], name)
        named = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in repo.branches.items()]
        return self._json({"branches": named, "converts": [], "tags": []})

    def tree(self, kinds: str, name: str, rest: str) -> Callable[[], None]:
        repo = self._repo(PREFIXES[kinds], name)
        revision, folder = self._split(repo, rest)
        files = repo.files(revision)
        inside = {p: d for p, d in files.items() if not folder or p.startswith(f"{folder}/")}
        if folder and not inside:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        if (self.query.get("recursive") or ["false"])[0].lower() not in ("true", "1"):
            start = len(folder) + 1 if folder else 0
            below = {p[: p.index("/", start)] for p in inside if "/" in p[start:]}
            inside = {p: d for p, d in inside.items() if "/" not in p[start:]}
            folders = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(below)]
        else:
            folders = []
        return self._json(folders + [entry(path, data) for path, data in sorted(inside.items())])

    def paths_info(self, kinds: str, name: str, revision: str, body: bytes) -> Callable[[], None]:
        repo = self._repo(PREFIXES[kinds], name)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            wanted = json.loads(body)["paths"]
        else:
            wanted = urllib.parse.parse_qs(body.decode())["paths"]
        files, found = repo.files(revision), []
        for path in [wanted] if isinstance(wanted, str) else wanted:
            if path in files:
                found.append(entry(path, files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                found.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path})
        return self._json(found)

    def resolve(self, kinds: str | None, name: str, rest: str) -> Callable[[], None]:
        repo = self._repo(PREFIXES[(kinds or "models/").rstrip("/")], name, files=True)
        revision, path = self._split(repo, rest)
        sha = self._commit(repo, revision)
        if path not in repo.commits[sha]:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        data = repo.commits[sha][path]
        etag = hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else blob_id(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if begin and int(begin[1]) < len(data):
            first = int(begin[1])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return lambda: self._send(206, data[first:], headers)
        return lambda: self._send(200, data, headers)

    def _commit(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def _split(self, repo: Repo, rest: str) -> tuple[str, str]:
        """``revision/path``; a branch's name may hold slashes."""
        for revision in [*repo.branches, *repo.commits]:
            if rest == revision or rest.startswith(f"{revision}/"):
                return revision, rest[len(revision) + 1 :]
        raise Refusal(404, f"Invalid rev id: {rest}", "RevisionNotFound")

    # --- writing --------------------------------------------------------------------------------------------------

    def create(self, body: bytes) -> Callable[[], None]:
        user, asked = self._user(), json.loads(body)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        owner, kind = asked.get("organization") or user[0], asked.get("type") or "model"
        name = f"{owner}/{asked['name']}"
        if user != (owner, "write"):
            raise Refusal(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.hub.repos:
            raise Refusal(409, "You already created this repo", url=url, id=name)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[kind, name] = Repo(kind, name, private, sdk=asked.get("sdk"))
        return self._json({"url": url, "id": name})

    def branch(self, kinds: str, name: str, branch: str, body: bytes) -> Callable[[], None]:
        repo = self._repo(PREFIXES[kinds], name, write=True)
        if branch in repo.branches:
            raise Refusal(409, f"Reference refs/heads/{branch} already exists")
        repo.branches[branch] = self._commit(repo, json.loads(body or b"{}").get("startingPoint", "main"))
        return self._json({})

    def validate(self, body: bytes) -> Callable[[], None]:
        asked = json.loads(body)
        errors = card_errors(asked["content"], asked.get("repoType", "model"))
        return self._json({"errors": [{"message": e} for e in errors], "warnings": []}, 400 if errors else 200)

    def preupload(self, kinds: str, name: str, revision: str, body: bytes) -> Callable[[], None]:
        self._commit(self._repo(PREFIXES[kinds], name, write=True), revision)
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        return self._json({"files": modes})

    def batch(self, kinds: str | None, name: str, body: bytes) -> Callable[[], None]:
        self._repo(PREFIXES[(kinds or "models/").rstrip("/")], name, write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            href = {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}", "header": {}}}
            objects.append(wanted | ({} if wanted["oid"] in self.hub.large else {"actions": href}))
        return self._json({"transfer": "basic", "objects": objects})

    def put_large(self, oid: str, body: bytes) -> Callable[[], None]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "not what was announced")
        self.hub.large[oid] = body
        return self._json({})

    def commit(self, kinds: str, name: str, branch: str, body: bytes) -> Callable[[], None]:
        repo = self._repo(PREFIXES[kinds], name, write=True)
        head = self._commit(repo, branch)
        files, message = dict(repo.commits[head]), ""
        for line in filter(None, body.split(b"\n")):
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head):
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise Refusal(400, f"unknown operation {key}")
        sha = repo.add(branch, files, message)
        url = f"{self.hub.url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{name}/commit/{sha}"
        return self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


KINDS, NAME = "(models|datasets|spaces)", r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, Callable[..., Callable[[], None]]]] = [
    ("GET /api/whoami-v2", _Handler.whoami),
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate),
    (f"GET /api/{KINDS}/{NAME}", _Handler.info),
    (f"GET /api/{KINDS}/{NAME}/revision/(.+)", _Handler.info),
    (f"GET /api/{KINDS}/{NAME}/refs", _Handler.refs),
    (f"GET /api/{KINDS}/{NAME}/tree/(.+)", _Handler.tree),
    (f"POST /api/{KINDS}/{NAME}/paths-info/(.+)", _Handler.paths_info),
    (f"POST /api/{KINDS}/{NAME}/branch/(.+)", _Handler.branch),
    (f"POST /api/{KINDS}/{NAME}/preupload/(.+)", _Handler.preupload),
    (f"POST /api/{KINDS}/{NAME}/commit/(.+)", _Handler.commit),
    (f"POST /(datasets/|spaces/)?{NAME}.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT /large/([0-9a-f]{64})", _Handler.put_large),
    (f"GET|HEAD /(datasets/|spaces/)?{NAME}/resolve/(.+)", _Handler.resolve),
]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A stand-in on a free port of 127.0.0.1, stopped at the end."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
