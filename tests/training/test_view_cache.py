"""Kept features are what would be computed, image by image: a kill, another fold or another order changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_data

from bonaface.data.dataset import FaceData, content_digest
from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.images import decode_image
from bonaface.imaging.transforms import EvalTransform, TrainTransform, sample_seed
from bonaface.models.load import load_model
from bonaface.training import view_cache
from bonaface.training.view_cache import ViewCache


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_model("resnet", ["fake", "real"], image_size=32)[1]


def means(rows: ImageRows) -> np.ndarray:
    """A network so small that its features can be told: the mean of each channel."""
    return np.stack([rows[i]["pixel_values"].mean((1, 2)).numpy() for i in range(len(rows))])


def make_cache(processor: Any, folder: Path, run: Callable[[ImageRows], np.ndarray] = means, **told: Any) -> ViewCache:
    settings = {"weights": [("w", torch.ones(3))], "augmentation": "light", "seed": 3, **told}
    return ViewCache(settings["weights"], processor, settings["augmentation"], settings["seed"], run, folder)


def test_what_is_kept_is_what_the_network_makes_of_the_drawn_view(
    data: FaceData, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_cache, "BLOCK", 16)
    rows = data.splits["train"]
    views = make_cache(processor, tmp_path).drawn(rows, 2)
    transform = TrainTransform(processor, "light")
    for view, row in ((0, 0), (1, 20), (1, len(rows) - 1)):
        image = rows[row]["image"]
        seed = sample_seed(3, view, int(content_digest(image), 16))
        drawn = transform.output.normalize(transform(decode_image(Path(image["path"]).read_bytes()), seed))
        np.testing.assert_allclose(views[view][row], drawn.mean((1, 2)), atol=1e-5)
    assert not np.allclose(views[0].whole(), views[1].whole())
    plain = make_cache(processor, tmp_path).plain(rows)
    expected = EvalTransform(processor)(decode_image(Path(rows[5]["image"]["path"]).read_bytes()))
    np.testing.assert_allclose(plain[5], expected.mean((1, 2)), atol=1e-5)


def test_a_kill_loses_one_block_and_changes_nothing(
    data: FaceData, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_cache, "BLOCK", 16)
    rows = data.splits["train"]
    whole = make_cache(processor, tmp_path / "whole").drawn(rows, 2)
    computed: list[int] = []

    def dying(rows: ImageRows) -> np.ndarray:
        computed.append(len(rows))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return means(rows)

    with pytest.raises(KeyboardInterrupt):
        make_cache(processor, tmp_path / "killed", dying).drawn(rows, 2)
    (half := next((tmp_path / "killed").rglob("*.npy"))).write_bytes(half.read_bytes()[:50])
    computed[:] = [0] * 10
    again = make_cache(processor, tmp_path / "killed", dying).drawn(rows, 2)
    for one, other in zip(again, whole, strict=True):
        np.testing.assert_array_equal(one.whole(), other.whole())
    assert sum(computed) == 2 * len(rows) - 16  # one of the two finished blocks was damaged


def test_another_fold_computes_only_what_is_new(data: FaceData, processor: Any, tmp_path: Path) -> None:
    rows, computed = data.splits["train"], []

    def counting(rows: ImageRows) -> np.ndarray:
        computed.append(len(rows))
        return means(rows)

    first = make_cache(processor, tmp_path, counting).drawn(rows.select(range(30)), 1)[0]
    other = rows.select([*range(40, 20, -1)])
    second = make_cache(processor, tmp_path, counting).drawn(other, 1)[0]
    assert computed == [30, 11]
    np.testing.assert_array_equal(second[20 - 5], first[25])  # the same image at another place


def test_folds_that_run_at_the_same_time_compute_no_image_twice(
    data: FaceData, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_cache, "BLOCK", 8)
    rows, computed, both_compute = data.splits["train"], [], Barrier(2, timeout=60)

    def meeting(rows: ImageRows) -> np.ndarray:
        if len(computed) < 2:
            computed.append(len(rows))
            both_compute.wait()
        else:
            computed.append(len(rows))
        return means(rows)

    def fold(chosen: range) -> np.ndarray:
        return make_cache(processor, tmp_path / "shared", meeting).drawn(rows.select(chosen), 1)[0].whole()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fold, [range(30), range(10, 40)])
    assert sum(computed) == 40
    alone = make_cache(processor, tmp_path / "alone").drawn(rows.select(range(40)), 1)[0].whole()
    np.testing.assert_array_equal(first, alone[:30])
    np.testing.assert_array_equal(second, alone[10:])


def test_a_disk_that_gives_nothing_back_ends_the_work(
    data: FaceData, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems map no files to memory."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("cannot map")

    monkeypatch.setattr(view_cache.np, "load", refuse)
    with pytest.raises(UsageError, match="cannot be read back"):
        make_cache(processor, tmp_path).drawn(data.splits["train"].select(range(4)), 1)


def test_copies_of_a_file_are_one_image(data: FaceData, processor: Any, tmp_path: Path) -> None:
    rows = data.splits["train"].select([4, 4, 5])
    view = make_cache(processor, tmp_path).drawn(rows, 1)[0]
    np.testing.assert_array_equal(view[0], view[1])
    assert len(np.load(next(tmp_path.rglob("*.npy")))) == 2


def test_the_folder_follows_the_weights_the_views_and_the_seed(processor: Any, tmp_path: Path) -> None:
    def place(**told: Any) -> Path:
        return make_cache(processor, tmp_path, **told).place

    others = [place(weights=[("w", torch.zeros(3))]), place(weights=[("v", torch.ones(3))]),
              place(augmentation="robust"), place(seed=4)]  # fmt: skip
    assert place() == place()
    assert len({place(), *others}) == 5
