"""The static page beside the detector and the app, in one run: scores, face boxes, times, size and first load.

    python benchmarks/page.py --data DATA [--data MORE] --out benchmarks/results/page.json

1. Scores: images of DATA as they are (JPEG), the same as PNG, and collages of four, whose faces are cut out. The page's
   rows are compared with the detector's results: scores, face boxes, verdicts, warnings.
2. Times: from the choice of a file to its verdict on the screen, in one browser, in turn: the page with one thread, the
   page with several (its server isolates it), and the app. Ratios are taken image by image.
3. Load: the page's size, and the seconds to a page that can judge: the first visit, a second one, and the app from its
   command on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from app_load import App
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from record import record

from bonaface.inference.detector import Detector, Result
from bonaface.models.shipped import named_or_shipped
from bonaface.page.build import HEADERS, make_page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
COLLAGES = 20
EDGE = 0.02  # a score within this of the band's edges may get another verdict
READY = "#state.bf-ready"


@contextmanager
def served(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    """The address of a plain file server."""

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def images(folders: Sequence[Path], n: int, scratch: Path) -> dict[str, list[Path]]:
    """``n`` images as they are, as PNG, and collages of them."""
    rng = random.Random(0)
    chosen = []
    for i, folder in enumerate(folders):
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        chosen += rng.sample(found, n // len(folders) + (i < n % len(folders)))
    kinds: dict[str, list[Path]] = {"jpeg": [], "png": [], "collage": []}
    for i, path in enumerate(chosen):
        kinds["jpeg"].append(Path(shutil.copyfile(path, scratch / f"{i:03d}.jpg")))
        kinds["png"].append(scratch / f"{i:03d}.png")
        Image.open(path).convert("RGB").save(kinds["png"][-1])
    for i in range(COLLAGES):
        collage = Image.new("RGB", (800 + 7 * i, 760 + 3 * i), (90, 100, 110))
        for j, path in enumerate(rng.sample(chosen, 4)):
            image = Image.open(path).convert("RGB")
            image.thumbnail((330, 330))
            collage.paste(image, (20 + 400 * (j % 2), 15 + 380 * (j // 2)))
        kinds["collage"].append(scratch / f"collage-{i:02d}.png")
        collage.save(kinds["collage"][-1])
    return kinds


def rows(page: Page, files: Sequence[Path]) -> list[dict[str, Any]]:
    """What the page gives to take away for these files."""
    page.set_input_files("#file", list(files))
    page.wait_for_selector(f"article[data-done] >> nth={len(files) - 1}", state="attached")
    with page.expect_download() as download:
        page.click("#json")
    page.click("#clear")
    return json.loads(Path(download.value.path()).read_text())["files"]


def agreement(found: list[dict[str, Any]], expected: list[Result]) -> dict[str, Any]:
    """How far the page's rows are from the detector's results."""
    pairs = list(zip(found, expected, strict=True))
    scores = [abs(row["p_fake"] - result.p_fake) for row, result in pairs]
    boxes = [
        float(np.abs(np.array(face["box"]) - other.box).max())
        for row, result in pairs
        for face, other in zip(row["faces"], result.faces, strict=True)
    ]
    far = [(row, result) for row, result in pairs if min(abs(result.p_fake - e) for e in result.band or (0.5,)) > EDGE]
    return {
        "images": len(pairs),
        "score_difference_max": float(max(scores)),
        "score_difference_mean": float(np.mean(scores)),
        "faces": len(boxes),
        "box_difference_max_pixels": max(boxes, default=None),
        "verdicts_compared": len(far),
        "verdicts_that_differ": sum(row["verdict"] != result.verdict for row, result in far),
        "warnings_that_differ": sum(row["warnings"] != "; ".join(result.warnings) for row, result in pairs),
    }


def opened(browser: Browser, address: str, **options: Any) -> tuple[Page, float]:
    """The page in a context of its own once it can judge, and the seconds until then."""
    page = browser.new_context(accept_downloads=True, **options).new_page()
    page.set_default_timeout(600_000)
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(READY)
    return page, time.perf_counter() - start


def ask_page(page: Page, file: Path) -> float:
    """Seconds from the choice of a file to its verdict."""
    start = time.perf_counter()
    page.set_input_files("#file", file)
    page.wait_for_selector("article[data-done] .bf-verdict")
    seconds = time.perf_counter() - start
    page.evaluate("document.querySelector('article').remove()")
    return seconds


def ask_app(page: Page, file: Path) -> float:
    """The same in the app's first tab."""
    start = time.perf_counter()
    page.set_input_files("#image input[type=file]", file)
    page.wait_for_selector("#verdict .bf-verdict")
    seconds = time.perf_counter() - start
    page.locator("#image").get_by_label("Remove Image").click()
    page.wait_for_selector("#verdict .bf-empty")
    return seconds


def times(asks: dict[str, Callable[[Path], float]], files: Sequence[Path]) -> dict[str, list[float]]:
    """Seconds of each way for each file, the ways in turn; the first file is not counted."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    for file in files:
        for name, ask in asks.items():
            found[name].append(ask(file))
    return {name: seconds[1:] for name, seconds in found.items()}


def measure(browser: Browser, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All three parts."""
    model = named_or_shipped(options.model)
    made = make_page(model, scratch / "page")
    (scratch / "images").mkdir()
    kinds = images(options.data, options.images, scratch / "images")
    detector = Detector.from_pretrained(model)
    app = App(model)
    try:
        app.wait()
        shown = browser.new_page()
        shown.set_default_timeout(600_000)
        shown.goto(f"{app.url}/?__theme=light")
        shown.wait_for_selector("#header .bf-ready")
        app_start = time.perf_counter() - app.started
        with served(made.folder, {}) as plain, served(made.folder, HEADERS) as isolated:
            one, first_visit = opened(browser, plain, service_workers="block")
            several, _ = opened(browser, isolated)
            several.evaluate("navigator.serviceWorker.ready.then(() => null)")
            start = time.perf_counter()
            several.reload()
            several.wait_for_selector(READY)
            second_visit = time.perf_counter() - start
            threads = int(several.evaluate("document.body.dataset.threads"))
            scores = {
                kind: agreement(rows(one, files), detector([str(file) for file in files]))
                for kind, files in kinds.items()
            }
            asks = {
                "one": partial(ask_page, one),
                "several": partial(ask_page, several),
                "app": partial(ask_app, shown),
            }
            seconds = times(asks, kinds["jpeg"][: options.timed + 1])
    finally:
        app.stop()
    ratios = {name: np.divide(seconds["app"], seconds[name]) for name in ("one", "several")}
    return {
        "ratio": float(np.median(ratios["several"])),
        "ratio_means": "seconds of the app / seconds of the page with several threads, median over the images",
        "ratio_one_thread": float(np.median(ratios["one"])),
        "threads": threads,
        "scores": scores,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "timed_images": options.timed,
        "page_megabytes": sum(made.sizes.values()) / 1e6,
        "files_megabytes": {name.split("/")[-1]: size / 1e6 for name, size in made.sizes.items() if size > 1e5},
        "load_seconds": {"first_visit": first_visit, "second_visit": second_visit, "app_from_its_command": app_start},
    }


def main() -> None:
    """Run all of it; print the JSON, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder with JPEG images of faces")
    parser.add_argument("--model", help="folder or Hub id; the shipped detector by default")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--timed", type=int, default=50)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        found = measure(browser, options, Path(scratch)) | {"browser": f"Chromium {browser.version}"}
        browser.close()
    print(json.dumps(record(options.out, found.pop("ratio"), found.pop("ratio_means"), **found), indent=1))


if __name__ == "__main__":
    main()
