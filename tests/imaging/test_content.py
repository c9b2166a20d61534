"""The kind of a file is told from its first bytes, and a missing end is seen, without decoding anything.

Protects: every image format and the usual strangers under an image's name are recognised; chance bytes are not.
"""

from __future__ import annotations

import functools
import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from bonaface.imaging.content import IMAGE_KINDS, content_kind, is_cut


@functools.cache
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


# How an image begins, by its format's specification: a second list, to hold the first against.
SIGNATURES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"RIFF\0\0\0\0WEBP": "WebP",
    b"\0\0\0\x10ftypavif": "AVIF",
    b"\0\0\0\x10ftypheic": "HEIC",
}


@given(st.sampled_from(sorted(SIGNATURES)), st.binary(max_size=600))
def test_an_image_is_told_by_its_first_bytes_whatever_follows(start: bytes, rest: bytes) -> None:
    assert content_kind(start + rest) == SIGNATURES[start]


@given(st.binary(max_size=600))
def test_chance_bytes_are_no_image(data: bytes) -> None:
    assume(not data.startswith(tuple(SIGNATURES)) and data[:4] != b"RIFF" and data[4:8] != b"ftyp")
    assert content_kind(data) not in IMAGE_KINDS


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), st.data())
def test_a_file_cut_anywhere_is_seen(format: str, data: st.DataObject) -> None:
    whole = encoded(format)
    kept = data.draw(st.integers(0, len(whole) - (9 if format == "PNG" else 1)))  # a PNG's last 8 bytes say nothing
    kind = content_kind(whole)
    assert kind is not None
    assert is_cut(kind, whole[:kept])
