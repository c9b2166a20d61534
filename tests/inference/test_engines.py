"""What an engine leaves behind in the process that ran it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ViTImageProcessor

from bonaface.errors import UsageError
from bonaface.inference.engines import TorchEngine, load_engine
from bonaface.inference.export import export_model
from bonaface.models.load import load_model

ROOT = Path(__file__).resolve().parents[2]
DROPPED_ELSEWHERE = """
import faulthandler, gc, mmap, os, signal, sys, threading
faulthandler.enable()  # as tests and servers do; its handler wants a stack of its own

from bonaface.inference.detector import Detector

def drop(box):
    box.clear()
    gc.collect()

for _ in range(3):
    box = [Detector.from_pretrained(sys.argv[1], engine="openvino")]
    thread = threading.Thread(target=drop, args=(box,))
    thread.start()
    thread.join()
taken = [mmap.mmap(-1, 1 << 16) for _ in range(100)]  # what was freed is somebody else's now
for block in taken:
    block.close()
signal.signal(signal.SIGCHLD, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGCHLD)
print("alive", flush=True)
"""


AT_ONCE = """
import threading
from bonaface.inference.engines import openvino_core

cores, start = [], threading.Barrier(8)

def take():
    start.wait()
    cores.append(openvino_core())

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(cores), len(set(map(id, cores))))
"""


@pytest.mark.slow
def test_threads_that_come_at_once_share_one_openvino_core() -> None:
    """In a process that has not imported OpenVINO yet, which takes long enough for all of them to come."""
    done = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["8", "1"], done.stderr


@pytest.mark.parametrize("device", ["nowhere", "cuda"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model, _ = load_model("cnn", ["fake", "real"], image_size=32)
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=f"device '{device}'"):
        load_engine(tmp_path, device=device, dtype=None)


def test_an_engine_keeps_nothing_of_a_call_that_failed(tmp_path: Path) -> None:
    """What a failed call left would collect the features, and the graphs, of whoever runs the model next."""
    model, _ = load_model("resnet", ["fake", "real"], image_size=32)
    engine = TorchEngine(model, torch.device("cpu"), torch.float32)
    with pytest.raises(ValueError, match="channel"):
        engine(torch.zeros(1, 4, 32, 32))
    assert not hasattr(engine._last._seen, "calls")
    assert engine(torch.zeros(1, 3, 32, 32))[1] is not None


@pytest.mark.slow
def test_a_signal_is_handled_after_another_thread_dropped_an_openvino_engine(tmp_path: Path) -> None:
    model, _ = load_model("cnn", ["fake", "real"], image_size=32)
    model.config.bonaface = {"real_label": "real"}
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "exported", "openvino", n_check=2)
    script = tmp_path / "script.py"
    script.write_text(DROPPED_ELSEWHERE)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "exported"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split()) == (0, ["handled", "alive"]), done.stderr
