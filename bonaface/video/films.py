"""Frames of videos, by PyAV (FFmpeg): sought by keyframe, turned as the file says, timed by its time stamps.

A long clip is not decoded whole: in a slot of time that has a keyframe, this is the frame that is taken; otherwise
decoding runs on from the keyframe before it. A file is read through a file object and by container formats without
references, so that no playlist in it can open another file or an address.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from bonaface.imaging.content import VIDEO_KINDS, content_kind
from bonaface.imaging.images import MAX_PIXELS, ImageError, shown_name
from bonaface.video.frames import Frame, Sampling, Slot
from bonaface.video.kinds import HEAD
from bonaface.video.scenes import SIDE, scene_changes

if TYPE_CHECKING:
    import av

INSTALL = "pip install 'bonaface[video]'"
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg"
SLACK = 1.0  # seconds by which a file may end early: containers round, and sound is longer than the picture
NEAR_END = 1.0  # seconds before a slot's end up to which its keyframes will do; in a short slot, the first half's
UNINDEXED_LEAP = 8.0  # seconds: where a container has no index, seeking is inexact, and pays from here on
THREADS = 4
DENSEST = 2000  # keyframes looked at for scenes: no more than this many, spread
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class Film:
    """See :class:`bonaface.video.frames.Clip`.

    Raises:
        ImageError: it is missing, empty, damaged, contains no video, or PyAV is not installed.
    """

    def __init__(self, path: str, sampling: Sampling) -> None:
        self._name = shown_name(path)
        self._av = _import_av(self._name)
        self._file = _opened(path, self._name)
        try:
            self._open()
            first = next(self._decoded(), None)
            if first is None:
                raise ImageError("truncated", f"{self._name}: no frame can be decoded")
            self.size = self._upright(first).size
            self.duration, self.declared = self._extent()
            self._slots = sampling.slots(self.duration, self._cuts() if sampling.scenes else [])
        except BaseException:
            self._file.close()
            raise
        self.n = len(self._slots)

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._file.close()

    def frames(self) -> Iterator[Frame]:
        """The frames to look at."""
        for time, frame in self._sampled(self._slots):
            yield Frame(time, self._upright(frame))

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        head = self._file.read(HEAD)
        self._file.seek(0)
        try:
            self._container: Any = self._av.open(self._file, options={"format_whitelist": FORMATS})
        except (self._av.FFmpegError, ValueError) as error:
            kind = content_kind(head)
            if kind in VIDEO_KINDS:
                raise ImageError("truncated", f"{self._name}: {kind} that is damaged or cut off") from error
            raise ImageError("unreadable", f"{self._name}: not a video" + f", contains {kind}" * bool(kind)) from error
        pictures = self._av.stream.Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & pictures]
        if not streams or streams[0].codec_context is None:
            what = "no video" if not streams else "a video that cannot be decoded here"
            raise ImageError("unsupported", f"{self._name}: contains {what}")
        self._stream = streams[0]
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width * height > MAX_PIXELS:
            text = f"{width} x {height} pixels exceed the limit of {MAX_PIXELS:,}"
            raise ImageError("too many pixels", f"{self._name}: {text}")
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
        self._leap = UNINDEXED_LEAP if "mpeg" in self._container.format.name else 0.0
        self._start = float((self._stream.start_time or 0) * self._stream.time_base)

    def _extent(self) -> tuple[float, float]:
        """Seconds that can be read, and that the file claims, from packets alone.

        The end of the file is looked at first; only if it is not where the file says, all packets are.
        """
        declared = self._declared()
        if declared and self._seek(declared):
            end = self._last_end()
            if end >= declared - SLACK:
                return end, end
        self._rewind()
        end = self._last_end()
        return end, declared if declared > end + SLACK else end

    def _declared(self) -> float:
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        whole = self._container.duration
        return whole / self._av.time_base if whole else 0.0

    def _last_end(self) -> float:
        """When the last packet from here on ends, in seconds."""
        end = 0.0
        for packet in self._packets():
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._start)
        return end

    # --- reading ----------------------------------------------------------------------------------------------------

    def _sampled(self, slots: list[Slot]) -> Iterator[tuple[float, av.VideoFrame]]:
        """The first frame of each slot, or a keyframe in it; each frame once."""
        last, waiting, may_seek = -1.0, None, True
        self._rewind()
        frames = self._decoded()
        for start, end in slots:
            if waiting is not None and waiting[0] >= end:
                continue  # a slot between two frames
            ahead = waiting is not None and start - waiting[0] > self._leap
            if may_seek and ahead and self._seek(max((start + end) / 2, end - NEAR_END) - self._leap / 2):
                frames, waiting = self._decoded(), None
            while waiting is None or waiting[0] < start or waiting[0] <= last:
                frame = next(frames, None)
                if frame is None:
                    return
                waiting = self._time(frame), frame
                # Where seeking brings us back to what we have seen, keyframes are rarer than slots: run on to the next.
                may_seek = waiting[0] > last and (may_seek or frame.key_frame)
            if waiting[0] < end:
                last = waiting[0]
                yield waiting

    def _cuts(self) -> list[float]:
        """Where scenes change, from keyframes: encoders put one at a cut."""
        self._rewind()
        self._stream.codec_context.skip_frame = "NONKEY"
        every, times = self.duration / DENSEST, [-1.0]

        def key_frames() -> Iterator[tuple[float, Image.Image]]:
            for frame in self._decoded():
                if self._time(frame) - times[-1] >= every:
                    times.append(self._time(frame))
                    yield times[-1], frame.to_image(width=SIDE, height=SIDE)

        try:
            return [time for time in scene_changes(key_frames()) if time > 0]
        finally:
            self._stream.codec_context.skip_frame = "DEFAULT"

    def _seek(self, seconds: float) -> bool:
        """Go to the keyframe before a time; False where the format has no way to."""
        try:
            self._container.seek(round((seconds + self._start) / self._stream.time_base), stream=self._stream)
        except self._av.FFmpegError:
            return False
        return True

    def _rewind(self) -> None:
        if not self._seek(0):
            self._container.close()
            self._file.seek(0)
            self._open()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames from here on; broken ones are passed over."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                continue
            yield from (frame for frame in frames if frame.pts is not None and not frame.is_corrupt)

    def _packets(self) -> Iterator[av.Packet]:
        """Packets from here on, the empty one that flushes the decoder last, up to where the file breaks."""
        try:
            yield from self._container.demux(self._stream)
        except self._av.FFmpegError:
            return

    def _time(self, frame: av.VideoFrame) -> float:
        return max(0.0, float(frame.time or 0.0) - self._start)

    def _upright(self, frame: av.VideoFrame) -> Image.Image:
        """As it is meant to be seen: turned, and with square pixels."""
        image = frame.to_image()
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if Fraction(1, 8) < aspect < 8 and aspect != 1:
            image = image.resize((max(1, round(image.width * aspect)), image.height), Image.Resampling.BILINEAR)
        turn = _TURNS.get(round(frame.rotation / 90) * 90 % 360)
        return image if turn is None else image.transpose(turn)


def _import_av(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageError("unsupported", f"{name}: a video, which needs `{INSTALL}`") from error
    logging.getLogger("libav").setLevel(logging.CRITICAL)  # broken files are told by their row
    return av


def _opened(path: str, name: str) -> IO[bytes]:
    """A regular file that is not empty, open to read."""
    try:
        file = open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    except FileNotFoundError as error:
        raise ImageError("missing", f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from error
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise ImageError("empty", f"{name}: the file is empty")
    return file
