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

CUT_OFF_SECONDS = 60


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


class Leftovers:
    """What visitors left in the upload folder: Gradio's own sweep ends at the first upload that comes while it looks.

    Files that are there at the beginning, such as the page's examples, stay. A file's age is how long it was found the
    same, call by call: the system's clock may jump.

    Args:
        keep_seconds: how long an upload is kept that nobody uses.
        cut_off_seconds: how long one that ended early is: it lies in the folder itself and is open no more.
    """

    def __init__(self, keep_seconds: float, cut_off_seconds: float = CUT_OFF_SECONDS) -> None:
        self.keep_seconds, self.cut_off_seconds = keep_seconds, cut_off_seconds
        self._kept = set(self._files())
        self._seen: dict[Path, tuple[tuple[int, ...], float]] = {}  # what it is, and since when it is the same

    def delete(self) -> None:
        """Delete what is old enough."""
        now, before, self._seen, in_use = time.monotonic(), self._seen, {}, _open_files()
        for path in self._files():
            with suppress(OSError):  # it was moved or deleted this moment
                status = path.stat()
                state = status.st_ino, status.st_size, status.st_mtime_ns  # the same image may have come again
                known, since = before.get(path, (state, now))
                since = since if known == state else now
                cut_off = path.parent == self._folder() and in_use is not None and str(path) not in in_use
                if path in self._kept or now - since < (self.cut_off_seconds if cut_off else self.keep_seconds):
                    self._seen[path] = (state, since)
                    continue
                path.unlink()  # its folder stays: the same file may be on its way there again

    @staticmethod
    def _folder() -> Path:
        return Path(get_upload_folder()).resolve()

    def _files(self) -> list[Path]:
        return [path for path in self._folder().rglob("*") if path.is_file()]


def _open_files() -> set[str] | None:
    """The files that this process has open; None where the system does not tell."""
    found = set()
    try:
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
    except OSError:
        return None
    return found


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
