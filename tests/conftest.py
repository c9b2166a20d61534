"""Fixtures shared by all tests. Nothing here needs the network or a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Said before any Hugging Face library is imported: a test that reaches for the network is a bug.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tiny models gain nothing from threads, and threads that wait for each other on a busy machine lose minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")


ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a process that takes one of them at the end has the others wait for it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def faces_dir() -> Path:
    """Some thousands of real and generated faces with known faults; not part of the project."""
    folder = Path(os.environ.get("BONAFACE_FACES", SHARED / "faces"))
    if not folder.is_dir():
        pytest.skip(f"the folder of faces is missing: {folder}")
    return folder


@pytest.fixture(scope="session")
def yunet_weights() -> Path:
    """The YuNet face detector's weights; users get them from the Hub."""
    path = Path(os.environ.get("BONAFACE_YUNET", SHARED / "models" / "face_detection_yunet.onnx"))
    if not path.is_file():
        pytest.skip(f"the YuNet weights are missing: {path}")
    return path


def make_image(path: Path, seed: int = 0, size: tuple[int, int] = (40, 40), **save: object) -> Path:
    """Write a small picture of coloured noise; the folder is made, the suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


def make_faces(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 40)) -> Path:
    """A data set of noise: ``{"real/camera": 5, "fake/gen": 3}`` gives that many files in each folder.

    Fake pictures are darker, so that a model can learn something.
    """
    seed = 0
    for folder, n in counts.items():
        for i in range(n):
            path = make_image(root / folder / f"{i:03d}.png", seed, size)
            if folder.startswith("fake"):
                Image.open(path).point(lambda level: level // 3).save(path)
            seed += 1
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the configuration of a ConvNeXt of a few thousand weights for 32 px, to be built from scratch.

    It has drop path, so that a run depends on the state of torch's random numbers too.
    """
    from transformers import ConvNextV2Config, ViTImageProcessor

    folder = tmp_path_factory.mktemp("tiny")
    ConvNextV2Config(
        hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32, drop_path_rate=0.2, out_features=["stage2"]
    ).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    ViTImageProcessor(size={"shortest_edge": 32}, do_center_crop=True, crop_size=side).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def plots_not_rendered() -> Iterator[None]:
    """Plots are made but not rendered, which takes most of the time of a tiny training.

    For trainings whose report is not the point: its plots have tests of their own, and other tests train for real.
    """
    from matplotlib.figure import Figure

    def save(self: Figure, target: Any, **options: Any) -> None:
        Image.new("RGB", (1, 1)).save(target, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield
