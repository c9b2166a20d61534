"""Bytes become an RGB image or an ImageError that says why, and nothing else, whatever the bytes are.

Protects: every mode that Pillow decodes to comes out as correct 8-bit RGB; EXIF orientation, transparency, first
frames; limits checked before the work they guard; every kind of broken file told apart.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from bonaface.imaging import images
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import IMAGE_SUFFIXES, ImageError, decode_image, load_image, read_bytes, to_rgb

WIDTH, HEIGHT = 24, 16
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


def smooth(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A soft colour gradient: survives lossy formats, differs in all four corners."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    rgb = np.stack([40 + 180 * x / width, 40 + 180 * y / height, 200 - 100 * x / width], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def error_of(data: bytes, **options: object) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)  # type: ignore[arg-type]
    return caught.value


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- formats and modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_decodes_to_the_pixels_that_went_in(format: str) -> None:
    options = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}
    difference = np.abs(pixels(encoded(smooth(), format, **options)) - np.asarray(smooth()).astype(int))
    assert difference.mean() < 6
    assert difference.max() < 45  # GIF's palette of 256


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_opaque_modes(mode: str) -> None:
    stored = smooth().convert(mode)
    expected = np.asarray(stored.convert("RGB")).astype(int)
    np.testing.assert_array_equal(pixels(encoded(stored, "TIFF")), expected)


def test_lab_tiff_is_converted_not_refused() -> None:
    profile = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(smooth(), profile)
    data = encoded(lab, "TIFF")
    assert inspect_image(data).mode == "LAB"
    assert np.abs(pixels(data) - np.asarray(smooth()).astype(int)).mean() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_lies_over_white(mode: str) -> None:
    """Transparent is white whatever colour hides there, opaque stays, half is half."""
    array = np.zeros((3, 8, 4), np.uint8)
    array[0, :, 3], array[1, :, 3], array[2, :, 3] = 0, 128, 255
    image = Image.fromarray(array)
    data = encoded(image if mode == "RGBA" else image.convert(mode), "TIFF")
    rows = pixels(data)[:, 0]
    assert (rows[0] == 255).all()
    assert (np.abs(rows[1] - 127) <= 1).all()
    assert (rows[2] == 0).all()


def test_premultiplied_alpha_lies_over_white() -> None:
    """A TIFF with associated alpha: its colours are already scaled by alpha."""
    premultiplied = np.full((4, 4, 4), (100, 50, 25, 128), np.uint8)
    data = encoded(Image.fromarray(premultiplied), "TIFF")
    unassociated, associated = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))  # tag ExtraSamples
    data = data.replace(unassociated, associated)
    assert inspect_image(data).mode == "RGBA"
    expected = np.array([200, 100, 50]) * 128 / 255 + 127
    assert np.abs(pixels(data)[0, 0] - expected).max() <= 3


def test_one_transparent_palette_entry_or_colour_lies_over_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 1)
    for format in ("PNG", "GIF"):
        rgb = pixels(encoded(palette, format, transparency=0))
        assert rgb[1, 1].tolist() == [255, 255, 255]
        assert rgb[0, 0].tolist() == [200, 100, 50]
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 90)
    assert pixels(encoded(grey, "PNG", transparency=7))[0].tolist() == [[255] * 3, [90] * 3]
    colour = Image.new("RGB", (2, 1), (1, 2, 3))
    colour.putpixel((1, 0), (9, 8, 7))
    assert pixels(encoded(colour, "PNG", transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [9, 8, 7]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    rgb = pixels(encoded(Image.fromarray(ramp), format))
    np.testing.assert_array_equal(rgb[..., 0].ravel(), np.arange(256))


def test_big_endian_sixteen_bit_tiff() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(">u2").reshape(16, 16)
    data = encoded(Image.frombytes("I;16B", (16, 16), ramp.tobytes()), "TIFF")
    np.testing.assert_array_equal(pixels(data)[..., 1].ravel(), np.arange(256))


@pytest.mark.parametrize("white", [255, 65535, 1_000_000])
def test_integers_without_a_stated_white_take_the_smallest_range_that_holds_them(white: int) -> None:
    ramp = np.linspace(0, white, 64).round().astype(np.int32).reshape(8, 8)
    rgb = pixels(encoded(Image.fromarray(ramp), "TIFF"))
    assert np.abs(rgb[..., 0].ravel() - np.linspace(0, 255, 64)).max() <= 1


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_tiff(white: float) -> None:
    ramp = np.linspace(0, white, 64, dtype=np.float32).reshape(8, 8)
    ramp[0, 0], ramp[0, 1] = np.nan, -np.inf
    rgb = pixels(encoded(Image.fromarray(ramp), "TIFF"))[..., 2].ravel()
    assert rgb[:2].tolist() == [0, 0]
    assert np.abs(rgb[2:] - np.linspace(0, 255, 64)[2:]).max() <= 1


def test_cmyk_jpeg_is_not_inverted() -> None:
    """Adobe stores CMYK JPEGs inverted: a red must come back red."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    rgb = pixels(encoded(red, "JPEG", quality=95))[8, 8]
    assert rgb[0] > 200
    assert rgb[1:].max() < 60


def test_ycck_jpeg_matches_its_cmyk_twin() -> None:
    """Flipping Adobe's colour transform byte to 2 makes the decoder read YCCK: other colours, same way up."""
    grey = Image.new("CMYK", (16, 16), (0, 0, 0, 200))
    data = bytearray(encoded(grey, "JPEG", quality=95))
    at = data.index(b"Adobe") + 11
    data[at] = 2
    rgb = pixels(bytes(data))
    assert rgb.shape == (16, 16, 3)
    assert inspect_image(bytes(data)).mode == "CMYK"


def test_a_phone_jpeg_with_a_second_image_is_a_jpeg() -> None:
    second = Image.new("RGB", (WIDTH, HEIGHT), "red")
    data = encoded(smooth(), "MPO", save_all=True, append_images=[second], quality=90)
    facts = inspect_image(data)
    assert (facts.format, facts.jpeg_quality, facts.chroma_subsampling) == ("MPO", 90, "4:2:0")
    assert np.abs(pixels(data) - np.asarray(smooth()).astype(int)).mean() < 6


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_give_their_first_frame(format: str) -> None:
    first, second = Image.new("RGB", (16, 16), (200, 30, 30)), Image.new("RGB", (16, 16), (30, 30, 200))
    data = encoded(first, format, save_all=True, append_images=[second])
    assert np.abs(pixels(data)[8, 8] - [200, 30, 30]).max() < 12


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(format: str, orientation: int) -> None:
    upright = smooth()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}
    image = decode_image(encoded(stored, format, exif=exif, **options))
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright).astype(int)).mean() < 4
    assert image.getexif().get(0x0112) is None  # or the next reader would turn it again


def test_broken_exif_does_not_cost_the_image() -> None:
    data = encoded(smooth(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode_image(data).size == (WIDTH, HEIGHT)


# --- broken files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.9])
def test_truncated_files_raise(format: str, keep: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    data = encoded(noise, format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = error_of(data[: int(len(data) * keep)], name="x")
    # Pillow writes a TIFF's directory first: cut inside, it is a damaged header rather than missing pixels.
    assert error.reason == "truncated" or (format == "TIFF" and error.reason == "unreadable")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%PDF-1.7\n...", "PDF"),
        (b"PK\x03\x04\x14\0\0\0", "ZIP"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "MP4"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"file_name,label\na.jpg,real\n", "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("naïve café ".encode() * 200, "text"),
    ],
)
def test_wrong_extension_says_what_the_file_holds(content: bytes, said: str) -> None:
    error = error_of(content, name="a/photo.JPG")
    assert error.reason == "wrong extension"
    assert said in str(error)
    assert str(error).startswith("a/photo.JPG: ")
    assert error_of(content, name="notes.txt").reason == "not an image"
    assert error_of(content).reason == "not an image"


@pytest.mark.parametrize("content", [b"\0" * 4000, b"\x07\x13garbage\0\xfe" * 50, b"x"])
def test_unknown_bytes_are_not_an_image(content: bytes) -> None:
    assert error_of(content, name="x.png").reason == "not an image"


def test_the_bytes_decide_the_format_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encoded(smooth(), "PNG"))
    np.testing.assert_array_equal(np.asarray(load_image(path)), np.asarray(smooth()))


def test_damaged_inside_is_unreadable_not_truncated() -> None:
    data = bytearray(encoded(smooth(), "PNG"))
    at = data.index(b"IDAT") + 4
    data[at : at + 40] = b"\xaa" * 40
    assert error_of(bytes(data)).reason == "unreadable"


def test_postscript_never_reaches_a_decoder() -> None:
    """Pillow's EPS plugin runs Ghostscript on what it is given."""
    assert error_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", name="x.png").reason == "wrong extension"
    for format in ("PPM", "TGA", "ICO"):
        with pytest.raises(ImageError):
            decode_image(encoded(smooth(), format))


def test_heic_without_its_plugin_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_FORMATS", [f for f in images._FORMATS if f != "HEIF"])
    error = error_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, name="IMG_0001.HEIC")
    assert error.reason == "unreadable"
    assert "pillow-heif" in str(error)


@pytest.mark.parametrize(
    ("exception", "reason"),
    [
        (OSError("broken data stream"), "unreadable"),
        (SyntaxError("bad"), "unreadable"),
        (struct.error("unpack"), "unreadable"),
        (OverflowError("big"), "unreadable"),
        (EOFError("end"), "unreadable"),
        (IndexError("i"), "unreadable"),
        (MemoryError(), "unreadable"),
        (Image.DecompressionBombError("bomb"), "too many pixels"),
    ],
)
def test_every_decoder_exception_becomes_an_image_error(
    monkeypatch: pytest.MonkeyPatch, exception: Exception, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise exception

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert error_of(encoded(smooth(), "BMP")).reason == reason


# --- limits and files ----------------------------------------------------------------------------------------


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    error = error_of(png_of_size(9000, 8000), name="big.png")
    assert error.reason == "too many pixels"
    assert "9000 x 8000" in str(error)
    data = encoded(Image.new("L", (3000, 3000)), "PNG")
    tracemalloc.start()
    assert error_of(data, max_pixels=8_999_999).reason == "too many pixels"
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert decode_image(data, max_pixels=9_000_000).size == (3000, 3000)


def test_a_decompression_bomb_is_refused_whatever_the_limit() -> None:
    assert error_of(png_of_size(60_000, 60_000), max_pixels=10**12).reason == "too many pixels"


def test_the_byte_limit_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)  # no such memory is taken, no such bytes are written
    with pytest.raises(ImageError) as caught:
        read_bytes(path)
    assert caught.value.reason == "too many bytes"
    data = encoded(smooth(), "PNG")
    assert error_of(data, max_bytes=len(data) - 1).reason == "too many bytes"
    assert decode_image(data, max_bytes=len(data)).mode == "RGB"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def reason(path: Path | str) -> str:
        with pytest.raises(ImageError) as caught:
            load_image(path)
        return caught.value.reason

    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "none.png") == "missing"
    assert reason(tmp_path) == "unreadable"
    assert reason(tmp_path / "pipe.png") == "unreadable"  # and does not wait for a writer
    assert reason(tmp_path / "empty.png") == "empty"
    assert reason("a\0b.png") == "unreadable"
    assert error_of(b"").reason == "empty"


def test_a_growing_file_is_still_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"x" * 100)
    real = os.fstat

    def smaller(descriptor: int) -> os.stat_result:
        values = list(real(descriptor))
        values[6] = 1
        return os.stat_result(values)

    monkeypatch.setattr(images.os, "fstat", smaller)
    with pytest.raises(ImageError) as caught:
        read_bytes(path, max_bytes=99)
    assert caught.value.reason == "too many bytes"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "1"])
def test_strips_join_to_the_image_in_one_piece(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth() if mode != "I;16" else Image.fromarray(np.asarray(smooth().convert("L")).astype(np.uint16) * 200)
    image = image if mode == "I;16" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr(images, "STRIP_PIXELS", 3 * WIDTH)
    assert np.array_equal(np.asarray(to_rgb(image)), whole)
    assert len(np.unique(whole)) > 1


def test_rgb_pixels_are_not_copied_and_the_image_keeps_its_metadata() -> None:
    image = smooth()
    image.info["comment"] = "mine"
    plain = to_rgb(image)
    assert plain.im is image.im
    assert not plain.info
    assert image.info == {"comment": "mine"}


PEAK = """
import sys
from pathlib import Path
from bonaface.imaging.images import load_image

def peak():  # KiB, of this program alone: getrusage counts what its parent held before
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

before = peak()
load_image(sys.argv[1])
print((peak() - before) // 1024)
"""


@pytest.mark.parametrize(
    ("mode", "size", "options", "copies"),
    [
        ("RGBA", (6000, 5000), {"format": "PNG", "compress_level": 1}, 2),
        ("RGBA", (6000, 5000), {"format": "WEBP", "lossless": True, "quality": 0, "method": 0}, 3),
        ("RGB", (8064, 6048), {"format": "WEBP", "quality": 0, "method": 0}, 3),
        ("RGB", (8064, 6048), {"format": "JPEG", "progressive": True, "subsampling": 0}, 2.5),
    ],
)
def test_a_large_image_is_there_a_few_times_at_most(
    tmp_path: Path, mode: str, size: tuple[int, int], options: dict[str, object], copies: float
) -> None:
    """Of four bytes a pixel: the image and its RGB; libwebp's canvases and its output; libjpeg's coefficients.

    30 megapixels with alpha, and the 48 that phones take.
    """
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, size, (1, 2, 3, 99)[: len(mode)]).save(tmp_path / "x", exif=exif, **options)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x")]
    peak = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    copy = 4 * size[0] * size[1] / 2**20
    assert copy < peak < (copies + 0.7) * copy


@pytest.mark.parametrize(
    "options", [{"format": "WEBP"}, {"format": "JPEG", "progressive": True}, {"format": "HEIF"}], ids=str
)
def test_large_images_of_costly_formats_are_decoded_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    """Also in a process that was forked while one was decoded."""
    monkeypatch.setattr(images, "COSTLY_PIXELS", WIDTH * HEIGHT - 1)
    inside, most = threading.Semaphore(1), []

    def load(image: Image.Image, load: Callable[[Image.Image], None] = images._load_first_frame) -> None:
        most.append(inside.acquire(blocking=False))
        time.sleep(0.01)
        load(image)
        inside.release()

    data = encoded(smooth(), **options)  # type: ignore[arg-type]
    monkeypatch.setattr(images, "_load_first_frame", load)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: decode_image(data), range(8)))
    assert most == [True] * 8
    with images._alone, ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as child:
        assert child.submit(_decoded_size, data).result(30) == (WIDTH, HEIGHT)


def _decoded_size(data: bytes) -> tuple[int, int]:
    return decode_image(data).size


def test_the_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(error_of(b"%PDF-1.4", name="x.jpg")))
    assert error.reason == "wrong extension"
    assert str(error) == "x.jpg: named .jpg, but contains a PDF document"


def test_suffixes_cover_the_formats() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


def test_threads_decode_side_by_side() -> None:
    blobs = [encoded(smooth(), format) for format in FORMATS] * 8
    alone = [pixels(blob) for blob in blobs]
    with ThreadPoolExecutor(8) as pool:
        for expected, actual in zip(alone, pool.map(pixels, blobs), strict=True):
            np.testing.assert_array_equal(actual, expected)


# --- wild bytes ----------------------------------------------------------------------------------------------

_WILD = {format: encoded(smooth(), format) for format in [*FORMATS, "MPO"]}
_WILD["JPEG CMYK"] = encoded(smooth().convert("CMYK"), "JPEG", progressive=True)
_WILD["TIFF LZW"] = encoded(smooth(), "TIFF", compression="tiff_lzw")
_WILD["TIFF JPEG"] = encoded(smooth(), "TIFF", compression="jpeg")
_WILD["PNG 16"] = encoded(Image.new("I;16", (WIDTH, HEIGHT), 999), "PNG")
_WILD["WEBP alpha"] = encoded(smooth().convert("RGBA"), "WEBP", lossless=True)


def assert_image_or_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode_image(data, name="x.jpg", max_pixels=1_000_000)
        except ImageError as error:
            outcome = str(error).startswith("x.jpg: ")
        else:
            outcome = image.mode == "RGB" and min(image.size) >= 1
        try:
            facts = inspect_image(data)
        except ImageError:
            facts = None
    assert outcome
    assert facts is None or facts.n_bytes == len(data)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(sorted(_WILD)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    keep=st.floats(0, 1),
    cut=st.booleans(),
)
def test_flipped_and_cut_bytes(kind: str, flips: list[tuple[float, int]], keep: float, cut: bool) -> None:
    data = bytearray(_WILD[kind])
    for position, value in flips:
        data[int(position * len(data))] ^= value
    assert_image_or_error(bytes(data[: int(keep * len(data))] if cut else data))


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from(sorted({blob[:n] for blob in _WILD.values() for n in (0, 4, 12, 40)})),
    tail=st.binary(max_size=300),
)
def test_random_bytes_behind_a_true_header(head: bytes, tail: bytes) -> None:
    assert_image_or_error(head + tail)
