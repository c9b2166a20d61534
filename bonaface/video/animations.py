"""Frames of animated GIF, WebP, PNG and AVIF, by Pillow."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from bonaface.imaging.content import content_kind, is_cut
from bonaface.imaging.images import MAX_PIXELS, ImageError, open_image, read_bytes, shown_name, to_rgb
from bonaface.video.frames import Frame, Sampling, pick
from bonaface.video.scenes import scene_changes

MOST_DECODED = 1_000_000_000  # pixels of all frames; a later frame is made of those before it, so all are decoded
DEFAULT_MS = 100.0  # of a frame that does not say how long it is shown, or says 0, as browsers take it


class Animation:
    """See :class:`bonaface.video.frames.Clip`. Its bytes are within the limits of images.

    Raises:
        ImageError: as for an image.
    """

    def __init__(self, path: str, sampling: Sampling) -> None:
        self._name, self._data = path, read_bytes(path)
        with self._open() as image:
            self.size = image.size
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                text = f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS:,}"
                raise ImageError("too many pixels", f"{shown_name(path)}: {text}")
            self._most = max(1, MOST_DECODED // pixels)
        kind = content_kind(self._data) or ""
        times, lasts = self._times()
        self.duration = self.declared = times[-1] + lasts
        if is_cut(kind, self._data) or len(times) == self._most:
            self.declared = float("inf")
        cuts = scene_changes((f.time, f.image) for f in self._all()) if sampling.scenes else []
        self._taken = pick(times, sampling.slots(self.duration, cuts))
        self.n = len(self._taken)

    def __enter__(self) -> Animation:
        return self

    def __exit__(self, *_: object) -> None:
        self._data = b""

    def frames(self) -> Iterator[Frame]:
        """The frames to look at."""
        taken = set(self._taken)
        return (frame for i, frame in enumerate(self._all()) if i in taken)

    def _open(self) -> Image.Image:
        return open_image(self._data, self._name)

    def _times(self) -> tuple[list[float], float]:
        """When each frame begins, and how long the last one is shown."""
        times, now, length = [], 0.0, DEFAULT_MS / 1000
        for image in self._decoded():
            times.append(now)
            length = float(image.info.get("duration") or DEFAULT_MS) / 1000
            now += length
        if not times:
            raise ImageError("truncated", f"{shown_name(self._name)}: no frame can be decoded")
        return times, length

    def _all(self) -> Iterator[Frame]:
        now = 0.0
        for image in self._decoded():
            yield Frame(now, to_rgb(image).copy())
            now += float(image.info.get("duration") or DEFAULT_MS) / 1000

    def _decoded(self) -> Iterator[Image.Image]:
        """The animation at each of its frames, up to the first that is damaged."""
        with self._open() as image:
            for i in range(self._most):
                try:
                    image.seek(i)
                    image.load()
                except Exception:  # EOFError at the end; else whatever the decoder makes of a broken frame
                    return
                yield image
