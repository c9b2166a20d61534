"""Degradations are functions of image, strength and seed alone, graded as they say, and make codecs alike."""

from __future__ import annotations

import hashlib
import inspect
import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from bonaface.imaging import degradations as deg
from bonaface.imaging.degradations import DEGRADATIONS, common_history, encode_jpeg, random_degradation


def picture(width: int = 96, height: int = 80, seed: int = 0) -> Image.Image:
    """Smooth shapes with fine texture: something that blur, noise and codecs act on."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height), 3)
    return Image.fromarray(
        np.clip(np.asarray(coarse, np.int16) + rng.integers(-12, 13, (height, width, 3)), 0, 255).astype(np.uint8)
    )


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference in 8-bit levels."""
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def digest(image: Image.Image) -> str:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def all_digests() -> list[str]:
    """One digest for every degradation at every strength, and for chains and histories."""
    image = picture()
    fixed = [digest(d.apply(image, s, 7)) for d in DEGRADATIONS.values() for s in d.strengths]
    chains = [digest(random_degradation(image, s, seed)) for s in (0.2, 1.0) for seed in range(20)]
    return fixed + chains + [digest(common_history(image, seed)) for seed in range(10)]


def test_same_seed_same_pixels_in_another_process() -> None:
    """A worker process, with another state of every global generator, draws the same."""
    code = (
        "import random, numpy, torch; random.seed(5); numpy.random.seed(5); torch.manual_seed(5);"
        "from test_degradations import all_digests; print(*all_digests())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == all_digests()


def test_global_random_states_are_left_alone() -> None:
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state(), random.getstate())  # noqa: NPY002
    all_digests()
    after = (np.random.get_state()[1].tolist(), torch.get_rng_state(), random.getstate())  # noqa: NPY002
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


def test_the_input_is_not_changed() -> None:
    image = picture()
    before = digest(image)
    for d in DEGRADATIONS.values():
        d.apply(image, d.strengths[-1], 3)
    random_degradation(image, 1.0, 3)
    common_history(image, 3)
    assert digest(image) == before


def test_no_step_can_see_a_label_or_a_format() -> None:
    """Class-blind by construction: image, strength and seed are all that goes in."""
    assert list(inspect.signature(random_degradation).parameters) == ["image", "strength", "seed"]
    assert list(inspect.signature(deg.Degradation.apply).parameters) == ["self", "image", "strength", "seed"]
    png, again = io.BytesIO(), picture()
    again.save(png, "PNG")
    reopened = Image.open(png)  # carries a format and info, which the plain image does not
    assert digest(random_degradation(reopened, 1.0, 4)) == digest(random_degradation(again, 1.0, 4))
    assert digest(common_history(reopened, 4)) == digest(common_history(again, 4))


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_each_degradation_does_something_at_each_strength(name: str) -> None:
    image = picture(700, 600)
    for strength in DEGRADATIONS[name].strengths:
        result = DEGRADATIONS[name].apply(image, strength, 1)
        assert result.mode == "RGB"
        assert result.size != image.size or difference(result, image) > 0.1


@pytest.mark.parametrize("name", ["jpeg", "webp", "blur", "motion", "noise", "erase"])
def test_strengths_run_from_mild_to_strong(name: str) -> None:
    image = picture(200, 160)
    damage = [difference(DEGRADATIONS[name].apply(image, s, 1), image) for s in DEGRADATIONS[name].strengths]
    assert damage == sorted(damage)
    assert damage[-1] > 1.3 * damage[0]


def test_sizes_after_scaling_and_cropping() -> None:
    image = picture(400, 300)
    assert DEGRADATIONS["downscale"].apply(image, 128, 0).size == (171, 128)
    assert DEGRADATIONS["downscale"].apply(image, 512, 0).size == (400, 300)  # never upscaled
    assert DEGRADATIONS["upscale"].apply(image, 2, 0).size == (800, 600)
    assert DEGRADATIONS["crop"].apply(image, 0.5, 0).size == (200, 150)
    assert max(DEGRADATIONS["social"].apply(picture(1600, 900), 2, 0).size) == 810


def test_crop_keeps_the_pixels() -> None:
    """A crop without resize: every pixel of it is found in the image at one offset."""
    image = np.asarray(picture(40, 30))
    cut = np.asarray(DEGRADATIONS["crop"].apply(Image.fromarray(image), 0.5, 3))
    windows = np.lib.stride_tricks.sliding_window_view(image, cut.shape)[:, :, 0]
    assert (windows == cut).all(axis=(2, 3, 4)).sum() == 1


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    strength=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_chain_keeps_size_and_mode_for_any_image(width: int, height: int, strength: float, seed: int) -> None:
    result = random_degradation(picture(width, height), strength, seed)
    assert result.mode == "RGB"
    assert result.size == (width, height)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 40), height=st.integers(1, 40), name=st.sampled_from(sorted(DEGRADATIONS)))
def test_tiny_images_survive_every_degradation(width: int, height: int, name: str) -> None:
    for strength in DEGRADATIONS[name].strengths:
        result = DEGRADATIONS[name].apply(picture(width, height), strength, 1)
        assert result.mode == "RGB"
        assert min(result.size) >= 1


def test_the_dial_goes_from_nothing_to_much() -> None:
    image = picture(128, 128)
    assert random_degradation(image, 0.0, 1) is image
    damage = [np.mean([difference(random_degradation(image, s, k), image) for k in range(60)]) for s in (0.1, 0.5, 1)]
    assert damage[0] < damage[1] < damage[2]
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="strength"):
            random_degradation(image, wrong, 1)


def test_encode_jpeg_writes_pixels_only() -> None:
    image = picture()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif, icc_profile=b"\0" * 128)
    data = encode_jpeg(Image.open(buffer), 80)
    opened = Image.open(io.BytesIO(data))
    assert not opened.getexif()
    assert "icc_profile" not in opened.info
    assert "comment" not in opened.info
    assert data == encode_jpeg(image, 80)


def blockiness(image: Image.Image) -> float:
    """Steps across every possible 8-pixel column grid: the largest share over the mean of them."""
    steps = np.abs(np.diff(np.asarray(image.convert("L"), np.float32), axis=1)).mean(axis=0)
    phases = [steps[k::8].mean() for k in range(8)]
    return max(phases) / float(np.mean(phases))


def test_common_history_makes_png_and_jpeg_alike() -> None:
    """The block grid tells a JPEG from a PNG before; after, it tells nothing (AUC of the grid's strength)."""

    def auc(a: list[float], b: list[float]) -> float:
        wins = np.subtract.outer(a, b)
        return float((wins > 0).mean() + 0.5 * (wins == 0).mean())

    smooth = [picture(160, 160, k).filter(ImageFilter.GaussianBlur(1)) for k in range(60)]
    png, coded = smooth[:30], [deg.jpeg(i, 85) for i in smooth[30:]]
    before = auc([blockiness(i) for i in coded], [blockiness(i) for i in png])
    after = auc(
        [blockiness(common_history(i, k)) for k, i in enumerate(coded)],
        [blockiness(common_history(i, k + 99)) for k, i in enumerate(png)],
    )
    assert before > 0.9
    assert 0.3 < after < 0.7


def test_common_history_draws_quality_and_phase_from_the_seed() -> None:
    image = picture(120, 120)
    sizes = {common_history(image, seed).size for seed in range(40)}
    assert len(sizes) > 20
    assert all(113 <= w <= 120 and 113 <= h <= 120 for w, h in sizes)
    assert common_history(picture(9, 9), 0).size == (9, 9)
