"""What a level of folders holds, by its names, its number and its files: sources, or units that are kept whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bonaface.data.unit_names import (
    are_serial,
    is_bare_frame,
    is_counter,
    is_frame,
    is_number,
    is_opaque,
    is_person_name,
    is_source_name,
    is_unit_name,
    is_wordy,
)

MOST_SOURCES = 40  # more folders than that are not the sources of one label
# So many folders of unknown names are units where they are small, or file numbers restart in each.
SEVERAL, SEVERAL_BELOW = 8, 5  # on the first level, where sources are expected, and below a source
SMALL = 50  # images; fewer are too few to judge a source by
MAY_BE_PEOPLE = "names that people may have: kept whole to be safe"
LARGE = 200  # images; more are seldom of one person


@dataclass(frozen=True)
class Content:
    """A folder: how many images lie in it and below, and the names of those in the folder itself."""

    n: int
    stems: list[str]


def which_are_units(folders: Mapping[str, Content], several: int) -> tuple[set[str], str]:
    """The names among folders of one level that are units, and why; none, and "", where they are sources or subsets."""
    known = {name for name in folders if is_source_name(name) and not is_unit_name(name)}
    if 2 * len(known) < len(folders):  # a few persons may have the name of a camera
        known = {name for name in known if folders[name].n >= SMALL}
    elif len(known) > MOST_SOURCES and are_serial(known):
        known = set()
    counted = _are_counted({name: folders[name] for name in known})
    known -= counted
    rest = {name: content for name, content in folders.items() if name not in known}
    if are_ranges(rest):
        return set(), ""
    why = next((reason for reason, holds in _REASONS if rest and holds(rest, several)), "")
    if not why and not known and _may_be_people(rest):
        why = MAY_BE_PEOPLE
    return (set(rest), why) if why else (counted, "numbered names" if counted else "")


def _are_counted(known: Mapping[str, Content]) -> set[str]:
    """Those named by a word of a source that are numbered as videos are, or contain one video's frames each.

    ``IMG_1200, IMG_1203, …`` and ``roop_0, roop_1, …`` are; ``sd14, sd15`` and ``midjourney_v1, …`` are versions.
    """
    shapes: dict[str, dict[str, Content]] = {}
    for name, content in known.items():
        shapes.setdefault(re.sub(r"\d+", "#", name), {})[name] = content
    found = set()
    for shape, own in shapes.items():
        small = median(content.n for content in own.values()) < LARGE or _are_numbered_anew(own, 3)
        if "#" in shape and len(own) > 2 and small and is_counter(own):
            found |= set(own)
    frames = {name for name, content in known.items() if most(map(is_bare_frame, content.stems))}
    return found | (frames if len(frames) > 2 else set())


def most(values: Iterable[bool], share: float = 0.8) -> bool:
    """Whether at least this share of them is true, and there are any."""
    flags = list(values)
    return bool(flags) and sum(flags) >= share * len(flags)


def are_ranges(folders: Mapping[str, Content]) -> bool:
    """Each is named after the first number in its range, as FFHQ's 00000, 01000, …: neither sources nor units."""
    names = sorted(folders, key=lambda name: (len(name), name))
    if len(names) < 2 or not all(name.isdecimal() and folders[name].stems for name in names):
        return False
    if not all(stem.isdecimal() for content in folders.values() for stem in content.stems):
        return False
    numbers = [[int(stem) for stem in folders[name].stems] for name in names]
    starts = [int(name) for name in names]
    return all(start <= min(own) for start, own in zip(starts, numbers, strict=True)) and all(
        max(own) < after for own, after in zip(numbers, starts[1:], strict=False)
    )


def _are_small(folders: Mapping[str, Content], several: int) -> bool:
    if not most(bool(content.stems) for content in folders.values()):
        return False  # folders of folders
    size = median(content.n for content in folders.values())
    return (len(folders) >= several and size < SMALL) or (len(folders) >= 3 and size <= 2)


def _are_numbered_anew(folders: Mapping[str, Content], several: int) -> bool:
    """Files are called 0001, 0002, … in each folder, from the start."""
    stems = [content.stems for content in folders.values() if content.stems]
    if len(stems) < max(several, 0.8 * len(folders)):
        return False
    numbers = [[int(stem) for stem in own if stem.isdecimal()] for own in stems]
    return all(numbers) and all(len(n) >= 0.8 * len(own) and min(n) <= 1 for n, own in zip(numbers, stems, strict=True))


def _may_be_people(folders: Mapping[str, Content]) -> bool:
    """Three or more, called by words that say nothing, and each small enough for one person: rather too careful.

    Sources kept whole make uneven splits, persons that are not make figures that are too good.
    """
    sizes = [content.n for content in folders.values()]
    return len(folders) > 2 and median(sizes) < LARGE and most(map(is_wordy, folders))


_Reason = Callable[[Mapping[str, Content], int], bool]
_REASONS: tuple[tuple[str, _Reason], ...] = (
    ("named like persons, videos or sessions", lambda folders, several: most(map(is_unit_name, folders), 0.5)),
    (
        "they contain frames",
        lambda folders, several: (
            len(folders) > 1 and most(most((is_frame(stem) for stem in c.stems), 0.5) for c in folders.values())
        ),
    ),
    ("numbers as names", lambda folders, several: len(folders) > 1 and most(map(is_number, folders))),
    ("ids as names", lambda folders, several: len(folders) > 1 and most(map(is_opaque, folders))),
    ("numbered names", lambda folders, several: len(folders) > several / 2 and are_serial(folders)),
    (
        "names of people",
        lambda folders, several: len(folders) > 2 and most(is_person_name(name) for name in folders),
    ),
    ("too many to be sources", lambda folders, several: len(folders) > MOST_SOURCES),
    ("many and small", _are_small),
    ("file numbers restart in each", _are_numbered_anew),
)
