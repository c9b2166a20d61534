"""What identifies a model folder's weights."""

from __future__ import annotations

import hashlib
from pathlib import Path


def weights_digest(folder: Path) -> str:
    """SHA-256, as 64 hexadecimal digits, of the weights' files in the order of their names; empty where there are none.

    The files are those of torch (safetensors) or else of an export (ONNX, OpenVINO).
    """
    files = sorted(folder.glob("model*.safetensors")) or sorted([*folder.glob("*.onnx"), *folder.glob("openvino*.bin")])
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest() if files else ""
