"""Frames of videos: spread over the whole, at their own times, upright; what is broken is told, and nothing fetched."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import scene, turned, write_video
from PIL import Image

from bonaface.errors import UsageError
from bonaface.imaging.images import ImageError
from bonaface.video.films import Film
from bonaface.video.frames import Sampling


def greys(n: int, size: tuple[int, int] = (64, 48)) -> Iterator[Image.Image]:
    """Each a little brighter, so that a frame can be told."""
    return (Image.new("RGB", size, (40 + i % 200,) * 3) for i in range(n))


def times(path: Path, **options: Any) -> list[float]:
    with Film(str(path), Sampling(**options)) as film:
        return [frame.time for frame in film.frames()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds in 100 frames, with sound."""
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", greys(100), sound=True)


def test_frames_are_few_and_spread_over_the_clip(clip: Path) -> None:
    found = times(clip)
    assert len(found) == 64
    assert found[0] == 0
    assert np.diff(found).min() > 0
    assert np.diff(found).max() < 0.3
    assert found[-1] > 3.8


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts"])
def test_a_rate_is_kept_in_any_container(tmp_path: Path, suffix: str) -> None:
    """Without sound; some of these say no duration, and one does not start at 0."""
    found = times(write_video(tmp_path / f"a.{suffix}", greys(100)), fps=2)
    assert found == pytest.approx(np.arange(0, 4, 0.5), abs=0.26)
    assert len(found) == 8


def test_the_frame_of_a_time_is_the_one_that_is_given(clip: Path) -> None:
    with Film(str(clip), Sampling(fps=3)) as film:
        for frame in film.frames():
            shown = np.asarray(frame.image).mean()
            assert shown == pytest.approx(40 + round(25 * frame.time), abs=2.5)


def test_variable_frame_rate_is_taken_by_the_clock(tmp_path: Path) -> None:
    """Forty frames in the first second, then one that stands still, whose slots have no frame, then ten."""
    stamps = [*np.linspace(0, 1, 40, endpoint=False), 1.0, *np.linspace(5, 6, 10, endpoint=False)]
    found = times(write_video(tmp_path / "a.mp4", greys(51), times=stamps), fps=4)
    assert [sum(a <= t < a + 1 for t in found) for a in range(6)] == [4, 1, 0, 0, 0, 4]
    assert all(min(abs(t - s) for s in stamps) < 0.002 for t in found)


def test_a_long_clip_is_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten hours, two frames a minute, a keyframe in five: of 1,200 frames only some are decoded."""
    stamps = [30.0 * i for i in range(1200)]
    path = write_video(tmp_path / "long.mp4", greys(1200, (32, 32)), times=stamps, gop=10, codec="mpeg4")
    decoded = 0
    upright = Film._time

    def counted(self: Film, frame: Any) -> float:
        nonlocal decoded
        decoded += 1
        return upright(self, frame)

    monkeypatch.setattr(Film, "_time", counted)
    found = times(path)
    assert len(found) == 64
    assert found[-1] > 35_000
    assert decoded < 200


def test_rare_keyframes_do_not_send_it_back_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", greys(600, (32, 32)), gop=600, codec="mpeg4")
    seeks = 0
    seek = Film._seek

    def counted(self: Film, seconds: float) -> bool:
        nonlocal seeks
        seeks += 1
        return seek(self, seconds)

    monkeypatch.setattr(Film, "_seek", counted)
    assert len(times(path)) == 64
    assert seeks < 10


def test_a_phones_upright_clip_is_upright(tmp_path: Path) -> None:
    """Stored lying on its side, with a mark at the upper left: shown, it is at the upper right."""
    frame = Image.new("RGB", (64, 48), "grey")
    frame.paste("white", (0, 0, 24, 24))
    with Film(str(turned(write_video(tmp_path / "a.mp4", [frame] * 5))), Sampling()) as film:
        assert film.size == (48, 64)
        image = np.asarray(next(film.frames()).image.convert("L"))
    assert image[:16, -16:].mean() > 240
    assert image[:16, :16].mean() < 150


def test_scenes_are_looked_at_however_short(tmp_path: Path) -> None:
    """A second within a minute: 64 frames would meet it once, a share of the scenes more often."""
    colours = ["navy"] * 250 + ["orange"] * 12 + ["darkgreen"] * 250
    path = write_video(tmp_path / "a.mp4", (Image.new("RGB", (64, 48), colour) for colour in colours))
    inside = [sum(10 <= t < 10.48 for t in times(path, scenes=scenes)) for scenes in (False, True)]
    assert inside[0] <= 2
    assert inside[1] >= 8
    assert len(times(path, scenes=True)) <= 64


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_a_cut_file_what_is_there_is_read(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", (scene((0, 20 + i, 20)) for i in range(150)))
    data = path.read_bytes()
    path.write_bytes(data[: 6 * len(data) // 10])
    with Film(str(path), Sampling()) as film:
        assert film.declared == pytest.approx(6, abs=0.2)
        assert 2 < film.duration < 5
        found = [frame.time for frame in film.frames()]
    assert len(found) > 40
    assert found[-1] > 2


def test_a_damaged_middle_is_passed_over(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", (scene((0, 20 + i, 20)) for i in range(100)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(data)
    found = times(path)
    assert 30 < len(found) <= 64
    assert found[-1] > 3.8


@pytest.mark.parametrize(
    ("name", "data", "reason", "said"),
    [
        ("a.mp4", b"", "empty", "empty"),
        ("a.mp4", b"some text that is long enough to be text", "unreadable", "not a video, contains text"),
        ("a.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(500), "truncated", "damaged or cut off"),
        ("a.mkv", b"\x1aE\xdf\xa3" + bytes(300), "truncated", "damaged or cut off"),
        ("a.ts", bytes(range(256)) * 4, "unreadable", "not a video"),
        ("a.mp4", b"#EXTM3U\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "unreadable", "not a video"),
        ("a.mp4", b"ffconcat version 1.0\nfile /etc/hostname\n", "unreadable", "not a video"),
    ],
)
def test_what_is_no_video_is_said(tmp_path: Path, name: str, data: bytes, reason: str, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=said) as error:
        Film(str(tmp_path / name), Sampling())
    assert error.value.reason == reason
    assert str(error.value).startswith(str(tmp_path / name))


def test_sound_without_pictures_is_no_clip(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        container.mux([*stream.encode(silence), *stream.encode()])
    with pytest.raises(ImageError, match="contains no video"):
        Film(str(path), Sampling())


def test_an_address_is_never_opened() -> None:
    with pytest.raises(ImageError) as error:
        Film("http://127.0.0.1:9/a.mp4", Sampling())
    assert error.value.reason == "missing"


def test_without_pyav_the_error_says_what_to_install(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImageError, match=r"needs `pip install 'bonaface\[video\]'`"):
        Film(str(clip), Sampling())


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": 1e6}, {"fps": 1, "scenes": True}]
)
def test_mistaken_sampling_is_said(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Sampling(**options)


def test_any_rate_ends(clip: Path) -> None:
    assert len(Sampling(fps=60).slots(36_000)) == 4096
    for rate in (25, 120):
        assert times(clip, fps=rate) == pytest.approx([i / 25 for i in range(100)], abs=1e-3)  # each frame once
