"""A tiny model's page, made once for all tests, and a server of files that can send what it is told to send."""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chromium import SECONDS
from conftest import SHARED
from playwright.sync_api import Browser, Page
from served import run_folder, scratch

from bonaface.imaging.faces import YUNET_ENV
from bonaface.page.build import make_page

YUNET = Path(os.environ.get(YUNET_ENV) or SHARED / "models" / "face_detection_yunet.onnx")


@functools.cache
def page_folder() -> Path:
    """The page of the tiny model, which must not be changed; it finds faces where the weights for that are."""
    with pytest.MonkeyPatch.context() as patch:
        if YUNET.is_file():
            patch.setenv(YUNET_ENV, str(YUNET))
        return make_page(str(run_folder()), scratch() / "page").folder


def files_of(folder: Path) -> Path:
    """The folder of a page's files."""
    (found,) = folder.glob("files-*")
    return found


def changed_page(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the page whose facts are other ones."""
    shutil.copytree(page_folder(), folder)
    file = files_of(folder) / "facts.json"
    facts = json.loads(file.read_text())
    change(facts)
    file.write_text(json.dumps(facts))
    return folder


@dataclass
class Site:
    """A server on a free port; ``asked`` are the paths that were asked for."""

    url: str
    stop: Callable[[], None]
    asked: list[str] = field(default_factory=list)


@contextmanager
def site(folder: Path, headers: dict[str, str] | None = None) -> Iterator[Site]:
    """A plain file server, as anyone might have."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    try:
        yield Site(f"http://127.0.0.1:{server.server_port}/", stop, asked)
    finally:
        stop()


@contextmanager
def visited(browser: Browser, address: str, width: int = 1280, **options: Any) -> Iterator[Page]:
    """The page in a browser of its own. Nothing may be loaded from elsewhere, and no script fail."""
    context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    errors: list[str] = []
    foreign: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    context.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((address, "blob:")) else None)
    page.goto(address)
    page.wait_for_selector("#state.bf-ready, #state.bf-failed")
    yield page
    assert page.evaluate("window.hacked") is None
    assert not errors
    assert not foreign
    context.close()


def check(page: Page, *files: Any) -> str:
    """Put files in; the text of all results once they have all been judged."""
    before = page.locator("article[data-done]").count()
    page.set_input_files("#file", list(files))
    page.wait_for_selector(f"article[data-done] >> nth={before + len(files) - 1}", state="attached")
    return page.inner_text("#results")


def rows(page: Page) -> list[dict[str, Any]]:
    """The results as the page gives them to take away."""
    with page.expect_download() as download:
        page.click("#json")
    return json.loads(Path(download.value.path()).read_text())["files"]
