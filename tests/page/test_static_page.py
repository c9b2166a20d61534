"""The static page in a real browser: the detector's own scores, no request to anyone, and when it refuses to judge."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import chromium, png, serious, two_faces, upload
from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser, Error, Page, expect
from served import HOSTILE, run_folder
from static_page import YUNET, Site, changed_page, check, files_of, page_folder, rows, site, visited

from bonaface.inference.detector import Detector, Result
from bonaface.page.build import HEADERS
from bonaface.provenance.read import read_provenance

pytestmark = pytest.mark.slow
needs_yunet = pytest.mark.skipif(not YUNET.is_file(), reason="needs YuNet's weights")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as found:
        yield found


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with site(page_folder()) as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Site) -> Iterator[Page]:
    with visited(browser, served.url) as found:
        yield found


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(run_folder(), yunet=YUNET if YUNET.is_file() else None)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph() -> Image.Image:
    """Two faces in an image that is much wider, so that each is cut out."""
    faces = Image.open(io.BytesIO(two_faces())).convert("RGB")
    wide = Image.new("RGB", (1500, 1300), (96, 110, 120))
    wide.paste(faces, (200, 300))
    return wide


def agree(row: dict, result: Result, tolerance: float) -> None:
    assert abs(row["p_fake"] - result.p_fake) <= tolerance
    assert len(row["faces"]) == len(result.faces)
    for face, expected in zip(row["faces"], result.faces, strict=True):
        assert np.abs(np.array(face["box"]) - expected.box).max() <= 2
        assert abs(face["p_fake"] - expected.p_fake) <= tolerance
    edges = result.band or (0.5, 0.5)
    if min(abs(result.p_fake - edge) for edge in edges) > 0.02:
        assert row["verdict"] == result.verdict
    assert row["warnings"] == "; ".join(result.warnings)


# --- the same scores ------------------------------------------------------------------------------------------------


def test_scores_and_verdicts_are_the_detectors(page: Page, detector: Detector) -> None:
    images = [Image.open(io.BytesIO(png(i, dark=i % 2 == 0, size=(36 + 7 * i, 36 + 4 * i)))) for i in range(6)]
    lossless = [encoded(image, "PNG") for image in images]
    lossy = [encoded(image, "JPEG", quality=[90, 25][i % 2]) for i, image in enumerate(images)]
    files = [upload(f"{i}", data) for i, data in enumerate([*lossless, *lossy])]
    check(page, *files)
    for row, data, tolerance in zip(rows(page), [*lossless, *lossy], [1e-3] * 6 + [2e-2] * 6, strict=True):
        agree(row, detector(data)[0], tolerance)


@needs_yunet
@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 1e-3), ("JPEG", 2e-2)])
def test_faces_are_found_cut_out_and_scored_as_the_detector_does(
    page: Page, detector: Detector, kind: str, tolerance: float
) -> None:
    data = encoded(photograph(), kind)
    text = check(page, upload("wide", data))
    assert "2 faces, one result each" in text
    agree(rows(page)[0], detector(data)[0], tolerance)
    expect(page.locator(".bf-faces li canvas")).to_have_count(2)


def test_several_threads_give_the_same_scores_where_the_server_isolates_the_page(
    browser: Browser, detector: Detector
) -> None:
    data = png(11, dark=True)
    with site(page_folder(), HEADERS) as isolated, visited(browser, isolated.url) as page:
        assert int(page.evaluate("document.body.dataset.threads")) > 1
        check(page, upload("x.png", data))
        agree(rows(page)[0], detector(data)[0], 1e-3)


def variants() -> dict[str, tuple[bytes, int]]:
    """Encodings of an image, and by how many levels a browser's decoder may differ from Pillow's."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (123, 87), Image.Resampling.BICUBIC
    )
    alpha = smooth.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(smooth.size))
    exif = Image.Exif()
    found = {
        "grey": (encoded(smooth.convert("L"), "PNG"), 0),
        "palette": (encoded(smooth.quantize(32), "PNG"), 0),
        "alpha": (encoded(alpha, "PNG"), 1),
        "bmp": (encoded(smooth, "BMP"), 0),
        "gif": (encoded(smooth.quantize(64), "GIF"), 0),
        "webp": (encoded(smooth, "WEBP", lossless=True), 0),
        "lossy webp": (encoded(smooth, "WEBP", quality=80), 3),
        "jpeg 4:4:4": (encoded(smooth, "JPEG", subsampling=0), 1),
        "jpeg 4:2:0": (encoded(smooth, "JPEG", subsampling=2), 1),
        "progressive jpeg": (encoded(smooth, "JPEG", progressive=True), 1),
        "grey jpeg": (encoded(smooth.convert("L"), "JPEG"), 1),
        "profile": (encoded(smooth, "PNG", icc_profile=_wide_profile()), 0),
    }
    for turn in range(2, 9):
        exif[0x0112] = turn
        found[f"turned {turn}"] = (encoded(smooth, "JPEG", exif=exif), 1)
    return found


def _wide_profile() -> bytes:
    """sRGB's profile with red and green exchanged: a browser that heeds it shows other colours."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.find(b"rXYZ", 128), profile.find(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_every_format_is_decoded_as_pillow_does(page: Page) -> None:
    from bonaface.imaging.images import decode_image

    module = page.get_attribute("script[type=module]", "src")
    for name, (data, most) in variants().items():
        wanted = np.asarray(decode_image(data)).astype(int)
        found = page.evaluate(
            """async ([module, bytes]) => {
                const { decode } = await import(new URL(module.replace("app.js", "decode.js"), location));
                const limits = { max_pixels: 1e6, largest_aspect: 32, low_quality: 40 };
                const { image } = await decode(new Uint8Array(bytes), limits);
                return [image.height, image.width, Array.from(image.data)];
            }""",
            [module, list(data)],
        )
        pixels = np.array(found[2]).reshape(found[0], found[1], 3)
        assert pixels.shape == wanted.shape, name
        assert np.abs(pixels - wanted).max() <= most, name


# --- nothing leaves the device --------------------------------------------------------------------------------------


def test_after_the_first_visit_it_works_without_a_network(browser: Browser, detector: Detector) -> None:
    with site(page_folder()) as once, visited(browser, once.url) as page:
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        once.stop()
        once.asked.clear()
        page.context.set_offline(True)
        page.reload()
        page.wait_for_selector("#state.bf-ready")
        assert int(page.evaluate("document.body.dataset.threads")) > 1  # isolated by its own service worker
        data = png(5, dark=False)
        check(page, upload("x.png", data))
        agree(rows(page)[0], detector(data)[0], 1e-3)
        assert not once.asked


def test_a_new_version_takes_the_place_of_the_old_one(browser: Browser, tmp_path: Path) -> None:
    folder = changed_page(tmp_path / "page", lambda facts: None)
    with site(folder) as served, visited(browser, served.url) as page:
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        old = files_of(folder)
        new = old.rename(folder / "files-0123456789ab")
        index = folder / "index.html"
        index.write_text(index.read_text().replace(old.name, new.name))
        page.reload()
        page.wait_for_selector("#state.bf-ready")
        assert new.name in str(page.get_attribute("script[type=module]", "src"))
        for _ in range(100):
            kept = page.evaluate("caches.keys()")
            if kept == [new.name]:
                break
            page.wait_for_timeout(100)
        assert kept == [new.name]
        assert "This model says" in check(page, upload("x.png", png(1, dark=True)))


def test_neither_the_page_nor_its_worker_can_reach_another_origin(
    browser: Browser, served: Site, tmp_path: Path
) -> None:
    with site(tmp_path) as elsewhere, visited(browser, served.url) as page:
        for place in (page, page.workers[0]):
            with pytest.raises(Error, match="Failed to fetch"):
                place.evaluate("url => fetch(url, { mode: 'no-cors' }).then(() => null)", elsewhere.url)
        assert not elsewhere.asked


def test_checking_an_image_sends_nothing(page: Page, served: Site) -> None:
    page.evaluate("navigator.serviceWorker.ready.then(() => null)")
    served.asked.clear()
    check(page, upload("x.png", png(1, dark=True)))
    assert not served.asked


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["network.bin", "runtime.bin"])
def test_weights_that_were_changed_by_a_bit_are_refused(browser: Browser, tmp_path: Path, name: str) -> None:
    folder = changed_page(tmp_path / "page", lambda facts: None)
    file = files_of(folder) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with site(folder) as changed, visited(browser, changed.url) as page:
        expect(page.locator("#results")).to_contain_text(f"{name} is not the file that this page was made with")
        expect(page.locator("#file")).to_be_disabled()
        page.set_input_files("#file", upload("x.png", png(1, dark=True)))
        expect(page.locator("article")).to_have_count(0)


def other_scores(facts: dict) -> None:
    facts["self_test"]["images"][-1]["logits"][0][0] += 0.01


def other_pixels(facts: dict) -> None:
    facts["self_test"]["images"][0]["pixels"] = "0" * 64


def another_face(facts: dict) -> None:
    facts["self_test"]["images"][0]["faces"] = [[0, 0, 50, 50], [0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_scores, "computes other scores"),
        (another_face, "computes other scores"),
        (other_pixels, "changes the pixels that a page reads"),
    ],
)
def test_a_browser_that_finds_something_else_in_the_self_test_must_not_judge(
    browser: Browser, tmp_path: Path, change: object, said: str
) -> None:
    with site(changed_page(tmp_path / "page", change)) as changed, visited(browser, changed.url) as page:  # type: ignore[arg-type]
        expect(page.locator("#results")).to_contain_text(said)
        expect(page.locator("#file")).to_be_disabled()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            upload("text.jpg", b"just some text, long enough to be one", "image/jpeg"),
            "not an image in a supported format",
        ),
        (upload("cut.png", png(3, dark=False)[:900]), "truncated or damaged"),
        (upload("bomb.png", bomb()), "megapixels exceed the limit"),
        (upload("empty.png", b""), "The file is empty"),
        (upload("phone.heic", b"\0\0\0\x18ftypheic" + bytes(60), "image/heic"), "cannot decode HEIC images"),
        (upload("thin.png", encoded(Image.new("RGB", (2000, 10)), "PNG")), "too narrow"),
    ],
)
def test_what_cannot_be_judged_is_said_kindly_and_the_next_image_is_judged(
    page: Page, file: dict[str, object], said: str
) -> None:
    text = check(page, file)
    assert "This file could not be read" in text
    assert said in text
    assert "This model says" in check(page, upload("next.png", png(4, dark=False)))


def test_sixty_megapixels_are_judged(page: Page, detector: Detector) -> None:
    small = Image.open(io.BytesIO(png(8, dark=True)))
    data = encoded(small.resize((9000, 6600), Image.Resampling.NEAREST), "JPEG", quality=80)
    check(page, upload("large.jpg", data, "image/jpeg"))
    agree(rows(page)[0], detector(data)[0], 2e-2)


# --- what a visitor does --------------------------------------------------------------------------------------------


def test_results_can_be_taken_away_and_a_spreadsheet_runs_none_of_them(page: Page, detector: Detector) -> None:
    check(page, upload("=1+1.png", png(1, dark=True)), upload('b,"c".txt', b"text, and no image at all"))
    with page.expect_download() as download:
        page.click("#csv")
    table = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(), newline="")))
    assert [row["path"] for row in table] == ["'=1+1.png", 'b,"c".txt']
    assert [row["status"] for row in table] == ["ok", "not an image"]
    assert float(table[0]["p_fake"]) == pytest.approx(detector(png(1, dark=True))[0].p_fake, abs=1e-3)
    page.click("#clear")
    expect(page.locator("article")).to_have_count(0)


def test_a_strangers_name_and_metadata_are_text(page: Page) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", f"EOS {HOSTILE}"
    image = Image.open(io.BytesIO(png(1, dark=False)))
    text = check(page, upload(f"{HOSTILE}.jpg", encoded(image, "JPEG", exif=exif), "image/jpeg"))
    assert f"{HOSTILE}.jpg" in text
    assert "Canon EOS <img src=x" in text


def test_the_file_says_about_itself_what_the_command_line_reads(page: Page) -> None:
    image = Image.open(io.BytesIO(png(1, dark=False)))
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Canon", "Canon EOS 5D", "Adobe Photoshop 25"
    exif.get_ifd(0x8769)[0x829A] = 0.01
    told = PngImagePlugin.PngInfo()
    told.add_text("parameters", "a face\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1", zip=True)
    told.add_itxt("Software", "Midjourney ☺")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a xmlns:I="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" I:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></x:xmpmeta>'
    placed = xmp.replace(b"<a ", b'<m:Ingredients xmlns:m="m"><a ').replace(b"/></x", b"/></m:Ingredients></x")
    files = [
        encoded(image, "JPEG", exif=exif),
        encoded(image, "PNG", pnginfo=told),
        encoded(image, "JPEG", xmp=xmp),
        encoded(image, "JPEG", xmp=xmp.replace(b"2008-02-29", b"elsewhere")),
        encoded(image, "JPEG", xmp=placed),
        encoded(image, "PNG"),
    ]
    check(page, *[upload(f"{i}", data) for i, data in enumerate(files)])
    for data, article in zip(files, page.locator("article").all(), strict=True):
        shown = article.locator(".bf-provenance dd").all_inner_texts()
        assert shown == [item.text for item in read_provenance(data).evidence]


def test_content_credentials_are_noticed_but_not_read(page: Page) -> None:
    store = struct.pack(">I4sI4s4s", 24, b"jumb", 16, b"jumd", b"c2pa") + bytes(12)
    data = png(1, dark=False)
    end = data.index(b"IEND") - 4
    text = check(page, upload("signed.png", data[:end] + chunk(b"caBX", store) + data[end:]))
    assert "Content credentials (C2PA): not read." in text
    assert "this page does not read or verify them" in text


def test_stop_ends_at_once_and_the_next_image_starts_anew(page: Page) -> None:
    page.set_input_files("#file", [upload(f"{i}.png", png(i, dark=True, size=(300, 300))) for i in range(60)])
    page.click("#cancel")
    expect(page.locator("article:not([data-done])")).to_have_count(0)
    assert page.locator("article").count() < 60
    assert "This model says" in check(page, upload("next.png", png(4, dark=False)))


def test_the_camera_gives_one_image_at_a_time(browser: Browser, served: Site) -> None:
    with visited(browser, served.url, permissions=["camera"]) as page:
        page.click("#camera")
        expect(page.locator("#video")).to_be_visible()
        page.click("#shoot")
        page.wait_for_selector("article[data-done=result]")
        page.click("#close")
        expect(page.locator("#camera-box")).to_be_hidden()


def test_the_keyboard_is_enough(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # from now on the browser asks us, not the desktop
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files([upload("x.png", png(1, dark=True))])  # type: ignore[list-item]
    page.wait_for_selector("article[data-done=result]")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"csv", "json", "clear", "SUMMARY"} <= set(reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_accessible_and_fits_its_window(browser: Browser, served: Site, scheme: str, width: int) -> None:
    with visited(browser, served.url, width, color_scheme=scheme) as page:
        assert serious(page) == []
        files = [
            upload("a very long file name without any break in it.png", png(1, dark=True)),
            upload("x", b"nothing"),
        ]
        check(page, *files, upload("two.png", encoded(photograph(), "PNG")))
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
