"""The Detector beside the stock pipeline, in one run: throughput, latency, agreement, and runs that are killed.

    python benchmarks/inference.py throughput --files 64 --rounds 5 --out benchmarks/results/inference_cpu.json
    python benchmarks/inference.py throughput --model models/bonaface-small --data DATA
    python benchmarks/inference.py faces --model models/bonaface-small
    python benchmarks/inference.py agreement --data DATA --files 500
    python benchmarks/inference.py killed --files 5000

Every round runs each way once, in turn, and ratios are taken within a round, so that a machine with other work on it
slows them alike. The networks have the size that is named and random weights; ``--model FOLDER`` takes a trained one,
and ``--data`` images on which it is quantised to INT8. ``faces`` takes photographs of 1024 px, of NASA's portrait of
Eileen Collins (public domain), from file to verdict.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage
import torch
from PIL import Image
from record import record
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    logging,
    pipeline,
)

from bonaface.data.dataset import balanced_subset, image_bytes, list_data
from bonaface.errors import UsageError
from bonaface.imaging.faces import crop_face, find_yunet
from bonaface.imaging.images import decode_image
from bonaface.inference.detector import Detector
from bonaface.inference.export import export_model
from bonaface.inference.scoring import find_inputs, score_files

MEANS = "time of the pipeline / time of this way, median over the rounds; ratio_of_cpu: of processor time"
LABELS: dict[str, Any] = {"id2label": {0: "fake", 1: "real"}, "label2id": {"fake": 0, "real": 1}}
NETWORKS: dict[str, Callable[[], PreTrainedModel]] = {
    "convnextv2-tiny": lambda: ConvNextV2ForImageClassification(
        ConvNextV2Config(depths=[3, 3, 9, 3], hidden_sizes=[96, 192, 384, 768], **LABELS)
    ),
    "vit-small": lambda: ViTForImageClassification(
        ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, **LABELS)
    ),
    "resnet-tiny": lambda: ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic", **LABELS
        )
    ),
    "resnet-18": lambda: ResNetForImageClassification(
        ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", **LABELS)
    ),
}


def make_model(folder: Path, name: str, side: int = 224) -> Path:
    """A network of that size with fresh weights, whose scores differ between pictures."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    torch.nn.init.normal_([m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1].weight, std=0.1)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def make_files(folder: Path, n: int, side: int = 256) -> list[str]:
    """JPEG files of smooth noise, about as large as faces of that size."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:06d}.jpg", quality=85)
    return list(find_inputs([folder]))


def make_photographs(folder: Path, n: int, side: int = 1024) -> list[str]:
    """JPEG files of one face, each another cut of the same photograph with noise of its own."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    image = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
    for i in range(n):
        left, top = rng.integers(0, 100, 2)
        cut = image.crop((left, top // 4, left + 400, top // 4 + 400)).resize((side, side), Image.Resampling.LANCZOS)
        noisy = np.asarray(cut) + rng.normal(0, 5, (side, side, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=90)
    return list(find_inputs([folder]))


def throughput(args: argparse.Namespace, root: Path) -> None:
    """Images a second on a folder, milliseconds for a single file, and where the time goes."""
    files = make_files(root / "files", args.files)
    few, found = files[:8], {}
    for name in [args.model] if args.model else args.networks:
        folder = Path(name) if args.model else make_model(root / name, name)
        print(f"\n{name}")
        rows = found[Path(name).name] = {}
        stock = pipeline("image-classification", model=str(folder), device="cpu")
        ways = detectors(folder, root, args.data if args.model else None)
        folder_runs = {"pipeline": lambda stock=stock: list(stock(files, batch_size=1))}
        single_runs = {"pipeline": lambda stock=stock: [stock(file) for file in few]}
        for way, detector in ways.items():
            folder_runs[way] = lambda d=detector: list(d.stream(files, faces=False))
            single_runs[way] = lambda d=detector: [d(file, faces=False) for file in few]
        rows |= compared("folder", folder_runs, len(files), args.rounds)
        rows |= compared("single", single_runs, len(few), args.rounds)
        for way, detector in ways.items():
            spent = [result.timing for result in detector.stream(files, faces=False)]
            parts = {part: sum(timing[part] for timing in spent) for part in ("decode", "pixels", "model")}
            share = (parts["decode"] + parts["pixels"]) / sum(parts.values())
            print(f"  {way}: decoding and preprocessing {share:.1%} of the work")
            rows[f"folder, {way}"]["reading_share"] = round(share, 4)
    record(args.out, None, MEANS, rounds=args.rounds, networks=found)


def faces(args: argparse.Namespace, root: Path) -> None:
    """Photographs of 1024 px from file to verdict: the face is found, cut out and scored.

    The stock way is OpenCV's YuNet on the whole image, as its documentation has it, and the pipeline on the crop. Its
    second row finds faces in a copy of 320 px, as we do.
    """
    folder = Path(args.model or "models/bonaface-small")
    files, weights = make_photographs(root / "files", args.files), find_yunet()
    if weights is None:
        raise SystemExit("YuNet's weights were not found: set BONAFACE_YUNET")
    stock = pipeline("image-classification", model=str(folder), device="cpu")
    finder = cv2.FaceDetectorYN.create(str(weights), "", (1, 1), 0.6)
    ways = detectors(folder, root, args.data)
    margin = next(iter(ways.values())).reader.face_margin

    def by_hand(file: str, longest: int) -> Any:
        image = Image.open(file).convert("RGB")
        small = image if max(image.size) <= longest else image.resize((longest, longest))
        finder.setInputSize(small.size)
        x, y, width, height = finder.detect(np.asarray(small)[:, :, ::-1].copy())[1][0][:4] * image.width / small.width
        return stock(crop_face(image, (x, y, x + width, y + height), margin=margin))

    runs: dict[str, Callable[[], Any]] = {
        "pipeline": lambda: [by_hand(file, 1024) for file in files],
        "pipeline, faces at 320 px": lambda: [by_hand(file, 320) for file in files],
    }
    for way, detector in ways.items():
        assert all(len(result.faces) == 1 for result in detector.stream(files))
        runs[way] = lambda d=detector: list(d.stream(files))
    print(f"\n{folder.name}, photographs of 1024 px")
    found = {folder.name: compared("folder with faces", runs, len(files), args.rounds)}
    record(args.out, None, MEANS, rounds=args.rounds, networks=found)


def detectors(folder: Path, root: Path, data: str | None) -> dict[str, Detector]:
    """The model on every engine; in INT8 too where there are images to calibrate it on and its scores stay."""
    found = {"torch float32": Detector.from_pretrained(folder, device="cpu")}
    for engine, title in (("openvino", "OpenVINO"), ("onnx", "ONNX Runtime")):
        out = root / f"{folder.name}-{engine}"
        print(f"  {engine}: {export_model(folder, out, engine, n_check=8)[-1]}")
        found[f"{title} float32"] = Detector.from_pretrained(out, engine=engine)
        if engine == "openvino":
            found["OpenVINO bf16"] = Detector.from_pretrained(out, engine=engine, dtype="bf16")
        if data:
            quantised = out.with_name(f"{out.name}-int8")
            try:
                print(f"  {engine}: {export_model(folder, quantised, engine, int8=True, data=data)[-1]}")
            except UsageError as error:
                print(f"  {engine} int8 {error}")
            else:
                found[f"{title} INT8"] = Detector.from_pretrained(quantised, engine=engine)
    return found


def compared(title: str, runs: dict[str, Callable[[], Any]], n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds an image of each way, and how many times as long the first one takes."""
    seconds, rows = measured(runs, rounds), {}
    first = seconds[next(iter(runs))]
    for way, times in seconds.items():
        wall, cpu = (float(np.median(first[:, k] / times[:, k])) for k in (0, 1))
        each = float(1000 * np.median(times[:, 0]) / n)
        print(f"  {title} {way:<26}{each:8.1f} ms an image; {wall:.2f} x as fast, {cpu:.2f} x less of the CPU")
        rows[f"{title}, {way}"] = {"ms": round(each, 2), "ratio": round(wall, 3), "ratio_of_cpu": round(cpu, 3)}
    return rows


def measured(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds by the clock and of the CPU, (rounds, 2), of each way; after one round that warms up."""
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in runs}
    for _ in range(rounds + 1):
        for way, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[way].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {way: np.array(times[1:]) for way, times in seconds.items()}


def agreement(args: argparse.Namespace, root: Path) -> None:
    """The largest difference of a probability between the pipeline and each engine, on the same RGB pixels."""
    if args.data:
        rows = balanced_subset(list_data(args.data, check="full").rows, args.files)
        encoded = [image_bytes(row["image"]) for row in rows]
    else:
        encoded = [Path(file).read_bytes() for file in make_files(root / "files", args.files)]
    for name in [args.model] if args.model else args.networks:
        folder = Path(name) if args.model else make_model(root / name, name)
        stock = pipeline("image-classification", model=str(folder), device="cpu", top_k=None)
        expected = [{row["label"]: row["score"] for row in stock(decode_image(data))} for data in encoded]
        print(f"\n{name}, {len(encoded)} pictures: largest difference from the pipeline")
        for engine in ("torch", "openvino", "onnx"):
            source = folder if engine == "torch" else root / f"{Path(name).name}-{engine}"
            if engine != "torch":
                export_model(folder, source, engine, n_check=8)
            for dtype in (None, "bf16") if engine == "openvino" else (None,):
                detector = Detector.from_pretrained(source, engine=engine, dtype=dtype)
                results = detector(encoded, faces=False)
                worst = max(
                    abs(result.labels[label] - p)
                    for result, scores in zip(results, expected, strict=True)
                    for label, p in scores.items()
                )
                print(f"  {engine} {dtype or 'float32'}: {worst:.2g}")


KILLED = (
    "import sys; from bonaface.inference.scoring import run_predict_command as run; run(sys.argv[3:], *sys.argv[1:3])"
)


def killed(args: argparse.Namespace, root: Path) -> None:
    """Kill a run at random moments, let it go on each time, and compare its table with an undisturbed one."""
    files = make_files(root / "files", args.files, 64)
    model = make_model(root / "model", "resnet-tiny", 64)
    started = time.perf_counter()
    detector = Detector.from_pretrained(model)
    score_files(files, detector, root / "whole.csv", model=str(model))
    whole, rng, kills = time.perf_counter() - started, random.Random(args.seed), 0
    out, journal = root / "killed.csv", root / ".killed.csv.journal"
    command = [sys.executable, "-c", KILLED, str(model), str(out), str(root / "files")]
    before = 0
    while kills < args.kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and rows_of(journal) <= before:  # loading is over when a new row is there
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.8 * whole / (args.kills + 1)))
        if process.poll() is not None:
            raise SystemExit("the run was over before it was killed: give more --files")
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills, before = kills + 1, rows_of(journal)
        print(f"killed {kills} times, at {before} of {len(files)} rows")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    same = out.read_bytes() == (root / "whole.csv").read_bytes()
    print(f"the table of the killed run {'equals' if same else 'DIFFERS FROM'} the undisturbed one, byte for byte")
    raise SystemExit(not same)


def rows_of(journal: Path) -> int:
    """Finished rows of a run."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


COMPARISONS = {"throughput": throughput, "faces": faces, "agreement": agreement, "killed": killed}


def main() -> None:
    """Run one of the four comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(COMPARISONS))
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["convnextv2-tiny", "vit-small"])
    parser.add_argument("--model", help="a trained model folder instead")
    parser.add_argument("--data", help="labelled images for the agreement (drawn ones when not given) and for INT8")
    parser.add_argument("--out", type=Path, help="JSON file for throughput and faces")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{torch.get_num_threads()} torch threads")
    with tempfile.TemporaryDirectory() as temporary:
        {"throughput": throughput, "faces": faces, "agreement": agreement, "killed": killed}[args.what](
            args, Path(temporary)
        )


if __name__ == "__main__":
    main()
