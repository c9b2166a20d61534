"""Outputs for every row, whole and in order, whoever ran it."""

from __future__ import annotations

import numpy as np
import pytest

from bonaface.inference.rows import _interleave


@pytest.mark.parametrize(("n", "processes"), [(7, 2), (4, 3), (1, 3)])
def test_rows_of_several_processes_come_back_in_order(n: int, processes: int) -> None:
    """Also where a process had no rows at all, and so no features."""
    logits, features = np.arange(2.0 * n).reshape(n, 2), np.arange(3.0 * n).reshape(n, 3)
    pieces = [
        (i, logits[i::processes], features[i::processes] if len(logits[i::processes]) else None)
        for i in reversed(range(processes))
    ]
    outputs = _interleave(pieces, n, processes)
    assert (outputs.logits == logits).all()
    assert (outputs.features == features).all()
    pieces[-1] = (*pieces[-1][:2], None)
    assert _interleave(pieces, n, processes).features is None
