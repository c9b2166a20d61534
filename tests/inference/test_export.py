"""An exported network says what its original says, without torch's weights, or is not written at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import make_faces
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification, ViTImageProcessor

from bonaface.errors import UsageError
from bonaface.inference import export, network_files
from bonaface.inference.detector import UNFAMILIAR, Detector
from bonaface.inference.export import export_model, run_export_command
from bonaface.inference.unfamiliar import Unfamiliar
from bonaface.models.cnn import PlainCNNConfig, PlainCNNForImageClassification
from bonaface.models.facts import ModelFacts
from bonaface.models.load import load_model
from bonaface.models.parts import project_high_pass, stem
from bonaface.models.save import FLOAT8, save_model
from bonaface.stats.certificates import Band

LABELS = {"id2label": {0: "fake", 1: "real"}, "label2id": {"fake": 0, "real": 1}}
FACTS = ModelFacts("real", band=Band(0.45, 0.55))
FORMATS = ["openvino", "onnx"]


def small_cnn() -> PlainCNNForImageClassification:
    return PlainCNNForImageClassification(PlainCNNConfig(image_size=32, channels=(8, 16), hidden_size=16, **LABELS))


def make_images(n: int = 12) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((40 + i % 2, 40)) for i, pixels in enumerate(small)]


def low_noise(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, (n, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["cnn", "vit"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with a bank of training features."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    network: Any
    if request.param == "cnn":
        network = PlainCNNForImageClassification(
            PlainCNNConfig(image_size=32, channels=(8, 16), hidden_size=16, **LABELS)
        )
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        network = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape, **LABELS))
        torch.nn.init.normal_(network.classifier.weight)
    network.config.bonaface = FACTS.to_block()
    network.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    features = Detector.from_pretrained(folder).features(make_images()[:1])
    assert features is not None
    familiar = Unfamiliar(features / np.linalg.norm(features), 1, 0.05, 0.99, 1)
    familiar.save(folder)
    network.config.bonaface = replace(FACTS, unfamiliar=familiar.facts()).to_block()
    network.config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that tells dark images from light ones, and such images."""
    data = make_faces(tmp_path_factory.mktemp("data"), {"real/camera": 40, "fake/gen": 40})
    folder = tmp_path_factory.mktemp("learned")
    torch.manual_seed(0)
    network = small_cnn()
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    files = sorted(data.rglob("*.png"))
    pixels = processor([Image.open(file).convert("RGB") for file in files], return_tensors="pt")["pixel_values"]
    labels = torch.tensor([int("real" in file.parts) for file in files])
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        network(pixel_values=pixels, labels=labels).loss.backward()
        optimiser.step()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, data


@pytest.mark.parametrize("format", FORMATS)
def test_it_says_the_same_without_torch_s_weights(
    model: Path, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Detector.from_pretrained(model)
    checks = export_model(model, tmp_path / "out", format, n_check=6)
    assert checks[0].precision == "float32"
    assert checks[0].difference <= 1e-4
    assert all(check.passed for check in checks)
    assert not list((tmp_path / "out").glob("model.safetensors"))
    monkeypatch.setattr(AutoModelForImageClassification, "from_pretrained", None)
    exported = Detector.from_pretrained(tmp_path / "out")
    assert exported.engine.name == format
    for n in (1, 5, 12):  # any number of images
        assert np.abs(exported.scores(make_images(n)) - original.scores(make_images(n))).max() <= 1e-4
    before, after = original.features(make_images()), exported.features(make_images())
    assert before is not None
    assert after is not None
    assert np.abs(before - after).max() <= 1e-3
    results = [[(r.verdict, r.band, UNFAMILIAR in r.warnings) for r in d(make_images())] for d in (original, exported)]
    assert results[0] == results[1]
    assert {strange for _, _, strange in results[0]} == {True, False}


def test_weights_of_eight_bits_stay_so_in_onnx(tmp_path: Path) -> None:
    """A byte each and a table, which gives the very same floats; what has more values stays as it is."""
    torch.manual_seed(0)
    network, processor = load_model("vit", ["fake", "real"], image_size=32)
    torch.nn.init.normal_(network.classifier.weight)
    sizes = []
    for float8 in (False, True):
        folder = tmp_path / f"float8-{float8}"
        save_model(folder, network, processor, float8=float8)
        checks = export_model(folder, tmp_path / f"onnx-{float8}", "onnx", n_check=6)
        assert checks[0].difference <= 1e-4
        sizes.append((tmp_path / f"onnx-{float8}" / "model.onnx").stat().st_size)
    assert sizes[1] < 0.3 * sizes[0]
    graph = onnx.load(tmp_path / "onnx-True" / "model.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    looked_up = [
        np.sort(table[tensors[name.replace("_table", "_bytes")]], None)  # sorted: the exporter transposes some
        for name, table in tensors.items()
        if name.endswith("_table")
    ]
    stored = load_file(tmp_path / "float8-True" / "model.safetensors")
    narrow = [np.sort(tensor.float().numpy(), None) for tensor in stored.values() if tensor.dtype in FLOAT8]
    assert len(looked_up) >= 4 * 6  # a transformer block has four large layers, and there are six
    assert all(any(np.array_equal(found, own) for own in narrow) for found in looked_up)


def test_bf16_is_checked_where_the_processor_has_it(model: Path, tmp_path: Path) -> None:
    checks = {check.precision: check for check in export_model(model, tmp_path / "out", "openvino", n_check=6)}
    assert ("bf16" in checks) == export._has_bf16()
    if "bf16" in checks:
        assert 0 < checks["bf16"].difference <= 2e-2
        assert "prefer float32" not in str(checks["bf16"])


def test_a_model_that_bf16_changes_is_exported_for_float32_and_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PRECISIONS", {"float32": 1e-4, "bf16": 0.0})
    for check in export_model(model, tmp_path / "out", "openvino", n_check=6):
        assert ("prefer float32" in str(check)) == (check.precision == "bf16")
    assert Detector.from_pretrained(tmp_path / "out").scores(make_images(1)).shape == (1, 2)


def test_bf16_spares_the_first_layer_of_a_high_pass_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small differences of large values would be rounded away; OpenVINO reads the mark for bf16 too."""
    torch.manual_seed(0)
    network, processor = load_model("resnet", ["fake", "real"], image_size=32)
    project_high_pass(stem(network))
    noisy = [Image.fromarray(np.full((32, 32, 3), 250, np.uint8) + p) for p in low_noise(24)]
    pixels = processor(noisy, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        for _ in range(60):  # the batch norms learn how small those differences are
            network.train()(pixel_values=pixels)
    network.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    original = Detector.from_pretrained(tmp_path / "model").scores(noisy)
    worst = {}
    for spared in (True, False):
        if not spared:
            monkeypatch.setattr(network_files, "_keep_first_layer_precise", lambda _: None)
        out = tmp_path / f"out-{spared}"
        export_model(tmp_path / "model", out, "openvino", n_check=6)
        assert ('name="precise"' in (out / "openvino_model.xml").read_text()) is spared
        if export._has_bf16():
            exported = Detector.from_pretrained(out, engine="openvino", dtype="bf16")
            worst[spared] = np.abs(exported.scores(noisy) - original).max()
    if export._has_bf16():
        assert worst[True] < worst[False] / 2


def test_a_difference_counts_as_it_would_at_the_boundary() -> None:
    """Where the sigmoid is flat a difference of logits hides."""
    sure, surer = {"fake": 0.9990, "real": 0.0010}, {"fake": 0.9993, "real": 0.0007}
    assert export._difference(sure, surer, anywhere=False) == pytest.approx(0.0003)
    gap = np.log(0.9993 / 0.0007) - np.log(0.9990 / 0.0010)
    assert export._difference(sure, surer, anywhere=True) == pytest.approx(2 / (1 + np.exp(-gap / 2)) - 1)
    assert export._difference(sure, sure, anywhere=True) == 0


def test_an_exported_network_names_no_file_of_this_machine(model: Path, tmp_path: Path) -> None:
    """The exporters note where each node comes from, with the stack of the process."""
    for format, name in (("onnx", "model.onnx"), ("openvino", "openvino_model.xml")):
        export_model(model, tmp_path / format, format, n_check=2)
        data = (tmp_path / format / name).read_bytes()
        for place in (str(Path(torch.__file__).parent), str(Path(export.__file__).parent), ".py"):
            assert place.encode() not in data, (format, place)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_int8_is_judged_by_auc_and_verdicts(learned: tuple[Path, Path], format: str, tmp_path: Path) -> None:
    folder, data = learned
    (check,) = export_model(folder, tmp_path / "out", format, int8=True, data=str(data), n_check=40, n_calibration=40)
    assert check.precision == "int8"
    assert check.auc_loss is not None
    assert check.auc_loss <= 0.005
    assert check.flips <= 0.02
    assert check.difference > 0
    full = export_model(folder, tmp_path / "full", format, n_check=4)
    assert full[0].difference < check.difference
    weights = "*.bin" if format == "openvino" else "*.onnx"
    small, large = (next((tmp_path / name).glob(weights)).stat().st_size for name in ("out", "full"))
    assert small < 0.6 * large
    assert Detector.from_pretrained(tmp_path / "out")(Image.new("RGB", (40, 40), "white"))[0].verdict == "real"


def test_what_says_something_else_is_not_written(
    learned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(network_files.WithFeatures):
        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, features = super().forward(pixel_values)
            return logits + torch.tensor([-13.0, 0.0]), features

    monkeypatch.setattr(network_files, "WithFeatures", Wrong)
    with pytest.raises(UsageError, match="not exported"):
        export_model(learned[0], tmp_path / "out", "openvino", data=str(learned[1]), n_check=20)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_the_check_found(
    learned: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export_command(str(learned[0]), "onnx", tmp_path / "out", n_check=4) == 0
    said = capsys.readouterr().out
    assert "float32: scores differ by at most" in said
    assert f"--model {tmp_path / 'out'}" in said


def test_mistakes_have_hints(learned: tuple[Path, Path], tmp_path: Path) -> None:
    folder = learned[0]
    with pytest.raises(UsageError, match="unknown format"):
        export_model(folder, tmp_path / "out", "coreml")
    with pytest.raises(UsageError, match="int8 needs labelled images"):
        export_model(folder, tmp_path / "out", "onnx", int8=True)
    with pytest.raises(UsageError, match="already exists"):
        export_model(folder, folder, "onnx")
    export_model(folder, tmp_path / "out", "onnx", n_check=2)
    with pytest.raises(UsageError, match="runs on the CPU"):
        Detector.from_pretrained(tmp_path / "out", device="cuda")
    with pytest.raises(UsageError, match="not support bf16"):
        Detector.from_pretrained(tmp_path / "out", dtype="bf16")
