"""What a visitor sends -> bytes and a name, unchanged: Gradio's own components would decode and re-encode images."""

from __future__ import annotations

import base64
import binascii
import time
from abc import ABCMeta
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta
from gradio.utils import get_upload_folder

from bonaface.imaging.images import MAX_BYTES, ImageError, read_bytes

CUT_OFF_SECONDS = 60  # without growing; a body that is sent more slowly is refused long before


@dataclass(frozen=True)
class Upload:
    """A file as it came: ``name`` is untrusted, ``path`` lies in the upload folder; ``data`` where it came inline."""

    name: str
    path: Path | None = None
    data: bytes = b""

    def read(self) -> bytes:
        """Its bytes. Raises ImageError: empty, missing, too many bytes."""
        if self.path is not None:
            return read_bytes(self.path)
        if not self.data:
            raise ImageError("empty", "the file is empty")
        return self.data


class CutOff:
    """What is left of uploads that ended early: files that lie in the upload folder itself, and no longer grow.

    A whole one is moved to a folder below, which Gradio looks after.
    """

    def __init__(self, seconds: float = CUT_OFF_SECONDS) -> None:
        self.seconds = seconds
        self._seen: dict[Path, tuple[int, float]] = {}  # bytes, and since when it has so many

    def delete(self) -> None:
        """Delete those that have not grown between calls for so many seconds, whatever the clock says."""
        now, before, self._seen = time.monotonic(), self._seen, {}
        with suppress(FileNotFoundError):  # nothing has been sent so far
            for path in Path(get_upload_folder()).iterdir():
                with suppress(OSError):  # it was moved this moment
                    if not path.is_file():
                        continue
                    size = path.stat().st_size
                    known, since = before.get(path, (size, now))
                    self._seen[path] = (size, since if known == size else now)
                    if now - self._seen[path][1] >= self.seconds:
                        path.unlink()


class Quiet(ComponentMeta):
    """Gradio writes a ``.pyi`` file beside the source of every component class; this prevents it for ours."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        """The class alone."""
        return ABCMeta.__new__(cls, name, bases, attributes)


class ImageFileInput(gr.Image, metaclass=Quiet):
    """Gradio's image input; its value is an :class:`Upload` or None."""

    is_template = True  # it is shown by the browser code of the class above

    def preprocess(self, payload: Any) -> Any:
        """Raises gr.Error for a file that was not uploaded."""
        return None if payload is None else _upload(payload)


class FilesInput(gr.File, metaclass=Quiet):
    """Gradio's input of several files; its value is a list of :class:`Upload`."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Raises gr.Error for a file that was not uploaded."""
        if payload is None:
            return []
        files: Sequence[Any] = getattr(payload, "root", None) or [payload]
        return [_upload(file) for file in files]


def _upload(payload: Any) -> Upload:
    name = str(getattr(payload, "orig_name", None) or "")
    url = str(payload.url or "")
    if payload.path is None or (url.startswith("data:") and not payload.path):
        return Upload(name or "image", data=_inline(url))
    path = Path(payload.path).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("This file was not uploaded.", print_exception=False)
    return Upload(name or PurePosixPath(path).name, path)


def _inline(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise gr.Error("Send a file, or its bytes as data:image/…;base64,… text.", print_exception=False)
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise gr.Error(f"Send at most {MAX_BYTES / 1e6:.0f} MB.", print_exception=False)
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise gr.Error("The base64 text is invalid.", print_exception=False) from error
