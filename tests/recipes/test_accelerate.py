"""The configurations of recipes/accelerate, launched on CPU processes: they train as one process does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from conftest import ROOT, make_faces

from bonaface.cli import train

CONFIGS = ROOT / "recipes" / "accelerate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 80, "fake/gan": 40, "fake/sd": 40}, size=(160, 160))


def flags(folder: Path, out: Path, batch: int) -> list[str]:
    """A run without batch norms, in float32: the gradient of a step is the same however its images are shared.

    112 training images make whole batches; accelerate fills the last one up where there are several processes.
    """
    found = ["--data", str(folder), "--output_dir", str(out), "--model", "vit", "--image_size", "32", "--bf16", "False"]
    found += ["--num_train_epochs", "2", "--per_device_train_batch_size", str(batch), "--robustness", "none"]
    found += ["--dataloader_num_workers", "0", "--disable_tqdm", "True", "--learning_rate", "0.001"]
    return [*found, "--use_cpu", "True"]


def launch(config: str, *launcher: str, folder: Path, out: Path, batch: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config), *launcher]
    return subprocess.Popen(
        [*command, str(ROOT / "train_hf.py"), *flags(folder, out, batch)], cwd=out.parent, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory, plots_not_rendered: None) -> tuple[Path, str]:
    out, said = tmp_path_factory.mktemp("one") / "run", io.StringIO()
    with contextlib.chdir(out.parent), contextlib.redirect_stdout(said):
        train.main(flags(folder, out, 16))
    return out, said.getvalue()


def evaluations(said: str) -> list[list[float]]:
    """The figures of each evaluation during training, as printed."""
    return [[float(x) for x in re.findall(r"\d+\.\d+", line)] for line in said.splitlines() if line.startswith("epoch")]


def assert_same_run(run: Path, said: str, alone: tuple[Path, str], processes: int) -> None:
    """Every image scored once and alike, and every figure that was gathered during training."""
    assert len(evaluations(said)) == 2
    np.testing.assert_allclose(evaluations(said), evaluations(alone[1]), atol=3e-3)
    alone_run = alone[0]
    metrics = [json.loads((each / "report" / "metrics.json").read_text()) for each in (run, alone_run)]
    assert [each["facts"]["processes"] for each in metrics] == [processes, 1]
    tables = [pd.read_parquet(each / "report" / "predictions.parquet").sort_values("path") for each in (run, alone_run)]
    assert list(tables[0]["path"]) == list(tables[1]["path"])
    assert tables[0]["path"].is_unique
    for column in [name for name in tables[0].columns if name.startswith("p_")]:
        np.testing.assert_allclose(tables[0][column], tables[1][column], atol=2e-3)


@pytest.mark.slow
def test_two_processes_of_one_machine_prepare_once_and_train_as_one_does(
    folder: Path, alone: tuple[Path, str], tmp_path: Path
) -> None:
    process = launch("eight_gpus.yaml", "--num_processes", "2", folder=folder, out=tmp_path / "run", batch=8)
    out = finish(process)
    assert out.count("aligned: ") == out.count("report  ") == out.count("speed: ") == 1
    assert "2 processes" in out
    assert_same_run(tmp_path / "run", out, alone, 2)


@pytest.mark.slow
def test_two_nodes_train_as_one_process_does(folder: Path, alone: tuple[Path, str], tmp_path: Path) -> None:
    """Two launchers that find each other over a socket, as on two machines with one file system."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    nodes = [
        launch("two_nodes.yaml", *where, "--machine_rank", rank, folder=folder, out=tmp_path / "run", batch=8)
        for rank in "01"
    ]
    first, second = [finish(node) for node in nodes]
    assert first.count("report  ") == 1
    assert "report  " not in second
    assert_same_run(tmp_path / "run", first, alone, 2)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_can_be_read_and_leaves_precision_to_the_run(path: Path) -> None:
    """Two places that choose bf16 could choose differently."""
    assert load_config_from_file(str(path)).num_processes >= 1
    assert yaml.safe_load(path.read_text())["mixed_precision"] == "no"
