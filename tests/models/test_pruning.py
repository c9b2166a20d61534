"""Fewer hidden units: those that matter stay, and what reads them is the best layer for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bonaface.models.pruning import Moments, fewer_units

FRESH = torch.zeros(8, 60)


def moments_of(hidden: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, parts: int = 3) -> Moments:
    found = Moments(hidden.shape[1], target.shape[1])
    for rows in torch.arange(len(hidden)).chunk(parts):
        found.add(hidden[rows], target[rows], weight[rows])
    return found


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """60 units, of which 20 are copies of others and 20 are read by nobody."""
    torch.manual_seed(0)
    own = torch.relu(torch.randn(4000, 40))
    hidden = torch.cat([own, own[:, :20]], 1)
    reads = torch.randn(60, 8)
    reads[20:40] = 0
    return hidden, hidden @ reads + 3


def test_units_that_others_stand_for_are_removed_without_loss(tokens: tuple[torch.Tensor, torch.Tensor]) -> None:
    hidden, target = tokens
    kept, layer, bias = fewer_units(moments_of(hidden, target, torch.ones(len(hidden))), 20, torch.ones(8), FRESH)
    assert sorted(int(unit) % 40 for unit in kept) == list(range(20))  # one of each pair
    torch.testing.assert_close(hidden[:, kept] @ layer.T + bias, target, atol=5e-2, rtol=0)


def test_the_layer_is_the_weighted_regression_on_what_is_kept(tokens: tuple[torch.Tensor, torch.Tensor]) -> None:
    hidden, target = tokens
    weight = torch.rand(len(hidden))
    kept, layer, bias = fewer_units(moments_of(hidden, target, weight), 12, torch.ones(8), FRESH)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert len(kept) == 12
    root = weight.sqrt()[:, None].double()
    read = torch.cat([hidden[:, kept], torch.ones(len(hidden), 1)], 1).double()
    best = torch.linalg.lstsq(read * root, target.double() * root).solution
    mine = torch.cat([layer.T, bias[None]]).double()

    def error(solution: torch.Tensor) -> float:
        return float((((read @ solution - target) * root) ** 2).mean())

    assert error(mine) <= 1.001 * error(best)


def test_it_beats_keeping_the_units_that_are_largest() -> None:
    rng = np.random.default_rng(0)
    loud = rng.normal(size=(3000, 1)) + 0.001 * rng.normal(size=(3000, 30))  # thirty units that say one thing, loudly
    hidden = torch.from_numpy(np.concatenate([10 * loud, rng.normal(size=(3000, 10))], 1)).float()
    target = hidden @ torch.from_numpy(rng.normal(size=(40, 5))).float()
    kept, _, _ = fewer_units(moments_of(hidden, target, torch.ones(3000)), 11, torch.ones(5), torch.zeros(5, 40))
    assert set(range(30, 40)) <= set(kept.tolist())


def test_an_output_that_counts_more_is_given_better(tokens: tuple[torch.Tensor, torch.Tensor]) -> None:
    hidden, target = tokens
    moments = moments_of(hidden, target, torch.ones(len(hidden)))

    def error(importance: torch.Tensor) -> float:
        kept, layer, bias = fewer_units(moments, 6, importance, FRESH)
        return float((hidden[:, kept] @ layer.T + bias - target)[:, 0].square().mean())

    favoured = torch.full((8,), 1e-3)
    favoured[0] = 1
    assert error(favoured) < 0.8 * error(torch.ones(8))


@pytest.mark.parametrize("keep", [0, -1, 61])
def test_an_impossible_number_is_refused(tokens: tuple[torch.Tensor, torch.Tensor], keep: int) -> None:
    with pytest.raises(ValueError, match="of 60 units"):
        fewer_units(moments_of(*tokens, torch.ones(len(tokens[0]))), keep, torch.ones(8), FRESH)


def test_where_tokens_do_not_decide_the_layer_stays_as_it_was(tokens: tuple[torch.Tensor, torch.Tensor]) -> None:
    hidden, _ = tokens
    before = torch.randn(8, 60)
    target = hidden @ before.T + 1
    kept, layer, bias = fewer_units(moments_of(hidden[:30], target[:30], torch.ones(30)), 60, torch.ones(8), before)
    assert kept.tolist() == list(range(60))
    torch.testing.assert_close(layer, before, atol=1e-2, rtol=0)
    torch.testing.assert_close(bias, torch.ones(8), atol=0.05, rtol=0)
