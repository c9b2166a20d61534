"""Animated images: every frame as it is shown, at its time; damaged ends are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonaface.imaging.images import ImageError
from bonaface.video import animations
from bonaface.video.animations import Animation
from bonaface.video.frames import Sampling


def animated(path: Path, n: int = 10, size: tuple[int, int] = (40, 30), duration: int | list[int] = 200) -> Path:
    """Frames of noise, each a little brighter."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray((rng.integers(0, 40, (*size[::-1], 3)) + 20 * i).astype(np.uint8)) for i in range(n)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0, **options)
    return path


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_frames_come_at_their_times_as_they_are_shown(tmp_path: Path, suffix: str) -> None:
    with Animation(str(animated(tmp_path / f"a.{suffix}")), Sampling()) as clip:
        frames = list(clip.frames())
        assert clip.size == (40, 30)
        assert clip.duration == clip.declared == pytest.approx(2)
    assert [frame.time for frame in frames] == pytest.approx(np.arange(0, 2, 0.2))
    levels = [np.asarray(frame.image).mean() for frame in frames]
    assert np.diff(levels) == pytest.approx(np.full(9, 20), abs=4)
    assert {frame.image.mode for frame in frames} == {"RGB"}


def test_a_long_one_is_sampled_by_time(tmp_path: Path) -> None:
    """Eighty frames in eight seconds, then one for 92: it is met once."""
    path = animated(tmp_path / "a.gif", 12, duration=[100] * 11 + [9000])
    with Animation(str(path), Sampling(fps=2)) as clip:
        assert [frame.time for frame in clip.frames()] == pytest.approx([0, 0.5, 1.0])


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (8, 8), (255, 0, 0, alpha)) for alpha in (0, 255)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], blend=0, disposal=1)
    with Animation(str(tmp_path / "a.png"), Sampling()) as clip:
        assert [frame.image.getpixel((0, 0)) for frame in clip.frames()] == [(255, 255, 255), (255, 0, 0)]


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_of_a_cut_one_what_is_there_is_read(tmp_path: Path, suffix: str) -> None:
    path = animated(tmp_path / f"a.{suffix}", 10, (80, 60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Animation(str(path), Sampling()) as clip:
        assert 2 <= len(list(clip.frames())) <= 6
        assert clip.declared > clip.duration


def test_nothing_to_decode_is_an_error(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.gif", 3)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError):
        Animation(str(path), Sampling())


def test_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animations, "MOST_DECODED", 5 * 40 * 30)
    with Animation(str(animated(tmp_path / "a.gif")), Sampling()) as clip:
        assert len(list(clip.frames())) == 5
        assert clip.declared > clip.duration
