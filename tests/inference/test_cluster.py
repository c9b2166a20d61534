"""The table of a cluster is that of one machine, though a node is lost on the way; mistakes are said plainly.

The cluster is a real one: two nodes with a core each on 127.0.0.1, one of which is killed with its worker.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: its nodes listen on 127.0.0.1
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's 15 starves its workers on a machine that others use

import pandas as pd
import pytest
import torch
from conftest import make_image

from bonaface.errors import UsageError
from bonaface.inference.cluster import BATCHES, RayDetector, _Chunk, _Crew
from bonaface.inference.detector import Detector, Result
from bonaface.inference.scoring import find_inputs, run_predict_command, score_files
from bonaface.models.facts import ModelFacts
from bonaface.models.load import load_model
from bonaface.stats.certificates import Band

pytestmark = pytest.mark.slow

N_FILES, BATCH = 700, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    network, processor = load_model("cnn", ["fake", "real"], from_scratch=True, image_size=32)
    network.config.bonaface = ModelFacts("real", band=Band(0.4, 0.6)).to_block()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of many files: a few images under many names, some that are broken, and one that is missing."""
    folder = tmp_path_factory.mktemp("images")
    seeds = [make_image(folder / f"seed{i}.png", i, (500, 500)) for i in range(10)]
    for i in range(N_FILES):
        (folder / f"{i:05d}.png").symlink_to(seeds[i % 10])
    (folder / "00017.jpg").write_bytes(b"")
    (folder / "00033.jpg").write_text("not an image at all")
    return [*find_inputs([folder]), str(folder / "none.png")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, Any]]:
    """A head, and the node that will be lost."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    second = nodes.add_node(**node)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes, second
    ray.shutdown()
    nodes.shutdown()


def interrupt(detector: Detector, paths: list[str], out: Path, after: int) -> None:
    """Begin a table on this machine, and break it off."""
    stream = detector.stream

    def interrupted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for n, result in enumerate(stream(*args, **kwargs)):
            if n == after:
                raise KeyboardInterrupt
            yield result

    detector.stream = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        score_files(paths, detector, out, faces=False, batch_size=BATCH)
    detector.stream = stream  # type: ignore[method-assign]


def test_a_node_is_killed_half_way_and_the_table_is_the_same(
    cluster: tuple[Any, Any], model: Path, paths: list[str], tmp_path: Path
) -> None:
    """The cluster goes on with a run that one machine has begun."""
    nodes, second = cluster
    local, detector, out = Detector.from_pretrained(model), RayDetector(model), tmp_path / "cluster.csv"
    interrupt(local, paths, out, 7)
    rows_at_the_kill = []

    def kill() -> None:
        """When both nodes have finished something, and far from all."""
        while len(detector.finished) < 2:
            time.sleep(0.01)
        rows_at_the_kill.append(sum(detector.finished.values()) * BATCHES * BATCH)
        nodes.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = score_files(paths, detector, out, faces=False, batch_size=BATCH)
    killer.join(timeout=10)
    assert rows_at_the_kill
    assert rows_at_the_kill[0] < 0.8 * len(paths)
    assert detector.lost >= 1
    assert second.node_id in detector.finished
    assert summary.continued_from == 6
    assert summary.verdicts["error"] == 3
    score_files(paths, local, tmp_path / "local.csv", faces=False, batch_size=BATCH)
    found, expected = (pd.read_csv(file) for file in (out, tmp_path / "local.csv"))
    assert list(found["path"]) == paths
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-6)
    assert set(found["status"]) == {"ok", "empty", "missing", "wrong extension"}


@pytest.mark.usefixtures("cluster")
def test_mistakes_of_the_workers_reach_the_user(model: Path, paths: list[str], tmp_path: Path) -> None:
    """Errors that arise on a node alone, such as weights of the face detector that are none."""
    weights = tmp_path / "yunet.onnx"
    weights.write_bytes(b"no model")
    image = make_image(tmp_path / "x.png", size=(400, 400))
    with pytest.raises(UsageError, match="is not a YuNet model"):
        score_files([str(image)], RayDetector(model, yunet=weights), tmp_path / "s.csv", faces=True)


class Lost(Exception):
    """What Ray raises for a lost worker."""


class FakeRay:
    """Workers of a cluster without one: each call is lost with a chance, or where it holds the path that kills."""

    exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=Lost)

    def __init__(self, chance: float, seed: int, workers: int = 3, deadly: str = "", loads: bool = True) -> None:
        self.rng, self.chance, self.workers, self.deadly, self.loads = Random(seed), chance, workers, deadly, loads

    def actor(self) -> Any:
        call = type("Call", (list,), {"__hash__": object.__hash__})
        load = SimpleNamespace(remote=lambda: call([None]))
        score = SimpleNamespace(remote=lambda paths, *_: call(paths))
        return type("Actor", (), {"load": load, "score": score})()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.workers}

    def wait(self, tasks: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return [self.rng.choice(tasks)] if tasks else [], []

    def kill(self, actor: Any) -> None:
        pass

    def get(self, task: list[str | None]) -> Any:
        if task == [None]:
            if not self.loads:
                raise Lost("no memory")
            return "node"
        if self.deadly in task or self.rng.random() < self.chance:
            raise Lost("the worker is gone")
        return [Result({}, 0.5, path, None) for path in task]  # type: ignore[arg-type]


def run_crew(fake: FakeRay, n_chunks: int) -> list[str]:
    detector = RayDetector.__new__(RayDetector)
    detector.finished, detector.lost = Counter(), 0
    chunks = (_Chunk(i, [f"{i}-{k}" for k in range(3)]) for i in range(n_chunks))
    return [result.verdict for result in _Crew(detector, fake, fake.actor, "CPU").work(chunks, None, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_results_keep_their_order_however_workers_finish_and_are_lost(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonaface.inference.cluster.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("bonaface.inference.cluster.MAX_LOSSES", 100)
    assert run_crew(FakeRay(0.3, seed), 40) == [f"{i}-{k}" for i in range(40) for k in range(3)]


def test_files_that_cost_every_worker_end_the_run_with_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonaface.inference.cluster.LOOK_SECONDS", 0.0)
    with pytest.raises(UsageError, match=r"3 workers were lost at the 3 files from 7-0 onwards \(the worker is gone\)"):
        run_crew(FakeRay(0, 0, deadly="7-1"), 40)
    with pytest.raises(UsageError, match="while they load"):
        run_crew(FakeRay(0, 0, loads=False), 4)
    with pytest.raises(UsageError, match="has no CPU"):
        run_crew(FakeRay(0, 0, workers=0), 4)


def test_an_address_where_no_cluster_answers(
    monkeypatch: pytest.MonkeyPatch, model: Path, paths: list[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UsageError, match="no Ray cluster answers at") as caught:
            score_files(paths, RayDetector(model), tmp_path / "s.csv")
        assert "RAY_ADDRESS" in caught.value.hint


def test_without_ray_the_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray is not installed") as caught:
        run_predict_command(["x.png"], "m", str(tmp_path / "s.csv"), engine="ray")
    assert "bonaface[ray]" in caught.value.hint
