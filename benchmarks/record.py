"""What a benchmark leaves behind: a ratio with its meaning, the figures, the machine, the day and the command."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch


def record(out: Path | None, ratio: float | None, means: str, **figures: Any) -> dict[str, Any]:
    """The story of this run, written to ``out`` if that is asked; None where every row has a ratio of its own."""
    story = {"command": command(), "machine": machine(), "date": time.strftime("%Y-%m-%d")}
    story |= ({} if ratio is None else {"ratio": round(ratio, 3)}) | {"ratio_means": means} | figures
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(story, indent=1) + "\n", encoding="utf-8")
    return story


def command() -> str:
    """As it was given, with names in place of this machine's folders."""
    said = iter(sys.argv[1:])
    words = []
    for word in said:
        if word == "--out":
            next(said, None)
        else:
            foreign = word.startswith(("/", "..", "~"))
            words.append((words[-1].strip("-").upper() if words else "FOLDER") if foreign else word)
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine() -> str:
    """The machine in words."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        processor = re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())[0]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{os.cpu_count()} cores of {processor}{gpu}; torch {torch.__version__}, Python {platform.python_version()}"
