"""What a caller passes as an image -> a PIL image, encoded bytes or a path, or an ImageError that names its type.

Files, buffers and arrays are copied at once: what an iterator yields may be closed or overwritten before the
image's turn comes. A PIL image stays the caller's, and is decoded when its turn comes.
No URL is ever fetched, and no message repeats a payload.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bonaface.errors import shorten
from bonaface.imaging.images import MAX_BYTES, MAX_PIXELS, ImageError

ImageInput = Image.Image | bytes | str | os.PathLike[str]
Admitted = ImageInput | ImageError

_FORMS = "give a path, bytes, a file, an array, a tensor or a PIL image"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CHANNELS = (1, 2, 3, 4)
_LONGEST_PATH = 4096
_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the alphabet of base64 that URLs take
_SINGLE = (Image.Image, bytes, bytearray, memoryview, str, os.PathLike, Mapping, io.IOBase)


def admit_all(images: Any) -> Iterator[Admitted]:
    """Each of many images, or the single one given, lazily."""
    return map(admit, [images] if is_single(images) else images)


def is_single(images: Any) -> bool:
    """Whether this is one image (or not iterable), rather than many.

    An array or tensor of four axes is many, and so is one of one axis, such as a column of paths.
    """
    if isinstance(images, np.ndarray | torch.Tensor):
        return images.ndim not in (1, 4)
    return isinstance(images, _SINGLE) or hasattr(images, "read") or _is_table(images) or not _is_iterable(images)


def admit(image: Any) -> Admitted:
    """One image in a form that :mod:`bonaface.inference.reader` reads, or why it is not one; raises nothing."""
    try:
        return _image(image)
    except ImageError as error:
        return ImageError(error.reason, str(error))  # without a traceback, whose frames hold the payload
    except Exception as error:  # whatever the object's own methods raise
        return ImageError("unreadable", f"{type(image).__name__} cannot be read ({shorten(str(error))})")


def _image(image: Any) -> ImageInput:
    match image:
        case bytes() if len(image) < _LONGEST_PATH and b"\0" not in image and os.path.lexists(image):
            raise _refusal(image, "bytes are an image's content; give a path as a string, with os.fsdecode")
        case Image.Image() | bytes():
            return image
        case bytearray() | memoryview():
            return bytes(image)
        case str():
            return _from_text(image)
        case os.PathLike():
            return os.fsdecode(image)
        case np.ndarray():
            return _from_array(image)
        case torch.Tensor():
            return _from_tensor(image)
        case Mapping():
            return _from_mapping(image)
        case None:
            raise ImageError("missing", "no image: None was given")
    if hasattr(image, "read"):
        return _from_file(image)
    if _is_table(image):
        raise _refusal(image, "give the column with the images")
    if _is_iterable(image):
        raise _refusal(image, "give one flat list of images")
    raise _refusal(image)


def _from_text(text: str) -> ImageInput:
    """A string is a path, or a ``data:`` URL that holds its bytes."""
    if text[:64].lstrip()[:5].lower() == "data:" and "," in text:
        return _from_data_url(text.lstrip())
    if _ADDRESS.match(text) and not os.path.lexists(text):
        raise ImageError("missing", f"{shorten(text)}: no such file, and URLs are never fetched")
    return text


def _from_data_url(url: str) -> bytes:
    head, _, body = url.partition(",")
    if len(body) > 4 * MAX_BYTES // 3 + 4:
        raise ImageError("too many bytes", f"{shorten(url)}: more than the limit of {MAX_BYTES:,} bytes")
    try:
        data = unquote_to_bytes(body)
        return _from_base64(data) if head.rstrip().lower().endswith(";base64") else data
    except binascii.Error as error:
        raise ImageError("unreadable", f"{shorten(url)}: not base64 ({error})") from error


def _from_base64(data: bytes) -> bytes:
    """Both alphabets, with or without line breaks and the padding at the end."""
    data = data.translate(_STANDARD, b" \t\r\n").rstrip(b"=")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def _from_mapping(row: Mapping[Any, Any]) -> ImageInput:
    """A row of a data set ({"bytes", "path"}, or its column "image"), or Gradio's file ({"path", "url"})."""
    for key in ("bytes", "path", "url", "image"):
        if row.get(key) is not None:
            return _image(row[key])
    keys = shorten(", ".join(map(str, row)) or "none")
    raise ImageError("missing", f"a dict without bytes, path or image (keys: {keys})")


def _from_file(file: Any) -> bytes:
    """Everything from the file's current position."""
    if isinstance(file, io.TextIOBase):
        raise _refusal(file, 'open the file with mode "rb"; this one is in text mode')
    try:
        data = file.read(MAX_BYTES + 1)
    except TypeError:  # some have a read() without a number
        data = file.read()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise _refusal(file, f'open the file with mode "rb"; its read() gives {type(data).__name__}')
    seekable = getattr(file, "seekable", None)
    if not data and seekable and seekable() and file.tell():
        raise ImageError("empty", f"{_kind(file)} is at its end; call seek(0) first")
    return bytes(data)


def _from_array(array: NDArray[Any]) -> Image.Image:
    """(height, width) or (height, width, channels), uint8 or floats in [0, 1]."""
    if array.ndim == 3 and array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        raise _refusal(array, "give the channels last: array.transpose(1, 2, 0)")
    if array.ndim == 4:
        raise _refusal(array, "give a batch by itself, not in a list")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS):
        raise _refusal(array, "give (height, width) or (height, width, channels) with 1 to 4 channels")
    return _from_levels(array)


def _from_tensor(tensor: torch.Tensor) -> Image.Image:
    """(height, width) or (channels, height, width), uint8 or floats in [0, 1]: as torchvision's."""
    if tensor.ndim == 3 and tensor.shape[0] not in _CHANNELS and tensor.shape[-1] in _CHANNELS:
        raise _refusal(tensor, "give the channels first: tensor.permute(2, 0, 1)")
    if tensor.ndim == 4:
        raise _refusal(tensor, "give a batch by itself, not in a list")
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in _CHANNELS):
        raise _refusal(tensor, "give (height, width) or (channels, height, width) with 1 to 4 channels")
    values = tensor.detach().cpu()
    values = values.float() if values.is_floating_point() else values
    return _from_levels((values if values.ndim == 2 else values.permute(1, 2, 0)).numpy())


def _from_levels(array: NDArray[Any]) -> Image.Image:
    height, width = array.shape[:2]
    if not 0 < height * width <= MAX_PIXELS:
        raise ImageError("too many pixels", f"{width} x {height} pixels are not in 1 to {MAX_PIXELS:,}")
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # NaN included; rounding may leave the range by a little
            range_ = f"values from {low:.4g} to {high:.4g}" if low <= high else "values that are not numbers"
            raise _refusal(array, "floats must be in [0, 1], without a model's normalisation", f" with {range_}")
        array = np.rint(np.clip(array.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise _refusal(array, "give uint8 (0 to 255) or floats in [0, 1]")
    levels = np.array(array[..., 0] if array.shape[2:] == (1,) else array, order="C")  # the caller's may change
    return Image.fromarray(levels)


def _refusal(image: Any, hint: str = _FORMS, more: str = "") -> ImageError:
    return ImageError("unsupported", f"{_kind(image)}{more} is not accepted as an image: {hint}")


def _kind(image: Any) -> str:
    """What was given, by name: its type, and its shape or the beginning of its repr."""
    name = type(image).__name__
    if isinstance(image, np.ndarray | torch.Tensor):
        return f"{name} {tuple(image.shape)} of {image.dtype}"
    if isinstance(image, int | float | complex):
        return f"{name} {shorten(repr(image))}"
    return name


def _is_table(value: Any) -> bool:
    """A pandas or polars DataFrame, which iterates over its columns' names."""
    return hasattr(value, "columns") and hasattr(value, "shape") and len(value.shape) == 2


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")


__all__ = ["Admitted", "ImageInput", "admit", "admit_all", "is_single"]
