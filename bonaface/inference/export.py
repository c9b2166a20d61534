"""A model folder -> the same detector on OpenVINO or ONNX Runtime, checked before anything is written.

The new folder holds the network (logits, and the features that the unfamiliar are told by), the configuration with all
its facts and the image processor's; :meth:`detector.Detector.from_pretrained` loads it without torch's weights
and model code. The check scores the same pictures with both and refuses to write a folder that says something else.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bonaface.data.dataset import balanced_subset, image_bytes, list_data
from bonaface.data.sample import SampleSpec, make_image
from bonaface.errors import UsageError
from bonaface.files import atomic_folder
from bonaface.imaging.images import decode_image
from bonaface.imaging.transforms import Preprocessing
from bonaface.inference import unfamiliar
from bonaface.inference.detector import Detector, Result
from bonaface.inference.engines import ONNX_FILE, OPENVINO_FILE, TorchEngine, openvino_core
from bonaface.inference.forward import forward
from bonaface.models.facts import ModelFacts
from bonaface.models.features import LastLayer
from bonaface.models.load import is_convolutional
from bonaface.stats.figures import percent

FORMATS = {"openvino": OPENVINO_FILE, "onnx": ONNX_FILE}
PRECISIONS = {"float32": 1e-4, "bf16": 2e-2}  # the largest difference of a probability
MAX_AUC_LOSS, MAX_FLIPS = 0.005, 0.02  # of int8
N_CHECK, N_CALIBRATION = 200, 300  # pictures
TINY = 1e-12  # of a probability, before its logarithm


@dataclass(frozen=True)
class Check:
    """An exported network beside its original, on the same pictures.

    Attributes:
        precision: "float32", "bf16" or "int8".
        n: pictures.
        difference: the largest of any label's probability; on drawn portraits the largest that their logits allow.
        flips: share of pictures with another verdict.
        auc_loss: the original's AUC less the exported one's; None where the pictures have no labels of both kinds.
    """

    precision: str
    n: int
    difference: float
    flips: float
    auc_loss: float | None

    @property
    def passed(self) -> bool:
        """Whether it may be written."""
        if self.precision in PRECISIONS:
            return self.difference <= PRECISIONS[self.precision]
        return self.flips <= MAX_FLIPS and (self.auc_loss is None or self.auc_loss <= MAX_AUC_LOSS)

    def __str__(self) -> str:
        auc = "" if self.auc_loss is None else f", AUC lower by {self.auc_loss:.4f}"
        scores = f"largest difference of a score {self.difference:.2g}, {percent(self.flips)} of verdicts differ"
        return f"{self.precision}: {scores}{auc} ({self.n} pictures)"


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str,
    *,
    int8: bool = False,
    data: str | None = None,
    real_label: str | None = None,
    n_check: int = N_CHECK,
    n_calibration: int = N_CALIBRATION,
) -> list[Check]:
    """Write a model for another engine, if it says the same as before.

    Args:
        model: a folder with torch weights, or a Hub id.
        out: a new or empty folder.
        format: "openvino" or "onnx".
        int8: quantise weights and activations with NNCF, calibrated on pictures of ``data``.
        data: labelled pictures to check on, in any form that training takes; without it, float32 and bf16 are checked
            on drawn portraits.

    Returns:
        What the check found; "bf16" is there for OpenVINO where the processor has it.

    Raises:
        UsageError: the format or the folder will not do, a package is missing, int8 without data, or the check failed.
    """
    out = Path(out)
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", "choose " + " or ".join(FORMATS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", "name a new folder with --out")
    if int8 and data is None:
        raise UsageError("int8 needs pictures to be calibrated and checked on", "name a labelled folder with --data")
    _require(format, int8)
    detector = Detector.from_pretrained(model, device="cpu", engine="torch", real_label=real_label)
    calibration, pictures, fakes = _pictures(data, real_label, n_check, n_calibration if int8 else 0)
    with atomic_folder(out) as partial:
        _write_network(detector, partial, format, calibration)
        _write_facts(detector, partial, real_label)
        checks = _check(detector, partial, format, pictures, fakes, ["int8"] if int8 else list(PRECISIONS))
        failed = [check for check in checks if not check.passed]
        if failed:
            raise UsageError(
                f"not written, for it would not say the same: {failed[0]}",
                "export it without --int8"
                if int8
                else "check it on pictures of your own with --data, try the other format, or keep to torch",
            )
    return checks


def run_export_command(
    model: str,
    format: str,
    out: str | os.PathLike[str] | None = None,
    *,
    int8: bool = False,
    data: str | None = None,
    real_label: str | None = None,
    n_check: int = N_CHECK,
    n_calibration: int = N_CALIBRATION,
) -> int:
    """``python -m bonaface export``: 0 when it is written; OUT is MODEL-FORMAT if not given. Raises UsageError."""
    folder = Path(out or f"{Path(model).name.replace('@', '-')}-{format}{'-int8' if int8 else ''}")
    checks = export_model(
        model,
        folder,
        format,
        int8=int8,
        data=data,
        real_label=real_label,
        n_check=n_check,
        n_calibration=n_calibration,
    )
    for check in checks:
        print(check)
    print(f"written: {folder}; use it as --model {folder}")
    return 0


class WithFeatures(nn.Module):
    """Pixels -> logits and penultimate features, traceable: for models of which :func:`forward.forward` finds some."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self._last = model, LastLayer(model)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Float (n, 3, h, w) -> (n, classes), (n, width)."""
        with self._last.calls() as calls:
            logits = self.model(pixel_values=pixel_values).logits
        return logits, calls[0][0]


class LogitsOnly(nn.Module):
    """Pixels -> logits, for networks that do not end in a linear layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Float (n, 3, h, w) -> (n, classes)."""
        return self.model(pixel_values=pixel_values).logits


def _require(format: str, int8: bool) -> None:
    packages = {"openvino": ["openvino"], "onnx": ["onnx", "onnxscript", "onnxruntime"]}[format] + ["nncf"] * int8
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise UsageError(f"{package} is not installed", "pip install 'bonaface[export]'") from error


def _pictures(
    data: str | None, real_label: str | None, n_check: int, n_calibration: int
) -> tuple[list[bytes], list[bytes], NDArray[np.bool_] | None]:
    """Encoded pictures to calibrate with and others to check with, and which of the latter are fake (None: unknown)."""
    if data is None:
        spec = SampleSpec(n_check, size=160, seed=0)
        return [], [make_image(spec, i)[1] for i in range(n_check)], None
    listing = list_data(data, real_label=real_label)
    rows = balanced_subset(listing.rows, n_check + n_calibration)
    if len(rows) < 20:
        raise UsageError(f"{data} has {len(rows)} usable pictures", "give at least 20, better some hundreds")
    order = np.random.default_rng(0).permutation(len(rows))
    first = len(rows) * n_calibration // (n_check + n_calibration)
    encoded = [image_bytes(rows[int(i)]["image"]) for i in order]
    fakes = np.array([listing.labels[rows[int(i)]["label"]] != listing.real_label for i in order])
    return encoded[:first], encoded[first:], fakes[first:]


def _write_network(detector: Detector, folder: Path, format: str, calibration: Sequence[bytes]) -> None:
    """The network in float32, or in int8 where there are pictures to calibrate it with."""
    assert isinstance(detector.engine, TorchEngine)  # export_model asked for it
    model = detector.engine.model.to(memory_format=torch.contiguous_format)
    facts = Preprocessing.of(detector.processor)
    example = torch.zeros(2, 3, facts.height, facts.width)
    has_features = forward(model, example)[1] is not None
    network = WithFeatures(model) if has_features else LogitsOnly(model)
    names = ["logits", "features"][: 1 + has_features]
    network.eval()
    if format == "openvino":
        import openvino

        with torch.no_grad(), _quiet():
            graph = openvino.convert_model(network, example_input=example, input=[-1, 3, facts.height, facts.width])
        for port, name in zip(graph.outputs, names, strict=True):
            port.get_tensor().set_names({name})
        if calibration:
            graph = _quantised(graph, detector, calibration, graph.inputs[0].get_any_name())
        openvino.save_model(graph, folder / OPENVINO_FILE, compress_to_fp16=False)
        _keep_first_layer_precise(folder / OPENVINO_FILE)
        return
    import onnx

    file = folder / ONNX_FILE
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            network,
            (example,),
            str(file),
            input_names=["pixel_values"],
            output_names=names,
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("n", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(file)
    if calibration:
        graph = _quantised(graph, detector, calibration, "pixel_values")
    _forget_origin(graph)
    onnx.save(graph, file)


def _forget_origin(message: Any) -> None:
    """Take the exporter's notes out of an ONNX model: they name the files of this machine, a stack for every node."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for part in value if isinstance(value, Sequence) or hasattr(value, "add") else [value]:
                _forget_origin(part)


def _keep_first_layer_precise(file: Path) -> None:
    """Mark the first convolution as one that bf16 leaves alone.

    It sees small differences of large pixel values, above all with a high-pass stem: rounded to eight bits they are
    gone (a score moved by 0.08 there, by 0.008 with the mark). The mark is OpenVINO's ``disable_fp16_compression``,
    which its CPU plugin reads for bf16 as well.
    """
    tree = ElementTree.parse(file)  # noqa: S314 - OpenVINO has just written it
    layer = tree.find("./layers/layer[@type='Convolution']")
    if layer is None:
        return
    facts = layer.find("rt_info")
    if facts is None:
        facts = ElementTree.Element("rt_info")
        layer.insert(1 if layer.find("data") is not None else 0, facts)
    ElementTree.SubElement(facts, "attribute", {"name": "precise", "version": "0"})
    tree.write(file, encoding="utf-8", xml_declaration=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every branch on a size; the sizes are fixed here, and the check sees what goes wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _quantised(graph: Any, detector: Detector, calibration: Sequence[bytes], name: str) -> Any:
    import nncf

    pictures = tqdm(calibration, desc="calibrating int8", unit="image", disable=None)
    samples = [detector.pixels(decode_image(picture))[None].numpy() for picture in pictures]
    dataset = nncf.Dataset(samples, lambda pixels: {name: pixels})
    assert isinstance(detector.engine, TorchEngine)
    kind = None if is_convolutional(detector.engine.model) else nncf.ModelType.TRANSFORMER
    mixed = nncf.QuantizationPreset.MIXED  # asymmetric activations, which GELU and the like need
    return nncf.quantize(graph, dataset, subset_size=len(samples), model_type=kind, preset=mixed)


def _write_facts(detector: Detector, folder: Path, real_label: str | None) -> None:
    """Configuration, image processor and the bank of training features."""
    facts = replace(detector.facts, real_label=real_label or detector.facts.real_label)
    if facts != ModelFacts():
        detector.config.bonaface = facts.to_block()
    detector.config.save_pretrained(folder)
    detector.processor.save_pretrained(folder)
    bank = detector.folder / unfamiliar.FILE if detector.folder else None
    if facts.unfamiliar and bank and bank.is_file():
        shutil.copyfile(bank, folder / unfamiliar.FILE)


def _check(
    original: Detector,
    folder: Path,
    format: str,
    pictures: Sequence[bytes],
    fakes: NDArray[np.bool_] | None,
    precisions: Sequence[str],
) -> list[Check]:
    expected = _score(original, pictures, "checking: torch")
    checks = []
    for precision in precisions:
        if precision == "bf16" and not (format == "openvino" and _has_bf16()):
            continue
        exported = Detector.from_pretrained(folder, engine=format, dtype="bf16" if precision == "bf16" else None)
        found = _score(exported, pictures, f"checking: {format} {precision}")
        difference = max(
            _difference(a.labels, b.labels, anywhere=fakes is None) for a, b in zip(expected, found, strict=True)
        )
        flips = float(np.mean([a.verdict != b.verdict for a, b in zip(expected, found, strict=True)]))
        auc_loss = None
        if fakes is not None and 0 < fakes.sum() < len(fakes):
            before, after = (roc_auc_score(fakes, [r.p_fake for r in results]) for results in (expected, found))
            auc_loss = float(before - after)
        checks.append(Check(precision, len(found), difference, flips, auc_loss))
    return checks


def _difference(a: Mapping[str, float], b: Mapping[str, float], anywhere: bool) -> float:
    """The largest difference of a label's probability; ``anywhere``: what that of the logits makes at the boundary.

    Drawn portraits have scores near 0 and 1, where the sigmoid is flat. The steepest place of a probability has the
    slope 1/4, so a difference d between two logits moves it by at most tanh(d / 4).
    """
    if not anywhere:
        return max(abs(a[label] - b[label]) for label in a)
    shifts = [math.log(max(b[label], TINY)) - math.log(max(a[label], TINY)) for label in a]
    return math.tanh((max(shifts) - min(shifts)) / 4)


def _score(detector: Detector, pictures: Sequence[bytes], title: str) -> list[Result]:
    stream = detector.stream(pictures, faces=False)
    return list(tqdm(stream, desc=title, total=len(pictures), unit="image", leave=False, disable=None))


def _has_bf16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
