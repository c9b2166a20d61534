"""Debian's Chromium, driven by Playwright, and what the tests of the page do again and again."""

from __future__ import annotations

import functools
import io
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import skimage
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import Server, noise

SECONDS = 45_000  # milliseconds for anything to happen: the machine may be busy
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
expect.set_options(timeout=SECONDS)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """The browser that the system has; there is no skipping without one."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, server: Server, query: str = "?__theme=light", width: int = 1280) -> Iterator[Page]:
    """The app in a tab of its own. Nothing may be loaded from elsewhere meanwhile, and no script fail."""
    context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    errors: list[str] = []
    foreign: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request", lambda r: foreign.append(r.url) if not r.url.startswith((server.url, "data:", "blob:")) else None
    )
    page.goto(f"{server.url}/{query}")
    page.wait_for_selector("#verdict .bf-card")
    yield page
    assert page.evaluate("window.hacked") is None
    assert not errors
    assert not foreign
    context.close()


def check_one(page: Page, file: Path | dict[str, object], where: str = "verdict") -> str:
    """Put an image into the first tab; the text of the answer."""
    if page.locator("#image img").count():
        page.locator("#image").get_by_label("Remove Image").click()
        expect(page.locator(f"#{where}")).to_contain_text("Nothing checked yet")
    page.set_input_files("#image input[type=file]", file)
    expect(page.locator(f"#{where}")).not_to_contain_text("Nothing checked yet")
    expect(page.locator(f"#{where} .bf-loading")).to_have_count(0)
    return page.inner_text(f"#{where}")


def check_many(page: Page, files: list[object]) -> str:
    """Put files into the second tab and check them all; the text of the summary."""
    page.get_by_role("tab", name="Batch", exact=True).click()
    page.set_input_files("#files input[type=file]", files)
    expect(page.locator("#files")).to_contain_text("KB")
    page.click("#start")
    page.wait_for_selector("#gallery .bf-tile")
    return page.inner_text("#progress")


def serious(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def upload(name: str, data: bytes, kind: str = "image/png") -> dict[str, object]:
    """A file that is nowhere but in this test."""
    return {"name": name, "mimeType": kind, "buffer": data}


def png(seed: int, *, dark: bool, size: tuple[int, int] = (36, 36)) -> bytes:
    """Bytes of an image like those that the tiny model knows."""
    buffer = io.BytesIO()
    Image.fromarray(noise(seed, dark=dark, size=size)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@functools.cache
def two_faces() -> bytes:
    """A wide photograph of two faces: NASA's portrait of Eileen Collins (public domain) and its mirror image."""
    image = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB"))
    buffer = io.BytesIO()
    image = image[:400, 110:380]
    Image.fromarray(np.concatenate([image, image[:, ::-1]], axis=1)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@functools.cache
def full_length() -> bytes:
    """A tall photograph with a small face: NASA's portrait of Eileen Collins (public domain), mirrored, above grey."""
    image = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
    canvas = Image.new("RGB", (400, 600), "grey")
    canvas.paste(ImageOps.mirror(image.crop((110, 0, 380, 400))))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
