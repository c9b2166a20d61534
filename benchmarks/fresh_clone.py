"""From a clone to something to see: `make demo` and `make app`, the first time and again; prints a Markdown table.

    python benchmarks/fresh_clone.py

The repository is cloned into a temporary folder. `make demo` installs everything, and trains on the embedded sample;
`make app` serves the detector that ships, until the page opens and a picture has its answer. The package index or the
installer's cache gives the packages, so the first time depends on the line; the ratio is that of both `make demo`.
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
from record import record

from bonaface.data.sample import SampleSpec, make_image

ROOT = Path(__file__).resolve().parent.parent


def demo(clone: Path) -> float:
    """Seconds of `make demo`."""
    started = time.perf_counter()
    subprocess.run(["make", "--silent", "demo"], cwd=clone, check=True, capture_output=True)
    return time.perf_counter() - started


def app(clone: Path) -> tuple[float, float]:
    """Seconds from `make app` to the page, and to the answer to a picture."""
    picture = base64.b64encode(make_image(SampleSpec(1, size=256, seed=5), 0)[1]).decode()
    question = {"data": [{"url": f"data:image/jpeg;base64,{picture}"}]}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, started = f"http://127.0.0.1:{port}", time.perf_counter()
    command = ["make", "--silent", "app", f"MODEL=models/bonaface-small --port {port}"]
    with (clone / "app.log").open("w") as said:
        process = subprocess.Popen(command, cwd=clone, stdout=said, stderr=said, start_new_session=True)
    try:
        while not answers(url):
            if process.poll() is not None:
                raise SystemExit((clone / "app.log").read_text()[-2000:])
            time.sleep(0.05)
        page = time.perf_counter() - started
        answer = httpx.post(f"{url}/gradio_api/run/predict", json=question, timeout=300)
        if "p_fake" not in answer.json()["data"][0]:
            raise SystemExit(answer.text[:2000])
        return page, time.perf_counter() - started
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(url: str) -> bool:
    """Whether the page is there."""
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    """Clone, run twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "bonaface")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        demos = [demo(clone), demo(clone)]
        apps = [app(clone), app(clone)]
    print("| | the first time | again |\n|---|---|---|")
    for name, pair in (
        ("`make demo`, to its report", demos),
        ("`make app`, to the page", [page for page, _ in apps]),
        ("`make app`, to the first answer", [answer for _, answer in apps]),
    ):
        print(f"| {name} | {pair[0]:.0f} s | {pair[1]:.0f} s |")
    record(
        options.out,
        demos[0] / demos[1],
        "seconds of `make demo`: the first, with the installation / the second",
        demo_s=[round(value, 1) for value in demos],
        app_page_s=[round(page, 1) for page, _ in apps],
        app_answer_s=[round(answer, 1) for _, answer in apps],
    )


if __name__ == "__main__":
    main()
