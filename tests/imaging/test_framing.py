"""Framing is drawn around the face or by landmarks, and lands where FFHQ has the face."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bonaface.imaging.framing import FFHQ, cut, random_framing, similarity, unit_square


def face_at(side: int, scale: float, turn: float, middle: tuple[float, float]) -> np.ndarray:
    """FFHQ's landmarks, scaled, turned and moved: pixels."""
    angle = np.deg2rad(turn)
    spin = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((FFHQ - FFHQ.mean(0)) @ spin.T + np.array(middle) * side).astype(np.float32)


@pytest.mark.parametrize(("scale", "turn"), [(100, 0), (140, 20), (60, -35)])
def test_alignment_brings_landmarks_to_ffhqs_places(scale: float, turn: float) -> None:
    landmarks = face_at(256, scale, turn, (0.55, 0.45))
    image = Image.new("RGB", (256, 256))
    draw = ImageDraw.Draw(image)
    eye = tuple(landmarks[0])
    draw.ellipse([eye[0] - 3, eye[1] - 3, eye[0] + 3, eye[1] + 3], fill="white")
    aligned = cut(image, similarity(landmarks), 1.0)
    assert aligned.width == pytest.approx(scale, abs=1)
    ys, xs = np.nonzero(np.asarray(aligned)[..., 0] > 128)
    np.testing.assert_allclose([xs.mean() / aligned.width, ys.mean() / aligned.height], FFHQ[0], atol=0.02)


def test_the_middle_square_of_an_image_is_cut_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    found = cut(Image.fromarray(pixels), unit_square(Image.fromarray(pixels)), 0.5)
    assert found.size == (30, 30)
    np.testing.assert_allclose(np.asarray(found), pixels[15:45, 35:65], atol=1)


def test_random_framings_stay_inside_the_image_and_are_shares_of_it() -> None:
    image = Image.new("RGB", (120, 120), "red")
    rng = np.random.default_rng(1)
    sides = [random_framing(image, None, rng, area=(0.25, 1.0), shift=0.3, turn=0).width for _ in range(60)]
    assert 60 <= min(sides) < 75
    assert 110 < max(sides) <= 120
