"""Which row goes to which split: stratified, groups whole, seeded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HALVES_SEED = 0
MOST_STEPS = 10_000  # of the search for groups to set aside; it needs a few


def assign_splits(
    labels: Sequence[Hashable],
    sources: Sequence[Hashable],
    groups: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """A split name for every row; rows of one group get the same one.

    Every label's source is spread as ``fractions`` say. Sources with too few groups to give each split one are spread
    together with the others of their label. Groups are taken in a seeded random order, large ones first, and each goes
    where its strata still lack most, so every stratum's share of a split misses the wanted one by less than the size of
    the largest group. Where that leaves a split without a label, one group of it is first set aside for each split;
    :func:`shortage` says why where not even that is possible.

    Args:
        labels: of each row; every split gets all of them, if the groups allow it.
        sources: of each row; parts of a label that are spread evenly where they can be.
        groups: what must stay together, for each row.
        fractions: share of each split, in [0, 1], summing to 1.
        seed: the same seed gives the same answer on every machine.
    """
    strata = _strata(labels, sources, groups, min(fractions.values()))
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    names = sorted(members)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    order.sort(key=lambda name: -len(members[name]))
    home = _deal(order, members, strata, fractions, {})
    covered = {(home[group], label) for group, label in zip(groups, labels, strict=True)}
    if len(covered) < len(fractions) * len(set(labels)):
        set_aside = _set_aside(order, members, labels, sorted(fractions, key=lambda split: fractions[split]))
        home = _deal(order, members, strata, fractions, set_aside)
    return [home[group] for group in groups]


def _strata(
    labels: Sequence[Hashable], sources: Sequence[Hashable], groups: Sequence[str], share: float
) -> list[tuple[Hashable, ...]]:
    """(label, source) of each row; (label,) where the source has too few groups for one in a split of this share."""
    n_groups = Counter((label, source) for label, source, _ in set(zip(labels, sources, groups, strict=True)))
    return [
        (label, source) if n_groups[label, source] * share > 1 - 1e-9 else (label,)
        for label, source in zip(labels, sources, strict=True)
    ]


def _deal(
    order: Sequence[str],
    members: Mapping[str, Sequence[int]],
    strata: Sequence[Hashable],
    fractions: Mapping[str, float],
    set_aside: Mapping[str, str],
) -> dict[str, str]:
    """Group -> split: those that are set aside as they are, then the others where their strata lack most."""
    splits = list(fractions)
    wanted = {key: {split: n * fractions[split] for split in splits} for key, n in Counter(strata).items()}
    home: dict[str, str] = {}
    for name in sorted(order, key=lambda name: name not in set_aside):
        needs = Counter(strata[row] for row in members[name])
        chosen = set_aside.get(name) or max(
            splits, key=lambda split: sum(n * wanted[key][split] for key, n in needs.items())
        )
        for key, n in needs.items():
            wanted[key][chosen] -= n
        home[name] = chosen
    return home


def _set_aside(
    order: Sequence[str], members: Mapping[str, Sequence[int]], labels: Sequence[Hashable], splits: Sequence[str]
) -> dict[str, str]:
    """Group -> split for as few and as small groups as give every split every label; empty where none do.

    Groups with the same labels can stand for each other, so the search is over kinds of groups, and short.
    """
    kinds: dict[frozenset[Hashable], list[str]] = {}  # large groups first, so that the last is the smallest
    for name in order:
        kinds.setdefault(frozenset(labels[row] for row in members[name]), []).append(name)
    everything = frozenset(labels)
    n_groups = {label: sum(len(kinds[kind]) for kind in kinds if label in kind) for label in everything}
    taken: list[tuple[str, str]] = []
    steps = 0

    def search(number: int, lacking: frozenset[Hashable]) -> bool:
        nonlocal steps
        steps += 1
        if not lacking:
            return number + 1 == len(splits) or search(number + 1, everything)
        rarest = min(lacking, key=lambda label: (n_groups[label], str(label)))
        fitting = [kind for kind, names in kinds.items() if rarest in kind and names]
        for kind in sorted(fitting, key=lambda kind: len(members[kinds[kind][-1]])):
            name = kinds[kind].pop()
            taken.append((name, splits[number]))
            if steps < MOST_STEPS and search(number, lacking - kind):
                return True
            taken.pop()
            kinds[kind].append(name)
        return False

    return dict(taken) if search(0, everything) else {}


def calibration_half(rows: Dataset, seed: int = HALVES_SEED) -> tuple[Dataset, Dataset]:
    """Cut a validation split in two: (the half that selects, the half that certifies).

    Stratified by label and source, groups whole, seeded: the same rows give the same halves everywhere.
    """
    shares = {"selects": 0.5, "certifies": 0.5}
    halves = assign_splits(list(rows["label"]), list(rows["source"]), list(rows["group"]), shares, seed)
    selects, certifies = (
        rows.select([i for i, half in enumerate(halves) if half == name]) for name in ("selects", "certifies")
    )
    return selects, certifies


def shortage(labels: Sequence[str], groups: Sequence[str], splits: Sequence[str]) -> str:
    """Why these rows cannot give each of the splits a group of each label: "" where every label has enough."""
    for label in sorted(set(labels)):
        own = [group for name, group in zip(labels, groups, strict=True) if name == label]
        n, n_groups, parts = len(own), len(set(own)), f"{len(splits)} splits: {', '.join(splits)}"
        if n < len(splits):
            return f"{n} {label} {'image' if n == 1 else 'images'} cannot fill {parts}"
        if n_groups == 1:
            return f"all {n:,} {label} images are in one group, which cannot fill {parts}"
        if n_groups < len(splits):
            return f"the {n:,} {label} images are in {n_groups} groups, which cannot fill {parts}"
    return ""


def merge_groups(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """One group name per row, so that rows sharing a name in either list share it in the result."""
    names = {name: i for i, name in enumerate(dict.fromkeys([f"a{n}" for n in first] + [f"b{n}" for n in second]))}
    left, right = [names[f"a{n}"] for n in first], [names[f"b{n}"] for n in second]
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    representative: dict[int, str] = {}
    return [representative.setdefault(int(component[i]), name) for i, name in zip(left, first, strict=True)]
