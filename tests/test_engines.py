"""What an engine leaves behind in the process that ran it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from transformers import ViTImageProcessor

from bonafide.export import export_model
from bonafide.models import load_model

ROOT = Path(__file__).resolve().parent.parent
DROPPED_ELSEWHERE = """
import faulthandler, gc, mmap, os, signal, sys, threading
faulthandler.enable()  # as tests and servers do; its handler wants a stack of its own

from bonafide.detector import Detector

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


def test_a_signal_is_handled_after_another_thread_dropped_an_openvino_engine(tmp_path: Path) -> None:
    model, _ = load_model("cnn", ["fake", "real"], image_size=32)
    model.config.bonafide = {"real_label": "real"}
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "exported", "openvino", n_check=2)
    script = tmp_path / "script.py"
    script.write_text(DROPPED_ELSEWHERE)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "exported"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split()) == (0, ["handled", "alive"]), done.stderr
