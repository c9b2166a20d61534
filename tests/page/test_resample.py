"""The page's resizing and file reading, run in a browser, beside the code that they repeat: equal to the last bit."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from chromium import chromium
from PIL import Image
from playwright.sync_api import Page
from static_page import site
from torch.nn.functional import interpolate

from bonaface.imaging.header import inspect_image
from bonaface.page.words import STATIC

pytestmark = pytest.mark.slow
SIZES = [((97, 61), (32, 20)), ((40, 30), (130, 77)), ((64, 64), (64, 20)), ((300, 7), (32, 32)), ((33, 50), (33, 50))]


@pytest.fixture(scope="module")
def scripts() -> Iterator[Page]:
    """A tab in which the page's modules can be imported."""
    with site(STATIC) as files, chromium() as browser:
        page = browser.new_page()
        page.goto(f"{files.url}licences.txt")
        yield page


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def run(page: Page, call: str, image: Image.Image, **values: Any) -> np.ndarray:
    """``call`` on ``image`` and ``values``, as an array where it gives an image."""
    found = page.evaluate(
        f"""async ({{ pixels, width, height, values }}) => {{
            const js = {{ ...(await import("/resample.js")), ...(await import("/faces.js")) }};
            const data = Uint8ClampedArray.from(atob(pixels), (c) => c.charCodeAt(0));
            const found = await ({call})(js, {{ width, height, data }}, values);
            return [found.height, found.width, Array.from(found.data)];
        }}""",
        {
            "pixels": base64.b64encode(image.tobytes()).decode(),
            "width": image.width,
            "height": image.height,
            "values": values,
        },
    )
    return np.array(found[2], dtype=np.uint8).reshape(found[0], found[1], 3)


RESIZE = "(js, image, { size: [w, h], kernel, arithmetic }) => js.resize(image, w, h, kernel, arithmetic)"


@pytest.mark.parametrize("kernel", ["bilinear", "hamming", "bicubic", "lanczos"])
def test_it_resizes_as_pillow_does(scripts: Page, kernel: str) -> None:
    for old, new in SIZES:
        image = noise(*old)
        wanted = np.asarray(image.resize(new, Image.Resampling[kernel.upper()]))
        assert np.array_equal(run(scripts, RESIZE, image, size=new, kernel=kernel, arithmetic="pillow"), wanted)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("arithmetic", ["int16", "float"])
def test_it_resizes_as_torch_does(scripts: Page, kernel: str, arithmetic: str) -> None:
    for old, new in SIZES:
        image = noise(*old)
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        levels = levels if arithmetic == "int16" else levels.float()
        wanted = interpolate(levels, new[::-1], mode=kernel, antialias=True)[0].permute(1, 2, 0)
        wanted = wanted if arithmetic == "int16" else wanted.round().clamp(0, 255)
        found = run(scripts, RESIZE, image, size=new, kernel=kernel, arithmetic=arithmetic)
        # torch adds float32 in an order of its own: a sum near a half may be rounded the other way
        assert np.abs(found.astype(int) - wanted.numpy().astype(int)).max() <= (arithmetic == "float")


@pytest.mark.parametrize("factor", [(2, 2), (3, 5), (7, 1)])
def test_it_averages_blocks_as_pillow_does(scripts: Page, factor: tuple[int, int]) -> None:
    image = noise(101, 67)
    found = run(scripts, "(js, image, { factor: [x, y] }) => js.reduce(image, x, y)", image, factor=factor)
    assert np.array_equal(found, np.asarray(image.reduce(factor)))


def test_a_large_image_is_made_small_for_the_face_search_as_pillow_does(scripts: Page) -> None:
    image = noise(1303, 977)
    wanted = np.asarray(image.resize((320, 240), Image.Resampling.BILINEAR, reducing_gap=2.0))
    found = run(scripts, "(js, image) => js.scaled(image, 320, 240)", image)
    assert np.array_equal(found, wanted)


def test_halves_are_rounded_to_even(scripts: Page) -> None:
    values = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49, 3.51]
    call = "async (values) => { const js = await import('/resample.js'); return values.map(js.roundEven); }"
    assert [float(value) for value in scripts.evaluate(call, values)] == [round(value) for value in values]


def test_what_a_jpegs_header_says_is_read_as_on_the_python_side(scripts: Page) -> None:
    image = noise(70, 50)
    for options in ({"quality": 12}, {"quality": 39}, {"quality": 40}, {"quality": 97, "progressive": True}):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)  # type: ignore[arg-type]
        found = scripts.evaluate(
            "async (bytes) => (await import('/container.js')).containerOf(new Uint8Array(bytes), 'JPEG')",
            list(buffer.getvalue()),
        )
        facts = inspect_image(buffer.getvalue())
        assert (found["size"], found["quality"]) == ([facts.width, facts.height], facts.jpeg_quality)
