"""The kind of a file is told from its first bytes, and a missing end is seen, without decoding anything.

Protects: every image format and the usual strangers under an image's name are recognised; chance bytes are not.
"""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bonaface.imaging.content import IMAGE_KINDS, content_kind, is_cut


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        ("JPEG", "JPEG"),
        ("PNG", "PNG"),
        ("WEBP", "WebP"),
        ("GIF", "GIF"),
        ("BMP", "BMP"),
        ("TIFF", "TIFF"),
        ("AVIF", "AVIF"),
    ],
)
def test_image_formats_are_told_and_their_end_is_checked(format: str, kind: str) -> None:
    data = encoded(format)
    assert content_kind(data) == kind
    assert kind in IMAGE_KINDS
    assert not is_cut(kind, data)
    if format != "TIFF":  # a TIFF promises no end
        assert is_cut(kind, data[: len(data) // 2])


def test_heic_and_video_share_a_container_but_not_a_kind() -> None:
    assert content_kind(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIC"
    assert content_kind(b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif") == "AVIF"
    assert content_kind(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ") == "an MP4 or QuickTime video"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x1f\x8b\x08\0\0\0\0\0", "a gzip archive"),
        (b"\x7fELF\x02\x01\x01\0", "a program"),
        (b"PAR1\x15\0\x15\0", "a Parquet table"),
        (b"\0" * 257 + b"ustar\x0000", "a tar archive"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a WAV file"),
        (b"\xef\xbb\xbf<html lang='en'>", "an HTML page"),
        (b"  \n<!doctype HTML>", "an HTML page"),
        (b'{"error": "not found"}', "text"),
        (b"abc", None),
        (b"\0" * 300, None),
        (b"RIFF\x24\0\0\0????", None),
        (b"latin-1 \xe9\xe8 is no UTF-8", None),
    ],
)
def test_strangers(data: bytes, kind: str | None) -> None:
    assert content_kind(data) == kind
    assert kind not in IMAGE_KINDS


@given(st.binary(max_size=600))
def test_any_bytes_have_a_kind_or_none(data: bytes) -> None:
    kind = content_kind(data)
    assert kind is None or isinstance(kind, str)
    for image_kind in IMAGE_KINDS:
        assert isinstance(is_cut(image_kind, data), bool)
