"""The app under abuse, for twenty seconds; benchmarks/app_abuse.py does it for ten minutes."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT
from served import run_folder

sys.path.insert(0, str(ROOT / "benchmarks"))

from app_abuse import run, said_too_much

pytestmark = pytest.mark.slow


def test_rude_clients_cost_the_others_nothing_but_time() -> None:
    found = run(str(run_folder()), clients=12, seconds=20, wait_for_files=False)
    assert found["wrong"] == []
    assert found["good_questions"] > 10
    assert set(found["deeds"]) >= {"good", "broken", "huge", "closed_tab", "cut_off"}
    assert found["ratio"] <= 1.1
    assert found["afterwards_seconds"] < 30
    assert found["log_said_too_much"] == []
    assert found["tracebacks"] == 0


def test_names_and_addresses_in_a_log_are_found() -> None:
    log = "all is well\n127.0.0.1:5000 - POST\ncannot read private-photo-of-ada.jpg\n"
    assert len(said_too_much(log)) == 2
