"""Cached features of frozen networks over drawn views of face crops, on which `family_folds.py` judges its folds.

    python benchmarks/face_features.py DATA CACHE --network lite0 --weights W.pth --points points.npz --views 8

`DATA` holds `metadata.csv` and its crops. One file a view, `CACHE/NETWORK-SIZE-KIND/VIEW.npy`, float16 (images,
features): mean and standard deviation of each stage's maps. A view that is there is not made again, so a killed run
goes on. Views are those of `face_views.py`, or the library's own: `eval`, and `faces0`, `faces1`, … as the preset
`faces` draws them where it does not leave an image as it is (`BONAFACE_YUNET` names the weights that align them).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import face_views
import numpy as np
import onnx
import openvino
import timm
import torch
from onnx import numpy_helper
from PIL import Image
from timm.layers import resample_abs_pos_embed
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from bonaface.imaging.transforms import EvalTransform, Preprocessing, TrainTransform, sample_seed
from bonaface.models import clip
from bonaface.models.load import load_model

BATCH = 32


class Stages(nn.Module):
    """A timm EfficientNet that gives mean and standard deviation of each stage's maps, then the pooled last layer."""

    def __init__(self, net: nn.Module, first: int = 1) -> None:
        super().__init__()
        self.net, self.first = net, first

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """float RGB 0..255 (n, 3, h, w) -> float (n, features)."""
        x = self.net.bn1(self.net.conv_stem((rgb - 127) / 128))
        found = []
        for number, block in enumerate(self.net.blocks):
            x = block(x)
            if number >= self.first:
                found += [x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-6).sqrt()]
        found.append(self.net.bn2(self.net.conv_head(x)).mean((2, 3)))
        return torch.cat(found, 1)


def load_lite(number: int, file: str) -> nn.Module:
    """timm's `tf_efficientnet_lite{number}` with the weights of a file in the older layout, in parameter order."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    net = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    own = net.state_dict()
    theirs, ours = ([k for k in keys if not k.endswith("num_batches_tracked")] for keys in (state, own))
    for a, b in zip(theirs, ours, strict=True):
        assert state[a].shape == own[b].shape
        assert a.rsplit(".", 1)[-1] == b.rsplit(".", 1)[-1]
        own[b] = state[a]
    net.load_state_dict(own)
    return net.eval()


def stage_slices(net: nn.Module, first: int = 1) -> dict[str, slice]:
    """Where each stage's numbers lie in the features of :class:`Stages`."""
    found, start = {}, 0
    widths = [block[-1].conv_pwl.out_channels if hasattr(block[-1], "conv_pwl") else block[-1].conv_pw.out_channels
              for block in net.blocks]  # fmt: skip
    for number, width in enumerate(widths):
        if number >= first:
            found[f"s{number}"] = slice(start, start := start + 2 * width)
    found["last"] = slice(start, start + net.conv_head.out_channels)
    return found


class Layers(nn.Module):
    """A DINOv2 that gives class token, mean and standard deviation of the patches after each layer from `first` on."""

    def __init__(self, net: nn.Module, first: int = 2) -> None:
        super().__init__()
        self.net, self.first = net, first

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """float RGB 0..255 (n, 3, h, w) -> float (n, features)."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        states = self.net((rgb - mean) / std, output_hidden_states=True).hidden_states
        found = []
        for state in states[self.first :]:
            patches = state[:, 1:]
            found += [state[:, 0], patches.mean(1), (patches.var(1, correction=0) + 1e-6).sqrt()]
        return torch.cat(found, 1)


class Blocks(nn.Module):
    """A timm ViT that gives, of each block's tokens, the class token, mean and standard deviation of the patches.

    Last comes what the next block's attention reads where it attends to all alike: the mean of the normalised tokens.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """float RGB 0..255 (n, 3, h, w) -> float (n, features)."""
        facts = self.net.pretrained_cfg
        mean, std = (torch.tensor(facts[key]).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
        x, found = self.net.norm_pre(self.net._pos_embed(self.net.patch_embed((rgb - mean) / std))), []
        for block in self.net.blocks:
            x = block(x)
            patches = x[:, 1:]
            found += [x[:, 0], patches.mean(1), (patches.var(1, correction=0) + 1e-6).sqrt()]
        return torch.cat([*found, nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5).mean(1)], 1)


def load_clip(weights: str, depth: int, size: int) -> Any:
    """The first blocks of CLIP's ViT-B/16: of the 8-bit ONNX file that the preset `clip` reads, or a pruned model's."""
    if Path(weights).is_dir():
        net: Any = load_model(weights, ["fake", "real"])[0].timm_model
        net.blocks = net.blocks[:depth]
        return net.eval()
    name = "vit_base_patch16_clip_quickgelu_224.openai"
    net = timm.create_model(name, pretrained=False, num_classes=0, depth=depth, img_size=size)
    state = clip.for_timm(clip.from_quantised(Path(weights)), depth)
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [size // 16, size // 16])
    net.load_state_dict(state)
    return net.eval()


def block_slices(net: Any) -> dict[str, slice]:
    """Where the numbers of :class:`Blocks` lie: `c1`, `m1` and `s1` of the first block, and `n` of the last."""
    width, names = net.embed_dim, [f"{kind}{n + 1}" for n in range(len(net.blocks)) for kind in "cms"]
    return {name: slice(i * width, (i + 1) * width) for i, name in enumerate([*names, "n"])}


def load_dinov2(file: str) -> nn.Module:
    """transformers' DINOv2-small with the weights of an ONNX export of the older layout."""
    graph = onnx.load(file).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    found = {name.removeprefix("backbone."): a for name, a in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:  # the exporter transposes the weights of linear layers and renames them
        if node.op_type == "MatMul" and node.input[1].startswith("onnx::MatMul"):
            found[node.name[1:-7].replace("/", ".").removeprefix("backbone.") + ".weight"] = arrays[node.input[1]].T
        if node.name.endswith("embeddings/Reshape_1"):
            patches = arrays[node.input[0]]
        if node.name.endswith("embeddings/Concat_6"):
            token = arrays[node.input[0]]
    found["embeddings.position_embeddings"] = np.concatenate([token, patches], 1)
    found["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    for old, new in (("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
                     ("attention.attention.value", "attention.v_proj"),
                     ("attention.output.dense", "attention.o_proj")):  # fmt: skip
        found = {name.replace(old, new): array for name, array in found.items()}
    net = Dinov2Model(Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518))
    net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in found.items()})
    return net.eval()


def layer_slices(layers: int = 12, width: int = 384, first: int = 2) -> dict[str, slice]:
    """Where each layer's numbers lie in the features of :class:`Layers`."""
    return {f"l{n}": slice((n - first) * 3 * width, (n - first + 1) * 3 * width) for n in range(first, layers + 1)}


def compiled(module: nn.Module, size: int, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """OpenVINO's own bf16 on one stream: uint8 RGB (n, h, w, 3) -> what the module gives, float32."""
    model = openvino.convert_model(module.eval(), example_input=torch.zeros(2, 3, size, size))
    model.reshape([-1, 3, size, size])
    core = openvino.Core()
    plan = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    )
    return lambda rgb: plan(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), np.float32))[0]


def read(data: Path, points: Path) -> tuple[list[dict[str, str]], list[np.ndarray], np.ndarray]:
    """Rows of the table, their crops (uint8 BGR) and five points (NaN where no face was found)."""
    with (data / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    known = np.load(points)
    assert [row["file_name"] for row in rows] == known["name"].tolist()
    with ThreadPoolExecutor(2) as pool:
        return rows, list(pool.map(lambda row: cv2.imread(str(data / row["file_name"])), rows)), known["points"]


def batches(make: Callable[[int], np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Views of rows 0..count as RGB batches, made by two threads ahead of the network."""
    with ThreadPoolExecutor(2) as pool:
        queue = []
        for start in range(0, count, BATCH):
            queue.append([pool.submit(make, row) for row in range(start, min(start + BATCH, count))])
            if len(queue) > 3:
                yield np.stack([future.result() for future in queue.pop(0)])[..., ::-1]
        for rest in queue:
            yield np.stack([future.result() for future in rest])[..., ::-1]


TESTS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "jpeg30": lambda im, size, rng: face_views.plain_view(jpeg(im, 30), size),
    "blur": lambda im, size, rng: cv2.GaussianBlur(face_views.plain_view(im, size), (0, 0), size / 128),
    "px64": lambda im, size, rng: face_views.to_side(face_views.plain_view(im, 64), size),
    "net": lambda im, size, rng: face_views.to_side(jpeg(face_views.plain_view(im, 112), 60), size),
    "sharp": lambda im, size, rng: face_views.sharpen(face_views.plain_view(im, size), rng),
    "smooth": lambda im, size, rng: cv2.bilateralFilter(face_views.plain_view(im, size), 7, 40, 4),
}


def library_view(size: int, *, drawn: bool) -> Callable[[Image.Image, int], torch.Tensor]:
    """Image and seed -> uint8 RGB (3, size, size), as training with the recipes of the detector draws it."""
    _, processor = load_model("lite0", ["fake", "real"], from_scratch=True, image_size=size, resize=size * 4 // 3)
    units = Preprocessing.of(processor)
    scale, offset = (torch.tensor(v).view(3, 1, 1) for v in (units.scale, units.offset))
    transform, evaluate = TrainTransform(processor, "faces"), EvalTransform(processor)
    transform.preset = replace(transform.preset, plain=0.0)

    def view(image: Image.Image, seed: int) -> torch.Tensor:
        found = transform(image, seed) if drawn else evaluate(image)
        return found if found.dtype == torch.uint8 else ((found - offset) / scale).round().clamp(0, 255).byte()

    return view


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Once through JPEG."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def maker(
    name: str, crops: list[np.ndarray], points: np.ndarray, settings: face_views.ViewSettings
) -> Callable[[int], np.ndarray]:
    """Row -> uint8 BGR view, by the view's name: a number for a drawn one, else one of the fixed ones."""
    size = settings.size
    own = library_view(size, drawn=name != "eval") if name.startswith(("eval", "faces")) else None
    number = int(name.removeprefix("faces")) if own is not None and name != "eval" else 0

    def make(row: int) -> np.ndarray:
        image, five = crops[row], points[row]
        known = None if np.isnan(five).any() else five
        rng = np.random.default_rng((row, 7 if not name.isdigit() else int(name)))
        if name == "plain":
            return face_views.plain_view(image, size)
        if name == "flip":
            return face_views.plain_view(image, size)[:, ::-1]
        if name.startswith("plain"):
            return face_views.plain_view(image, size, int(name.removeprefix("plain")) / 100)
        if name.startswith("aligned"):
            return face_views.aligned_view(image, known, size, int(name.removeprefix("aligned") or 80) / 100)
        if name in TESTS:
            return TESTS[name](image, size, rng)
        if own is not None:
            levels = own(Image.fromarray(image[..., ::-1]), sample_seed(0, number, row))
            return levels.permute(1, 2, 0).numpy()[..., ::-1]
        return face_views.draw_view(image, known, settings, rng)

    return make


def main() -> None:
    """Write the features of the views that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--network", default="lite0", choices=["lite0", "lite2", "dinov2s", "clip"])
    parser.add_argument("--weights", required=True, help="file, or for clip a folder of `bonaface prune`")
    parser.add_argument("--depth", type=int, default=12, help="of CLIP, in blocks")
    parser.add_argument("--points", type=Path, required=True)
    parser.add_argument("--views", default="plain,0,1,2,3", help="names, or numbers of drawn views, with commas")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--align", type=float, default=0.5)
    parser.add_argument("--low_pixels", type=int, default=56)
    parser.add_argument("--kind", default="s10", help="name of the settings of the drawn views")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    settings = face_views.ViewSettings(
        size=args.size, strength=args.strength, align=args.align, low_pixels=args.low_pixels
    )
    name = Path(args.weights).name if Path(args.weights).is_dir() else args.network
    folder = args.cache / f"{name}-{args.size}-{args.kind}"
    folder.mkdir(parents=True, exist_ok=True)
    _, crops, points = read(args.data, args.points)
    if args.network == "dinov2s":
        module, slices = Layers(load_dinov2(args.weights)), layer_slices()
    elif args.network == "clip":
        net = load_clip(args.weights, args.depth, args.size)
        module, slices = Blocks(net), block_slices(net)
    else:
        net = load_lite(int(args.network[-1]), args.weights)
        module, slices = Stages(net), stage_slices(net)
    apply = compiled(module, args.size, args.threads)
    np.savez(folder / "slices.npz", **{key: [s.start, s.stop] for key, s in slices.items()})
    for name in args.views.split(","):
        file = folder / f"{name}.npy"
        if file.exists():
            continue
        started = time.monotonic()
        make = maker(name, crops, points, settings)
        features = [apply(batch).astype(np.float16) for batch in batches(make, len(crops))]
        part = file.with_suffix(".part")
        with part.open("wb") as stream:
            np.save(stream, np.concatenate(features))
        part.rename(file)  # last, so that what is there is complete
        print(f"{file} {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
