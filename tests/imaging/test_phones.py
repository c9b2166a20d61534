"""What phones write is read and never refused: the main image alone, whatever lies behind or beside it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

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
