"""A real server of ``app.py`` on a free port, with a tiny model; one for all tests that ask for the same options."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import ROOT, make_faces
from tiny import SIZES, tiny_run

from bonaface.data.dataset import hold_out_calibration, image_bytes, load_data
from bonaface.inference.detector import Detector
from bonaface.report.write import write_report
from bonaface.stats.predictions import predictions_frame

START_SECONDS = 300
# What the server of most tests allows: small enough to go beyond in a test.
MAX_FILES, MAX_UPLOAD_MB = 12, 4
# As a file name, a label, or in a model's card: it must never come to run.
# Runs a script as an installation without the shipped model would; the working folder has none.
BARE = """
import pathlib, runpy, sys
from bonaface import resources
resources.INSTALLED = pathlib.Path.cwd()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
HOSTILE = "<img src=x onerror=window.hacked=1>"


@dataclass(frozen=True)
class Server:
    """Where it listens, the process, and the folder in which it keeps uploads."""

    url: str
    process: subprocess.Popen[bytes]
    temporary: Path

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait(self, path: str, seconds: float = START_SECONDS) -> None:
        """Until GET gives 200."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.get(path)[0] == 200:
                    return
            except OSError:
                if self.process.poll() is not None:
                    break
            time.sleep(0.05)
        raise AssertionError(f"no answer on {path}; the server's state is {self.process.poll()}")


@functools.cache
def scratch() -> Path:
    """A folder for everything here, deleted at exit."""
    folder = tempfile.TemporaryDirectory(prefix="bonaface-served-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def run_folder() -> Path:
    """A finished run with a tiny calibrated model: bright noise is real, dark noise is fake."""
    counts = {"real/a": 80, "real/b": 80, "fake/x": 80, "fake/y": 80}
    data = load_data(make_faces(scratch() / "data", counts, size=(36, 36)), **SIZES)
    data = hold_out_calibration(data)
    folder = tiny_run(scratch() / "runs" / "tiny0", data)
    detector = Detector.from_pretrained(folder)
    frames = []
    for split in ("calibration", "test"):
        rows = data.splits[split]
        scores = detector.scores([image_bytes(image) for image in rows["image"]])
        names = {"path": rows["path"], "source": rows["source"], "split": split}
        frames.append(predictions_frame(scores, rows["label"], labels=data.labels, real_label=data.real_label, **names))
    table = pd.concat(frames, ignore_index=True)
    details = {"title": "tiny", "train_sources": ["a", "b", "x", "y"]}
    write_report(folder, table, labels=data.labels, real_label=data.real_label, details=details, n_resamples=50)
    (folder / "README.md").write_text(f"---\ntags: [x]\n---\n\n# The tiny card\n\n{HOSTILE}\n")
    return folder


@functools.cache
def second_folder() -> Path:
    """Another model to compare with; that it says the same is no matter here."""
    return Path(shutil.copytree(run_folder(), run_folder().with_name("tiny1")))


@functools.cache
def server(*options: str, models: tuple[Path, ...] | None = None, ready: bool = True) -> Server:
    """A running app, with tools where there is no option; started once for the same options, stopped at exit.

    ``models`` are the two tiny runs when None; with () the app finds none, as an installation without the shipped
    model. ``ready`` waits for the model.
    """
    chosen = (run_folder(), second_folder()) if models is None else models
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary, elsewhere = scratch() / f"tmp{port}", scratch() / f"cwd{port}"
    temporary.mkdir()
    elsewhere.mkdir()  # without runs/, so that the app finds no model by itself
    model = ["--model", *map(str, chosen)] if chosen else []
    limits = ["--max-files", str(MAX_FILES), "--max-upload", str(MAX_UPLOAD_MB)]
    environment = {**os.environ, "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", "BONAFACE_YUNET": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    app = str((ROOT if chosen else _without_models()) / "app.py")
    log = (scratch() / f"log{port}").open("wb")
    process = subprocess.Popen(
        [sys.executable, app, "--port", str(port), *model, *limits, *(options or ["--mcp"])],
        cwd=elsewhere, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    atexit.register(_stop, process)
    found = Server(f"http://127.0.0.1:{port}", process, temporary)
    found.wait("/health" if ready else "/")
    return found


def _without_models() -> Path:
    """A copy of the project that no model comes with."""
    copy = scratch() / "bare"
    if not copy.exists():
        shutil.copytree(
            ROOT / "bonaface", copy / "bonaface", ignore=shutil.ignore_patterns("__pycache__", "_resources")
        )
        shutil.copy(ROOT / "app.py", copy)
    return copy


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def noise(seed: int, *, dark: bool, size: tuple[int, int] = (36, 36)) -> np.ndarray:
    """An image like those that the tiny model knows: uint8 (h, w, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return pixels // 3 if dark else pixels


def prediction_of(body: bytes) -> dict[str, object]:
    """The data of Gradio's stream of events; AssertionError where it ended in an error."""
    text = body.decode()
    assert "event: complete" in text, text
    return json.loads(text.rsplit("data: ", 1)[1])[0]
