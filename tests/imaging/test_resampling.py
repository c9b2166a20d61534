"""Resizing a batch on the device is what Pillow does to each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.Image import Resampling
from transformers import ViTImageProcessor

from bonaface.data.loading import Collator
from bonaface.imaging.resampling import CAN_RESIZE, resize_batch, resize_matrices
from bonaface.imaging.transforms import TrainTransform


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def levels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=4),
    out=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    kernel=st.sampled_from(sorted(CAN_RESIZE)),
    rubbish=st.integers(0, 255),
)
def test_each_image_of_a_batch_becomes_pillows(
    sizes: list[tuple[int, int]], out: tuple[int, int], kernel: Resampling, rubbish: int
) -> None:
    """To the rounding, twice, of pure noise; what else lies on the canvas never shows."""
    canvas = torch.full((len(sizes), 3, 90, 90), rubbish, dtype=torch.uint8)
    images = [picture(width, height, seed) for seed, (height, width) in enumerate(sizes)]
    for i, (height, width) in enumerate(sizes):
        canvas[i, :, :height, :width] = levels(images[i])
    got = resize_batch(canvas, torch.tensor(sizes), out, kernel)
    for tensor, image in zip(got, images, strict=True):
        difference = (tensor - levels(image.resize((out[1], out[0]), kernel))).abs()
        assert difference.max() <= 2
        assert difference.mean() < 0.2 or difference.numel() < 300


@pytest.mark.parametrize("kernel", sorted(CAN_RESIZE))
def test_weights_sum_to_one_and_stay_inside_the_image(kernel: Resampling) -> None:
    weights = resize_matrices(torch.tensor([5, 33, 64]), 64, 24, kernel)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 24))
    assert (weights[0, :, 5:] == 0).all()
    assert (weights[1, :, 33:] == 0).all()


@pytest.mark.parametrize("preset", ["standard", "crop"])
def test_a_region_resized_on_the_device_is_the_sample_that_a_worker_makes(preset: str) -> None:
    """The same seed gives the same region, flip and size: a GPU trains on what a CPU trains on."""
    processor = ViTImageProcessor(size={"height": 48, "width": 64})
    worker, device = TrainTransform(processor, preset), TrainTransform(processor, preset, regions=True)
    images = [picture(90 + i, 80 - i, i) for i in range(6)] + [picture(700, 600), picture(20, 15)]
    items = [{"pixel_values": device(image, seed), "labels": seed % 2} for seed, image in enumerate(images)]
    batch = Collator(True, regions=True)(items)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["pixel_values"].shape[2] <= 2 * 48
    assert batch["pixel_values"].shape[3] <= 2 * 64
    got = device.output.resize(batch["pixel_values"], batch["sizes"])
    expected = torch.stack([worker(image, seed) for seed, image in enumerate(images)])
    assert (got - expected).abs().max() <= 2
    assert (got - expected).abs().mean() < 0.05


@pytest.mark.parametrize("preset", ["none", "light", "robust", "strong"])
def test_what_comes_after_the_resize_keeps_it_in_the_worker(preset: str) -> None:
    transform = TrainTransform(ViTImageProcessor(size={"height": 32, "width": 32}), preset, regions=True)
    assert not transform.gives_regions
    assert transform(picture(60, 50), 3).shape == (3, 32, 32)


def test_evaluations_tensors_pass_a_collator_of_regions_as_they_are() -> None:
    items = [{"pixel_values": torch.randn(3, 8, 8), "labels": 1} for _ in range(2)]
    batch = Collator(False, regions=True)(items)
    assert torch.equal(batch["pixel_values"], torch.stack([item["pixel_values"] for item in items]))
    assert "sizes" not in batch
