"""A tiny run folder: noise pictures, of which the fakes are darker, and a network that has learned just that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from conftest import make_faces, make_image
from PIL import Image
from sklearn.linear_model import LogisticRegression

from bonaface.data.dataset import FaceData, hold_out_calibration, load_data
from bonaface.data.loading import ImageRows
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.rows import outputs_of, run_rows
from bonaface.models.facts import ModelFacts
from bonaface.models.load import load_model
from bonaface.models.parts import last_linear
from bonaface.training.calibrate import calibrate_run
from bonaface.training.resemblance import learn_resemblance
from bonaface.training.run import Run

torch.set_num_threads(1)  # on batches this small threads mostly wait for each other
TINTS = {"stylegan": (90, 0, 0), "sdxl": (0, 90, 0), "flux": (0, 0, 90), "dalle": (0, 0, 0)}  # of generators
SIZES = {"validation_size": 0.4, "test_size": 0.3}


def tiny_data(root: Path, n: int = 40, **options: float) -> FaceData:
    """Two cameras and two generators with ``n`` pictures each; every sixth fake is as bright as the real ones."""
    make_faces(root, {"real/a": n, "real/b": n, "fake/x": n, "fake/y": n}, size=(36, 36))
    for i in range(0, n, 6):
        make_image(root / "fake" / "xy"[i % 4 // 2] / f"{i:03d}.png", 1000 + i, (36, 36))
    return hold_out_calibration(load_data(root, **(SIZES | options)))


def tinted(seed: int, tint: tuple[int, int, int] | None = None) -> Image.Image:
    """Bright noise, or dark noise with a tint."""
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 36, 3))
    return Image.fromarray((pixels if tint is None else pixels // 3 + np.array(tint)).astype(np.uint8))


def tinted_data(root: Path, n: int = 70) -> FaceData:
    """Two cameras and the generators of ``TINTS`` with ``n`` pictures each."""
    folders = {"real/a": None, "real/b": None} | {f"fake/{name}": tint for name, tint in TINTS.items()}
    for place, (folder, tint) in enumerate(folders.items()):
        (root / folder).mkdir(parents=True)
        for i in range(n):
            tinted(1000 * place + i, tint).save(root / folder / f"{i:03d}.png")
    return hold_out_calibration(load_data(root, **SIZES))


def learn(model, processor, data: FaceData, sharpness: float = 3.0) -> None:
    """Set the last layer by logistic regression; ``sharpness`` makes it too sure of itself."""
    rows = data.splits["train"]
    found = run_rows(model, ImageRows(rows, EvalTransform(processor)))
    fitted = LogisticRegression(max_iter=1000).fit(found.features, np.array(rows["label"]))
    layer = last_linear(model, len(data.labels))
    weight, bias = (torch.tensor(sharpness * value, dtype=torch.float32) for value in (fitted.coef_, fitted.intercept_))
    with torch.no_grad():
        layer.weight.copy_(torch.cat([-weight, weight]) / 2)
        layer.bias.copy_(torch.cat([-bias, bias]) / 2)


def tiny_run(folder: Path, data: FaceData, seed: int = 0, sharpness: float = 3.0) -> Path:
    """A calibrated model folder as a run leaves it."""
    torch.manual_seed(seed)
    model, processor = load_model("resnet", data.labels, image_size=32)
    learn(model, processor, data, sharpness)
    run = Run(folder)
    run.write_recipe(dict(SIZES))
    facts = ModelFacts(data.real_label, data_fingerprint=data.fingerprint)
    facts = calibrate_run(model, data, facts, outputs_of(model, processor), folder=folder)
    facts = replace(facts, resembles=learn_resemblance(data, outputs_of(model, processor), folder))
    run.save_model(model, processor, facts)
    return folder
