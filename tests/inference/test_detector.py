"""The Detector says what the stock pipeline says, however it is called; its rules hold; bad images stay apart."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_image
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import pipeline

from bonaface.errors import UsageError
from bonaface.imaging.faces import Face
from bonaface.imaging.images import ImageError, decode_image
from bonaface.inference import reader
from bonaface.inference.detector import COMPRESSED, NO_FACE, NOT_CALIBRATED, SMALL, UNFAMILIAR, Detector
from bonaface.inference.unfamiliar import Unfamiliar
from bonaface.models.facts import Calibration, ModelFacts
from bonaface.models.load import load_model
from bonaface.stats.certificates import Band

CALIBRATED = ModelFacts("real", band=Band(0.4, 0.6))


def save_model(
    folder: Path, name: str = "resnet", labels: tuple[str, ...] = ("fake", "real"), facts: ModelFacts | None = None
) -> Path:
    """An untrained model of 32 px; its logits are spread so that scores differ between images."""
    torch.manual_seed(1)
    model, processor = load_model(name, list(labels), from_scratch=True, image_size=32)
    if facts is not None:
        model.config.bonaface = facts.to_block()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def random_image(seed: int = 0, size: tuple[int, int] = (50, 40)) -> Image.Image:
    """Smooth noise, so that a resize does not average it to grey."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **save: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **save)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), facts=CALIBRATED)


@pytest.fixture
def detector(folder: Path) -> Detector:
    return Detector.from_pretrained(folder)


class Found:
    """A face detector that finds given boxes in any image."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.faces, self.calls = [Face(box, 0.9) for box in boxes], 0

    def detect(self, image: Image.Image) -> list[Face]:
        self.calls += 1
        return self.faces


@pytest.mark.parametrize("name", ["resnet", "vit", "cnn", "timm/resnet18.a1_in1k"])
def test_it_agrees_with_the_stock_pipeline(tmp_path: Path, name: str) -> None:
    save_model(tmp_path, name)
    images = [random_image(i, (30 + i % 3, 40 + i % 2)) for i in range(11)]
    results = Detector.from_pretrained(tmp_path)(images, faces=False)
    for result, stock in zip(results, pipeline("image-classification", model=str(tmp_path))(images), strict=True):
        assert result.labels == pytest.approx({row["label"]: row["score"] for row in stock}, abs=1e-4)
        assert result.p_fake == pytest.approx(result.labels["fake"])
    assert len({result.p_fake for result in results}) == len(images)


def test_a_stranger_s_model_with_three_labels_is_judged_by_its_largest_label(tmp_path: Path) -> None:
    save_model(tmp_path, labels=("diffusion", "Real", "gan"))
    result = Detector.from_pretrained(tmp_path)(random_image())[0]
    assert result.p_fake == pytest.approx(result.labels["diffusion"] + result.labels["gan"])
    assert result.verdict == ("real" if max(result.labels, key=result.labels.__getitem__) == "Real" else "fake")
    assert result.band is None
    assert NOT_CALIBRATED in result.warnings


def test_one_logit_is_a_label_and_its_absence(tmp_path: Path) -> None:
    save_model(tmp_path, labels=("real",))
    result = Detector.from_pretrained(tmp_path)(random_image())[0]
    stock = pipeline("image-classification", model=str(tmp_path))(random_image())[0]["score"]
    assert result.labels == pytest.approx({"real": stock, "not real": 1 - stock}, abs=1e-4)
    assert result.p_fake == pytest.approx(1 - stock, abs=1e-4)


def test_paths_bytes_and_images_of_any_mode_are_the_same_to_it(detector: Detector, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(random_image(), format="PNG", exif=exif)
    clear = random_image(3).convert("RGBA")
    clear.putalpha(128)
    for data in (turned, encoded(clear, format="PNG"), encoded(random_image().convert("L"), format="PNG")):
        path = tmp_path / "p.png"
        path.write_bytes(data)
        forms = [data, path, str(path), Image.open(io.BytesIO(data)), decode_image(data)]
        scores = detector.scores(forms)[:, 0]
        assert scores == pytest.approx([scores[0]] * len(forms), abs=1e-6)
    upright = detector.scores([random_image()])[0, 0]
    assert detector.scores([turned])[0, 0] != pytest.approx(upright, abs=1e-6)


def test_a_string_is_a_path_and_never_fetched(detector: Detector) -> None:
    with pytest.raises(ImageError, match="no such file") as error:
        detector("https://example.org/face.jpg")
    assert error.value.reason == "missing"


def test_bad_images_among_many_have_results_of_their_own_in_order(detector: Detector, tmp_path: Path) -> None:
    good = make_image(tmp_path / "good.png")
    bad = [b"", b"not an image at all", encoded(random_image(), format="PNG")[:200], tmp_path / "missing.jpg"]
    results = detector([good, *bad, good])
    assert [r.status for r in results] == ["ok", "empty", "not an image", "truncated", "missing", "ok"]
    assert results[0].p_fake == pytest.approx(results[-1].p_fake, abs=1e-6)
    assert all(r.verdict == "error" and r.error and np.isnan(r.p_fake) and not r.labels for r in results[1:-1])
    with pytest.raises(ImageError):
        detector(b"not an image at all")


def test_kinds_of_input_mix_and_a_bad_one_has_its_own_row(detector: Detector, tmp_path: Path) -> None:
    """A file, an array, a tensor and a row of one image score alike, beside what is refused."""
    image = random_image(size=(40, 40))
    data, array = encoded(image, format="PNG"), np.asarray(image)
    bad = [None, 5, io.StringIO("x"), ["a.jpg"], array * 2.0, {"label": 1}, "data:image/png;base64," + "A" * 10**6]
    good = [data, io.BytesIO(data), array, torch.from_numpy(array.copy()).permute(2, 0, 1), {"bytes": data}]
    results = detector(value for value in [*good, *bad, *good[2:]])
    assert [result.status == "ok" for result in results] == [True] * 5 + [False] * len(bad) + [True] * 3
    assert len({round(result.p_fake, 6) for result in results if result.status == "ok"}) == 1
    assert all(len(result.error or "") < 300 for result in results)
    assert len(detector(np.stack([array, array]))) == 2
    assert [result.status for result in detector.stream(data)] == ["ok"]
    assert detector.scores(array)[0] == pytest.approx(detector.scores([data])[0], abs=1e-6)
    for value in (None, 5, io.StringIO("x"), {"label": 1}):
        with pytest.raises(ImageError):
            detector(value)


def test_an_error_does_not_keep_the_broken_image(detector: Detector) -> None:
    """A traceback's frames would hold a quarter of a gigabyte until the batch is done, small and large alike."""
    for side in (50, 2100):
        data = encoded(random_image(size=(side, side)), format="PNG")
        error = detector.reader.read([data[: len(data) // 2]], faces=False)[0].error
        assert error is not None
        assert error.reason == "truncated"
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_large_images_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they have at most ``TOGETHER`` pixels; one of more is alone; a failure gives its place back."""
    monkeypatch.setattr(reader, "TOGETHER", 10)
    budget, held, most = reader._PixelBudget(), [0], []

    def work(n: int) -> None:
        with contextlib.suppress(KeyError), budget.spent(n):
            held[0] += n
            time.sleep(0.005)
            most.append((held[0], n))
            held[0] -= n
            raise KeyError

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [4, 4, 4, 25, 4, 6, 25, 3, 3, 3, 4]))
    assert len(most) == 11
    assert all(together <= 10 or together == n == 25 for together, n in most)
    assert any(together > n for together, n in most)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 1), (1, 30), (2, 60)])
def test_the_smallest_images_are_scored(detector: Detector, size: tuple[int, int]) -> None:
    result = detector(random_image(size=size))[0]
    assert result.status == "ok"
    assert SMALL in result.warnings


def test_a_strip_is_refused_before_a_processor_blows_it_up(detector: Detector) -> None:
    with pytest.raises(ImageError, match="too narrow"):
        detector(Image.new("RGB", (2, 3000)))


def test_the_band_decides(detector: Detector) -> None:
    results = detector([random_image(i) for i in range(40)])
    for result in results:
        expected = "real" if result.p_fake <= 0.4 else "fake" if result.p_fake >= 0.6 else "uncertain"
        assert (result.verdict, result.band) == (expected, (0.4, 0.6))
    low, high = np.quantile([r.p_fake for r in results], [0.3, 0.7])
    detector.band = (float(low), float(high))
    assert {r.verdict for r in detector([random_image(i) for i in range(40)])} == {"real", "fake", "uncertain"}


def test_a_calibration_that_is_not_in_the_weights_is_applied(detector: Detector) -> None:
    before = np.log(detector.scores([random_image()]))
    detector.facts = replace(detector.facts, calibration=Calibration(2.0, (1.0, -1.0), folded=False))
    after = np.log(detector.scores([random_image()]))
    assert np.diff(after) == pytest.approx((np.diff(before) - 2.0) / 2.0, abs=1e-6)


def test_what_is_unlike_the_training_data_is_uncertain(tmp_path: Path) -> None:
    save_model(tmp_path)
    known, strange = random_image(0), Image.new("RGB", (64, 64), "white")
    features = Detector.from_pretrained(tmp_path).features([known, strange])
    assert features is not None
    bank = features[:1] / np.linalg.norm(features[0])
    far = Unfamiliar(bank, 1, 0.0, 0.99, 1).distance(features[1:])[0]
    unfamiliar = Unfamiliar(bank, 1, far / 2, 0.99, 1)
    unfamiliar.save(tmp_path)
    facts = replace(CALIBRATED, band=Band(0.5, 0.5), unfamiliar=unfamiliar.facts())
    save_model(tmp_path, facts=facts)
    results = Detector.from_pretrained(tmp_path)([known, strange])
    assert [UNFAMILIAR in result.warnings for result in results] == [False, True]
    assert results[0].verdict in ("real", "fake")
    assert results[1].verdict == "uncertain"


def test_a_heavily_compressed_image_is_said_to_be(detector: Detector) -> None:
    poor, good = (encoded(random_image(size=(96, 96)), format="JPEG", quality=quality) for quality in (10, 90))
    assert [COMPRESSED in result.warnings for result in detector([poor, good])] == [True, False]


@pytest.mark.parametrize(
    ("size", "box", "faces", "searched", "cut"),
    [
        ((320, 900), (10, 10, 60, 60), None, 0, 0),  # a crop by its size
        ((600, 600), (100, 100, 350, 350), None, 1, 0),  # a face that fills the image
        ((600, 600), (100, 100, 160, 160), None, 1, 1),  # a photograph
        ((600, 600), (100, 100, 350, 350), True, 1, 1),  # asked for
        ((600, 600), (100, 100, 160, 160), False, 0, 0),
    ],
)
def test_faces_are_cut_from_photographs_and_not_from_crops(
    detector: Detector, size: tuple[int, int], box: Any, faces: bool | None, searched: int, cut: int
) -> None:
    detector.reader._faces = found = Found(box)  # type: ignore[assignment]
    result = detector(random_image(size=size), faces=faces)[0]
    assert (found.calls, len(result.faces)) == (searched, cut)


def test_a_model_of_whole_images_never_cuts_by_itself(detector: Detector) -> None:
    detector.reader._faces = Found((100, 100, 160, 160))  # type: ignore[assignment]
    detector.reader.face_margin = None
    assert not detector(random_image(size=(600, 600)))[0].faces
    assert detector(random_image(size=(600, 600)), faces=True)[0].faces


def test_the_worst_face_speaks_for_the_image(detector: Detector) -> None:
    detector.reader._faces = Found((10, 10, 110, 110), (300, 300, 390, 390), (500, 100, 520, 120))  # type: ignore[assignment]
    image = random_image(size=(700, 600))
    result = detector(image)[0]
    assert [face.box[0] for face in result.faces] == [10, 300]  # the third is too small beside them
    assert result.p_fake == max(face.p_fake for face in result.faces)
    alone = detector(image.crop(detector.reader.face_square(image, result.faces[1].box)), faces=False)[0]
    assert alone.p_fake == pytest.approx(result.faces[1].p_fake, abs=1e-5)


def test_each_box_keeps_its_own_score_in_a_mixed_batch(detector: Detector) -> None:
    """Images of one size share a call of the image processor, so faces are not read in the order of their boxes."""
    detector.reader._faces = Found((300, 300, 390, 390), (10, 10, 110, 110))  # type: ignore[assignment]
    large, small = random_image(1, (700, 600)), random_image(2, (117, 117))  # the size of the second face's square
    squares = [large.crop(detector.reader.face_square(large, face.box)) for face in detector.reader._faces.faces]
    assert squares[0].size == small.size
    expected = [detector(square, faces=False)[0].p_fake for square in squares]
    for images in ([large, small], [small, large]):
        result = next(r for r, image in zip(detector(images), images, strict=True) if image is large)
        assert [face.p_fake for face in result.faces] == pytest.approx(expected, abs=1e-5)


def test_without_a_face_the_whole_photograph_is_scored_and_it_says_so(detector: Detector) -> None:
    detector.reader._faces = Found()  # type: ignore[assignment]
    image = random_image(size=(600, 600))
    result = detector(image)[0]
    assert NO_FACE in result.warnings
    assert result.p_fake == pytest.approx(detector(image, faces=False)[0].p_fake, abs=1e-6)


@pytest.mark.faces
def test_real_photographs_of_faces_are_found(folder: Path, faces_dir: Path, yunet_weights: Path) -> None:
    detector = Detector.from_pretrained(folder, yunet=yunet_weights)
    face = Image.open(sorted((faces_dir / "real" / "ffhq").iterdir())[0]).convert("RGB").resize((220, 220))
    photograph = Image.new("RGB", (1200, 900), (90, 120, 90))
    photograph.paste(face, (200, 300))
    result = detector(photograph)[0]
    assert len(result.faces) == 1
    x0, y0, x1, y1 = result.faces[0].box
    assert 200 < (x0 + x1) / 2 < 420
    assert 300 < (y0 + y1) / 2 < 520


def test_many_threads_get_the_same_results(detector: Detector) -> None:
    images = [random_image(i, (40 + i % 4, 40)) for i in range(24)]
    expected = [result.p_fake for result in detector(images)]

    def judge(i: int) -> list[float]:
        mine = images[i:] + images[:i]
        results = detector(mine) if i % 2 else [detector(image)[0] for image in mine]
        scores = [result.p_fake for result in results]
        return scores[len(images) - i :] + scores[: len(images) - i]

    with ThreadPoolExecutor(8) as threads:
        for scores in threads.map(judge, range(8)):
            assert scores == pytest.approx(expected, abs=1e-5)


def test_a_stream_is_lazy(detector: Detector) -> None:
    asked = 0

    def endless() -> Any:
        nonlocal asked
        while True:
            asked += 1
            yield random_image(asked % 5)

    stream = detector.stream(endless(), batch_size=8)
    assert [next(stream).status for _ in range(20)] == ["ok"] * 20
    assert asked <= 24 + 8 * (detector.engine.workers + 1)


def test_bf16_is_close_to_float32(folder: Path, detector: Detector) -> None:
    images = [random_image(i) for i in range(8)]
    short = Detector.from_pretrained(folder, dtype="bf16").scores(images)
    assert np.abs(short - detector.scores(images)).max() < 2e-2


def test_mistakes_have_hints(folder: Path, tmp_path: Path) -> None:
    for kwargs, message in (
        ({"engine": "tensorrt"}, "unknown engine"),
        ({"engine": "onnx"}, "contains no model.onnx"),
        ({"dtype": "int4"}, "unknown dtype"),
        ({"real_label": "genuine"}, "no label"),
    ):
        with pytest.raises(UsageError, match=message):
            Detector.from_pretrained(folder, **kwargs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot load"):
        Detector.from_pretrained(tmp_path / "nothing")
    save_model(tmp_path / "unnamed", labels=("LABEL_0", "LABEL_1"))
    with pytest.raises(UsageError, match="which label"):
        Detector.from_pretrained(tmp_path / "unnamed")
    assert Detector.from_pretrained(tmp_path / "unnamed", real_label="LABEL_1").real_index == 1


def test_a_folder_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if not name.startswith("classifier")}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match="has no weights"):
        Detector.from_pretrained(tmp_path)


@pytest.mark.slow
def test_it_can_be_had_from_the_package_itself_and_only_then_brings_torch() -> None:
    """And what only training and reports need stays away: it takes seconds to import and 200 MB."""
    code = (
        "import sys, bonaface; assert 'torch' not in sys.modules; from bonaface import Detector; "
        "assert Detector.__module__ == 'bonaface.inference.detector'; assert not hasattr(bonaface, 'Detektor'); "
        "import bonaface.inference.scoring; "
        "assert not {'datasets', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules), list(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
