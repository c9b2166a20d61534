"""Detector.stream on a Ray cluster: the same results in the same order, whichever workers are lost.

Every worker is a Ray actor on one core (or one GPU, where the cluster has some) that loads the model once. It is sent
paths and reads the files itself: files, model and the folder that the run is started in must be at the same place on
every node. A chunk of paths whose worker is lost, with its node or alone, is given to the next one. Workers are
started again as the cluster has room, so nodes may leave and join.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bonaface.errors import UsageError
from bonaface.imaging.faces import find_yunet
from bonaface.inference.detector import Detector, Result
from bonaface.inference.engines import TorchEngine

BATCHES = 8  # of a chunk, which is what a worker is sent at a time
AHEAD = 4  # chunks a worker that may be finished before the one that is to be given out next
MAX_LOSSES = 3  # workers that one chunk may cost, or that may be lost in a row while they load the model
LOOK_SECONDS = 1.0  # between two looks at how many workers the cluster has room for


class RayDetector:
    """A detector whose images are scored by the workers of a cluster.

    Connects to the cluster of the environment's ``RAY_ADDRESS`` ("auto": the one that ``ray start`` began here);
    without it, one is begun on this machine, which listens on 127.0.0.1. Takes the arguments of
    :meth:`Detector.from_pretrained`.

    Attributes:
        labels, engine, resembles: those of the detector that every worker loads.
        finished: chunks that were scored, by node.
        lost: workers that were lost.

    Raises:
        UsageError: Ray is not installed, or what :meth:`Detector.from_pretrained` raises.
    """

    def __init__(self, name: str | os.PathLike[str], **options: Any) -> None:
        _require_ray()
        detector = Detector.from_pretrained(name, **options)  # here too: mistakes are said before the cluster is asked
        self.labels, self.engine, self.resembles = detector.labels, detector.engine, detector.resembles
        self.finished: Counter[str] = Counter()
        self.lost = 0
        self._name, self._options = os.fspath(name), options

    def stream(
        self, images: Iterable[str], *, faces: bool | None = None, batch_size: int | None = None
    ) -> Iterator[Result]:
        """As :meth:`Detector.stream`, of paths.

        Raises:
            UsageError: the cluster has no room at all, a node lacks the files, the folder or the model, or one chunk
                of files has cost ``MAX_LOSSES`` workers.
        """
        size = batch_size or self.engine.batch_size
        paths = iter(images)
        chunks = (_Chunk(i, part) for i, part in enumerate(iter(lambda: list(islice(paths, BATCHES * size)), [])))
        options = dict(self._options)
        if faces is not False:  # this machine's environment names the weights; a worker has its node's
            options["yunet"] = find_yunet(options.get("yunet"))
        with _connected() as ray:
            on_gpu = isinstance(self.engine, TorchEngine) and options.get("device") != "cpu" and _room(ray, "GPU") > 0
            resource = "GPU" if on_gpu else "CPU"
            if not on_gpu:
                options["device"] = "cpu"
            actor = ray.remote(num_cpus=1, num_gpus=int(on_gpu))(_Worker)
            crew = _Crew(self, ray, lambda: actor.remote(str(Path.cwd()), self._name, options), resource)
            try:
                yield from crew.work(chunks, faces, size)
            finally:
                crew.dismiss()


@dataclass
class _Chunk:
    index: int
    paths: list[str]
    losses: int = 0


class _Worker:
    """The actor."""

    def __init__(self, folder: str, name: str, options: dict[str, Any]) -> None:
        self._folder, self._name, self._options = folder, name, options

    def load(self) -> str:
        """Load the model; the node's id. A method of its own, since an error in __init__ reaches nobody as it is."""
        import ray

        try:
            os.chdir(self._folder)  # for relative paths
        except OSError as error:
            raise UsageError(
                f"a node of the cluster has no folder {self._folder}", "start from a folder that all nodes share"
            ) from error
        self._detector = Detector.from_pretrained(self._name, **self._options)
        return ray.get_runtime_context().get_node_id()

    def score(self, paths: Sequence[str], faces: bool | None, batch_size: int) -> list[Result]:
        return list(self._detector.stream(paths, faces=faces, batch_size=batch_size))


class _Crew:
    """The workers of one call, what each is at, and what is finished."""

    def __init__(self, detector: RayDetector, ray: Any, start: Any, resource: str) -> None:
        self._detector, self._ray, self._start, self._resource = detector, ray, start, resource
        self._workers: dict[Any, str] = {}  # actor -> its node, "" while it loads
        self._idle: list[Any] = []
        self._tasks: dict[Any, tuple[Any, _Chunk | None]] = {}  # object reference -> actor, chunk (None: it loads)
        self._again: deque[_Chunk] = deque()
        self._losses_in_loading, self._looked = 0, -LOOK_SECONDS

    def work(self, chunks: Iterator[_Chunk], faces: bool | None, size: int) -> Iterator[Result]:
        """Results of all chunks, in order."""
        done: dict[int, list[Result]] = {}
        first, ahead = 0, next(chunks, None)
        while ahead or self._again or done or any(chunk for _, chunk in self._tasks.values()):
            self._recruit()
            while self._idle and (self._again or (ahead and ahead.index < first + AHEAD * len(self._workers))):
                if self._again:
                    chunk = self._again.popleft()
                else:
                    assert ahead is not None
                    chunk, ahead = ahead, next(chunks, None)
                actor = self._idle.pop()
                self._tasks[actor.score.remote(chunk.paths, faces, size)] = actor, chunk
            if not self._tasks:  # every worker is lost
                time.sleep(LOOK_SECONDS)
            ready, _ = self._ray.wait(list(self._tasks), timeout=LOOK_SECONDS)
            for task in ready:
                if (finished := self._finish(task)) is not None:
                    done[finished[0].index] = finished[1]
            while first in done:
                yield from done.pop(first)
                first += 1

    def dismiss(self) -> None:
        """End all workers."""
        for actor in self._workers:
            self._ray.kill(actor)
        self._workers.clear()

    def _recruit(self) -> None:
        """Start as many workers as the cluster has room for."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        room = _room(self._ray, self._resource)
        if not room and not self._workers:
            raise UsageError(f"the cluster has no {self._resource}", "add a node: ray start --address=…")
        for _ in range(room - len(self._workers)):
            actor = self._start()
            self._workers[actor] = ""
            self._tasks[actor.load.remote()] = actor, None

    def _finish(self, task: Any) -> tuple[_Chunk, list[Result]] | None:
        """Take in what a worker has done: a chunk and its results; None where it has loaded, or was lost."""
        actor, chunk = self._tasks.pop(task)
        try:
            outcome = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:  # of our own code: as if it had been raised here
            raise error.cause from error
        except self._ray.exceptions.RayError as error:  # of the worker, its node, the network
            self._lose(actor, chunk, error)
            return None
        self._idle.append(actor)
        if chunk is None:
            self._workers[actor], self._losses_in_loading = outcome, 0
            return None
        self._detector.finished[self._workers[actor]] += 1
        for path, result in zip(chunk.paths, outcome, strict=True):
            if result.status == "missing" and Path(path).exists():
                raise UsageError(
                    f"{path} exists here but not on every node", "put the files in storage that all nodes share"
                )
        return chunk, outcome

    def _lose(self, actor: Any, chunk: _Chunk | None, error: Exception) -> None:
        self._ray.kill(actor)  # it may be cut off rather than dead
        del self._workers[actor]
        self._detector.lost += 1
        why = f"({str(error).strip().splitlines()[0]})"
        if chunk is None:
            self._losses_in_loading += 1
            if self._losses_in_loading >= MAX_LOSSES:
                raise UsageError(f"workers were lost while they loaded the model {why}", "give the nodes more memory")
            return
        chunk.losses += 1
        if chunk.losses >= MAX_LOSSES:
            raise UsageError(
                f"{MAX_LOSSES} workers were lost at the {len(chunk.paths)} files from {chunk.paths[0]} onwards {why}",
                "give the nodes more memory, or leave those files out; rows scored so far are kept",
            )
        self._again.append(chunk)


def _room(ray: Any, resource: str) -> int:
    return int(ray.cluster_resources().get(resource, 0))


def _require_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_ADDRESS" not in os.environ:
        # Read when Ray is imported. Off, it puts a cluster of our own on 127.0.0.1, as is usual on these two systems.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed", "pip install 'bonaface[ray]', or leave out --engine ray") from error
    return ray


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray, on the cluster that this process uses already, or else on one for as long as it is needed."""
    ray = _require_ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    host, _, port = address.rpartition("/")[2].rpartition(":")
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        if host and port.isdigit():  # asked first: Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error})", "set RAY_ADDRESS to a running cluster, or unset it"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
