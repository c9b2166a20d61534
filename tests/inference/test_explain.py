"""Heat maps find what a model was trained to see, on every kind of network, and say so when they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.modeling_outputs import ImageClassifierOutput

from bonaface.errors import UsageError
from bonaface.inference.detector import Detector
from bonaface.inference.engines import TorchEngine
from bonaface.inference.explain import explain, run_explain_command, seen_region
from bonaface.inference.faithfulness import measure
from bonaface.inference.heat_maps import gradcam, integrated_gradients
from bonaface.models.cnn import PlainCNNConfig, PlainCNNForImageClassification
from bonaface.models.load import load_model

SIDE, PATCH = 64, 16
LABELS = {"id2label": {0: "fake", 1: "real"}, "label2id": {"fake": 0, "real": 1}}


def timm_vit() -> PreTrainedModel:
    return load_model("timm/test_vit.r160_in1k", ["fake", "real"], from_scratch=True, image_size=SIDE)[0]


NETWORKS: dict[str, Callable[[], PreTrainedModel]] = {
    "cnn": lambda: PlainCNNForImageClassification(
        PlainCNNConfig(image_size=SIDE, channels=(8, 16, 32), hidden_size=32, **LABELS)
    ),
    "resnet": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", **LABELS)
    ),
    "convnext": lambda: ConvNextV2ForImageClassification(
        ConvNextV2Config(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, image_size=SIDE, **LABELS)
    ),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=96,
            image_size=SIDE,
            patch_size=8,
            **LABELS,
        )
    ),
    "timm": timm_vit,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are too small to be worth a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planted(rng: np.random.Generator, fake: bool) -> tuple[Image.Image, tuple[int, int]]:
    """Grey noise; a fake has a square of stripes, at a corner (x, y) that is given."""
    pixels = rng.integers(60, 200, (SIDE, SIDE, 1), dtype=np.uint8).repeat(3, 2)
    x, y = rng.integers(0, SIDE - PATCH, 2).tolist()
    if fake:
        pixels[y : y + PATCH, x : x + PATCH] = 30
        pixels[y : y + PATCH, x : x + PATCH : 2] = (250, 40, 40)
    return Image.fromarray(pixels), (x, y)


def trained(folder: Path, name: str) -> Detector:
    """A network that has learned to see the planted square; a few seconds."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = NETWORKS[name]()
    processor = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    model.train()
    for _ in range(80):
        fakes = rng.random(16) < 0.5
        images = [planted(rng, bool(fake))[0] for fake in fakes]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        loss = model(pixel_values=pixels, labels=torch.from_numpy((~fakes).astype(np.int64))).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Detector.from_pretrained(folder)


@pytest.fixture(scope="module", params=list(NETWORKS))
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return trained(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return trained(tmp_path_factory.mktemp("model"), "cnn")


def share_found(detector: Detector, method: str, n: int) -> float:
    """Share of fakes whose brightest point lies in the planted square or half its side around it."""
    rng, found = np.random.default_rng(1), []
    for _ in range(n):
        image, (x, y) = planted(rng, True)
        explanation = explain(detector, image, method=method, test=False)
        assert explanation.target == "fake"
        row, column = np.unravel_index(explanation.heat.argmax(), explanation.heat.shape)
        found.append(max(abs(column - x - PATCH / 2), abs(row - y - PATCH / 2)) <= PATCH)
    return float(np.mean(found))


def test_gradcam_finds_the_planted_square(detector: Detector) -> None:
    """A point chosen by chance would find a quarter."""
    assert share_found(detector, "gradcam", 8) >= 0.75


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_what_compares_with_a_blurred_image_finds_the_planted_square(cnn: Detector, method: str) -> None:
    assert share_found(cnn, method, 8) >= 0.75


def test_hiding_what_integrated_gradients_mark_changes_the_score_most(detector: Detector) -> None:
    """On every kind of network, also where a blurred area is evidence in itself and the square is not what counts."""
    rng, gains = np.random.default_rng(1), []
    for _ in range(4):
        found = explain(detector, planted(rng, True)[0]).faithfulness
        assert found is not None
        gains.append([found.gain[name] for name in ("map", "centre", "random")])
    whole, centre, random = np.mean(gains, 0)
    assert whole > 2 * max(centre, random, 0)


class Spot(PreTrainedModel):
    """Fake by what differs from grey in one spot alone."""

    config_class = ViTConfig

    def __init__(self, row: int, column: int, side: int) -> None:
        super().__init__(ViTConfig(**LABELS))
        self.weight = torch.nn.Parameter(torch.zeros(1, 1, side, side))
        self.weight.data[..., row - 2 : row + 3, column - 2 : column + 3] = 0.1

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        fake = (pixel_values.square() * self.weight).sum((1, 2, 3))
        return ImageClassifierOutput(logits=torch.stack([fake, -fake], 1))


def engine_of(cnn: Detector, model: PreTrainedModel) -> Detector:
    return Detector(TorchEngine(model.eval(), torch.device("cpu"), torch.float32), cnn.config, cnn.processor)


@pytest.mark.parametrize(("row", "column"), [(22, 201), (201, 22), (221, 221), (2, 112)])
def test_integrated_gradients_are_drawn_where_they_are_also_at_the_edge(cnn: Detector, row: int, column: int) -> None:
    pixels = torch.zeros(3, 224, 224)
    pixels[:, row - 2 : row + 3, column - 2 : column + 3] = 1
    heat = integrated_gradients(engine_of(cnn, Spot(row, column, 224)), pixels, "fake")
    rows, columns = np.nonzero(heat > 0.9 * heat.max())
    assert heat.max() == 1
    assert abs(rows.mean() - row) < 4
    assert abs(columns.mean() - column) < 4


def test_a_flat_image_has_no_bright_map_of_rounding_errors(detector: Detector) -> None:
    assert not integrated_gradients(detector, torch.full((3, SIDE, SIDE), 0.3), "fake").any()


def test_a_network_without_gradients_is_explained_by_occlusion(cnn: Detector) -> None:
    class Frozen(Spot):
        @torch.no_grad()
        def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
            return super().forward(pixel_values)

    frozen, image = engine_of(cnn, Frozen(30, 30, SIDE)), planted(np.random.default_rng(3), True)[0]
    assert explain(frozen, image, test=False).method == "occlusion"
    with pytest.raises(UsageError, match="no gradients from this network"):
        explain(frozen, image, method="integrated_gradients", test=False)


def test_a_map_that_shows_what_matters_is_trusted_and_one_that_does_not_is_not(cnn: Detector) -> None:
    image, (x, y) = planted(np.random.default_rng(3), True)
    explanation = explain(cnn, image)
    good = explanation.faithfulness
    assert good is not None
    assert good.trusted, good
    assert good.gain["map"] > max(good.gain["centre"], good.gain["random"])
    assert good.deletion["map"][0] == pytest.approx(explanation.result.p_fake, abs=1e-5)
    assert good.insertion["map"][-1] == pytest.approx(good.deletion["map"][0], abs=1e-5)
    assert good.insertion["map"][0] == pytest.approx(good.deletion["map"][-1], abs=1e-5)
    wrong = np.ones((SIDE, SIDE), dtype=np.float32)
    wrong[y : y + PATCH, x : x + PATCH] = 0
    bad = measure(cnn.pixels(image), wrong, lambda batch: cnn.p_fake(cnn.probabilities(cnn.run(batch)[0])))
    assert not bad.trusted
    assert bad.sentence == "This map is not reliable for this image."
    assert "explains little" in bad.reason


def test_a_score_that_depends_on_nothing_cannot_be_explained(cnn: Detector) -> None:
    pixels = cnn.pixels(Image.new("RGB", (SIDE, SIDE)))
    flat = measure(pixels, np.ones((SIDE, SIDE), dtype=np.float32), lambda batch: np.full(len(batch), 0.9))
    assert flat.flat
    assert not flat.trusted
    assert "no map can show" in flat.reason


def test_a_close_up_is_the_face_alone_with_the_heat_in_the_same_place(cnn: Detector) -> None:
    """In a full-length image the face's overlay is the same as that of the face cut out."""
    face, _ = planted(np.random.default_rng(3), True)
    canvas = Image.new("RGB", (4 * SIDE, 8 * SIDE), "white")
    canvas.paste(face, (SIDE, 2 * SIDE))
    alone = explain(cnn, face, test=False)
    box = (float(SIDE), 2.0 * SIDE, 2.0 * SIDE, 3.0 * SIDE)
    inside = replace(alone, image=canvas, region=box, face=box)
    found = inside.close_up(1000)
    assert np.array_equal(found.image, face)
    assert np.array_equal(found.overlay(), alone.overlay())
    small = inside.close_up(SIDE // 2)
    assert small.image.size == (SIDE // 2, SIDE // 2)
    assert small.region == (0, 0, SIDE / 2, SIDE / 2)
    assert replace(inside, face=None).close_up(1000).image.size == canvas.size


@pytest.mark.parametrize(
    ("processor", "size", "region"),
    [
        (ViTImageProcessor(size={"height": 32, "width": 32}), (100, 60), (0, 0, 100, 60)),  # squashed
        (
            ViTImageProcessor(size={"shortest_edge": 32}, do_center_crop=True, crop_size={"height": 32, "width": 32}),
            (100, 60),
            (20, 0, 80, 60),
        ),
        (
            ViTImageProcessor(size={"shortest_edge": 40}, do_center_crop=True, crop_size={"height": 32, "width": 32}),
            (200, 200),
            (20, 20, 180, 180),
        ),
    ],
)
def test_the_map_is_laid_on_what_the_model_saw(
    processor: ViTImageProcessor, size: tuple[int, int], region: tuple[int, ...]
) -> None:
    assert seen_region(processor, size) == pytest.approx(region, abs=2.5)


def test_a_cut_out_face_has_its_map_in_its_own_place(cnn: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnn.reader, "find_faces", lambda *_: ([(100.0, 60.0, 140.0, 100.0)], []))
    image = Image.new("RGB", (300, 200), "gray")
    explanation = explain(cnn, image, test=False)
    assert explanation.face == (100.0, 60.0, 140.0, 100.0)
    assert explanation.region == pytest.approx((94, 54, 146, 106), abs=2)  # the box and 15 % around it
    overlay = np.asarray(explanation.overlay()).astype(int)
    changed = np.argwhere(np.abs(overlay - np.asarray(image)).sum(2) > 0)
    assert changed.min(0).tolist() >= [52, 92]
    assert changed.max(0).tolist() <= [108, 148]
    assert (overlay[60, 100:140] == (0, 200, 255)).all()  # the box


def test_the_command_writes_an_overlay_and_says_what_it_is_worth(
    cnn: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = planted(np.random.default_rng(3), True)
    image.save(tmp_path / "in.png")
    cnn.engine.model.save_pretrained(tmp_path / "m")
    cnn.processor.save_pretrained(tmp_path / "m")
    assert run_explain_command(tmp_path / "in.png", str(tmp_path / "m"), tmp_path / "sub" / "heat.png") == 0
    said = capsys.readouterr().out
    assert "p(fake)" in said
    assert "Hiding what the map marks" in said
    with Image.open(tmp_path / "sub" / "heat.png") as heat:
        assert heat.size == image.size
        assert np.abs(np.asarray(heat).astype(int) - np.asarray(image)).max() > 30


class Exported:
    """An engine that gives scores and nothing else."""

    name, batch_size, workers = "exported", 64, 0

    def __call__(self, pixels: torch.Tensor) -> tuple[np.ndarray, None]:
        return np.zeros((len(pixels), 2), dtype=np.float32), None

    in_worker = __call__


def test_mistakes_have_hints(cnn: Detector, tmp_path: Path) -> None:
    image = Image.new("RGB", (SIDE, SIDE))
    with pytest.raises(UsageError, match="unknown method"):
        explain(cnn, image, method="lime")
    with pytest.raises(UsageError, match="cannot write"):
        run_explain_command(tmp_path / "x.png", "m", tmp_path / "heat.pdf")
    with pytest.raises(UsageError, match="no such file"):
        run_explain_command(tmp_path / "x.png", "m", tmp_path / "heat.png")
    exported = Detector(Exported(), cnn.config, cnn.processor)
    for method in (integrated_gradients, gradcam):
        with pytest.raises(UsageError, match="no gradients"):
            method(exported, cnn.pixels(image), "fake")
    assert explain(exported, image, test=False).method == "occlusion"
