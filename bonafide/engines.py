"""What runs a network: torch, OpenVINO or ONNX Runtime, all with one signature.

An engine takes float32 pixels (n, 3, height, width) and gives logits (n, classes) and features (n, d): what the last
linear layer reads, or None where the network does not end in one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from bonafide.errors import UsageError
from bonafide.inference import forward
from bonafide.training import is_convolutional

OPENVINO_FILE, ONNX_FILE = "openvino_model.xml", "model.onnx"
ENGINES = ("auto", "torch", "openvino", "onnx")
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16}

Outputs = tuple[np.ndarray, np.ndarray | None]


class Engine(Protocol):
    """Pixels float32 (n, 3, h, w) -> logits float32 (n, classes), features float32 (n, d) or None."""

    name: str

    def __call__(self, pixels: torch.Tensor) -> Outputs: ...


class TorchEngine:
    """The network itself; not safe to call from several threads at once (the detector's lock sees to that)."""

    name = "torch"

    def __init__(self, model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.format = torch.channels_last if is_convolutional(model) else torch.contiguous_format
        self.model = model.to(device=device, dtype=dtype, memory_format=self.format).eval()
        self._threads = torch.get_num_threads()

    def __call__(self, pixels: torch.Tensor) -> Outputs:
        if torch.get_num_threads() != self._threads:  # the number is each thread's own; decoding threads are given 1
            torch.set_num_threads(self._threads)
        logits, features = forward(self.model, pixels.to(self.device, self.dtype, memory_format=self.format))
        return logits.float().cpu().numpy(), None if features is None else features.float().cpu().numpy()


class OpenVINOEngine:
    """An exported network on OpenVINO's CPU plugin."""

    name = "openvino"

    def __init__(self, file: Path, dtype: torch.dtype) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UsageError("OpenVINO is not installed", "pip install openvino") from error
        precision = "bf16" if dtype == torch.bfloat16 else "f32"
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self._network = openvino.Core().compile_model(str(file), "CPU", settings)

    def __call__(self, pixels: torch.Tensor) -> Outputs:
        outputs = self._network(pixels.numpy())
        arrays = [np.array(outputs[port]) for port in self._network.outputs]
        return arrays[0], arrays[1] if len(arrays) > 1 else None


class OnnxEngine:
    """An exported network on ONNX Runtime, CPU."""

    name = "onnx"

    def __init__(self, file: Path, dtype: torch.dtype) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError("ONNX Runtime is not installed", "pip install onnxruntime") from error
        if dtype != torch.float32:
            raise UsageError("ONNX Runtime has no bf16 on a CPU", "leave dtype out, or use engine openvino")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: torch.Tensor) -> Outputs:
        arrays = self._session.run(None, {"pixel_values": pixels.numpy()})
        return arrays[0], arrays[1] if len(arrays) > 1 else None


def load_engine(
    name: str | os.PathLike[str], engine: str = "auto", *, device: str | None = None, dtype: str | torch.dtype | None
) -> tuple[Engine, PreTrainedConfig, Any]:
    """An engine, the model's configuration and its image processor.

    Args:
        name: model folder or Hub id; exported folders are local.
        engine: ``"auto"`` takes torch where the folder holds its weights, else the exported network.
        device: of torch; "cuda" where there is one, else "cpu".
        dtype: float32 when None, "bf16" on request.

    Raises:
        UsageError: not found, no classifier, or the engine or its network is missing.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", "choose " + ", ".join(ENGINES))
    precision = _precision(dtype)
    name, folder = os.fspath(name), Path(name)
    files = {"openvino": folder / OPENVINO_FILE, "onnx": folder / ONNX_FILE}
    if engine == "auto":
        has_weights = any(folder.glob("model*.safetensors*")) or not folder.is_dir()
        engine = "torch" if has_weights else next((e for e, file in files.items() if file.is_file()), "torch")
    config = _load(AutoConfig, name)
    processor = _load(AutoImageProcessor, name)
    if engine == "torch":
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return TorchEngine(_load_classifier(name, config), chosen, precision), config, processor
    if not files[engine].is_file():
        raise UsageError(
            f"{name} holds no {files[engine].name}", f"write one: python -m bonafide export {name} --format {engine}"
        )
    if device not in (None, "cpu"):
        raise UsageError(f"engine {engine} runs on the CPU here, not on {device}", "leave the device out, or use torch")
    if engine == "openvino":
        return OpenVINOEngine(files[engine], precision), config, processor
    return OnnxEngine(files[engine], precision), config, processor


def _precision(dtype: str | torch.dtype | None) -> torch.dtype:
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype or "float32")
    if found is None or found not in DTYPES.values():
        raise UsageError(f"unknown dtype {dtype!r}", "choose float32 or bf16")
    return found


def _load_classifier(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, info = _load(
            AutoModelForImageClassification,
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    finally:
        if bar:
            transformers_logging.enable_progress_bar()
    if info["missing_keys"]:  # transformers would fill them with random numbers and go on
        raise UsageError(
            f"{name} lacks weights of its classifier ({sorted(info['missing_keys'])[0]})",
            "give a model that was trained for image classification",
        )
    return model


def _load(auto: Any, name: str, **kwargs: Any) -> Any:
    try:
        return auto.from_pretrained(name, **kwargs)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"cannot load the model {name}: {reason}",
            "give a model folder with config.json, model.safetensors and preprocessor_config.json, or a Hub id",
        ) from error
