"""The Detector beside the stock pipeline, in one run: throughput, latency, agreement, and runs that are killed.

    python benchmarks/inference.py throughput --files 64 --rounds 5 --out benchmarks/results/inference_cpu.json
    python benchmarks/inference.py agreement --data DATA --files 500
    python benchmarks/inference.py killed --files 5000

Every round runs each way once, in turn, and ratios are taken within a round, so that a machine with other work on it
slows them alike. The networks have the size that is named and random weights; ``--model FOLDER`` takes a trained one.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from train_throughput import machine
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
from bonaface.imaging.images import decode_image
from bonaface.inference.detector import Detector
from bonaface.inference.export import export_model
from bonaface.inference.scoring import find_inputs, score_files

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


def throughput(args: argparse.Namespace, root: Path) -> None:
    """Images a second on a folder, milliseconds for a single file, and where the time goes."""
    files = make_files(root / "files", args.files)
    found: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rounds": args.rounds}
    for name in [args.model] if args.model else args.networks:
        folder = Path(name) if args.model else make_model(root / name, name)
        rows = found[Path(name).name] = {}
        exported = root / f"{Path(name).name}-openvino"
        print(f"\n{name}: {export_model(folder, exported, 'openvino', n_check=8)[-1]}")
        stock = pipeline("image-classification", model=str(folder), device="cpu")
        ways: dict[str, Detector] = {
            "torch float32": Detector.from_pretrained(folder, device="cpu"),
            "OpenVINO float32": Detector.from_pretrained(exported, engine="openvino"),
            "OpenVINO bf16": Detector.from_pretrained(exported, engine="openvino", dtype="bf16"),
        }
        folder_runs = {"pipeline": lambda stock=stock: list(stock(files, batch_size=1))}
        single_runs = {"pipeline": lambda stock=stock: [stock(files[i]) for i in range(min(8, len(files)))]}
        for way, detector in ways.items():
            folder_runs[way] = lambda d=detector: list(d.stream(files, faces=False))
            single_runs[way] = lambda d=detector: [d(files[i], faces=False) for i in range(min(8, len(files)))]
        for title, runs, n in (("folder", folder_runs, len(files)), ("single", single_runs, min(8, len(files)))):
            rounds = measured(runs, args.rounds)
            for way, times in rounds.items():
                wall, cpu = (np.median(rounds["pipeline"][:, k] / times[:, k]) for k in (0, 1))
                each = 1000 * np.median(times[:, 0]) / n
                ratios = f"the pipeline takes {wall:.2f} x the time, {cpu:.2f} x the CPU"
                print(f"  {title} {way:<17}{each:8.1f} ms an image; {ratios}")
                rows[f"{title}, {way}"] = {"ms": round(each, 2), "faster": round(wall, 3), "less_cpu": round(cpu, 3)}
        for way, detector in ways.items():
            spent = [result.timing for result in detector.stream(files, faces=False)]
            parts = {part: sum(timing[part] for timing in spent) for part in ("decode", "pixels", "model")}
            share = (parts["decode"] + parts["pixels"]) / sum(parts.values())
            print(f"  {way}: decoding and preprocessing {share:.1%} of the work")
            rows[f"folder, {way}"]["reading_share"] = round(share, 4)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


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


def main() -> None:
    """Run one of the three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "agreement", "killed"])
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["convnextv2-tiny", "vit-small"])
    parser.add_argument("--model", help="a trained model folder instead")
    parser.add_argument("--data", help="labelled folder of pictures for the agreement; drawn ones when not given")
    parser.add_argument("--out", type=Path, help="JSON file for the throughput")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{torch.get_num_threads()} torch threads")
    with tempfile.TemporaryDirectory() as temporary:
        {"throughput": throughput, "agreement": agreement, "killed": killed}[args.what](args, Path(temporary))


if __name__ == "__main__":
    main()
