"""CLIP's image tower (Radford et al. 2021) for timm, from transformers' names or an 8-bit ONNX file.

The ONNX file is what `onnxruntime.quantization.quantize_dynamic` makes of an export: its linear layers hold 8-bit
weights with a scale and a zero point for each output. They become floats again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from bonaface.errors import UsageError

TOWER = "vision_model."
MODULE = re.compile(r"/?vision_model/encoder/layers\.(\d+)/(self_attn|mlp)/(\w+)/MatMul")
# transformers' names -> timm's, in a block
PARTS = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def from_quantised(file: Path) -> dict[str, torch.Tensor]:
    """The tower's weights in float32, named as transformers names them.

    Raises UsageError without the package onnx.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UsageError("CLIP's weights are in an ONNX file", 'pip install "bonaface[export]"') from error
    graph = onnx.load(str(file)).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    floats = {name: array for name, array in arrays.items() if name.startswith(TOWER) and array.dtype == "float32"}
    state = {name: torch.from_numpy(array.copy()) for name, array in floats.items()}
    for node in graph.node:
        found = MODULE.match(node.name)
        if node.op_type == "MatMulInteger" and found:
            weight = node.input[1]
            parts = [arrays[weight.removesuffix("_quantized") + end] for end in ("_zero_point", "_scale")]
            whole = (arrays[weight].astype("float32") - parts[0].astype("float32")) * parts[1]
            state[f"{TOWER}encoder.layers.{'.'.join(found.groups())}.weight"] = torch.from_numpy(whole.T.copy())
    return state


def for_timm(state: Mapping[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """The first `depth` blocks of a tower in transformers' names, as timm's `VisionTransformer` names them.

    Raises KeyError where a tensor is missing.
    """
    embeddings = f"{TOWER}embeddings."
    found = {
        "cls_token": state[f"{embeddings}class_embedding"].reshape(1, 1, -1),
        "pos_embed": state[f"{embeddings}position_embedding.weight"][None],
        "patch_embed.proj.weight": state[f"{embeddings}patch_embedding.weight"],
    }
    for end in ("weight", "bias"):
        found[f"norm_pre.{end}"] = state[f"{TOWER}pre_layrnorm.{end}"]
        found[f"norm.{end}"] = state[f"{TOWER}post_layernorm.{end}"]
        for number in range(depth):
            layer, block = f"{TOWER}encoder.layers.{number}.", f"blocks.{number}."
            for theirs, ours in PARTS.items():
                found[f"{block}{ours}.{end}"] = state[f"{layer}{theirs}.{end}"]
            rows = [state[f"{layer}self_attn.{part}_proj.{end}"] for part in "qkv"]
            found[f"{block}attn.qkv.{end}"] = torch.cat(rows)
    return {name: tensor.contiguous() for name, tensor in found.items()}
