"""The only place where bytes become pixels.

Whatever a file contains, the outcome is one of two: an RGB image as its photographer saw it (EXIF orientation
applied, transparency over white, 8 bits a channel, the first frame of an animation), or an
:class:`ImageError` that says what is wrong. Limits are checked before the work they guard: bytes before
reading, pixels (from the header) before decoding. Only the formats listed here are tried, so a file cannot
reach a decoder that nobody asked for (Pillow's EPS plugin, for one, starts Ghostscript).
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, JpegImagePlugin, WebPImagePlugin

from bonaface.errors import shorten
from bonaface.imaging.containers import read_container
from bonaface.imaging.content import IMAGE_KINDS, content_kind, is_cut

MAX_PIXELS = 64_000_000
MAX_BYTES = 50_000_000
# Decoding WebP and progressive JPEG takes three times the memory; for others, only the caller's limit counts.
MAX_COSTLY_PIXELS = 40_000_000
STRIP_PIXELS = 1_000_000  # converted at a time

# HEIC is listed even where its plugin is missing: such a file is then reported with the remedy.
# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif",
    ".bmp", ".dib", ".tif", ".tiff", ".avif", ".heic", ".heif",
])
# fmt: on

Image.init()  # all of Pillow's plugins now, not in whichever thread happens to open the first file
try:
    import pillow_heif
except ImportError:
    pass
else:
    pillow_heif.register_heif_opener()

# JPEG covers MPO: a JPEG with a second image behind it, as phones write them.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF")
_FORMATS: list[str] = [name for name in _WANTED if name in Image.OPEN]

# fmt: off
Reason = Literal[
    "empty", "truncated", "not an image", "wrong extension", "too many pixels", "too many bytes", "missing",
    "unreadable", "unsupported",
]
# fmt: on


class ImageError(ValueError):
    """Why a file gives no image: ``reason`` is one of a few fixed phrases, ``str(error)`` a line for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)  # both, so that the error survives the way back from a worker process
        self.reason: Reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


def is_image_name(name: str) -> bool:
    """Whether a file of this name (a path or not) is taken for an image where a folder is searched: by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a million names


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


def read_bytes(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """The file's bytes. Raises ImageError: missing, unreadable, empty or too many bytes."""
    name = shown_name(path)
    try:
        with open(path, "rb", opener=_open_without_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", f"{name}: not a regular file")
            if status.st_size > max_bytes:
                raise _too_many_bytes(name, status.st_size, max_bytes)
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:  # it has grown since, or is one that does not tell its size
                data += file.read(max_bytes + 1 - len(data))
    except FileNotFoundError as error:
        raise ImageError("missing", f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        what = (getattr(error, "strerror", None) or str(error)).lower()
        raise ImageError("unreadable", f"{name}: cannot be read ({what})") from error
    if not data:
        raise ImageError("empty", f"{name}: the file is empty")
    if len(data) > max_bytes:
        raise _too_many_bytes(name, len(data), max_bytes)
    return data


def decode_image(
    data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """Decode to a PIL image of mode RGB, turned as its EXIF says, with no metadata left on it.

    The bytes decide the format, not ``name``, which serves the messages: a PNG under ``.jpg`` decodes; a PDF
    under ``.jpg`` raises "wrong extension". Also raises ImageError for data that is empty, truncated, not an
    image, unreadable, or above a limit: two formats have ``MAX_COSTLY_PIXELS``. Pillow's own bomb guard stays on,
    so pixels beyond twice ``PIL.Image.MAX_IMAGE_PIXELS`` are refused whatever ``max_pixels`` says.
    """
    with open_image(data, name, max_bytes) as image:
        limit = min(max_pixels, MAX_COSTLY_PIXELS) if _is_costly(image) else max_pixels
        if image.width * image.height > limit:
            raise ImageError(
                "too many pixels",
                f"{_said(name)}{image.width} x {image.height} pixels exceed the limit of {limit:,}",
            )
        try:
            _load_first_frame(image)
            pixels, turn = to_rgb(image), orientation(image)
        except Exception as error:
            raise _decoding_error(error, data, name) from error
    del image  # a large image takes a quarter of a gigabyte, and turning it makes another
    return pixels if turn is None else pixels.transpose(turn)


def load_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """:func:`read_bytes`, then :func:`decode_image`."""
    return decode_image(read_bytes(path, max_bytes), name=os.fspath(path), max_pixels=max_pixels, max_bytes=max_bytes)


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


def _open_without_blocking(path: str, flags: int) -> int:
    """Open without blocking: a named pipe called ``x.jpg`` must not make us wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def open_image(data: bytes, name: str = "", max_bytes: int = MAX_BYTES) -> Image.Image:
    """Parse the header only: a PIL image whose pixels are not loaded. Raises ImageError as decoding does."""
    if not data:
        raise ImageError("empty", f"{_said(name)}no bytes")
    if len(data) > max_bytes:
        raise _too_many_bytes(name, len(data), max_bytes)
    kind = content_kind(data)
    if kind not in IMAGE_KINDS:
        _refuse_other_content(kind, name)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        if kind == "HEIC" and "HEIF" not in _FORMATS:
            raise ImageError(
                "unreadable", f"{_said(name)}a HEIC image, which needs `pip install pillow-heif`"
            ) from error
        raise _decoding_error(error, data, name) from error
    if min(image.size) < 1:
        raise ImageError("unreadable", f"{_said(name)}{image.width} x {image.height} pixels are not an image")
    return image


def _is_costly(image: Image.Image) -> bool:
    return image.format == "WEBP" or bool(image.info.get("progressive"))


def _load_first_frame(image: Image.Image) -> None:
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        prepare = image.load_prepare

        def without_decoder() -> None:
            """WebP's animation decoder allocates two canvases, which only later frames would need."""
            image._decoder = None
            prepare()

        image.load_prepare = without_decoder  # type: ignore[method-assign]
    image.load()


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded PIL image of any mode as RGB without metadata: 16-bit and float by their range, transparency over white.

    Pixels that are RGB already are shared with ``image``, not copied. Others are converted a strip at a time, so that
    a large image is never there more than twice.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return Image.Image()._new(image.im)  # Pillow has no public way to share pixels
    rows = max(1, STRIP_PIXELS // image.width)
    boxes = [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
    white = _white(image.mode, (np.asarray(image.crop(box)) for box in boxes)) if image.mode in ("I", "F") else 65535.0
    whole = Image.new("RGB", image.size)
    for box in boxes:
        whole.paste(_strip_to_rgb(image.crop(box), white), box)
    return whole


def _strip_to_rgb(strip: Image.Image, white: float) -> Image.Image:
    """``white`` is the value of white where the mode has more than 8 bits."""
    if strip.mode.startswith(("I", "F")):
        values = np.asarray(strip).astype(np.float32)
        return Image.fromarray(np.rint(np.clip(_finite(values) * (255.0 / white), 0.0, 255.0)).astype(np.uint8))
    if strip.has_transparency_data:  # alpha bands (premultiplied too), or one transparent colour or palette entry
        rgba = strip.convert({"La": "LA", "RGBa": "RGBA"}.get(strip.mode, strip.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return strip.convert("RGB")


def _white(mode: str, strips: Iterable[np.ndarray]) -> float:
    """Such a file does not say what white is: the smallest usual range that holds its brightest pixel."""
    peak = max(float(_finite(strip).max()) for strip in strips)
    ranges = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    return next((white for white in ranges if peak <= white), peak)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> Image.Transpose | None:
    """How a loaded PIL image is to be turned, by its EXIF (Pillow has already turned a TIFF and erased its tag)."""
    try:
        return _TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return None


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


def _refuse_other_content(kind: str | None, name: str) -> None:
    if kind is None:
        raise ImageError("not an image", f"{_said(name)}not an image in a supported format")
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise ImageError("wrong extension", f"{_said(name)}named {suffix}, but contains {kind}")
    raise ImageError("not an image", f"{_said(name)}contains {kind}")


def _decoding_error(error: Exception, data: bytes, name: str) -> ImageError:
    """Any of the decoders' exceptions (they raise a dozen types) as one that says what is broken."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("too many pixels", f"{_said(name)}{error}")
    kind = content_kind(data) or "image"
    if isinstance(error, MemoryError):
        return ImageError("unreadable", f"{_said(name)}not enough memory to decode the {kind}")
    if is_cut(kind, data) or "truncated" in str(error).lower():
        return ImageError("truncated", f"{_said(name)}the {kind} is truncated")
    # Pillow's "cannot identify image file <_io.BytesIO ...>" tells a reader nothing.
    why = "damaged header or unsupported variant" if isinstance(error, Image.UnidentifiedImageError) else error
    return ImageError("unreadable", f"{_said(name)}the {kind} cannot be decoded ({why})")


def _too_many_bytes(name: str, size: int, limit: int) -> ImageError:
    return ImageError("too many bytes", f"{_said(name)}{size:,} bytes exceed the limit of {limit:,}")


def shown_name(path: str | os.PathLike[str]) -> str:
    """A path as messages show it: shortened if it is very long."""
    return shorten(os.fsdecode(path), 160)


def _said(name: str) -> str:
    return f"{shown_name(name)}: " if name else ""
