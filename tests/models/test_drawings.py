"""A model that knows drawn portraits alone: recognised by its training sources, wherever the sample was copied to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bonaface.data.dataset import load_data
from bonaface.data.prepare import prepare
from bonaface.data.sample import write_sample
from bonaface.models.drawings import FAKE, REAL, only_drawings


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("drawings") / "sample", 120, 32, 3)


def sources_of(folder: Path) -> set[str]:
    return set(load_data(folder, validation_size=0.3, test_size=0.3).splits["train"]["source"])


def test_the_sample_is_recognised_also_when_copied_cut_down_or_prepared(sample: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sample, tmp_path / "mine"))
    (copy / "metadata.csv").unlink()
    (copy / ".bonaface-sample.json").unlink()
    shutil.rmtree(copy / "fake" / FAKE[0])
    prepare(sample, tmp_path / "prepared", faces=False, size_range=(32, 32), workers=1)
    for folder in (sample, copy, tmp_path / "prepared"):
        assert only_drawings(sources_of(folder)), folder


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [""],
        [*REAL, *FAKE, "ffhq"],  # photographs too
        [REAL[0], ""],  # a camera that somebody calls like this, and unnamed fakes
        [REAL[0], REAL[1]],
        ["ffhq", "sdxl"],
    ],
)
def test_other_data_is_not_taken_for_it(sources: list[str]) -> None:
    assert not only_drawings(sources)
