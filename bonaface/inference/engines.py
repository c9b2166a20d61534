"""Engines that run a network: torch, OpenVINO or ONNX Runtime, all with one signature.

An engine takes float32 pixels (n, 3, height, width) and gives logits (n, classes) and features (n, d): what the last
linear layer reads, or None where the network does not end in one.
"""

from __future__ import annotations

import os
import threading
from functools import cache
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
    TimmWrapperConfig,
)
from transformers.utils import logging as transformers_logging

from bonaface.errors import UsageError
from bonaface.inference.forward import Outputs, with_fast_products
from bonaface.models.features import LastLayer
from bonaface.models.load import timm_processor
from bonaface.models.parts import is_convolutional, move

OPENVINO_FILE, ONNX_FILE = "openvino_model.xml", "model.onnx"
ENGINES = ("auto", "torch", "openvino", "onnx")
CPU_BATCH, GPU_BATCH = 4, 64
_CORE_LOCK = threading.Lock()
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16}


class Engine(Protocol):
    """Pixels float32 (n, 3, h, w) -> logits float32 (n, classes), features float32 (n, d) or None.

    Attributes:
        batch_size: the fastest number of images at once; small on a CPU, whose caches hold few images' features.
        workers: threads that may call ``in_worker`` at once, each busy on one core; 0: the device takes one caller.
    """

    name: str
    batch_size: int
    workers: int

    def __call__(self, pixels: torch.Tensor) -> Outputs:
        """With all cores, for one caller at a time."""

    def in_worker(self, pixels: torch.Tensor) -> Outputs:
        """With the calling thread's core, for several callers at once."""


class TorchEngine:
    """The network itself. How many cores a call takes is the calling thread's ``torch.set_num_threads``."""

    name = "torch"

    def __init__(self, model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.format = torch.channels_last if is_convolutional(model) else torch.contiguous_format
        self.model = with_fast_products(move(model, device=device, dtype=dtype, memory_format=self.format).eval())
        on_cpu = device.type == "cpu"
        self.batch_size, self.workers = (CPU_BATCH, torch.get_num_threads()) if on_cpu else (GPU_BATCH, 0)
        self._last = LastLayer(self.model)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> Outputs:
        """On the device, or on the calling thread's cores."""
        logits, features = self._last.run(pixels.to(self.device, self.dtype, memory_format=self.format))
        return Outputs(logits.float().cpu().numpy(), None if features is None else features.float().cpu().numpy())

    in_worker = __call__


def openvino_core() -> Any:
    """OpenVINO's one core of this process, which is never let go.

    Its CPU plugin gives the thread that compiles first a stack for signal handlers, and frees it with the core. Where
    another thread drops the core, the first is left with a stack that is gone: the next signal that has a handler, a
    child's end for one, kills the process without a word.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    with _CORE_LOCK:  # the cache alone would let threads that come at once make one each
        return _core()


@cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UsageError("OpenVINO is not installed", "pip install 'bonaface[export]'") from error
    return openvino.Core()


class OpenVINOEngine:
    """An exported network on OpenVINO's CPU plugin: compiled for latency, and once more for throughput when asked."""

    name, batch_size = "openvino", CPU_BATCH

    def __init__(self, file: Path, dtype: torch.dtype) -> None:
        self.workers = torch.get_num_threads()
        self._core, self._file = openvino_core(), file
        self._precision = "bf16" if dtype == torch.bfloat16 else "f32"
        self._alone = self._compiled({"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        self._shared: Any = None
        self._lock, self._requests = threading.Lock(), threading.local()

    def __call__(self, pixels: torch.Tensor) -> Outputs:
        """With all cores, for one caller at a time."""
        return _arrays(self._alone, pixels)

    def in_worker(self, pixels: torch.Tensor) -> Outputs:
        """One of OpenVINO's streams for each worker."""
        request = getattr(self._requests, "own", None)
        if request is None:
            with self._lock:
                if self._shared is None:
                    streams = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.workers}
                    self._shared = self._compiled({**streams, "INFERENCE_NUM_THREADS": self.workers})
            request = self._requests.own = self._shared.create_infer_request()
        return _arrays(request, pixels)

    def _compiled(self, settings: dict[str, Any]) -> Any:
        return self._core.compile_model(
            str(self._file), "CPU", {"INFERENCE_PRECISION_HINT": self._precision, **settings}
        )


def _arrays(request: Any, pixels: torch.Tensor) -> Outputs:
    request.infer(pixels.numpy())
    arrays = [np.array(output.data) for output in request.output_tensors]
    return Outputs(arrays[0], arrays[1] if len(arrays) > 1 else None)


class OnnxEngine:
    """An exported network on ONNX Runtime, CPU: one session for all cores, and one for a core each when asked."""

    name, batch_size = "onnx", CPU_BATCH

    def __init__(self, file: Path, dtype: torch.dtype) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError("ONNX Runtime is not installed", "pip install 'bonaface[export]'") from error
        if dtype != torch.float32:
            raise UsageError("ONNX Runtime does not support bf16 on a CPU", "leave out dtype, or use engine openvino")
        self._runtime, self._file = onnxruntime, file
        self.workers = torch.get_num_threads()
        self._alone, self._shared = self._session(self.workers), None
        self._lock = threading.Lock()

    def __call__(self, pixels: torch.Tensor) -> Outputs:
        """With all cores, for one caller at a time."""
        return _session_arrays(self._alone, pixels)

    def in_worker(self, pixels: torch.Tensor) -> Outputs:
        """A session of one thread, which several threads may run at once."""
        with self._lock:
            if self._shared is None:
                self._shared = self._session(1)
        return _session_arrays(self._shared, pixels)

    def _session(self, threads: int) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        return self._runtime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])


def _session_arrays(session: Any, pixels: torch.Tensor) -> Outputs:
    arrays = session.run(None, {"pixel_values": pixels.numpy()})
    return Outputs(arrays[0], arrays[1] if len(arrays) > 1 else None)


def load_engine(
    folder: Path,
    engine: str = "auto",
    *,
    name: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None,
) -> tuple[Engine, PreTrainedConfig, Any]:
    """An engine, the model's configuration and its image processor.

    Args:
        folder: of the model.
        name: what the user called it, for messages; the folder when None.
        engine: ``"auto"`` takes torch where the folder holds its weights, else the exported network.
        device: of torch; "cuda" where there is one, else "cpu".
        dtype: float32 when None, "bf16" on request.

    Raises:
        UsageError: not found, no classifier, or the engine or its network is missing.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", "choose " + ", ".join(ENGINES))
    precision = _precision(dtype)
    name = os.fspath(name or folder)
    files = {"openvino": folder / OPENVINO_FILE, "onnx": folder / ONNX_FILE}
    if engine == "auto":
        has_weights = any(folder.glob("model*.safetensors*")) or not folder.is_dir()
        engine = "torch" if has_weights else next((e for e, file in files.items() if file.is_file()), "torch")
    config = _load(AutoConfig, name, folder)
    is_timm = isinstance(config, TimmWrapperConfig)
    processor = timm_processor(config) if is_timm else _load(AutoImageProcessor, name, folder)
    if engine == "torch":
        chosen = _device(device)
        return TorchEngine(_load_classifier(name, folder, config), chosen, precision), config, processor
    if not files[engine].is_file():
        raise UsageError(
            f"{name} contains no {files[engine].name}", f"create it: bonaface export {name} --format {engine}"
        )
    if device not in (None, "cpu"):
        raise UsageError(
            f"engine {engine} runs on the CPU, not on {device}", "leave out the device, or use engine torch"
        )
    if engine == "openvino":
        return OpenVINOEngine(files[engine], precision), config, processor
    return OnnxEngine(files[engine], precision), config, processor


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown; or torch was built without it, or finds no driver
        raise UsageError(f"device {name!r} is not available", "choose cpu, or cuda if there is a GPU") from error
    return device


def _precision(dtype: str | torch.dtype | None) -> torch.dtype:
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype or "float32")
    if found is None or found not in DTYPES.values():
        raise UsageError(f"unknown dtype {dtype!r}", "choose float32 or bf16")
    return found


def _load_classifier(name: str, folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, info = _load(
            AutoModelForImageClassification,
            name,
            folder,
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
            f"{name} has no weights for its classifier ({sorted(info['missing_keys'])[0]})",
            "choose a model that was trained for image classification",
        )
    return model


def _load(auto: Any, name: str, folder: Path, **kwargs: Any) -> Any:
    try:
        return auto.from_pretrained(str(folder), **kwargs)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"cannot load the model {name}: {reason}",
            "give a model folder with config.json, model.safetensors and preprocessor_config.json, or a Hub id",
        ) from error
