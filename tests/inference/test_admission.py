"""What may be given for an image is taken; all else is refused by name, with a short message and without a fetch."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bonaface.imaging.images import ImageError, decode_image
from bonaface.inference.admission import admit, admit_all, is_single

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
BUFFER = io.BytesIO()
Image.fromarray(PIXELS).save(BUFFER, "PNG")
PNG = BUFFER.getvalue()
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


class NoSize:
    """Its read() takes no number of bytes."""

    def read(self) -> bytes:
        return PNG


def pixels(value: Any) -> np.ndarray:
    found = admit(value)
    assert not isinstance(found, ImageError), found
    if isinstance(found, bytes):
        found = decode_image(found)
    elif isinstance(found, str):
        found = Image.open(found)
    return np.asarray(found)


@pytest.mark.parametrize(
    "give",
    [
        lambda: bytearray(PNG),
        lambda: memoryview(PNG),
        lambda: io.BytesIO(PNG),
        lambda: io.BufferedReader(io.BytesIO(PNG)),
        lambda: DATA_URL,
        lambda: f"  {DATA_URL}".rstrip("="),
        lambda: DATA_URL.replace("+", "-").replace("/", "_").replace("data:image_png", "data:image/png"),
        lambda: DATA_URL[:60] + " \r\n" + DATA_URL[60:],
        lambda: NoSize(),
        lambda: {"bytes": PNG, "path": "gone.png"},
        lambda: {"image": {"bytes": PNG, "path": None}, "label": 1},
        lambda: {"path": None, "url": DATA_URL, "meta": {"_type": "gradio.FileData"}},
        lambda: PIXELS,
        lambda: PIXELS[:, ::-1][:, ::-1],
        lambda: PIXELS.astype(np.float32) / 255,
        lambda: PIXELS / 255,
        lambda: torch.from_numpy(PIXELS).permute(2, 0, 1),
        lambda: torch.from_numpy(PIXELS / 255).permute(2, 0, 1).requires_grad_(),
        lambda: Image.fromarray(PIXELS),
    ],
)
def test_each_form_of_an_image_gives_the_same_pixels(give: Callable[[], Any]) -> None:
    assert is_single(give())
    np.testing.assert_array_equal(pixels(give()), PIXELS)


def test_paths_may_be_text_or_path_objects_and_rows_of_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        for value in (path, str(path), {"bytes": None, "path": str(path)}, {"path": str(path), "url": None}, file):
            np.testing.assert_array_equal(pixels(value), PIXELS)


def test_a_path_as_bytes_is_not_taken_for_an_image(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    error = admit(os.fsencode(path))
    assert isinstance(error, ImageError)
    assert "give a path as a string" in str(error)


def test_arrays_of_one_to_four_channels_keep_their_meaning() -> None:
    for shape, mode in (((9, 8), "L"), ((9, 8, 1), "L"), ((9, 8, 2), "LA"), ((9, 8, 3), "RGB"), ((9, 8, 4), "RGBA")):
        found = admit(np.zeros(shape, np.uint8))
        assert isinstance(found, Image.Image)
        assert (found.mode, found.size) == (mode, (8, 9))
    found = admit(torch.zeros(1, 9, 8, dtype=torch.bfloat16))
    assert isinstance(found, Image.Image)
    assert (found.mode, found.size) == ("L", (8, 9))


class Odd:
    """Its read() gives no bytes."""

    def read(self, _: int) -> None:
        return None


REFUSED: list[tuple[Any, str, str]] = [
    (None, "missing", "None was given"),
    (5, "unsupported", "int 5"),
    (True, "unsupported", "bool True"),
    (object(), "unsupported", "object is not accepted"),
    (io.StringIO("x"), "unsupported", 'mode "rb"'),
    (Odd(), "unsupported", "gives NoneType"),
    (["a.jpg"], "unsupported", "one flat list"),
    (iter([]), "unsupported", "one flat list"),
    ({"label": 1}, "missing", "keys: label"),
    ({}, "missing", "keys: none"),
    (pd.DataFrame({"image": ["a.jpg"]}), "unsupported", "the column"),
    ("https://example.org/x.jpg", "missing", "never fetched"),
    ("s3://bucket/x.jpg", "missing", "never fetched"),
    ({"path": None, "url": "http://example.org/x.jpg"}, "missing", "never fetched"),
    ("data:image/png;base64,a", "unreadable", "not base64"),
    (PIXELS.transpose(2, 0, 1), "unsupported", r"ndarray \(3, 24, 30\) of uint8.*transpose\(1, 2, 0\)"),
    (torch.from_numpy(PIXELS), "unsupported", r"Tensor \(24, 30, 3\).*permute\(2, 0, 1\)"),
    (PIXELS[None], "unsupported", "batch by itself"),
    (torch.zeros(2, 3, 8, 8), "unsupported", "batch by itself"),
    (np.zeros((2, 2, 2, 2, 3)), "unsupported", r"\(height, width\)"),
    (np.zeros((8, 9, 7), np.uint8), "unsupported", "1 to 4 channels"),
    (np.zeros(5), "unsupported", r"\(height, width\)"),
    (np.float32(3) * PIXELS, "unsupported", "values from 0 to 765.*floats must be in"),
    (np.full((4, 4), -2.0), "unsupported", "values from -2 to -2"),
    (np.full((4, 4), np.nan), "unsupported", "not numbers"),
    (np.full((4, 4), np.inf), "unsupported", "inf"),
    (PIXELS.astype(np.int64), "unsupported", "of int64.*give uint8"),
    (PIXELS > 9, "unsupported", "of bool"),
    (PIXELS.astype(object), "unsupported", "of object"),
    (np.zeros((0, 4, 3), np.uint8), "too many pixels", "not in 1 to"),
    (np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "too many pixels", "9000 x 9000"),
]


@pytest.mark.parametrize(("value", "reason", "words"), REFUSED)
def test_what_is_no_image_is_refused_by_name(value: Any, reason: str, words: str) -> None:
    error = admit(value)
    assert isinstance(error, ImageError)
    assert error.reason == reason
    with pytest.raises(ImageError, match=words):
        raise error


@pytest.mark.parametrize(
    "value",
    [
        "data:image/png;base64,!" + "A" * 10**6 + "=",
        "https://example.org/" + "x" * 10**6,
        {f"key {i}": 0 for i in range(10**5)},
        pytest.param(10**4000, id="a long number"),
        pytest.param(10**5000, id="a number that Python refuses to write out"),
        np.full((600, 600), 7.0),
        list(range(10**5)),
    ],
)
def test_no_message_carries_the_payload(value: Any) -> None:
    error = admit(value)
    if not isinstance(error, ImageError):  # a damaged data: URL gives bytes that are no image
        with pytest.raises(ImageError) as caught:
            decode_image(error)
        error = caught.value
    assert len(str(error)) < 300


def test_a_file_at_its_end_and_a_closed_one_are_named() -> None:
    file = io.BytesIO(PNG)
    file.read()
    assert "call seek(0) first" in str(admit(file))
    file.close()
    assert "BytesIO cannot be read" in str(admit(file))


@pytest.mark.parametrize(
    ("images", "n"),
    [
        ([PNG, None], 2),
        ((PNG,), 1),
        ((PNG for _ in range(3)), 3),
        (np.stack([PIXELS, PIXELS]), 2),
        (np.array(["a.jpg", "b.jpg"]), 2),
        (np.array([PNG, None], dtype=object), 2),
        (torch.zeros(2, 3, 8, 8), 2),
        (pd.Series(["a.jpg", "b.jpg"]), 2),
        ({"a": PNG}.values(), 1),
        (datasets.Dataset.from_dict({"image": [{"bytes": PNG, "path": None}] * 2}), 2),
        (datasets.Dataset.from_dict({"image": [{"bytes": PNG, "path": None}] * 2})["image"], 2),
        ([], 0),
    ],
)
def test_many_images_are_gone_through(images: Any, n: int) -> None:
    assert not is_single(images)
    assert len(list(admit_all(images))) == n


def test_what_a_generator_yields_is_taken_before_it_changes(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(PNG)

    def files() -> Iterator[Any]:
        for _ in range(2):
            with (tmp_path / "x.png").open("rb") as file:
                yield file

    assert list(admit_all(files())) == [PNG, PNG]
    shared = np.zeros((4, 4), np.uint8)
    (image,) = admit_all([shared])
    shared[:] = 9
    assert np.asarray(image).max() == 0
