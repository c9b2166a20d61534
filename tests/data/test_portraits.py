"""Portraits are drawn from a seed alone, differ from each other, and have the spectrum of natural scenes."""

from __future__ import annotations

import numpy as np
import pytest

from bonaface.data.portraits import draw_portrait, natural_texture


def test_a_portrait_depends_on_its_seed_alone() -> None:
    first, again, other = (draw_portrait(96, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.float32
    assert 0 <= first.min() < 0.2
    assert 0.7 < first.max() <= 1


def test_the_face_is_in_the_middle() -> None:
    """Averaged over many people the centre is skin: redder than green, greener than blue; the corners are not."""
    mean = np.mean([draw_portrait(64, np.random.default_rng(seed)) for seed in range(60)], axis=0)
    face = mean[26:40, 26:38].mean(axis=(0, 1))
    corner = mean[:6, :6].mean(axis=(0, 1))
    assert face[0] > face[1] + 0.08 > face[2] + 0.12
    assert corner[0] - corner[2] < 0.1


@pytest.mark.parametrize("slope", [1.0, 1.5])
def test_texture_falls_off_as_asked(slope: float) -> None:
    """The amplitude spectrum is 1/f**slope: a line of that slope in log-log."""
    field = natural_texture(256, np.random.default_rng(0), slope)
    assert field.std() == pytest.approx(1, abs=1e-3)
    amplitude = np.abs(np.fft.fft2(field))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    rings = [(low, low * 1.3) for low in 0.02 * 1.3 ** np.arange(10)]
    points = [(np.sqrt(low * high), amplitude[(frequency >= low) & (frequency < high)].mean()) for low, high in rings]
    fitted = np.polyfit(*np.log(np.array(points)).T, 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.1)


def test_stretch_draws_texture_out_vertically() -> None:
    field = natural_texture(128, np.random.default_rng(0), 1.0, stretch=4.0)
    assert np.diff(field, axis=0).std() < 0.6 * np.diff(field, axis=1).std()
