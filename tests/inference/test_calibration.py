"""Calibration finds what is to be found, never explodes, folds exactly, and what selects never certifies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import special
from torch import nn
from transformers import pipeline

from bonaface.inference.calibration import (
    TEMPERATURES,
    apply,
    fit,
    fold,
    uncalibrated,
)
from bonaface.models.facts import Calibration
from bonaface.models.load import load_model


def drawn(n: int, k: int, temperature: float, bias: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true probabilities are softmax((logits + bias) / temperature), and labels drawn from those."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(n, k))
    p = special.softmax((logits + np.array(bias)) / temperature, axis=1)
    return logits, np.array([rng.choice(k, p=row) for row in p])


@pytest.mark.parametrize(("temperature", "bias"), [(2.5, [0.8, -0.8]), (0.4, [-0.3, 0.3]), (1.7, [1.0, 0.0, -1.0])])
def test_what_the_labels_were_drawn_with_is_found(temperature: float, bias: list[float]) -> None:
    logits, labels = drawn(20_000, len(bias), temperature, bias)
    found = fit(logits, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.bias == pytest.approx(bias, abs=0.15)
    assert found.n == 20_000


def test_no_other_temperature_or_bias_has_a_smaller_loss() -> None:
    """Against the objective written out again, at the optimum and around it."""
    logits, labels = drawn(300, 2, 2.0, [0.5, -0.5])
    found = fit(logits, labels)
    counts = np.bincount(labels)
    targets = np.where(np.eye(2)[labels] == 1, (counts + 1) / (counts + 2), 0)
    targets[targets == 0] = (1 / (counts[labels] + 2))[:]

    def loss(temperature: float, shift: float) -> float:
        z = (logits + np.array(found.bias) + [shift, -shift]) / temperature
        return float(-(targets * special.log_softmax(z, axis=1)).sum(axis=1).mean())

    best = loss(found.temperature, 0.0)
    for factor, shift in [(0.98, 0), (1.02, 0), (1, 0.05), (1, -0.05), (0.9, 0.1)]:
        assert loss(found.temperature * factor, shift) > best


def test_separated_images_give_cautious_scores() -> None:
    """Platt's targets: ten images of a class never make anyone surer than 11/12."""
    logits = np.repeat([[30.0, -30.0], [-30.0, 30.0]], 10, axis=0)
    found = fit(logits, np.repeat([0, 1], 10))
    p = apply(logits, found)
    np.testing.assert_allclose(p.max(axis=1), 11 / 12, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 4),
    st.floats(1e-6, 1e6),
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.booleans(),
)
def test_it_never_explodes(k: int, scale: float, seed: int, each: int, separable: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(k), each)
    logits = scale * (np.eye(k)[labels] if separable else rng.normal(size=(k * each, k)))
    found = fit(logits, labels)
    assert TEMPERATURES[0] * 0.999 <= found.temperature <= TEMPERATURES[1] * 1.001
    assert np.isfinite(found.bias).all()
    assert sum(found.bias) == pytest.approx(0, abs=1e-6 * (1 + max(map(abs, found.bias))))


def test_logits_that_say_nothing_get_the_class_shares() -> None:
    found = fit(np.ones((40, 2)), np.repeat([0, 1], [10, 30]))
    p = apply(np.ones((1, 2)), found)
    assert p[0] == pytest.approx([0.25, 0.75], abs=0.03)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(np.ones((3, 2)), [0, 0, 0]), (np.array([[0.0, 1.0], [np.nan, 0.0]]), [0, 1]), (np.ones((3, 2)), [0, 1])],
)
def test_what_cannot_be_calibrated_is_refused(logits: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="needs"):
        fit(logits, labels)


@pytest.mark.parametrize("name", ["resnet", "timm/resnet18.a1_in1k", "cnn"])
def test_the_stock_pipeline_gives_the_calibrated_scores(tmp_path: Path, name: str) -> None:
    """Within 1e-6, with nothing of ours but the folded weights (the CNN needs its class registered)."""
    torch.manual_seed(0)
    model, processor = load_model(name, ["fake", "real"], from_scratch=True, image_size=32)
    model.eval()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    calibration = Calibration(1.7, (0.4, -0.4), folded=False)
    with torch.inference_mode():
        before = model(pixel_values=pixels).logits
    assert fold(model, calibration)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    result = {r["label"]: r["score"] for r in pipeline("image-classification", model=str(tmp_path))(image)}
    assert [result["fake"], result["real"]] == pytest.approx(apply(before, calibration)[0].tolist(), abs=1e-6)
    assert abs(result["fake"] - float(before.softmax(-1)[0, 0])) > 1e-3


def test_a_head_that_cannot_carry_it_is_left_alone() -> None:
    class Head(nn.Module):
        def __init__(self, layers: nn.Module) -> None:
            super().__init__()
            self.layers = layers
            self.config = type("Config", (), {"num_labels": 2})()

    without_bias = Head(nn.Linear(3, 2, bias=False))
    weight = without_bias.layers.weight.clone()
    assert not fold(without_bias, Calibration(2.0, (0.1, -0.1), folded=False))
    assert torch.equal(without_bias.layers.weight, weight)
    assert not fold(Head(nn.Conv2d(3, 2, 1)), Calibration(2.0, (0.1, -0.1), folded=False))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 20), st.floats(-3, 3), st.integers(0, 1000))
def test_scores_before_calibration_come_back(temperature: float, shift: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(scale=3, size=(5, 2))
    stored = Calibration(temperature, (shift, -shift), folded=False)
    np.testing.assert_allclose(uncalibrated(apply(logits, stored), stored), special.softmax(logits, axis=1), atol=1e-6)
    assert uncalibrated(apply(logits), None) is None
