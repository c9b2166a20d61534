"""What several processes of one run may count on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLOW_READER = """
import sys, time
from pathlib import Path
from accelerate import PartialState
from bonaface.training.run import on_main_process

file, state = Path(sys.argv[1]), PartialState(cpu=True)
if not state.is_main_process:
    time.sleep(1)
    print("read", file.read_text())
on_main_process(file.unlink)
try:
    on_main_process(file.unlink)
except FileNotFoundError:
    print(f"process {state.process_index} of {state.num_processes}: gone")
state.destroy_process_group()
"""


LONG_WORK = """
import time
from datetime import timedelta
from accelerate import PartialState
from bonaface.training.run import on_main_process

state = PartialState(cpu=True, timeout=timedelta(seconds=3))
print("got", on_main_process(lambda: time.sleep(8) or 42))
state.destroy_process_group()
"""


def test_the_others_wait_longer_than_a_trainings_group_does(tmp_path: Path) -> None:
    """Aligning a million images takes hours, and a process group gives up after half of one."""
    script = tmp_path / "script.py"
    script.write_text(LONG_WORK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("got 42") == 2


def test_the_main_process_waits_for_all_and_its_failure_is_everybodys(tmp_path: Path) -> None:
    """What it does is often to remove: checkpoints that a slower process still loads the best weights from."""
    script, file = tmp_path / "script.py", tmp_path / "weights"
    script.write_text(SLOW_READER)
    file.write_text("whole")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, script, file], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "read whole" in done.stdout
    assert sorted(line for line in done.stdout.splitlines() if "gone" in line) == [
        "process 0 of 2: gone",
        "process 1 of 2: gone",
    ]
