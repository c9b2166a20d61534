"""Clips made in the tests: drawn portraits that move, as videos of any container and as animations."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from bonaface.data.portraits import draw_portrait
from bonaface.inference.detector import Detector
from bonaface.models.facts import ModelFacts
from bonaface.models.load import load_model
from bonaface.stats.certificates import Band


@functools.cache
def portrait(seed: int = 0, side: int = 160) -> Image.Image:
    """A drawn portrait, RGB; its face is about half as wide. In 0 and 5 both face detectors find it."""
    pixels = draw_portrait(2 * side, np.random.default_rng(seed))
    return Image.fromarray((255 * pixels).clip(0, 255).astype(np.uint8)).resize((side, side))


def scene(
    *faces: tuple[int, int, int], size: tuple[int, int] = (640, 360), grey: int = 100, side: int = 160
) -> Image.Image:
    """A plain frame with portraits, each (seed, x, y): its upper left corner in pixels."""
    frame = Image.new("RGB", size, (grey, grey, grey))
    for seed, x, y in faces:
        frame.paste(portrait(seed, side), (x, y))
    return frame


def write_video(
    path: Path,
    frames: Iterable[Image.Image],
    *,
    rate: int = 25,
    times: Sequence[float] | None = None,
    gop: int = 12,
    codec: str = "libx264",
    sound: bool = False,
) -> Path:
    """Encode frames, at a constant rate or at these ``times`` (seconds); the suffix says the container."""
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": str(gop), "crf": "4", "preset": "ultrafast"}
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for i, image in enumerate(frames):
            if not i:
                stream.width, stream.height = image.size
            frame = av.VideoFrame.from_image(image)
            frame.pts = round(1000 * (i / rate if times is None else times[i]))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.rate = 8000
            container.mux([*audio.encode(silence), *audio.encode()])
    return path


def turned(path: Path) -> Path:
    """Say in an MP4 that it is turned by a quarter, clockwise, as phones do (the matrix in tkhd, ISO 14496-12)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    assert data[matrix : matrix + 4] == b"\0\1\0\0"
    values = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)
    return path


def clip_model(folder: Path, size: int = 32) -> Path:
    """A model of faces with a band, that has learned nothing."""
    torch.manual_seed(1)
    network, processor = load_model("cnn", ["fake", "real"], from_scratch=True, image_size=size)
    network.config.bonaface = ModelFacts("real", band=Band(0.4, 0.6), face_margin=0.15).to_block()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@functools.cache
def clip_detector(folder: Path) -> Detector:
    """The model in a folder, loaded once."""
    return Detector.from_pretrained(folder)
