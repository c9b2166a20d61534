"""A model folder -> the same detector on OpenVINO or ONNX Runtime, checked before anything is written.

The new folder holds the network (logits, and the features for the distance to the training data), the configuration
with all its facts and the image processor's; :meth:`detector.Detector.from_pretrained` loads it without torch's
weights and model code. The check scores the same images with both and refuses to write a folder whose scores differ.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from bonaface.data.dataset import balanced_subset, image_bytes, list_data
from bonaface.data.sample import SampleSpec, make_image
from bonaface.errors import UsageError
from bonaface.files import atomic_folder
from bonaface.inference import resembles, unfamiliar
from bonaface.inference.detector import Detector, Result
from bonaface.inference.engines import ONNX_FILE, OPENVINO_FILE, openvino_core
from bonaface.inference.network_files import write_network
from bonaface.models.facts import ModelFacts
from bonaface.stats.figures import percent

FORMATS = {"openvino": OPENVINO_FILE, "onnx": ONNX_FILE}
PRECISIONS = {"float32": 1e-4, "bf16": 2e-2}  # the largest difference of a probability
MAX_AUC_LOSS, MAX_FLIPS = 0.005, 0.02  # of int8
N_CHECK, N_CALIBRATION = 200, 300  # images
TINY = 1e-12  # of a probability, before its logarithm


@dataclass(frozen=True)
class Check:
    """An exported network beside its original, on the same images.

    Attributes:
        precision: "float32", "bf16" or "int8".
        n: images.
        difference: the largest of any label's probability; on drawn portraits the largest that their logits allow.
        flips: share of images with another verdict.
        auc_loss: the original's AUC less the exported one's; None unless the images have labels of both classes.
    """

    precision: str
    n: int
    difference: float
    flips: float
    auc_loss: float | None

    @property
    def passed(self) -> bool:
        """Whether its scores can stand for the original's."""
        if self.precision in PRECISIONS:
            return self.difference <= PRECISIONS[self.precision]
        return self.flips <= MAX_FLIPS and (self.auc_loss is None or self.auc_loss <= MAX_AUC_LOSS)

    def __str__(self) -> str:
        auc = "" if self.auc_loss is None else f", AUC lower by {self.auc_loss:.4f}"
        scores = f"scores differ by at most {self.difference:.2g}, {percent(self.flips)} of verdicts differ"
        advice = "" if self.passed else f", more than {PRECISIONS.get(self.precision, MAX_FLIPS)}: prefer float32"
        return f"{self.precision}: {scores}{auc} ({self.n} images){advice}"


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
    """Write a model for another engine, if its scores in float32 or int8 agree with the original's.

    Args:
        model: a folder with torch weights, or a Hub id.
        out: a new or empty folder.
        format: "openvino" or "onnx".
        int8: quantise weights and activations with NNCF, calibrated on images of ``data``.
        data: labelled images to check on, in any form that training takes; without it, float32 and bf16 are checked
            on drawn portraits.

    Returns:
        What the check found; "bf16" is there for OpenVINO where the processor has it.

    Raises:
        UsageError: an unknown format, a folder in use, a missing package, int8 without data, or a failed check.
    """
    out = Path(out)
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", "choose " + " or ".join(FORMATS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists", "name a new folder with --out")
    if int8 and data is None:
        raise UsageError("int8 needs labelled images for calibration and checks", "name a labelled folder with --data")
    _require(format, int8)
    detector = Detector.from_pretrained(model, device="cpu", engine="torch", real_label=real_label)
    calibration, images, fakes = _images(data, real_label, n_check, n_calibration if int8 else 0)
    with atomic_folder(out) as partial:
        write_network(detector, partial, format, calibration)
        _write_facts(detector, partial, real_label)
        checks = _check(detector, partial, format, images, fakes, ["int8"] if int8 else list(PRECISIONS))
        # bf16 runs the same file, for those who ask for it: it is told of, and float32 is not withheld for its sake.
        failed = [check for check in checks if not check.passed and check.precision != "bf16"]
        if failed:
            raise UsageError(
                f"not exported: its scores differ too much from the original's ({failed[0]})",
                "export without --int8"
                if int8
                else "check it on your own images with --data, try the other format, or keep using torch",
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
) -> int:
    """``python -m bonaface export``: 0 when it is written; OUT is MODEL-FORMAT if not given. Raises UsageError."""
    folder = Path(out or f"{Path(model).name.replace('@', '-')}-{format}{'-int8' if int8 else ''}")
    for check in export_model(model, folder, format, int8=int8, data=data, real_label=real_label, n_check=n_check):
        print(check)
    print(f"exported to {folder}; use it with --model {folder}")
    return 0


def _require(format: str, int8: bool) -> None:
    packages = {"openvino": ["openvino"], "onnx": ["onnx", "onnxscript", "onnxruntime"]}[format] + ["nncf"] * int8
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise UsageError(f"{package} is not installed", "pip install 'bonaface[export]'") from error


def _images(
    data: str | None, real_label: str | None, n_check: int, n_calibration: int
) -> tuple[list[bytes], list[bytes], NDArray[np.bool_] | None]:
    """Encoded images to calibrate with and others to check with, and which of the latter are fake (None: unknown)."""
    if data is None:
        spec = SampleSpec(n_check, size=160, seed=0)
        return [], [make_image(spec, i)[1] for i in range(n_check)], None
    listing = list_data(data, real_label=real_label)
    rows = balanced_subset(listing.rows, n_check + n_calibration)
    if len(rows) < 20:
        raise UsageError(f"{data} has {len(rows)} usable images", "give at least 20, preferably several hundred")
    order = np.random.default_rng(0).permutation(len(rows))
    first = len(rows) * n_calibration // (n_check + n_calibration)
    encoded = [image_bytes(rows[int(i)]["image"]) for i in order]
    fakes = np.array([listing.labels[rows[int(i)]["label"]] != listing.real_label for i in order])
    return encoded[:first], encoded[first:], fakes[first:]


def _write_facts(detector: Detector, folder: Path, real_label: str | None) -> None:
    """Configuration, image processor and what is known of the training features."""
    facts = replace(detector.facts, real_label=real_label or detector.facts.real_label)
    if facts != ModelFacts():
        detector.config.bonaface = facts.to_block()
    detector.config.save_pretrained(folder)
    detector.processor.save_pretrained(folder)
    for known, name in ((facts.unfamiliar, unfamiliar.FILE), (facts.resembles, resembles.FILE)):
        if known and detector.folder and (detector.folder / name).is_file():
            shutil.copyfile(detector.folder / name, folder / name)


def _check(
    original: Detector,
    folder: Path,
    format: str,
    images: Sequence[bytes],
    fakes: NDArray[np.bool_] | None,
    precisions: Sequence[str],
) -> list[Check]:
    expected = _score(original, images, "checking: torch")
    checks = []
    for precision in precisions:
        if precision == "bf16" and not (format == "openvino" and _has_bf16()):
            continue
        exported = Detector.from_pretrained(folder, engine=format, dtype="bf16" if precision == "bf16" else None)
        found = _score(exported, images, f"checking: {format} {precision}")
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


def _score(detector: Detector, images: Sequence[bytes], title: str) -> list[Result]:
    stream = detector.stream(images, faces=False)
    return list(tqdm(stream, desc=title, total=len(images), unit="image", leave=False, disable=None))


def _has_bf16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
