"""A header's facts: format, size, JPEG tables and metadata, read without decoding a pixel."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import ImageError, decode_image

WIDTH, HEIGHT = 24, 16
IMAGE = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")


def encoded(format: str, image: Image.Image = IMAGE, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    assert inspect_image(encoded("JPEG", quality=quality)).jpeg_quality == quality


@pytest.mark.parametrize(("sampling", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_chroma_subsampling(sampling: int, name: str) -> None:
    assert inspect_image(encoded("JPEG", subsampling=sampling)).chroma_subsampling == name
    assert inspect_image(encoded("JPEG", IMAGE.convert("L"))).chroma_subsampling is None


def test_facts_of_a_jpeg_and_a_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded("JPEG", progressive=True, exif=exif, icc_profile=icc, quality=80)
    facts = inspect_image(data)
    assert (facts.format, facts.mode, facts.width, facts.height) == ("JPEG", "RGB", WIDTH, HEIGHT)
    assert facts.n_bytes == len(data)
    assert facts.progressive
    assert facts.has_exif
    assert facts.has_icc
    assert not facts.has_c2pa
    plain = inspect_image(encoded("PNG"))
    assert (plain.jpeg_quality, plain.chroma_subsampling) == (None, None)
    assert [plain.progressive, plain.has_exif, plain.has_icc, plain.has_c2pa] == [False] * 4
    assert inspect_image(encoded("PNG", exif=exif)).has_exif
    assert inspect_image(encoded("WEBP", exif=exif)).has_exif


def test_content_credentials_are_seen() -> None:
    """A C2PA store in a JPEG: APP11 segments that hold a JUMBF superbox with the label c2pa."""
    label = b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71\x03c2pa\0"
    description = struct.pack(">I", 8 + len(label)) + b"jumd" + label
    box = struct.pack(">I", 8 + len(description)) + b"jumb" + description
    body = b"JP\0\x01\0\0\0\x01" + box
    segment = b"\xff\xeb" + struct.pack(">H", 2 + len(body)) + body
    plain = encoded("JPEG")
    signed = plain[:2] + segment + plain[2:]
    assert inspect_image(signed).has_c2pa
    assert not inspect_image(plain).has_c2pa
    np.testing.assert_array_equal(decode_image(signed), decode_image(plain))


def test_inspecting_decodes_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    blobs = {format: encoded(format) for format in ("JPEG", "PNG", "BMP", "TIFF", "GIF")}
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    for format, data in blobs.items():
        assert inspect_image(data).format == format
    with pytest.raises(ImageError):
        inspect_image(b"%PDF-1.4 no image")
