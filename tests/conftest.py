"""Fixtures shared by all tests. Nothing here needs the network or a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Said before any Hugging Face library is imported: a test that reaches for the network is a bug.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def faces_dir() -> Path:
    """3,880 real and generated faces with known faults; not part of the project."""
    folder = Path(os.environ.get("BONAFIDE_FACES", SHARED / "faces"))
    if not folder.is_dir():
        pytest.skip(f"the folder of faces is missing: {folder}")
    return folder


@pytest.fixture(scope="session")
def yunet_weights() -> Path:
    """The YuNet face detector's weights; users get them from the Hub."""
    path = Path(os.environ.get("BONAFIDE_YUNET", SHARED / "models" / "face_detection_yunet.onnx"))
    if not path.is_file():
        pytest.skip(f"the YuNet weights are missing: {path}")
    return path
