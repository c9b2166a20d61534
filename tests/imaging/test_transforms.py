"""Evaluation equals the model's own processor; training is a function of the image and the sample's seed."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import BitImageProcessor, CLIPImageProcessor, ConvNextImageProcessor, ViTImageProcessor
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from bonaface.errors import UsageError
from bonaface.imaging.transforms import (
    TRAIN_PRESETS,
    EvalTransform,
    Preprocessing,
    TrainTransform,
    _by_channel,
    sample_seed,
)

PROCESSORS: dict[str, Any] = {
    "vit": ViTImageProcessor(size={"height": 64, "width": 64}),
    "vit-wide": ViTImageProcessor(size={"height": 48, "width": 64}),
    "convnext": ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    "convnext-384": ConvNextImageProcessor(size={"shortest_edge": 384}),
    "clip": CLIPImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    "bit": BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 64, "width": 64}),  # pads
    "timm": TimmWrapperImageProcessor(
        pretrained_cfg=timm.get_pretrained_cfg("resnet18.a1_in1k").to_dict() | {"input_size": (3, 64, 64)},
        architecture="resnet18",
    ),
}
SIZES = {"vit-wide": (48, 64), "convnext-384": (384, 384)}  # all others: (64, 64)
VIT = PROCESSORS["vit"]


def picture(width: int = 150, height: int = 110, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def levels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("name", PROCESSORS)
def test_eval_is_the_processor(name: str) -> None:
    for size in ((150, 110), (64, 64), (50, 90)):
        got = EvalTransform(PROCESSORS[name])(picture(*size))
        expected = PROCESSORS[name](images=[picture(*size)], return_tensors="pt")["pixel_values"][0]
        assert got.dtype == torch.float32
        assert got.shape == (3, *SIZES.get(name, (64, 64)))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PROCESSORS)
def test_size_and_units_are_the_processors(name: str) -> None:
    """What training samples are made with is what the processor does to the same pixel."""
    facts = Preprocessing.of(PROCESSORS[name])
    assert (facts.height, facts.width) == SIZES.get(name, (64, 64))
    flat = Image.new("RGB", (80, 80), (10, 130, 250))
    middle = facts.height // 2, facts.width // 2
    expected = EvalTransform(PROCESSORS[name])(flat)[:, middle[0], middle[1]]
    got = facts.normalize(levels(flat.resize((facts.width, facts.height))))
    assert got.shape == (3, facts.height, facts.width)
    torch.testing.assert_close(got[:, 0, 0], expected, atol=1e-5, rtol=0)


def test_the_whole_region_without_randomness_equals_evaluation() -> None:
    """An image of the output's size: no region to choose, so training sees what evaluation sees."""
    image = picture(64, 64)
    torch.testing.assert_close(
        Preprocessing.of(VIT).normalize(levels(image)), EvalTransform(VIT)(image), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(TrainTransform(VIT, "none")(image, 3), EvalTransform(VIT)(image), atol=0, rtol=0)


def test_units_are_sent_to_a_device_once() -> None:
    """A GPU would have to finish its step before it could take them again."""
    first, second = (_by_channel(Preprocessing.of(VIT).scale, torch.device("cpu")) for _ in range(2))
    assert first is second


def test_processors_without_a_fixed_size_are_refused() -> None:
    with pytest.raises(UsageError, match="different sizes") as error:
        TrainTransform(CLIPImageProcessor(do_center_crop=False))
    assert "crop_size" in error.value.hint


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="fancy") as error:
        TrainTransform(VIT, "fancy")
    assert "robust" in error.value.hint


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
@pytest.mark.parametrize("name", ["vit-wide", "convnext", "timm"])
def test_presets_give_the_processors_size_and_range(name: str, preset: str) -> None:
    """Levels that become the model's units on the device, or, where the processor has the region, those units."""
    transform = TrainTransform(PROCESSORS[name], preset)
    lowest, highest = (EvalTransform(PROCESSORS[name])(Image.new("RGB", (64, 64), c)) for c in ("black", "white"))
    for seed in range(8):
        tensor = transform(picture(seed=seed), seed)
        assert tensor.dtype == (torch.float32 if TRAIN_PRESETS[preset].region == "eval" else torch.uint8)
        if tensor.dtype == torch.uint8:
            tensor = transform.output.normalize(tensor)
        assert tensor.dtype == torch.float32
        assert tensor.shape == lowest.shape
        assert (tensor >= lowest.amin() - 1e-4).all()
        assert (tensor <= highest.amax() + 1e-4).all()


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
def test_a_preset_is_a_function_of_the_seed_alone(preset: str) -> None:
    transform = TrainTransform(VIT, preset)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [transform(picture(), seed) for seed in range(6)]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert all(torch.equal(a, transform(picture(), seed)) for seed, a in enumerate(first))
    different = any(not torch.equal(first[0], other) for other in first[1:])
    assert different == (preset != "none")


class _Pictures(Dataset):
    """Every sample drawn with its own seed, as training does it."""

    def __init__(self, preset: str) -> None:
        self.transform = TrainTransform(VIT, preset)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(picture(seed=index), sample_seed(42, 3, index))


def test_workers_draw_what_the_main_process_draws() -> None:
    data = _Pictures("strong")
    torch.manual_seed(9)
    here = torch.stack([data[i] for i in range(len(data))])
    loader = DataLoader(data, batch_size=4, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), here)


def test_transforms_can_be_pickled_for_workers() -> None:
    transform = pickle.loads(pickle.dumps(TrainTransform(PROCESSORS["timm"], "robust")))
    assert torch.equal(transform(picture(), 5), TrainTransform(PROCESSORS["timm"], "robust")(picture(), 5))


def test_crop_preset_cuts_native_pixels() -> None:
    """Half of its samples are windows of the image, pixel for pixel (mirrored or not)."""
    image = picture(76, 72)
    transform = TrainTransform(VIT, "crop")
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(image), (64, 64, 3))[:, :, 0]
    found = 0
    for seed in range(60):
        pixels = transform(image, seed).permute(1, 2, 0).numpy()
        found += any((windows == v).all(axis=(2, 3, 4)).any() for v in (pixels, pixels[:, ::-1]))
    assert 15 <= found <= 45


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    preset=st.sampled_from(["standard", "crop", "strong"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_image_size_works(width: int, height: int, preset: str, seed: int) -> None:
    assert TrainTransform(VIT, preset)(picture(width, height), seed).shape == (3, 64, 64)


@settings(max_examples=100)
@given(st.tuples(*[st.integers(0, 2**40)] * 3), st.tuples(*[st.integers(0, 2**40)] * 3))
def test_sample_seeds_differ_and_fit_63_bits(a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    assert 0 <= sample_seed(*a) < 2**63
    assert (sample_seed(*a) == sample_seed(*b)) == (a == b)
    assert isinstance(sample_seed(*a), int)
