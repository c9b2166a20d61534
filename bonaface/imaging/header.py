"""What a file's header says, without decoding a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import JpegImagePlugin

from bonaface.imaging.containers import read_container
from bonaface.imaging.images import MAX_BYTES, open_image


@dataclass(frozen=True)
class ImageFacts:
    """What a file's header says; width and height as stored, before EXIF orientation."""

    format: str  # Pillow's name: "JPEG", "PNG", ...
    mode: str  # Pillow's mode as stored: "RGB", "L", "CMYK", ...
    width: int
    height: int
    n_bytes: int
    jpeg_quality: int | None  # 1..100 on the IJG scale; None for anything but a JPEG
    chroma_subsampling: str | None  # "4:4:4", "4:2:2", "4:2:0" or sampling factors; None without chroma or JPEG
    progressive: bool  # a progressive JPEG
    has_exif: bool
    has_icc: bool
    has_c2pa: bool  # content credentials (a C2PA manifest store) are embedded


def inspect_image(data: bytes, *, name: str = "", max_bytes: int = MAX_BYTES) -> ImageFacts:
    """Header facts without decoding a pixel. Raises ImageError where no header can be read."""
    with open_image(data, name, max_bytes) as image:
        quality, subsampling, info, container = None, None, image.info, read_container(data)
        if isinstance(image, JpegImagePlugin.JpegImageFile):  # MPO included
            quality, subsampling = _jpeg_quality(image), _chroma_subsampling(image)
        tags = getattr(image, "tag_v2", {})  # of a TIFF; 34665 points to the EXIF block
        return ImageFacts(
            format=str(image.format),
            mode=image.mode,
            width=image.width,
            height=image.height,
            n_bytes=len(data),
            jpeg_quality=quality,
            chroma_subsampling=subsampling,
            progressive=bool(info.get("progressive")),
            # A PNG may have its EXIF after the pixels, which Pillow's header pass does not reach.
            has_exif=bool(info.get("exif")) or 34665 in tags or any(part.name == "eXIf" for part in container.parts),
            has_icc=bool(info.get("icc_profile")),
            has_c2pa=container.has_c2pa,
        )


# The tables of ITU-T T.81 Annex K.1, which the IJG's quality scales; luminance, row by row.
_K1 = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()
_SCALES = np.array([5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)])
_IJG_TABLES = np.clip((_K1[None, :] * _SCALES[:, None] + 50) // 100, 1, 255)  # (100, 64)


def _jpeg_quality(image: JpegImagePlugin.JpegImageFile) -> int | None:
    """The IJG quality whose luminance table is nearest (L1) to the file's."""
    tables: dict[int, Any] = image.quantization
    if not tables or len(tables[min(tables)]) != 64:
        return None
    distance = np.abs(_IJG_TABLES - np.asarray(tables[min(tables)])[None, :]).sum(axis=1)
    return int(np.argmin(distance)) + 1


def _chroma_subsampling(image: JpegImagePlugin.JpegImageFile) -> str | None:
    """From the sampling factors of the frame header; None for grey and CMYK."""
    if image.layers != 3:
        return None
    factors = [(h, v) for _, h, v, *_ in image.layer]
    named = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    if factors[1:] == [(1, 1), (1, 1)] and factors[0] in named:
        return named[factors[0]]
    return ",".join(f"{h}x{v}" for h, v in factors)
