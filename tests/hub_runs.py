"""A finished run's folder in little, beside it what must not be published; and how to reach the stand-in and an app."""

from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import HubServer
from huggingface_hub import constants
from safetensors.torch import save_file

from bonaface.report.write import write_report
from bonaface.stats.predictions import predictions_frame

SECRET_PLACE = "/home/somebody/very private/faces"


def small_run(folder: Path) -> Path:
    """Configuration, weights, report and recipe of a run; its files name a path, its checkpoints hold pickles."""
    return Path(shutil.copytree(_small_run(), folder))


@functools.cache
def _small_run() -> Path:
    """Made once, for its report takes seconds; deleted at exit."""
    scratch = tempfile.TemporaryDirectory(prefix="bonaface-run-")
    atexit.register(scratch.cleanup)
    folder = Path(scratch.name) / "run"
    folder.mkdir()
    labels = ["fake", "real"]
    table = predictions_frame(
        [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]],
        ["fake", "fake", "real", "real"],
        labels=labels,
        real_label="real",
        path=list("abcd"),
        source=["gan", "gan", "cam", "cam"],
        split="test",
    )
    counts = [{"split": "train", "label": "fake", "source": "gan", "n": 1234}]
    recipe = {"data": [SECRET_PLACE], "model": "resnet", "learning_rate": 0.001}
    details = {
        "title": f"run: resnet on {SECRET_PLACE}", "model": "resnet", "data": SECRET_PLACE, "counts": counts,
        "recipe": recipe, "train_sources": ["gan", "cam"], "audit": {"level": "clean", "verdict": "clean: nothing"},
    }  # fmt: skip
    write_report(folder, table, labels=labels, real_label="real", details=details, n_resamples=20)
    config = {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "id2label": dict(enumerate(labels)),
        "bonaface": {"data_fingerprint": "0123456789abcdef", "versions": {"torch": "2"}, "real_label": "real"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"crop_size": {"height": 32, "width": 32}}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    save_file({"weight": torch.arange(4.0)}, folder / "model.safetensors")
    checkpoint = folder / "checkpoints" / "1-train" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    for name in ("optimizer.pt", "rng_state.pth", "model.safetensors"):
        (checkpoint / name).write_bytes(b"not for others")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "notes.txt").write_text("private")
    return folder


def go_online(monkeypatch: pytest.MonkeyPatch, hub: HubServer, cache: Path, token: str | None = "hf_test") -> None:
    """Point this process's client, which read its settings when it was imported, at the stand-in."""
    settings = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(cache)}
    settings["HUGGINGFACE_CO_URL_TEMPLATE"] = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)


def environment(hub: HubServer, home: Path, token: str | None = "hf_test") -> dict[str, str]:
    """The same for a process of its own, with an empty cache below ``home``."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    found |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    found |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "BONAFACE_YUNET": ""}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found | ({"HF_TOKEN": token} if token else {})


def ask_app(
    command: Sequence[str], images: Sequence[Path], *, cwd: Path, env: Mapping[str, str], seconds: float = 300
) -> list[dict[str, Any]]:
    """Start an app on a free port, ask it what it says of each image as soon as it can be asked, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    with (cwd / "app.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=cwd, env=dict(env), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while not healthy(address):
                log.seek(0)
                assert process.poll() is None, log.read()
                assert time.monotonic() < until, log.read()
                time.sleep(0.2)
            return [_ask(address, image) for image in images]
        finally:
            process.kill()  # that it ends well when it is asked to has a test of its own
            process.wait()


def healthy(address: str) -> bool:
    """Whether the model can be asked."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=10):
            return True
    except OSError:
        return False


def _ask(address: str, image: Path) -> dict[str, Any]:
    sent = {"url": "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()}
    body = json.dumps({"data": [sent]}).encode()
    request = urllib.request.Request(f"{address}/gradio_api/run/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())["data"][0]
