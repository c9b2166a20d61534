"""Each image is read and decoded once, and what comes out is what the detector says of it, in row order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_data, tiny_run

from bonaface.data.dataset import FaceData, image_bytes
from bonaface.evaluation import scores
from bonaface.evaluation.robustness import all_variants
from bonaface.evaluation.scores import CLEAN, Variant, degrade, score_images
from bonaface.imaging.degradations import DEGRADATIONS
from bonaface.imaging.images import decode_image
from bonaface.inference.detector import Detector


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tiny_data(tmp_path_factory.mktemp("scores") / "data", 20)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory, data: FaceData) -> list[Detector]:
    root = tmp_path_factory.mktemp("models")
    return [Detector.from_pretrained(tiny_run(root / str(seed), data, seed)) for seed in (0, 1)]


def test_one_decoding_whatever_is_done(
    data: FaceData, detectors: list[Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All degradations and two models, and each of the files is decoded once."""
    names: list[str] = []

    def counting(payload: bytes, *, name: str) -> Image.Image:
        names.append(name)
        return decode_image(payload, name=name)

    monkeypatch.setattr(scores, "decode_image", counting)
    rows = data.splits["test"].select(range(6))
    scored = score_images(rows, detectors, variants=all_variants(), threads=3, batch_size=50)
    assert sorted(names) == sorted(rows["path"])
    assert [p.shape for p in scored.probabilities] == [(6, len(all_variants()), 2)] * 2
    assert scored.readable.tolist() == list(range(6))
    np.testing.assert_allclose(scored.probabilities[0].sum(axis=2), 1, atol=1e-9)


def test_scores_are_those_of_the_detector(data: FaceData, detectors: list[Detector]) -> None:
    """Clean and degraded, however batches and threads fall."""
    rows = data.splits["test"]
    variants = [CLEAN, Variant("jpeg", 30), Variant("noise", 10), Variant("crop", 0.5)]
    scored = score_images(rows, detectors, variants=variants, batch_size=7, threads=2)
    for row in (0, 3, len(rows) - 1):
        image = decode_image(image_bytes(rows[row]["image"]), name="")
        images = [degrade(image, variant, rows[row]["path"]) for variant in variants]
        for detector, found in zip(detectors, scored.probabilities, strict=True):
            np.testing.assert_allclose(found[row], detector.scores(images), atol=1e-5)
        np.testing.assert_allclose(scored.features[0][row], detectors[0].features([image])[0], atol=1e-4)
    alone = score_images(rows, detectors[1:], variants=variants, batch_size=64, threads=1)
    np.testing.assert_allclose(alone.probabilities[0], scored.probabilities[1], atol=1e-5)


def test_a_degradation_that_does_nothing_costs_nothing(
    data: FaceData, detectors: list[Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images smaller than the downscaling's target keep their score without being run again."""
    seen = []
    run = scores.probabilities_of
    monkeypatch.setattr(scores, "probabilities_of", lambda d, pixels: seen.append(len(pixels)) or run(d, pixels))
    variants = [CLEAN, Variant("downscale", 512), Variant("downscale", 128), Variant("blur", 2)]
    scored = score_images(data.splits["test"], detectors[:1], variants=variants)
    assert sum(seen) == 2 * len(data.splits["test"])
    p = scored.probabilities[0]
    assert (p[:, 0] == p[:, 1]).all()
    assert (p[:, 0] == p[:, 2]).all()
    assert (p[:, 0] != p[:, 3]).any()


def test_the_same_image_is_degraded_alike_everywhere() -> None:
    image = Image.effect_noise((40, 40), 60).convert("RGB")
    noisy = Variant("noise", 10)
    first, again, other = (degrade(image, noisy, path) for path in ("a.jpg", "a.jpg", "b.jpg"))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert degrade(image, CLEAN, "a.jpg") is image
    assert {variant.degradation for variant in all_variants(quick=True)} == {"", *DEGRADATIONS}
    assert len(all_variants()) > 40 > len(all_variants(quick=True))


def test_what_cannot_be_read_is_said_and_stops_nothing(tmp_path: Path, detectors: list[Detector]) -> None:
    data = tiny_data(tmp_path / "data", 12)
    rows = data.splits["test"]
    for i, payload in ((1, b""), (2, b"no image")):
        Path(rows[i]["image"]["path"]).write_bytes(payload)
    looked = []
    scored = score_images(rows, detectors, has_face=lambda image: looked.append(image.size) is not None)
    assert scored.errors == {1: "empty", 2: scored.errors[2]}
    assert scored.errors[2] in ("not an image", "wrong extension")
    assert np.isnan(scored.probabilities[0][1]).all()
    assert len(scored.readable) == len(rows) - 2 == len(looked)
    assert scored.faceless == set(scored.readable.tolist())
    assert score_images(rows.select([]), detectors).readable.tolist() == []
