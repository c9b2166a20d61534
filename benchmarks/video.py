"""Speed and memory of judging a clip: ten minutes of 1080p with two persons, made here in a temporary folder.

    python benchmarks/video.py [--model models/bonaface-small] [--seconds 600]

Each way to sample frames is a process of its own, which loads the model and judges the clip once: the default (64
frames, spread), and 64 frames over the scenes. ``ratio`` is the clip's seconds per second of judging, of the default;
on a busy machine believe that of processor time. Memory is the largest resident size of the whole process. Ends with
1 above 1.2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image
from record import record

from bonaface.data.portraits import draw_portrait

ROOT = Path(__file__).resolve().parent.parent
SIZE, RATE, KEYFRAMES = (1920, 1080), 25, 250  # x264's own distance of keyframes
MOST_MIB = 1.2 * 1024
WAYS = {"default": {}, "scenes": {"scenes": True}}
JUDGE = """
import json, resource, sys, time
from bonaface.inference.detector import Detector
from bonaface.video.frames import Sampling
from bonaface.video.judge import judge_clip
detector = Detector.from_pretrained(sys.argv[1])
started, spent = time.perf_counter(), time.process_time()
found = judge_clip(sys.argv[2], detector, Sampling(**json.loads(sys.argv[3])))
print(json.dumps({
    "seconds": time.perf_counter() - started, "frames": found.frames, "persons": len(found.persons),
    "processor_seconds": time.process_time() - spent,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def frames(n: int) -> Iterator[Image.Image]:
    """Two drawn persons who sway, before a ground of noise."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(90, 120, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    persons = [
        Image.fromarray((255 * draw_portrait(600, np.random.default_rng(seed))).clip(0, 255).astype(np.uint8))
        for seed in (0, 5)
    ]
    for i in range(n):
        frame = ground.copy()
        sway = int(40 * np.sin(i / 20))
        for x, person in zip((150 + sway, 1150 - sway), persons, strict=True):
            frame.paste(person, (x, 300))
        yield frame


def write_clip(path: Path, seconds: int) -> None:
    """H.264 with the keyframes that x264 sets by default; ten seconds are encoded, and their packets repeated."""
    part = path.with_name("part.mp4")
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "g": str(KEYFRAMES), "crf": "26", "bf": "0"}
        for image in frames(KEYFRAMES):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    with av.open(str(path), "w") as container:
        copy = None
        for number in range(seconds * RATE // KEYFRAMES):
            with av.open(str(part)) as source:
                copy = copy or container.add_stream_from_template(source.streams.video[0])
                shift = round(number * KEYFRAMES / RATE / source.streams.video[0].time_base)
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                        container.mux(packet)


def judge(model: str, clip: Path, sampling: dict[str, object]) -> dict[str, float]:
    """One process: what it measured of itself."""
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, model, str(clip), json.dumps(sampling)],
        check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return {key: round(value, 2) for key, value in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Make the clip, judge it in every way, and leave JSON in benchmarks/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "bonaface-small"))
    parser.add_argument("--seconds", type=int, default=600, help="length of the clip")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "video.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bonaface-video-") as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, options.seconds)
        size = clip.stat().st_size
        ways = {name: judge(options.model, clip, sampling) for name, sampling in WAYS.items()}
    for name, found in ways.items():
        found["ratio"] = round(options.seconds / found["seconds"], 2)
        print(f"{name}: {found['ratio']} times real time, {found['frames']:.0f} frames, {found['peak_mib']:.0f} MiB")
    peak = max(found["peak_mib"] for found in ways.values())
    figures = {
        "clip": {"seconds": options.seconds, "width": SIZE[0], "height": SIZE[1], "fps": RATE, "bytes": size},
        "ratio_of_processor_time": round(options.seconds / ways["default"]["processor_seconds"], 2),
        "peak_mib": peak,
        "ways": ways,
    }
    means = "seconds of the clip / seconds to judge it, the model loaded; 64 frames"
    record(options.out, ways["default"]["ratio"], means, **figures)
    if peak > MOST_MIB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
