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
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, WebPImagePlugin

from bonaface.errors import shorten
from bonaface.imaging.content import IMAGE_KINDS, content_kind, is_cut
from bonaface.imaging.effort import bound_folders, too_costly

MAX_PIXELS = 64_000_000
MAX_BYTES = 50_000_000
# Decoding WebP, HEIC and progressive JPEG takes up to three times the memory: above this size, one at a time.
COSTLY_PIXELS = 40_000_000
STRIP_PIXELS = 1_000_000  # converted at a time

# HEIC is listed even where its plugin is missing: such a file is then reported with the remedy.
# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif",
    ".bmp", ".dib", ".tif", ".tiff", ".avif", ".heic", ".heif",
])
# fmt: on

bound_folders()
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
    image, unreadable, or above a limit. Pillow's own bomb guard stays on, so pixels beyond twice
    ``PIL.Image.MAX_IMAGE_PIXELS`` are refused whatever ``max_pixels`` says.
    """
    with open_image(data, name, max_bytes) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(
                "too many pixels",
                f"{_said(name)}{image.width} x {image.height} pixels exceed the limit of {max_pixels:,}",
            )
        with _turn(image):
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
    if too_much := too_costly(data, kind):
        raise ImageError("unreadable", f"{_said(name)}the {kind} has {too_much}")
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


_alone = threading.Lock()


def _renew_lock() -> None:
    """A forked process has no thread that would ever release the one it was born with."""
    global _alone
    _alone = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _turn(image: Image.Image) -> AbstractContextManager[Any]:
    """What to hold while an opened image is decoded."""
    costly = image.format in ("WEBP", "HEIF") or image.info.get("progressive")
    return _alone if costly and image.width * image.height > COSTLY_PIXELS else nullcontext()


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
