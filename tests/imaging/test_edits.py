"""Edits change an image as their names say, keep its size, and are functions of what they draw alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bonaface.imaging.edits import EDITS, clarity, denoise, enlarge, portrait_blur, random_edit, sharpen


def noisy(size: tuple[int, int] = (64, 48)) -> Image.Image:
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, size[0])[None, :, None] + rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(ramp, 0, 255).astype(np.uint8))


def detail(image: Image.Image) -> float:
    return float(np.abs(np.diff(np.asarray(image, np.float32), axis=1)).mean())


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_keeps_the_size_and_is_a_function_of_its_draw(edit) -> None:
    image = noisy()
    found = [edit(image, 0.7, np.random.default_rng(3)) for _ in range(2)]
    assert found[0].size == image.size
    assert found[0].mode == "RGB"
    np.testing.assert_array_equal(*found)
    assert np.abs(np.asarray(found[0], float) - np.asarray(image)).mean() > 0.3


def test_edits_do_what_they_are_named_after() -> None:
    image, rng = noisy(), np.random.default_rng(0)
    assert detail(denoise(image, 1, rng)) < 0.7 * detail(image)
    assert detail(sharpen(image, 1, rng)) > 1.3 * detail(image)
    assert np.asarray(clarity(image, 1, rng)).std() > np.asarray(image).std()
    soft = np.asarray(portrait_blur(image, 1, rng), np.float32)
    original = np.asarray(image, np.float32)
    changed = np.abs(soft - original).mean(2)
    assert changed[20:28, 28:36].mean() < changed[:4].mean() / 3  # the middle is sharp, the border is not
    assert detail(enlarge(image, 0.2, np.random.default_rng(0))) != detail(image)


def test_random_edits_differ_from_seed_to_seed() -> None:
    found = {random_edit(noisy(), np.random.default_rng(seed)).tobytes() for seed in range(12)}
    assert len(found) == 12
