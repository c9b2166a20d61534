"""The app under load: 32 clients at once, its memory, and its start; prints three Markdown tables.

    python benchmarks/app_load.py --model runs/NAME [--seconds 60] [--clients 32] [--requests 2000]

1. Start: from the command to the page, and to the answer to a picture that was sent as soon as the page was there; and
   how long a single client waits for each answer once the app is warm.
2. Load: clients that send pictures (bytes inside the question) as fast as they are answered, and how many pictures the
   detector itself does in a second, before and after, on the same files. The clients share the cores with the server.
3. Memory: the server's resident size after 200 requests and after all, each time when it has rested and given back what
   waiting pictures took.

Every answer is compared with the detector's own score for that picture: one that is lost, wrong or an error is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from record import record

from bonaface.data.sample import SampleSpec, make_image

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 24
QUIET = 20  # seconds before memory is looked at: more than between two of the app's own looks


@dataclass
class Outcome:
    """What the clients met: seconds of each right answer, and what was wrong."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class App:
    """A server of its own process."""

    def __init__(
        self, model: str, options: Sequence[str] = (), log: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.started = time.perf_counter()
        command = [sys.executable, str(ROOT / "app.py"), "--model", model, "--port", str(port), *options]
        with (log or Path(os.devnull)).open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | dict(env or {}))

    def wait(self) -> float:
        """Seconds from the start to the page."""
        while True:
            try:
                if httpx.get(self.url, timeout=5).status_code == 200:
                    return time.perf_counter() - self.started
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise SystemExit("the app ended at its start; run it by hand to see why") from None
            time.sleep(0.02)

    def memory(self) -> float:
        """Resident MiB at rest."""
        time.sleep(QUIET)
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        """As Ctrl-C would."""
        self.process.terminate()
        self.process.wait(30)


async def ask(client: httpx.AsyncClient, url: str, data: str, session: str) -> float:
    """One picture to ``/predict``; its p_fake. Raises ValueError with what came instead."""
    question = {"data": [{"url": data}], "session_hash": session}  # a client keeps its session, as gradio_client does
    answer = await client.post(f"{url}/gradio_api/run/predict", json=question)
    if answer.status_code != 200:
        raise ValueError(f"{answer.status_code}: {answer.text[:100]}")
    return float(answer.json()["data"][0]["p_fake"])


async def load(
    url: str, questions: list[str], expected: list[float], *, clients: int, seconds: float, most: int = 10**9
) -> Outcome:
    """``clients`` ask one question after the other for some seconds, or until ``most`` have been asked."""
    outcome, until, asked = Outcome(), time.perf_counter() + seconds, iter(range(most))

    async def visit(client: httpx.AsyncClient, session: str) -> None:
        for number in asked:
            if time.perf_counter() > until:
                return
            i, began = number % len(questions), time.perf_counter()
            try:
                score = await ask(client, url, questions[i], session)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                outcome.wrong.append(f"{type(error).__name__}: {error}")
                continue
            if abs(score - expected[i]) < 1e-4:
                outcome.seconds.append(time.perf_counter() - began)
            else:
                outcome.wrong.append(f"picture {i}: {score} in place of {expected[i]}")

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=clients)) as client:
        await asyncio.gather(*(visit(client, f"client{number}") for number in range(clients)))
    return outcome


def pictures(size: int) -> list[bytes]:
    """Drawn portraits as JPEG."""
    spec = SampleSpec(n=PICTURES, size=size, seed=5)
    return [make_image(spec, index)[1] for index in range(PICTURES)]


def detector_speed(model: str, files: list[bytes], seconds: float) -> tuple[float, list[float]]:
    """Pictures a second of the detector alone on all cores, in a process of its own, and each picture's p_fake."""
    code = (
        "import sys, time, pickle, json\n"
        "from bonaface.inference.detector import Detector\n"
        "files, seconds = pickle.load(sys.stdin.buffer)\n"
        "detector = Detector.from_pretrained(sys.argv[1])\n"
        "scores = [r.p_fake for r in detector(files)]\n"
        "n, start = 0, time.perf_counter()\n"
        "while time.perf_counter() - start < seconds:\n"
        "    n += len(detector(files * 4))\n"
        "print(json.dumps([n / (time.perf_counter() - start), scores]))\n"
    )
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", code, model],
        input=pickle.dumps((files, seconds)),
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    speed, scores = json.loads(done.stdout.splitlines()[-1])
    return speed, scores


def main() -> None:
    """Start an app, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, pixels")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    files = pictures(options.size)
    questions = ["data:image/jpeg;base64," + base64.b64encode(file).decode() for file in files]
    before, expected = detector_speed(options.model, files, options.seconds / 6)
    app = App(options.model)
    try:
        page = app.wait()
        asyncio.run(load(app.url, questions, expected, clients=1, seconds=300, most=1))
        first = time.perf_counter() - app.started
        print("| start | seconds |\n|---|---|")
        single = asyncio.run(load(app.url, questions, expected, clients=1, seconds=300, most=100))
        print(f"| the page answers | {page:.1f} |\n| the first prediction is there | {first:.1f} |")
        p50, p95 = np.percentile(single.seconds, [50, 95])
        print(f"| a single client's answer, warm: p50, p95 | {p50:.3f}, {p95:.3f} |\n")

        few = min(200, options.requests)
        asyncio.run(load(app.url, questions, expected, clients=8, seconds=600, most=few))
        early = app.memory()
        start = time.perf_counter()
        outcome = asyncio.run(load(app.url, questions, expected, clients=options.clients, seconds=options.seconds))
        rate = len(outcome.seconds) / (time.perf_counter() - start)
        done = few + len(outcome.seconds)
        rest = max(0, options.requests - done)
        more = asyncio.run(load(app.url, questions, expected, clients=options.clients, seconds=900, most=rest))
        late = app.memory()
    finally:
        app.stop()
    after, _ = detector_speed(options.model, files, options.seconds / 6)
    alone = (before + after) / 2
    wrong = single.wrong + outcome.wrong + more.wrong
    record(
        options.out,
        rate / alone,
        "images a second of the app / of the detector alone",
        page_s=round(page, 2),
        first_answer_s=round(first, 2),
        single_p50_s=round(float(p50), 4),
        single_p95_s=round(float(p95), 4),
        memory_ratio=round(late / early, 3),
    )
    p50, p95, p99 = np.percentile(outcome.seconds, [50, 95, 99])
    print("| load | |\n|---|---|")
    print(f"| clients, seconds, pictures | {options.clients}, {options.seconds:.0f}, {options.size} px |")
    print(f"| right answers, others | {len(outcome.seconds):,}, {len(wrong)} |")
    print(f"| pictures a second: app | {rate:.1f} |")
    print(f"| pictures a second: detector alone, before and after | {before:.1f}, {after:.1f} |")
    print(f"| app / detector | {100 * rate / alone:.0f} % |")
    print(f"| seconds to an answer: p50, p95, p99 | {p50:.2f}, {p95:.2f}, {p99:.2f} |\n")
    for line in wrong[:5]:
        print(f"    {line}")
    print("| memory | MiB |\n|---|---|")
    print(f"| after {few} requests | {early:.0f} |")
    print(f"| after {done + len(more.seconds):,} requests | {late:.0f} ({100 * (late / early - 1):+.1f} %) |")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
