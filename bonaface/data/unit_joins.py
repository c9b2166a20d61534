"""Units of several labels or sources that show the same person or video: of one name, or of a name made of theirs.

``real/Ada_Lovelace`` and ``fake/Ada_Lovelace`` are one person, and ``fake/000_003`` is made of the videos ``real/000``
(the target) and ``real/003`` (whose face it got), as FaceForensics++ names them. Whoever trains on one is not tested by
the other, so they share a group.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from bonaface.data.labels import said_by
from bonaface.data.splits import merge_groups
from bonaface.data.unit_names import is_source_name, is_unit_name, is_variant, without_video_suffix

MOST_WORDS = 6  # of a name that may be made of others

Key = tuple[str, ...]  # the words of a name


class Unit(NamedTuple):
    """A group of ``n`` images of one label, and its own name."""

    group: str
    name: str
    label: str
    n: int


def join_units(units: Sequence[Unit]) -> dict[str, str]:
    """Group -> the group that it becomes, for those that are joined with others.

    A target is joined with what was made of it, and so is the face, unless that would chain more than half of all
    images into one group, which no split could divide.
    """
    own: dict[str, list[Unit]] = {}
    for unit in units:
        own.setdefault(unit.group, []).append(unit)
    by_key: dict[Key, list[Unit]] = {}
    for unit in units:
        by_key.setdefault(key_of(unit.name), []).append(unit)
    alike = [(members[0].group, unit.group) for members in by_key.values() for unit in members[1:]]
    made = [(unit.group, other.group, part) for unit, other, part in _made_of_others(by_key)]
    most = sum(unit.n for unit in units) / 2
    plans: tuple[list[tuple[str, str]], ...] = (
        [pair[:2] for pair in made],
        [pair[:2] for pair in made if pair[2] == "target"],
        [],
    )
    for plan in plans:
        joined = _joined([unit.group for unit in units], [*alike, *plan])
        size = Counter[str]()
        for unit in units:
            size[joined[unit.group]] += unit.n
        if not plan or max(size.values()) <= most:
            break
    n_groups = Counter(joined.values())
    return {group: name for group, name in joined.items() if n_groups[name] > 1}


def telling_images(stems: Mapping[str, Sequence[str]], units: Iterable[Unit]) -> dict[str, list[int]]:
    """Which images by themselves (label -> stems of their names) are named so that a name tells what they show.

    That is a name that differs from all others of its label by more than its digits, and is found under two labels;
    and pairs (``000_003``) of names that another label has. A counter's numbers tell nothing.
    """
    keys = {label: [key_of(stem) for stem in own] for label, own in stems.items()}
    chosen: dict[str, set[int]] = {label: set() for label in stems}
    rare = {label: _rare(own) for label, own in keys.items()}
    shared = Counter(key for own in rare.values() for key in own)
    shared.update({key_of(unit.name) for unit in units})
    for label, own in keys.items():
        chosen[label] |= {i for i, key in enumerate(own) if key in rare[label] and shared[key] > 1}
    for label, own in keys.items():
        for other in (name for name in keys if name != label):
            known = {key: i for i, key in enumerate(keys[other])}
            if own and all(len(key) == 2 and key[:1] in known and key[1:] in known for key in own):
                chosen[label] |= set(range(len(own)))
                chosen[other] |= {known[part] for key in own for part in (key[:1], key[1:])}
    return {label: sorted(numbers) for label, numbers in chosen.items()}


def shared_names(names: Mapping[str, Iterable[str]]) -> set[Key]:
    """What persons' folders are called (label -> names of all its folders) if these are the same under all labels.

    Real images and fakes come from the same person or video, and hardly from the same camera or generator; but
    sizes, formats and kinds of images may divide both.
    """
    keys = [
        {key_of(name) for name in own if not is_variant(name) and (is_unit_name(name) or not is_source_name(name))}
        for own in names.values()
    ]
    shared = set.intersection(*keys) if len(keys) > 1 else set()
    return shared if len(shared) > 1 else set()


def _rare(keys: Sequence[Key]) -> set[Key]:
    """The only one of its shape, each; numbers alone are never rare."""
    shapes = [re.sub(r"\d+", "#", "_".join(key)) for key in keys]
    n = Counter(shapes)
    return {key for key, shape in zip(keys, shapes, strict=True) if n[shape] == 1 and shape.strip("#_")}


def key_of(name: str) -> Key:
    """The words of a name, without ``real`` and ``fake`` and the suffix of a video, in one spelling."""
    if name.isdecimal():  # most of a large set
        return (name,)
    plain = unicodedata.normalize("NFC", without_video_suffix(name)).casefold()
    words = tuple(word for word in re.split(r"[\s_\-.,()+&]+", plain) if word)
    return tuple(word for word in words if not said_by(word)) or words


def _made_of_others(by_key: Mapping[Key, Sequence[Unit]]) -> Iterator[tuple[Unit, Unit, str]]:
    """A unit, one of another label whose name is part of its name, and which part of it that is.

    The part begins with the name's first word for the ``target``, and with its second for the ``face``
    (``id0_id1_0000`` is made of ``id0_0000`` and ``id1_0000``).
    """
    for key, members in by_key.items():
        if not 1 < len(key) <= MOST_WORDS:
            continue
        for part, words in (("target", key), ("face", key[1:])):
            found = next((shorter for shorter in _parts(words, len(key)) if shorter in by_key), None)
            for unit in members if found else ():
                others = [other for other in by_key[found or key] if other.label != unit.label]
                yield from ((unit, other, part) for other in others)


def _parts(words: Key, below: int) -> Iterator[Key]:
    """Words in their order, the first among them, longest first; fewer than ``below``."""
    for n in range(min(len(words), below - 1), 0, -1):
        for rest in combinations(words[1:], n - 1):
            yield words[:1] + rest


def _joined(groups: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Every group -> the name of all that pairs connect it with."""
    nodes = [*groups, *(first for first, _ in pairs), *(second for _, second in pairs)]
    links = [f"={group}" for group in groups] + [f"{i}" for _ in range(2) for i in range(len(pairs))]
    return dict(zip(nodes, merge_groups(nodes, links), strict=True))
