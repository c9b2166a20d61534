"""The page in a real browser: what a visitor does, sees and takes away, and what a hostile one cannot do."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import check_many, check_one, chromium, full_length, opened, png, serious, two_faces, upload, zipped
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from reverse_proxy import reverse_proxy
from served import HOSTILE, MAX_FILES, Server, server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def app() -> Server:
    return server()


@pytest.fixture
def page(browser: Browser, app: Server) -> Iterator[Page]:
    with opened(browser, app) as found:
        yield found


def jpeg_of_a_camera() -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", f"EOS {HOSTILE}"
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(1, dark=False))).save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def heat_is_drawn(page: Page, note: str, slider: str) -> None:
    expect(page.locator(note)).to_contain_text("Bright areas point to")
    expect(page.locator(note)).not_to_contain_text("…")
    expect(page.locator(f"{slider} img").first).to_be_visible()


# --- one image --------------------------------------------------------------------------------------------------


def test_an_image_gets_a_verdict_its_meaning_a_heat_map_and_what_the_file_says(page: Page) -> None:
    text = check_one(page, upload("photo.jpg", jpeg_of_a_camera(), "image/jpeg"))
    assert "Real" in text
    assert re.search(r"mages from known sources that scored like this were generated", text)
    assert "such verdicts" in text
    assert "% interval" not in text  # for those who ask
    page.locator("#verdict").get_by_text("How sure is this?").click()
    assert re.search(
        r"Of the \d+ calibration images that scored like this .* were fake .*, compared with 50\s% overall",
        page.inner_text("#verdict"),
    )
    expect(page.locator("#provenance")).to_contain_text("Canon EOS <img src=x")
    heat_is_drawn(page, "#trust", "#heat")
    assert "AI-generated" in check_one(page, upload("fake.png", png(2, dark=True))).split("score for")[0]
    expect(page.locator("#provenance")).to_contain_text("Nothing")
    page.locator("#image").get_by_label("Remove Image").click()
    expect(page.locator("#verdict")).to_contain_text("Nothing checked yet")
    expect(page.locator("#heat img")).to_have_count(0)


@pytest.mark.parametrize("width", [1280, 390])
def test_verdict_meaning_and_reason_are_seen_at_once_and_in_this_order(
    browser: Browser, app: Server, width: int
) -> None:
    """Of a full-length image, at 1280 x 900 without scrolling; on a phone the image that was sent comes last."""
    with opened(browser, app, width=width) as page:
        check_one(page, upload("person.jpg", full_length(), "image/jpeg"))
        heat_is_drawn(page, "#trust", "#heat")
        parts = ["#verdict .bf-word", "#verdict .bf-beside", "#verdict .bf-short", "#heat", "#trust", "#provenance"]
        boxes = [page.locator(part).bounding_box() for part in parts]
        edges = [box["y"] + box["height"] for box in boxes if box]
        assert len(edges) == len(parts)
        if width == 1280:
            assert max(edges) <= 900
        else:
            image = page.locator("#image").bounding_box()
            assert image
            assert [*edges, image["y"] + image["height"]] == sorted([*edges, image["y"] + image["height"]])
        shown = page.locator("#heat img").first
        assert shown.evaluate("e => Math.abs(e.naturalWidth - e.naturalHeight)") <= 2  # the face, not the whole image


def test_several_faces_have_a_result_each(page: Page) -> None:
    check_one(page, upload("two.jpg", two_faces(), "image/jpeg"))
    expect(page.locator("#faces li")).to_have_count(2)
    expect(page.locator("#faces")).to_contain_text("2 faces, one result each")
    scores = [float(score) for score in re.findall(r"score ([\d.]+)", page.inner_text("#faces"))]
    shown = float(re.search(r"([\d.]+)\s*score for", page.inner_text("#verdict"))[1])  # type: ignore[index]
    assert shown == max(scores)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (upload("text.jpg", b"just some text, long enough to be one", "image/jpeg"), "named .jpg, but contains text"),
        (upload("cut.png", png(3, dark=False)[:900]), "is truncated"),
        (upload("bomb.png", bomb()), "pixels"),
        (upload("empty.png", b""), "empty"),
    ],
)
def test_what_is_no_image_is_said_kindly(page: Page, file: dict[str, object], said: str) -> None:
    text = check_one(page, file)
    assert "This file could not be read" in text
    assert said in text
    assert "/" not in text.replace("http", "")  # no path of ours
    assert check_one(page, upload("next.png", png(4, dark=False))).startswith("This model says")


def test_too_large_an_upload_is_refused_and_the_page_goes_on(page: Page) -> None:
    page.set_input_files("#image input[type=file]", upload("big.png", png(5, dark=False) + bytes(5_000_000)))
    expect(page.locator(".toast-body")).to_contain_text("maximum allowed size")
    page.reload()
    page.wait_for_selector("#verdict .bf-card")
    assert "This model says" in check_one(page, upload("next.png", png(4, dark=False)))


def test_two_tabs_at_once_get_their_own_answers(browser: Browser, app: Server) -> None:
    with opened(browser, app) as first, opened(browser, app) as second:
        for tab, dark in ((first, True), (second, False)):
            tab.get_by_role("tab", name="Batch", exact=True).click()
            files = [upload(f"{'dark' if dark else 'bright'}{i}.png", png(20 + i, dark=dark)) for i in range(6)]
            tab.set_input_files("#files input[type=file]", files)
            expect(tab.locator("#files")).to_contain_text("KB")
        first.click("#start")
        second.click("#start")
        for tab, name in ((first, "dark"), (second, "bright")):
            expect(tab.locator("#table tbody th")).to_have_text([f"{name}{i}.png" for i in range(6)])


@pytest.mark.parametrize("left_out", [False, True])
def test_evidence_to_keep_is_a_page_that_stands_alone_and_a_card(
    browser: Browser, page: Page, tmp_path: Path, left_out: bool
) -> None:
    """The page without network, for axe-core, on a phone and in print; another image takes the downloads away."""
    data = jpeg_of_a_camera()
    check_one(page, upload(f"{HOSTILE}.jpg", data, "image/jpeg"))
    if left_out:
        page.get_by_label("Leave the image out of it").check()
    expect(page.locator("#evidence-page")).to_be_disabled()
    page.click("#make-evidence")
    saved = {}
    for what, kind in (("page", "html"), ("card", "png")):
        expect(page.locator(f"#evidence-{what}")).to_be_enabled()
        with page.expect_download() as download:
            page.click(f"#evidence-{what}")
        saved[kind] = tmp_path / f"evidence.{kind}"
        download.value.save_as(saved[kind])
    with Image.open(saved["png"]) as card:
        assert card.size == (1200, 700)
    context = browser.new_context(viewport={"width": 360, "height": 800}, offline=True)
    kept = context.new_page()
    asked: list[str] = []
    kept.on("request", lambda request: asked.append(request.url))
    kept.goto(f"file://{saved['html']}")
    text = kept.inner_text("body")
    assert hashlib.sha256(data).hexdigest() in text
    assert (HOSTILE in text.split("SHA-256")[0] + text.split("SHA-256")[1][:80]) is not left_out
    assert kept.locator("figure img").count() == (1 if left_out else 2)
    assert kept.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert kept.evaluate("document.documentElement.scrollWidth") <= 360
    assert not Axe().run(kept).response["violations"]
    kept.emulate_media(media="print")
    assert kept.locator("h1").is_visible()
    assert kept.evaluate("window.hacked") is None
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    context.close()
    check_one(page, upload("next.png", png(4, dark=False)))
    expect(page.locator("#evidence-page")).to_be_disabled()


# --- many images ------------------------------------------------------------------------------------------------


def test_many_images_a_row_for_every_file_filters_and_downloads_that_agree(page: Page, tmp_path: Path) -> None:
    files = [
        upload("dark.png", png(6, dark=True)),
        upload("broken.jpg", b"\xff\xd8\xff\xe0 no more", "image/jpeg"),
        upload("=bright.png", png(7, dark=False)),
    ]
    summary = check_many(page, [*files, upload("more.png", png(8, dark=True))])
    assert summary.startswith("4 files:")
    assert "2 AI-generated" in summary
    assert "1 not readable" in summary
    order = page.locator("#gallery .bf-tile .bf-name").all_inner_texts()
    assert set(order[:2]) == {"dark.png", "more.png"}
    assert order[2:] == ["=bright.png", "broken.jpg"]
    names = ["dark.png", "broken.jpg", "=bright.png", "more.png"]
    assert page.locator("#table tbody th").all_inner_texts() == names

    page.get_by_role("radio", name="Not readable").check()
    expect(page.locator("#gallery .bf-tile")).to_have_count(1)
    page.get_by_role("radio", name="AI-generated").check()
    expect(page.locator("#gallery .bf-tile")).to_have_count(2)
    page.get_by_role("radio", name="Uncertain").check()
    expect(page.locator("#gallery")).to_contain_text("No file has this verdict")

    saved = {}
    for kind in ("csv", "json", "html"):
        with page.expect_download() as download:
            page.click(f"#download-{kind}")
        saved[kind] = tmp_path / f"results.{kind}"
        download.value.save_as(saved[kind])
    table = list(csv.DictReader(saved["csv"].open(encoding="utf-8")))
    data = json.loads(saved["json"].read_text(encoding="utf-8"))
    assert [row["path"] for row in data["files"]] == names
    assert [row["path"] for row in table] == [name if name[0] != "=" else f"'{name}" for name in names]
    for in_csv, in_json in zip(table, data["files"], strict=True):
        assert in_csv["verdict"] == in_json["verdict"]
        assert (float(in_csv["p_fake"]) if in_csv["p_fake"] else None) == in_json["p_fake"]
    assert data["model"]["labels"] == ["fake", "real"]
    report = page.context.new_page()
    report.goto(f"file://{saved['html']}")
    assert "4 files:" in report.inner_text(".conclusion")
    assert [report.locator("#files tbody tr").nth(i).locator("td").first.inner_text() for i in range(4)] == names
    assert 'src="http' not in saved["html"].read_text(encoding="utf-8")
    report.close()


def test_a_heat_map_on_demand_and_corrections_as_a_labelled_folder(page: Page, tmp_path: Path) -> None:
    image = png(9, dark=True)
    check_many(page, [upload("../wrong name.png", image), upload("right.png", png(10, dark=False))])
    page.locator(".bf-tile", has_text="wrong name.png").click()
    heat_is_drawn(page, "#detail-text", "#detail-heat")
    expect(page.locator("#truth")).to_be_hidden()  # nobody is asked who did not choose to be
    page.get_by_label("Mark wrong verdicts").check()
    page.get_by_role("radio", name="real", exact=True).check()
    expect(page.locator(".bf-tile", has_text="marked: real")).to_have_count(1)
    page.click("#make-corrections")
    button = page.locator("#download-corrections")
    expect(button).to_contain_text("1 marked")
    with page.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / "corrections.zip")
    with zipfile.ZipFile(tmp_path / "corrections.zip") as archive:
        (name,) = archive.namelist()
        assert re.fullmatch(r"real/corrected/0000_[\w.]+\.png", name)
        assert archive.read(name) == image


def test_a_zip_with_hostile_names_is_a_list_of_rows_and_nothing_runs(page: Page) -> None:
    members = {
        f"{HOSTILE}.png": png(11, dark=True),
        "../../../evil.png": png(12, dark=False),
        "inner.zip": zipped({"a.png": b""}),
        "notes.txt": b"just some text, long enough to be one",
    }
    summary = check_many(page, [upload("all.zip", zipped(members), "application/zip")])
    assert summary.startswith("4 files:")
    assert page.locator("#table tbody th").all_inner_texts() == list(members)
    expect(page.locator("#table")).to_contain_text("an archive inside the archive")
    page.locator(".bf-tile", has_text="onerror").click()
    expect(page.locator("#detail-text")).to_contain_text(HOSTILE)


def test_a_zip_bomb_and_too_many_files_are_refused_kindly(page: Page) -> None:
    page.get_by_role("tab", name="Batch", exact=True).click()
    bad = upload("bomb.zip", zipped({"bomb.png": bytes(60_000_000)}), "application/zip")
    many = upload("many.zip", zipped({f"{i}.png": b"x" for i in range(MAX_FILES + 1)}), "application/zip")
    for file, said in ((bad, "more than 50 MB"), (many, f"at most {MAX_FILES}")):
        page.set_input_files("#files input[type=file]", file)
        expect(page.locator("#files")).to_contain_text("KB")
        page.click("#start")
        expect(page.locator("#table")).to_contain_text(re.compile(said))
        page.locator("#files").get_by_label("Clear").click()
        expect(page.locator("#files input[type=file]")).to_have_count(1)


def test_a_check_can_be_stopped_and_every_file_still_has_its_row(page: Page) -> None:
    page.get_by_role("tab", name="Batch", exact=True).click()
    large = png(13, dark=True, size=(330, 330))
    page.set_input_files("#files input[type=file]", [upload(f"{i}.png", large) for i in range(MAX_FILES)])
    expect(page.locator("#files")).to_contain_text("KB")
    page.click("#start")
    page.click("#stop")
    page.wait_for_selector("#gallery .bf-tile")
    expect(page.locator("#progress")).to_contain_text("Stopped")
    assert page.locator("#table tbody tr").count() == MAX_FILES
    assert "the check was stopped" in page.inner_text("#table")


# --- about, compare, looks ----------------------------------------------------------------------------------------


def test_about_shows_figures_with_intervals_plots_limits_fingerprints_and_the_card(page: Page) -> None:
    page.get_by_role("tab", name="About", exact=True).click()
    about = page.locator("#about")
    expect(about).to_contain_text("Performance on the test images")
    text = about.inner_text()
    assert re.search(r"AUC\s+[\d.]+\s+\([\d.]+–[\d.]+\)", text)
    for said in ("By source", "Limitations", "Privacy", "Training data"):
        assert said in text
    assert re.search(r"Weights\s+[0-9a-f]{16}", text)
    assert about.locator("figure img").count() >= 3
    page.get_by_role("button", name="Model card").click()
    expect(page.locator("#card")).to_contain_text("The tiny card")


def test_two_models_answer_side_by_side(page: Page) -> None:
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.set_input_files("#compare-image input[type=file]", upload("a.png", png(14, dark=True)))
    for number in (1, 2):
        expect(page.locator(f"#compare-verdict-{number}")).to_contain_text(f"tiny{number - 1} says")
        expect(page.locator(f"#compare-verdict-{number}")).to_contain_text("How sure is this?")


def test_the_page_works_below_a_path_of_a_reverse_proxy(browser: Browser) -> None:
    """It asks for nothing outside the path, which ``opened`` sees to; uploads, streams and downloads included."""
    found = server("--root-path", "/tools/faces")
    with reverse_proxy(found.url, "/tools/faces") as url, opened(browser, replace(found, url=url)) as page:
        assert "AI-generated" in check_one(page, upload("fake.png", png(18, dark=True))).split("score for")[0]
        heat_is_drawn(page, "#trust", "#heat")
        check_many(page, [upload("a.png", png(19, dark=True))])
        with page.expect_download() as download:
            page.click("#download-csv")
        assert "a.png" in download.value.path().read_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_violation_on_any_tab_and_nothing_wider_than_a_phone(
    browser: Browser, app: Server, theme: str
) -> None:
    with opened(browser, app, f"?__theme={theme}", width=360) as page:

        def tab(name: str) -> None:
            """On a phone the last ones are in a menu."""
            shown = page.get_by_role("tab", name=name, exact=True)
            if not shown.is_visible():
                page.get_by_role("button", name="More tabs").click()
                shown = page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True)
            shown.click()

        def look(where: str) -> None:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, where
            assert not serious(page), where

        look("empty")
        check_one(page, upload("two.jpg", two_faces(), "image/jpeg"))
        heat_is_drawn(page, "#trust", "#heat")
        look("image")
        check_many(page, [upload("a.png", png(15, dark=True)), upload("b.jpg", b"no", "image/jpeg")])
        page.locator(".bf-tile").first.click()
        heat_is_drawn(page, "#detail-text", "#detail-heat")
        page.get_by_label("Mark wrong verdicts").check()
        look("many")
        tab("Video")
        look("video")
        tab("About")
        expect(page.locator("#about")).to_be_visible()
        look("about")
        tab("Compare")
        look("compare")


def test_the_page_can_be_used_with_the_keyboard(page: Page) -> None:
    check_many(page, [upload("a.png", png(16, dark=True)), upload("b.png", png(17, dark=False))])
    tile = page.locator(".bf-tile").first
    tile.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-text")).to_contain_text("a.png")
    page.get_by_role("tab", name="Batch", exact=True).focus()
    for name in ("Video", "About"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("tab", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#about")).to_be_visible()
