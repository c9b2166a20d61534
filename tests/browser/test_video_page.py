"""Clips and the webcam in a real browser."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from chromium import chromium, opened, serious, two_faces, upload
from clips import write_video
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served import HOSTILE, Server, server

pytestmark = pytest.mark.slow


def two(n: int, size: tuple[int, int] = (640, 420)) -> Iterator[Image.Image]:
    """Two faces who move together."""
    faces = Image.open(io.BytesIO(two_faces())).convert("RGB")
    for i in range(n):
        frame = Image.new("RGB", size, "grey")
        frame.paste(faces, (20 + i, 10))
        yield frame


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With a camera that shows them."""
    film = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    with av.open(str(film), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 420, "yuvj420p"
        for image in two(10):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with chromium(*camera, f"--use-file-for-fake-video-capture={film}") as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser, app()) as found:
        found.get_by_role("tab", name="Video", exact=True).click()
        yield found


def app() -> Server:
    return server()


def check(page: Page, name: str, data: bytes) -> None:
    page.set_input_files("#clip input[type=file]", upload(name, data, "video/mp4"))
    expect(page.locator("#clip")).to_contain_text("B")
    page.click("#clip-start")


def test_each_person_of_a_clip_has_a_result_and_a_page_to_take_away(page: Page, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", two(12))
    expect(page.locator("#clip-limits")).to_contain_text("face swap")
    check(page, f"{HOSTILE}.mp4", clip.read_bytes())
    expect(page.locator("#clip-persons section")).to_have_count(2)
    expect(page.locator("#clip-verdict")).to_contain_text(re.compile("This model says of person . of 2"))
    expect(page.locator("#clip-progress")).to_contain_text("12 frames checked")
    expect(page.locator("#clip-persons")).to_contain_text("seen in 12 frames")
    assert page.locator(".bf-timeline").evaluate("e => e.complete && e.naturalWidth > 0")
    assert not serious(page)
    with page.expect_download() as download:
        page.click("#clip-page")
    saved = tmp_path / "timeline.html"
    download.value.save_as(saved)
    assert "Person 2" in saved.read_text(encoding="utf-8")
    assert "<img src=x" not in saved.read_text(encoding="utf-8")


def test_what_is_no_clip_is_said_kindly(page: Page) -> None:
    check(page, "a.mp4", b"some text in place of a video")
    expect(page.locator("#clip-verdict")).to_contain_text("This clip cannot be checked")
    expect(page.locator("#clip-verdict")).to_contain_text("Not a video, contains text.")


def test_the_webcam_is_judged_live_and_nothing_is_stored(page: Page) -> None:
    before = set(app().temporary.rglob("*.*"))
    page.get_by_text("Webcam, live").click()
    page.get_by_text("Click to Access Webcam").click()
    page.locator("#live").get_by_role("button", name="Record").or_(
        page.locator("#live button:has-text('Record')")
    ).first.click()
    expect(page.locator("#live-verdict")).to_contain_text(re.compile(r"The middle of the last [3-9] frames"))
    assert set(app().temporary.rglob("*.*")) <= before
    page.locator("#live button:has-text('Stop')").first.click()
