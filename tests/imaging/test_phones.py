"""What phones write is read and never refused: the main image alone, whatever lies behind or beside it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_images import PEAK

from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import decode_image
from bonaface.imaging.inputs import find_inputs
from bonaface.provenance.read import read_provenance

SIZE = (64, 48)
TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def photograph() -> Image.Image:
    """Dark above, bright below, and red on the left, so that no turn of it is the same."""
    image = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    image.paste((200, 30, 30), (0, 0, SIZE[0] // 4, SIZE[1]))
    return image


NAMESPACES = {
    "x": "adobe:ns:meta/", "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "e": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
}  # fmt: skip


def xmp(attributes: str) -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{address}"' for prefix, address in NAMESPACES.items())
    description = f"<rdf:Description {attributes}/>"
    return f"<x:xmpmeta {declared}><rdf:RDF>{description}</rdf:RDF></x:xmpmeta>".encode()


def encoded(image: Image.Image, kind: str = "JPEG", **save: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def far(found: Image.Image, expected: Image.Image) -> float:
    assert found.size == expected.size
    assert found.mode == "RGB"
    return float(np.abs(np.asarray(found).astype(int) - np.asarray(expected.convert("RGB"))).mean())


def ultra_hdr() -> bytes:
    """A JPEG with a smaller gain map behind it, which says of itself that it was generated."""
    gain = Image.new("RGB", (32, 24), "grey")
    gain.encoderinfo = {"xmp": xmp(f'hdrgm:Version="1.0" e:DigitalSourceType="{TYPE}trainedAlgorithmicMedia"')}
    said = xmp(f'hdrgm:Version="1.0" e:DigitalSourceType="{TYPE}computationalCapture"')
    return encoded(photograph(), "MPO", save_all=True, append_images=[gain], xmp=said, quality=92)


def motion_photo() -> bytes:
    """A JPEG with its seconds of video behind it."""
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\x10\0mdat" + bytes(4088)
    return encoded(photograph(), xmp=xmp('GCamera:MotionPhoto="1"'), quality=92) + video


@pytest.mark.parametrize("data", [ultra_hdr(), motion_photo()], ids=["ultra HDR", "motion photo"])
def test_the_main_image_is_read_and_what_follows_is_named_and_states_nothing(data: bytes) -> None:
    assert far(decode_image(data), photograph()) < 4
    facts = inspect_image(data)
    assert (facts.width, facts.height) == SIZE
    found = read_provenance(data)
    assert "generated" not in {item.says for item in found.evidence}
    assert "bytes after the end of the image" in found.trailing


def test_the_main_image_of_an_ultra_hdr_file_keeps_its_own_statement() -> None:
    (item,) = read_provenance(ultra_hdr()).evidence
    assert (item.says, item.source) == ("camera", "XMP digitalSourceType")


def test_the_video_of_a_live_photo_is_no_image_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.JPG").write_bytes(encoded(photograph()))
    (tmp_path / "IMG_0001.MOV").write_bytes(b"\0\0\0\x14ftypqt  ")
    (tmp_path / "IMG_0001.AAE").write_text("<plist/>")  # what was edited
    assert [Path(path).name for path in find_inputs([tmp_path])] == ["IMG_0001.JPG"]


# --- HEIC -----------------------------------------------------------------------------------------------------------


def pillow_heif() -> Any:
    """What reads and writes HEIC, an extra."""
    return pytest.importorskip("pillow_heif")


def test_a_heic_image_is_read_as_its_camera_meant_it() -> None:
    """Turned by its own property alone: phones write the EXIF orientation too, which must not turn it again."""
    heif = pillow_heif()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Apple", 6
    buffer = io.BytesIO()
    heif.from_pillow(photograph()).save(buffer, quality=95, exif=exif.tobytes())  # it writes both
    data = buffer.getvalue()
    turned = photograph().transpose(Image.Transpose.ROTATE_270)
    assert far(decode_image(data), turned) < 4
    assert "Apple" in read_provenance(data).evidence[0].text


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_other_heic_images_are_read_too(mode: str) -> None:
    pillow_heif()
    assert far(decode_image(encoded(photograph().convert(mode), "HEIF", quality=95)), photograph().convert(mode)) < 4


def test_a_heic_image_in_tiles_is_read_whole() -> None:
    heif = pillow_heif()
    large, buffer = photograph().resize((1280, 960)), io.BytesIO()
    heif.from_pillow(large).save(buffer, quality=95, tile_size=512)
    assert b"grid" in buffer.getvalue()
    assert far(decode_image(buffer.getvalue()), large) < 4


def test_of_a_burst_and_of_more_than_eight_bits_the_main_image_is_read() -> None:
    heif = pillow_heif()
    others = [ImageOps.invert(photograph()), Image.new("RGB", SIZE, "green")]
    data = encoded(photograph(), "HEIF", save_all=True, append_images=others, quality=95)
    assert far(decode_image(data), photograph()) < 4
    deep = (np.asarray(photograph()).astype(np.uint16) * 257).tobytes()
    buffer = io.BytesIO()
    heif.from_bytes(mode="RGB;16", size=SIZE, data=deep).save(buffer, quality=95)
    assert far(decode_image(buffer.getvalue()), photograph()) < 4


def test_a_live_photos_video_behind_a_heic_image_is_named() -> None:
    pillow_heif()
    data = encoded(photograph(), "HEIF", quality=95)
    found = read_provenance(data + b"\0\0\0\x14ftypqt  " + bytes(40))
    assert found.trailing.endswith("(an MP4 or QuickTime video), not read")
    assert far(decode_image(data + bytes(100)), photograph()) < 4


def box(kind: bytes, *parts: bytes, version: int | None = None, flags: int = 0) -> bytes:
    """A box of ISO/IEC 14496-12."""
    body = b"".join(parts) if version is None else struct.pack(">I", version << 24 | flags) + b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def coded(image: Image.Image) -> tuple[bytes, bytes]:
    """The decoder's configuration (a box) and the coded image, out of a file of the encoder's."""
    data = encoded(image, "HEIF", quality=95)
    at = data.index(b"hvcC") - 4
    return data[at : at + int.from_bytes(data[at : at + 4], "big")], data[data.index(b"mdat") + 4 :]


def from_a_phone(tile: Image.Image, columns: int, rows: int, size: tuple[int, int]) -> bytes:
    """A HEIC file with a grid of the same tile again and again, and its negative as a depth map and as a gain map.

    The encoder writes no auxiliary image but transparency, and 48 megapixels take it minutes.
    """
    (tile_code, tile_data), (map_code, map_data) = coded(tile), coded(ImageOps.invert(tile).convert("L"))
    layout = struct.pack(">4B2I", 0, 1, rows - 1, columns - 1, *size)  # the grid of 23008-12, 6.6.2.3
    names = {1: b"grid", 2: b"hvc1", 3: b"hvc1", 4: b"hvc1"}
    items = [box(b"infe", struct.pack(">2H4sx", i, 0, names[i]), version=2, flags=int(i > 1)) for i in names]
    said = [b"urn:mpeg:hevc:2015:auxid:2\0", b"urn:com:apple:photo:2020:aux:hdrgainmap\0"]
    sizes = [box(b"ispe", struct.pack(">2I", *known), version=0) for known in (tile.size, size)]
    properties = [tile_code, map_code, *sizes, *(box(b"auxC", urn, version=0) for urn in said)]
    owned = {1: [4], 2: [0x81, 3], 3: [0x82, 3, 5], 4: [0x82, 3, 6]}
    owners = [struct.pack(f">H{1 + len(of)}B", i, len(of), *of) for i, of in owned.items()]
    tiles = columns * rows
    references = box(b"dimg", struct.pack(f">{2 + tiles}H", 1, tiles, *[2] * tiles))
    references += b"".join(box(b"auxl", struct.pack(">3H", i, 1, 1)) for i in (3, 4))

    def meta(at: int) -> bytes:
        maps = at + len(tile_data), len(map_data)
        places = [(1, 0, len(layout)), (0, at, len(tile_data)), (0, *maps), (0, *maps)]
        located = [struct.pack(">4H2I", i, *(where, 0, 1, first, n)) for i, (where, first, n) in enumerate(places, 1)]
        return box(
            b"meta",
            box(b"hdlr", bytes(4), b"pict", bytes(13), version=0),
            box(b"pitm", b"\0\1", version=0),
            box(b"iinf", b"\0\4", *items, version=0),
            box(b"iref", references, version=0),
            box(b"iprp", box(b"ipco", *properties), box(b"ipma", struct.pack(">I", 4), *owners, version=0)),
            box(b"idat", layout),
            box(b"iloc", b"\x44\0\0\4", *located, version=1),
            version=0,
        )

    kind = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return kind + meta(len(kind) + len(meta(0)) + 8) + box(b"mdat", tile_data, map_data)


def test_depth_and_gain_map_of_a_heic_image_are_not_taken_for_it() -> None:
    heif = pillow_heif()
    tile = photograph().resize((128, 64))
    data = from_a_phone(tile, 3, 2, (360, 120))
    told = heif.open_heif(data).info
    assert len(told["depth_images"]) == 1
    assert list(told["aux"]) == ["urn:com:apple:photo:2020:aux:hdrgainmap"]
    whole = Image.new("RGB", (360, 120))
    for column in range(3):
        for row in range(2):
            whole.paste(tile, (128 * column, 64 * row))
    assert far(decode_image(data), whole) < 4
    facts = inspect_image(data)
    assert (facts.width, facts.height) == (360, 120)
    assert read_provenance(data).trailing == ""


@pytest.mark.slow
def test_a_heic_image_of_48_megapixels_takes_little_more_than_its_pixels(tmp_path: Path) -> None:
    """Its pixels in YCbCr and in RGB, and the image; the maps beside it are not decoded at all."""
    pillow_heif()
    size = (8064, 6048)
    (tmp_path / "IMG_0048.HEIC").write_bytes(from_a_phone(Image.new("RGB", (512, 512), "teal"), 16, 12, size))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "IMG_0048.HEIC")]
    peak = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert 3 * size[0] * size[1] / 2**20 < peak < 450
