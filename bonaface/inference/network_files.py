"""A detector's network as an OpenVINO or ONNX file, in float32 or int8."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bonaface.imaging.images import decode_image
from bonaface.imaging.transforms import Preprocessing
from bonaface.inference.detector import Detector
from bonaface.inference.engines import ONNX_FILE, OPENVINO_FILE, TorchEngine
from bonaface.inference.forward import forward
from bonaface.models.features import LastLayer
from bonaface.models.parts import is_convolutional, move

LEAST_WEIGHTS = 4096  # of a tensor that is worth two more nodes


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


def write_network(detector: Detector, folder: Path, format: str, calibration: Sequence[bytes]) -> None:
    """The network in float32, or in int8 where there are images to calibrate it with."""
    assert isinstance(detector.engine, TorchEngine)  # export_model asked for it
    model = move(detector.engine.model, memory_format=torch.contiguous_format)
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
    _tabulate_weights(graph.graph)
    _forget_origin(graph)
    onnx.save(graph, file)


def _tabulate_weights(graph: Any) -> None:
    """Store weights of at most 256 different values as a table and a byte each, in place: a quarter of the size.

    A model that was saved with `float8` has such weights. Loading the file gives the same floats, bit for bit; ONNX
    Runtime looks them up once, before the first image.
    """
    from onnx import TensorProto, helper, numpy_helper

    lookups = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_WEIGHTS:
            continue
        weights = numpy_helper.to_array(tensor)
        table, places = np.unique(weights.view(np.int32), return_inverse=True)  # as bits: 0 is not -0
        if len(table) > 256:
            continue
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.extend([
            numpy_helper.from_array(table.view(np.float32), f"{name}_table"),
            numpy_helper.from_array(places.reshape(weights.shape).astype(np.uint8), f"{name}_bytes"),
        ])  # fmt: skip
        lookups += [
            helper.make_node("Cast", [f"{name}_bytes"], [f"{name}_places"], to=TensorProto.INT32),
            helper.make_node("Gather", [f"{name}_table", f"{name}_places"], [name]),
        ]
    nodes = [*lookups, *graph.node]  # what is read must stand before what reads it
    del graph.node[:]
    graph.node.extend(nodes)


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

    images = tqdm(calibration, desc="calibrating int8", unit="image", disable=None)
    samples = [detector.pixels(decode_image(image))[None].numpy() for image in images]
    dataset = nncf.Dataset(samples, lambda pixels: {name: pixels})
    assert isinstance(detector.engine, TorchEngine)
    kind = None if is_convolutional(detector.engine.model) else nncf.ModelType.TRANSFORMER
    mixed = nncf.QuantizationPreset.MIXED  # asymmetric activations, which GELU and the like need
    return nncf.quantize(graph, dataset, subset_size=len(samples), model_type=kind, preset=mixed)
