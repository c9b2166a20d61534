"""Feed targets with bytes that coverage leads to new code (libFuzzer through atheris), for as long as is asked.

    python tests/fuzz/fuzz.py [TARGET …] [--seconds 600] [--corpus FOLDER]

Each target has a folder of its name in the working directory, with a log. An input that breaks the target's promise,
takes longer than 10 seconds or more than 6 GiB ends its search, and lies there as crash-* or oom-*; the exit code is
then not 0. Where atheris is not installed, Hypothesis mutates the valid inputs without a guide.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

LONGEST = 10.0  # seconds of one input

sys.path.insert(0, str(Path(__file__).parent))

try:
    import atheris
except ImportError:  # no wheel for this system
    atheris = None

with atheris.instrument_imports(include=["bonaface", "zipfile", "yaml"]) if atheris else nullcontext():
    from targets import TARGETS, Target


def guided(target: Target, seconds: int, corpus: Path, seed: int) -> None:
    """By coverage of the library's own code, and of the formats that the standard library reads in Python."""
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=65536", "-timeout=0", "-rss_limit_mb=6144"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", str(corpus)], in_time(target.read))
    atheris.Fuzz()


def in_time(read: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """The reader, which fails where it takes too long; the fuzzer's own alarm would meet the handlers of libraries."""

    def timed(data: bytes) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        started = time.monotonic()
        read(data)
        assert time.monotonic() - started < LONGEST

    return timed


def unguided(target: Target, seconds: int) -> None:
    """By Hypothesis: pieces of valid inputs, cut, repeated and overwritten."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    deadline = time.monotonic() + seconds
    edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), max_size=6)

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(target.seeds()), edits)
    def read(data: bytes, changes: list[tuple[float, int, bytes]]) -> None:
        for place, cut, piece in changes:
            start = int(place * len(data))
            data = data[:start] + piece + data[start + cut :]
        if time.monotonic() < deadline:
            target.read(data)

    while time.monotonic() < deadline:
        read()


def searched(name: str, options: argparse.Namespace) -> int:
    """The exit code of one search, in a fork: libFuzzer ends its process, and the imports take longer than it may."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    worker = os.fork()
    if worker:
        return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    code = 1
    try:
        os.chdir(folder)
        with Path("log").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if atheris is None:
            unguided(TARGETS[name], options.seconds)
            print("Done by Hypothesis")
        else:
            with tempfile.TemporaryDirectory() as scratch:
                corpus = options.corpus / name if options.corpus else Path(scratch)
                corpus.mkdir(parents=True, exist_ok=True)
                guided(TARGETS[name], options.seconds, corpus, options.seed)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Fuzz one target after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"by default all: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="0 draws one")
    parser.add_argument("--corpus", type=lambda text: Path(text).absolute(), help="inputs to use and to add to")
    options = parser.parse_args()
    failed = 0
    for name in options.targets or TARGETS:
        code = searched(name, options)
        failed += code != 0
        runs = re.findall(rb"number_of_executed_units: (\d+)", (Path(name) / "log").read_bytes())
        print(
            f"{name}: exit code {code}, {int(runs[-1]):,} inputs" if runs else f"{name}: exit code {code}", flush=True
        )
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
