"""Feed a target with bytes that coverage leads to new code (libFuzzer through atheris), for as long as is asked.

    python tests/fuzz/fuzz.py TARGET --seconds 600 [--corpus FOLDER]

An input that breaks the target's promise, takes longer than 10 seconds or more than 6 GiB ends the process with an exit
code other than 0; the input lies in the working directory as crash-* or oom-*. Where atheris is not installed,
Hypothesis mutates the valid inputs without a guide.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 10.0  # seconds of one input

sys.path.insert(0, str(Path(__file__).parent))

try:
    import atheris
except ImportError:  # no wheel for this system
    atheris = None


def guided(name: str, seconds: int, corpus: Path, seed: int) -> None:
    """By coverage of the library's own code, and of the formats that the standard library reads in Python."""
    with atheris.instrument_imports(include=["bonaface", "zipfile", "yaml"]):
        from targets import TARGETS
    target = TARGETS[name]
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


def unguided(name: str, seconds: int) -> None:
    """By Hypothesis: pieces of valid inputs, cut, repeated and overwritten."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from targets import TARGETS

    target, deadline = TARGETS[name], time.monotonic() + seconds
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


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="0 draws one")
    parser.add_argument("--corpus", type=Path, help="a folder whose inputs are used and added to")
    options = parser.parse_args()
    if atheris is None:
        unguided(options.target, options.seconds)
        return
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        guided(options.target, options.seconds, corpus, options.seed)


if __name__ == "__main__":
    main()
