"""Models load from everywhere with our labels, and what is saved is what the stock pipeline loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DeiTConfig, DeiTForImageClassification, pipeline

from bonaface.errors import UsageError
from bonaface.models.load import PRESETS, checkpoint_labels, load_model, model_class
from bonaface.models.parts import last_linear, stem
from bonaface.models.save import save_model

SIZES = {"lite0": 32, "convnext": 64, "vit": 32, "resnet": 32, "resnet18": 32, "cnn": 32}
TIMM = "timm/resnet18.a1_in1k"


def picture(seed: int = 0, size: tuple[int, int] = (50, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def save(tmp_path: Path, name: str, labels: list[str], **kwargs) -> Path:
    torch.manual_seed(0)
    model, processor = load_model(name, labels, **kwargs)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*PRESETS, "lite0", TIMM])
def test_the_stock_pipeline_loads_what_was_saved(tmp_path: Path, name: str) -> None:
    """With our labels, and the same scores as the model in hand."""
    torch.manual_seed(0)
    model, processor = load_model(name, ["fake", "real"], from_scratch=True, image_size=SIZES.get(name, 32))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with torch.inference_mode():
        pixels = processor(picture(), return_tensors="pt")["pixel_values"]
        expected = model.eval()(pixel_values=pixels).logits.softmax(-1)[0]
    result = {r["label"]: r["score"] for r in pipeline("image-classification", model=str(tmp_path))(picture())}
    assert result == pytest.approx({"fake": expected[0].item(), "real": expected[1].item()}, abs=1e-5)


def test_presets_are_as_small_as_promised() -> None:
    for name in ("convnext", "vit", "resnet"):
        model, _ = load_model(name, ["fake", "real"])
        assert 1e6 < sum(p.numel() for p in model.parameters()) < 4e6


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import bonaface, transformers", "import transformers, bonaface"])
def test_the_plain_cnn_needs_only_the_import(tmp_path: Path, first: str) -> None:
    """In a fresh process, whichever is imported first."""
    save(tmp_path, "cnn", ["fake", "real"], image_size=32)
    code = f"import sys; {first}; p = transformers.pipeline('image-classification', model=sys.argv[1])"
    code += "; print(p.model.config.id2label)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "{0: 'fake', 1: 'real'}" in done.stdout, done.stderr


@pytest.mark.slow
def test_stock_architectures_need_no_code_of_ours(tmp_path: Path) -> None:
    save(tmp_path, "resnet", ["fake", "real"], image_size=32)
    code = (
        "import sys; from transformers import pipeline; pipeline('image-classification', model=sys.argv[1]);"
        "print([name for name in sys.modules if name.startswith('bonaface')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("[]"), done.stderr


def test_importing_bonaface_alone_is_cheap() -> None:
    code = "import bonaface, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize("name", ["resnet", TIMM])
def test_a_second_fine_tune_keeps_the_head_of_the_same_labels(tmp_path: Path, name: str) -> None:
    """Also where the data lists them in another order: the order of the checkpoint wins."""
    save(tmp_path, name, ["real", "fake"], from_scratch=True, image_size=32)
    before = last_linear(load_model(str(tmp_path), ["real", "fake"])[0], 2)
    order = checkpoint_labels(str(tmp_path))
    assert order == ["real", "fake"]
    model, _ = load_model(str(tmp_path), order)
    assert torch.equal(last_linear(model, 2).weight, before.weight)


@pytest.mark.parametrize("name", ["resnet", TIMM])
@pytest.mark.parametrize("labels", [["ai", "photo"], ["ai", "edited", "photo"]])
def test_a_second_fine_tune_on_other_labels_gets_a_new_head_with_their_names(
    tmp_path: Path, name: str, labels: list[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save(first, name, ["fake", "real"], from_scratch=True, image_size=32)
    old, _ = load_model(str(first), ["fake", "real"])
    save(second, str(first), labels)
    new, _ = load_model(str(second), labels)
    assert not torch.equal(last_linear(old, 2).weight[:2], last_linear(new, len(labels)).weight[:2])
    assert torch.equal(stem(old).weight, stem(new).weight)
    results = pipeline("image-classification", model=str(second), top_k=5)(picture())
    assert {r["label"] for r in results} == set(labels)


def test_a_training_never_starts_from_a_pickle(tmp_path: Path) -> None:
    """Also not from one in a local folder, which transformers would take where there is no safetensors file."""
    save(tmp_path, "resnet", ["fake", "real"], image_size=32)
    model, _ = load_model(str(tmp_path), ["fake", "real"])
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        load_model(str(tmp_path), ["fake", "real"])


def test_facts_of_an_earlier_training_are_not_inherited(tmp_path: Path) -> None:
    model, processor = load_model("resnet", ["fake", "real"], image_size=32)
    model.config.bonaface = {"real_label": "real"}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not hasattr(load_model(str(tmp_path), ["fake", "real"])[0].config, "bonaface")


def test_image_size_and_resize_reach_the_processor(tmp_path: Path) -> None:
    save(tmp_path, "resnet", ["fake", "real"], image_size=32, resize=40)
    _, processor = load_model(str(tmp_path), ["fake", "real"])
    assert processor(picture(), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)
    assert processor.size["shortest_edge"] == 40
    _, processor = load_model(str(tmp_path), ["fake", "real"], image_size=24)
    assert processor(picture(), return_tensors="pt")["pixel_values"].shape == (1, 3, 24, 24)


def test_timm_models_take_another_size() -> None:
    model, processor = load_model("timm/vit_tiny_patch16_224", ["fake", "real"], from_scratch=True, image_size=64)
    pixels = processor(picture(), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    assert model(pixel_values=pixels).logits.shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("someone/model", {}, "cannot load the model someone/model"),
        ("timm/resnet18.a1_in1k", {}, "cannot load the model"),
        ("timm/resnet19", {"from_scratch": True}, "no architecture `resnet19`"),
        ("nothing/at/all", {}, "cannot load"),
    ],
)
def test_what_cannot_be_had_says_so_and_offers_a_way(name: str, kwargs: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_model(name, ["fake", "real"], **kwargs)
    assert caught.value.hint


def test_of_two_classes_for_a_configuration_the_plain_one_counts(tmp_path: Path) -> None:
    DeiTConfig().save_pretrained(tmp_path)
    assert model_class(str(tmp_path)) is DeiTForImageClassification


@pytest.mark.parametrize(
    ("architecture", "places"),
    [
        ("vit_tiny_patch16_224", "pos_embed"),
        ("swin_tiny_patch4_window7_224", "relative_position_bias_table"),
    ],
)
def test_a_transformer_of_one_size_starts_at_another_from_its_own_weights(
    tmp_path: Path, architecture: str, places: str
) -> None:
    """What depends on the size is resampled, and not drawn anew: here it is the same in all places, so it stays so."""
    model, processor = load_model(f"timm/{architecture}", ["fake", "real"], from_scratch=True)
    for name, parameter in model.named_parameters():
        if places in name:
            torch.nn.init.constant_(parameter, 0.5)
    save_model(tmp_path, model, processor)
    resized, _ = load_model(str(tmp_path), ["fake", "real"], image_size=112)
    before, after = model.timm_model.state_dict(), resized.timm_model.state_dict()
    for name in before:
        if name.endswith(places):
            torch.testing.assert_close(after[name], torch.full_like(after[name], 0.5))
        elif before[name].is_floating_point() and before[name].shape == after[name].shape:
            assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("mixer_s16_224", "weights of .* do not fit this input size"),
        ("maxvit_nano_rw_256", "cannot take images of 112 px"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused(tmp_path: Path, architecture: str, told: str) -> None:
    folder = save(tmp_path, f"timm/{architecture}", ["fake", "real"], from_scratch=True)
    with pytest.raises(UsageError, match=told) as caught:
        load_model(str(folder), ["fake", "real"], image_size=112)
    assert "image_size" in (caught.value.hint or "")


@pytest.mark.parametrize("architecture", ["deit_tiny_distilled_patch16_224", "resnetv2_18"])
def test_every_classifier_of_a_network_starts_anew_for_other_labels(tmp_path: Path, architecture: str) -> None:
    """Also where there are two, or where it is a convolution."""
    save(tmp_path, f"timm/{architecture}", [f"class {i}" for i in range(10)], from_scratch=True)
    model, _ = load_model(str(tmp_path), ["fake", "real"])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert model.eval()(pixel_values=torch.zeros(1, 3, 224, 224)).logits.shape == (1, 2)


def test_a_size_that_a_network_cannot_be_built_for_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot take images of 100 px"):
        load_model("timm/nest_tiny", ["fake", "real"], from_scratch=True, image_size=100)
