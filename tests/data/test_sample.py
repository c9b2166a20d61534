"""The embedded sample: reproducible, balanced, and telling its classes apart by traces of formation only.

Protects: the same bytes for the same seed however many threads make them; file facts and appearance that leak
nothing; traces that a linear model finds; a folder that is complete or absent, and is not made twice.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bonaface.data import sample
from bonaface.data.sample import FAKE, REAL, SampleSpec, make_image, write_sample
from bonaface.errors import UsageError
from bonaface.imaging.header import ImageFacts, inspect_image
from bonaface.imaging.images import decode_image

N, SIZE = 300, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("made") / "set", n=N, size=SIZE)


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def files(folder: Path, rows: list[dict[str, str]]) -> list[bytes]:
    return [(folder / row["file_name"]).read_bytes() for row in rows]


@pytest.fixture(scope="module")
def is_fake(rows: list[dict[str, str]]) -> np.ndarray:
    return np.array([row["label"] == "fake" for row in rows])


@pytest.fixture(scope="module")
def facts(files: list[bytes]) -> list[ImageFacts]:
    return [inspect_image(data) for data in files]


def auc(features: np.ndarray, is_fake: np.ndarray, linear: bool = False) -> float:
    """Cross-validated AUC of a classifier on (n, d) features."""
    model = HistGradientBoostingClassifier(max_iter=60)
    if linear:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with threadpool_limits(1):  # OpenMP's threads wait for each other far longer than these few rows take
        scores = cross_val_predict(model, features, is_fake, cv=folds, method="predict_proba")[:, 1]
    return roc_auc_score(is_fake, scores)


def appearance(data: bytes) -> list[float]:
    """Colour moments, brightness, contrast, saturation, sharpness and the border's rows and columns."""
    rgb = np.asarray(decode_image(data)).astype(np.float32)
    mean, std = rgb.mean(axis=(0, 1)), rgb.std(axis=(0, 1))
    skew = (((rgb - mean) / std) ** 3).mean(axis=(0, 1))
    hsv = cv2.cvtColor(rgb / 255, cv2.COLOR_RGB2HSV)
    sharpness = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()
    border = [line for edge in (rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]) for line in (edge.mean(), edge.std())]
    return [*mean, *std, *skew, *hsv.mean(axis=(0, 1)), *hsv.std(axis=(0, 1)), sharpness, *border]


def residual_spectrum(data: bytes) -> np.ndarray:
    """The log power spectrum of the high-pass residual, averaged over tiles: where periodic traces show."""
    grey = cv2.cvtColor(np.asarray(decode_image(data)).astype(np.float32), cv2.COLOR_RGB2GRAY)
    residual = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    window = np.outer(np.hanning(32), np.hanning(32))
    power = np.zeros((32, 17))
    for top in range(0, SIZE - 31, 16):
        for left in range(0, SIZE - 31, 16):
            power += np.abs(np.fft.rfft2(residual[top : top + 32, left : left + 32] * window)) ** 2
    return np.log(power).ravel()


def test_layout_counts_and_balance(folder: Path, rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == ["file_name", "label", "source", "group"]
    assert len(rows) == N == len(list(folder.rglob("*.jpg")))
    assert Counter(row["label"] for row in rows) == {"real": N // 2, "fake": N // 2}
    counts = Counter(row["source"] for row in rows)
    assert set(counts) == {*REAL, *FAKE}
    assert {counts[source] for source in REAL} == {N // 4}
    assert {counts[source] for source in FAKE} == {N // 6}
    assert all(row["file_name"].startswith(f"{row['label']}/{row['source']}/") for row in rows)
    assert all((row["label"] == "real") == (row["source"] in REAL) for row in rows)
    assert len({row["group"] for row in rows}) == N  # nobody is in two images, so in two classes or splits


def test_every_file_is_of_the_same_kind(facts: list[ImageFacts]) -> None:
    kinds = {(f.format, f.mode, f.width, f.height, f.chroma_subsampling, f.progressive) for f in facts}
    assert kinds == {("JPEG", "RGB", SIZE, SIZE, "4:4:4", False)}
    assert not any(f.has_exif or f.has_icc or f.has_c2pa for f in facts)
    assert len({f.jpeg_quality for f in facts}) > 5


def test_file_facts_do_not_tell(facts: list[ImageFacts], is_fake: np.ndarray) -> None:
    features = np.array([[f.n_bytes, f.n_bytes / (f.width * f.height), f.jpeg_quality] for f in facts], float)
    assert auc(features, is_fake) < 0.62
    assert abs(roc_auc_score(is_fake, features[:, 0]) - 0.5) < 0.1


def test_appearance_does_not_tell(files: list[bytes], is_fake: np.ndarray) -> None:
    features = np.array([appearance(data) for data in files])
    assert auc(features, is_fake) < 0.62
    assert auc(features, is_fake, linear=True) < 0.62


def test_traces_of_formation_tell(files: list[bytes], is_fake: np.ndarray) -> None:
    features = np.array([residual_spectrum(data) for data in files])
    assert auc(features, is_fake, linear=True) > 0.97


@pytest.mark.parametrize("source", [*REAL, *FAKE])
def test_formation_meets_its_twin(source: str, rows: list[dict[str, str]]) -> None:
    """One portrait through every formation: the same file size and sharpness, whatever formed it."""
    sizes, sharpness = [], []
    for other in (REAL[0], source):
        rng = np.random.default_rng(3)
        scene = sample.draw_portrait(2 * (SIZE + 2 * sample.MARGIN), rng)
        twin = sample.make_twin(sample._to_srgb(sample._half(sample._to_linear(scene))), rng)
        form = sample.photograph if other in REAL else sample.generate
        image = sample.finish(*form(scene, other, rng), twin, 90)
        sizes.append(len(sample.encode(image, 90)))
        sharpness.append(sample._laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).var())
        assert abs(image.mean() - twin.mean()) < 0.01
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
    assert sharpness[1] == pytest.approx(sharpness[0], rel=0.01)


def test_bytes_depend_on_the_seed_and_index_alone(folder: Path, rows: list[dict[str, str]], tmp_path: Path) -> None:
    smaller = write_sample(tmp_path / "smaller", n=20, size=SIZE)
    for path in smaller.rglob("*.jpg"):
        assert path.read_bytes() == (folder / path.relative_to(smaller)).read_bytes()
    other, same = (make_image(SampleSpec(20, SIZE, seed), 0)[1] for seed in (1, 0))
    assert same == (folder / "real/camera_a/0000.jpg").read_bytes()
    assert other != same


def test_a_complete_folder_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(sample, "make_image", fail)
    assert write_sample(folder, n=N, size=SIZE) == folder


def test_another_set_or_anything_else_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not this sample set"):
        write_sample(folder, n=N, size=SIZE, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError):
        write_sample(tmp_path / "mine", n=20, size=32)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    with pytest.raises(UsageError):
        write_sample(tmp_path / "mine" / "thesis.txt", n=20, size=32)


@pytest.mark.parametrize("options", [{"n": 19}, {"size": 31}, {"size": 5000}, {"size": 45}, {"seed": -1}])
def test_senseless_parameters(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_sample(tmp_path / "x", **options)
    assert caught.value.hint
    assert not (tmp_path / "x").exists()


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sample.make_image

    def fail_late(spec: SampleSpec, index: int) -> tuple[str, bytes]:
        if index == 15:
            raise KeyboardInterrupt
        return real(spec, index)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "make_image", fail_late)
        with pytest.raises(KeyboardInterrupt):
            write_sample(tmp_path / "set", n=20, size=32)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()  # an empty folder is taken as the place
    write_sample(tmp_path / "set", n=20, size=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_two_processes_may_write_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower of two ranks finds the other's complete set in its place and takes it."""
    out, made = tmp_path / "set", sample._write_folder

    def other_was_quicker(folder: Path, spec: SampleSpec) -> None:
        made(folder, spec)
        made(out, spec)

    monkeypatch.setattr(sample, "_write_folder", other_was_quicker)
    assert write_sample(out, n=20, size=32) == out
    assert len(list(out.rglob("*.jpg"))) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("size", [32, 44, 64])
def test_small_sizes(size: int) -> None:
    for index in range(6):
        source, data = make_image(SampleSpec(20, size, 0), index)
        assert Image.open(io.BytesIO(data)).size == (size, size)
        assert source in REAL + FAKE
