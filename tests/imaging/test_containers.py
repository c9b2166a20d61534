"""The parts and the end of an image are found in every format, and no bytes make the walk fail or run away."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonaface.imaging.containers import read_container

NOISE = Image.effect_noise((70, 50), 80).convert("RGB")
RED = Image.new("RGB", (70, 50), "red")


def encode(kind: str, **save: Any) -> bytes:
    buffer = io.BytesIO()
    NOISE.save(buffer, kind, **save)
    return buffer.getvalue()


TWO = {"save_all": True, "append_images": [RED]}
FILES = {
    "JPEG": encode("JPEG"),
    "progressive JPEG": encode("JPEG", progressive=True, restart_marker_blocks=2),
    "PNG": encode("PNG"),
    "animated PNG": encode("PNG", **TWO),
    "WebP": encode("WEBP"),
    "animated WebP": encode("WEBP", **TWO),
    "GIF": encode("GIF"),
    "animated GIF": encode("GIF", comment=b"x", **TWO),
    "AVIF": encode("AVIF"),
    "animated AVIF": encode("AVIF", **TWO),
    "TIFF": encode("TIFF"),
    "compressed TIFF": encode("TIFF", compression="tiff_lzw"),
    "BigTIFF": encode("TIFF", big_tiff=True),
    "BMP": encode("BMP"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_image_ends_with_its_last_byte(name: str) -> None:
    data = FILES[name]
    alone, followed = read_container(data), read_container(data + b"\0more")
    assert alone.end == followed.end == len(data)
    assert followed.image == data
    assert followed.parts == alone.parts


def test_a_jpeg_ends_before_the_second_image_that_a_phone_appends() -> None:
    data = encode("MPO", **TWO)
    container = read_container(data)
    assert data[container.end :].startswith(b"\xff\xd8")
    assert [part.name for part in container.parts if part.name.startswith("APP")] == ["APP0", "APP2"]


def test_parts_are_named_as_their_format_names_them() -> None:
    names = {name: [part.name for part in read_container(data).parts] for name, data in FILES.items()}
    assert names["PNG"] == ["IHDR", "IDAT", "IEND"]
    assert names["animated WebP"] == ["VP8X", "ANIM", "ANMF", "ANMF"]
    assert names["AVIF"] == ["ftyp", "meta", "mdat"]
    assert names["animated GIF"].count("image") == 2
    assert "273" in names["TIFF"]


def test_a_store_in_an_avif_counts_in_its_box_before_the_pixels_end() -> None:
    jumd = b"\0\0\0\x1ejumd" + bytes.fromhex("6332706100110010800000aa00389b71") + b"\x03c2pa\0"
    store = struct.pack(">I4s", 8 + len(jumd), b"jumb") + jumd
    payload = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"\0\0\0\0manifest\0" + bytes(8) + store
    box = struct.pack(">I4s", 8 + len(payload), b"uuid") + payload
    data, end_of_ftyp = FILES["AVIF"], int.from_bytes(FILES["AVIF"][:4], "big")
    assert read_container(data[:end_of_ftyp] + box + data[end_of_ftyp:]).has_c2pa
    assert not read_container(data + box).has_c2pa


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(FILES)), st.integers(0, 10**6), st.binary(max_size=60), st.booleans())
def test_a_broken_file_is_walked_as_far_as_it_goes(name: str, place: int, noise: bytes, cut: bool) -> None:
    data = FILES[name]
    place %= len(data)
    broken = data[:place] + noise + (b"" if cut else data[place + len(noise) :])
    container = read_container(broken)
    assert 0 <= container.end <= len(broken)
    assert all(0 <= part.start <= part.stop <= len(broken) for part in container.parts)
    assert container.has_c2pa in (True, False)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xfe\0\x02" * 10**6,
        b"\x89PNG\r\n\x1a\n" + (bytes(4) + b"prVt" + bytes(4)) * 400_000,
        b"RIFF" + (8 * 10**6).to_bytes(4, "little") + b"WEBP" + b"JUNK\0\0\0\0" * 10**6,
        FILES["AVIF"][:32] + b"\0\0\0\x08free" * 10**6,
        b"GIF89a" + bytes(7) + b"\x21\xfe\0" * 10**6,
        b"II*\0\x08\0\0\0\xff\xff" + b"\x11\x01\x04\0\xff\xff\xff\xff\x08\0\0\0" * 70_000,
    ],
)
def test_a_million_parts_do_not_hold_the_reader_up(data: bytes) -> None:
    assert len(read_container(data).parts) <= 100_001
