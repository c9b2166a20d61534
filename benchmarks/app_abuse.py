"""The app under abuse: many clients, most of them rude, for some minutes; what it costs those who are not.

    python benchmarks/app_abuse.py --model runs/NAME [--seconds 600] [--clients 64]

A third of the clients ask well. The others send what is no image, or far too much, or a byte a second; break off an
upload in the middle, or leave while the answer is on its way. Exit code 1 where a promise is broken: a good question
has its right answer or is told to come back, memory afterwards is at most 1.1 times what it was before, no question
waits for ever, no file is left, and no line of the log has a client's address or a file's name.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from app_load import ROOT, App
from PIL import Image

NAME = "private-photo-of-ada"  # of every file that is sent: it must not be logged
KEEP = 30  # seconds that uploads are kept
LIMIT = 8_000_000  # bytes of an upload


@dataclass
class Seen:
    """What the clients met."""

    seconds: list[float] = field(default_factory=list)  # of good questions
    wrong: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)


class AbusedApp(App):
    """The app with small limits, a log, and a folder for temporary files of its own."""

    def __init__(self, model: str, folder: Path) -> None:
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.log")
        options = ["--max-upload", str(LIMIT // 10**6), "--keep-seconds", str(KEEP)]
        super().__init__(model, options, self.log, {"TMPDIR": str(folder)})

    def files(self) -> list[str]:
        """What visitors left: uploads, and what was made of them; not the page's examples."""
        uploads = [path for path in self.folder.glob("bonaface-app-*/uploads/**/*") if path.is_file()]
        jobs = [path for path in self.folder.glob("bonaface-app-*/job-*/**/*") if path.is_file()]
        return [
            str(path.relative_to(self.folder)) for path in [*uploads, *jobs] if NAME in path.name or path in jobs
        ] + [path.name for path in uploads if path.parent.name == "uploads"]


def picture(seed: int, side: int = 256) -> bytes:
    """A JPEG of smooth noise."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def inline(data: bytes) -> dict[str, Any]:
    """A question with the bytes inside."""
    return {"data": [{"url": "data:image/jpeg;base64," + base64.b64encode(data).decode(), "orig_name": f"{NAME}.jpg"}]}


class Clients:
    """What one client does, once."""

    def __init__(self, url: str, seen: Seen) -> None:
        self.url, self.api, self.seen = url, f"{url}/gradio_api", seen
        self.address = httpx.URL(url)
        self.pictures = [picture(seed) for seed in range(12)]
        self.scores: dict[int, float] = {}

    async def good(self, client: httpx.AsyncClient) -> None:
        """Ask for a score, the same each time."""
        number, started = random.randrange(len(self.pictures)), time.perf_counter()
        answer = await client.post(f"{self.api}/run/predict", json=inline(self.pictures[number]))
        if answer.status_code == 503:  # as one that is told to, it comes back later
            self.seen.asked["told to come back"] += 1
            await asyncio.sleep(2)
            return
        self.seen.seconds.append(time.perf_counter() - started)
        if answer.status_code != 200 or answer.json()["data"][0]["verdict"] == "error":
            self.seen.wrong.append(f"{answer.status_code}: {answer.text[:200]}")
            return
        score = answer.json()["data"][0]["p_fake"]
        if abs(self.scores.setdefault(number, score) - score) > 1e-4:
            self.seen.wrong.append(f"{score} instead of {self.scores[number]}")

    async def broken(self, client: httpx.AsyncClient) -> None:
        """No image, in each of the ways in; deep and senseless JSON too."""
        noise = random.randbytes(5000)
        await client.post(f"{self.api}/run/predict", json=inline(b"\xff\xd8" + noise))
        await client.post(f"{self.api}/run/predict", content=noise, headers={"Content-Type": "application/json"})
        deep = '{"data": ' + "[" * 5000 + "]" * 5000 + "}"
        await client.post(f"{self.api}/run/predict", content=deep, headers={"Content-Type": "application/json"})
        sent = await client.post(f"{self.api}/upload", files={"files": (f"{NAME}.png", noise)})
        if sent.status_code == 200:
            await client.post(f"{self.api}/run/explain", json={"data": [{"path": sent.json()[0]}]})

    async def huge(self, client: httpx.AsyncClient) -> None:
        """More than is allowed: said in front, or found out on the way."""
        for content in (bytes(LIMIT + 1_000_000), self._endless()):
            with suppress(httpx.TransportError):
                answer = await client.post(f"{self.api}/upload", content=content)
                if answer.status_code < 400:
                    self.seen.wrong.append(f"an upload of {LIMIT:,} bytes and more was taken")

    @staticmethod
    async def _endless() -> Any:
        for _ in range(40):
            yield bytes(500_000)

    async def slow(self, _: httpx.AsyncClient) -> None:
        """A header, or a body, of a byte a second; until the app has enough of it."""
        head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\n"
        kind = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n\r\n--x\r\n"
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        with suppress(ConnectionError):
            writer.write(head + (kind if random.random() < 0.5 else b"X-Slow: "))
            for _ in range(60):
                writer.write(b"x")
                await writer.drain()
                with suppress(TimeoutError):
                    if await asyncio.wait_for(reader.read(1), 1) == b"":
                        break
        with suppress(ConnectionError):
            writer.close()

    async def cut_off(self, client: httpx.AsyncClient) -> None:
        """An upload that ends in the middle."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{NAME}.jpg"\r\n\r\n'.encode()
        _, writer = await asyncio.open_connection(self.address.host, self.address.port)
        with suppress(ConnectionError):
            writer.write(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 3000000\r\n\r\n"
                + head
                + bytes(200_000)
            )
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.transport.abort()

    async def closed_tab(self, client: httpx.AsyncClient) -> None:
        """Upload, ask for many, and leave while the answer is on its way; or cancel."""
        files = [("files", (f"{NAME}-{i}.jpg", self.pictures[i])) for i in range(6)]
        sent = await client.post(f"{self.api}/upload", files=files)
        if sent.status_code != 200:
            return
        data = [[{"path": path, "meta": {"_type": "gradio.FileData"}} for path in sent.json()]]
        asked = await client.post(f"{self.api}/call/predict_batch", json={"data": data})
        event = asked.json().get("event_id") if asked.status_code == 200 else None
        with suppress(httpx.TimeoutException):
            await client.get(f"{self.api}/call/predict_batch/{event}", timeout=0.2)
        if event and random.random() < 0.5:
            await client.post(f"{self.api}/cancel", json={"event_id": event, "session_hash": "x", "fn_index": 0})


async def abuse(url: str, seen: Seen, *, clients: int, seconds: float) -> None:
    """So many clients, a third of which are good, until the time is over; then each ends what it is at."""
    does, until = Clients(url, seen), time.perf_counter() + seconds
    rude = [does.broken, does.huge, does.slow, does.cut_off, does.closed_tab]

    async def visit(number: int) -> None:
        deed: Callable[[httpx.AsyncClient], Awaitable[None]]
        deed = does.good if number % 3 == 0 else rude[number % len(rude)]
        async with httpx.AsyncClient(timeout=120) as client:
            while time.perf_counter() < until:
                try:
                    await deed(client)
                    seen.asked[deed.__name__] += 1
                except (httpx.TransportError, OSError) as error:
                    if deed == does.good:
                        seen.wrong.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.05)

    await asyncio.gather(*(visit(number) for number in range(clients)))


def said_too_much(log: str) -> list[str]:
    """Lines of a log with a file's name, or an address that is not the app's own."""
    return [
        line for line in log.splitlines() if NAME in line or re.search(r"127\.0\.0\.1:\d+ -|'127\.0\.0\.1', \d+", line)
    ]


def run(model: str, clients: int, seconds: float, *, wait_for_files: bool) -> dict[str, Any]:
    """Start an app, abuse it, and look at it afterwards."""
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="abuse-") as scratch:
        folder = Path(scratch) / "tmp"
        folder.mkdir()
        app = AbusedApp(model, folder)
        try:
            app.wait()
            while httpx.get(f"{app.url}/health", timeout=30).status_code != 200:
                time.sleep(0.5)
            asyncio.run(abuse(app.url, Seen(), clients=clients, seconds=max(5.0, seconds / 10)))
            before = app.memory()
            asyncio.run(abuse(app.url, seen, clients=clients, seconds=seconds))
            last = Seen()
            asyncio.run(abuse(app.url, last, clients=1, seconds=1))
            until = time.monotonic() + (KEEP + 150 if wait_for_files else 0)
            while (left := app.files()) and time.monotonic() < until:
                time.sleep(1)
            after = app.memory()
        finally:
            app.stop()
        log = app.log.read_text(errors="replace")
    p50, p95 = (float(value) for value in np.percentile(seen.seconds or [float("nan")], [50, 95]))
    return {
        "memory_mib": [round(before), round(after)],
        "ratio": round(after / before, 3),
        "good_questions": len(seen.seconds),
        "seconds": {"p50": round(p50, 3), "p95": round(p95, 3), "max": round(max(seen.seconds, default=0.0), 3)},
        "afterwards_seconds": round(max(last.seconds, default=float("inf")), 3),
        "wrong": (seen.wrong + last.wrong)[:20],
        "deeds": dict(seen.asked),
        "files_left": left if wait_for_files else [],
        "log_lines": len(log.splitlines()),
        "log_said_too_much": said_too_much(log)[:5],
        "tracebacks": log.count("Traceback"),
    }


def main() -> None:
    """Run, print, and leave JSON in benchmarks/results/."""
    from record import record

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--no-wait", action="store_true", help="do not wait for uploads to be deleted")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "app_abuse.json")
    options = parser.parse_args()
    found = run(options.model, options.clients, options.seconds, wait_for_files=not options.no_wait)
    ratio = found.pop("ratio")
    print(json.dumps(record(options.out, ratio, "resident memory afterwards / before", **found), indent=1))
    right = not found["wrong"] and found["good_questions"] > 0
    promises = {
        "a good question has its right answer, or is told to come back": right,
        "memory afterwards ≤ 1.1 × before": ratio <= 1.1,
        "nothing waits for ever": found["afterwards_seconds"] < 30,
        "no file is left": not found["files_left"],
        "the log names no client and no file": not found["log_said_too_much"],
        "no fault of the program": not found["tracebacks"],
    }
    for promise, held in promises.items():
        print(f"{promise}: {'held' if held else 'BROKEN'}")
    raise SystemExit(not all(promises.values()))


if __name__ == "__main__":
    main()
