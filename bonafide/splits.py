"""Which row goes to which split: stratified, groups whole, seeded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def assign_splits(strata: Sequence[str], groups: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """A split name for every row; rows of one group get the same one.

    Groups are taken in a seeded random order, large ones first, and each goes where its strata still lack most.
    So every stratum's share of a split misses the wanted one by less than the size of the largest group.

    Args:
        strata: what must be spread evenly, for each row (label and source).
        groups: what must stay together, for each row.
        fractions: share of each split, in [0, 1], summing to 1.
        seed: the same seed gives the same answer on every machine.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    names = sorted(members)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    order.sort(key=lambda name: -len(members[name]))
    splits = list(fractions)
    wanted = {key: {split: n * fractions[split] for split in splits} for key, n in Counter(strata).items()}
    result = [""] * len(groups)
    for name in order:
        needs = Counter(strata[row] for row in members[name])
        chosen = max(splits, key=lambda split: sum(n * wanted[key][split] for key, n in needs.items()))
        for key, n in needs.items():
            wanted[key][chosen] -= n
        for row in members[name]:
            result[row] = chosen
    return result


def merge_groups(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """One group name a row, so that rows sharing a name in either list share it in the result."""
    names = {name: i for i, name in enumerate(dict.fromkeys([f"a{n}" for n in first] + [f"b{n}" for n in second]))}
    left, right = [names[f"a{n}"] for n in first], [names[f"b{n}"] for n in second]
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    representative: dict[int, str] = {}
    return [representative.setdefault(int(component[i]), name) for i, name in zip(left, first, strict=True)]
