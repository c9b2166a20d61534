"""What the folders around a label mean: names above and below it that are sources, units of persons, or say nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bonaface.data.labels import is_filler, said_by, split_named
from bonaface.data.rows import shared_depth
from bonaface.data.unit_folders import MAY_BE_PEOPLE, SEVERAL, SEVERAL_BELOW, Content, which_are_units

Folder = tuple[str, ...]  # the names from the data folder down

PIECE = re.compile(r"(part|fold|batch|chunk|shard|subset|split|set|vol|volume|dis[ck])[-_. ]*\d+", re.IGNORECASE)


def find_places(
    at: Mapping[Folder, int], splits: Mapping[Folder, int], sides: Mapping[str, str], n_files: Mapping[Folder, int]
) -> tuple[dict[Folder, str], dict[Folder, Folder]]:
    """The source of each folder and the names below its label.

    A source's names are those above the label that not all files share, and the first below it. Pieces of one set, put
    in ``part_1`` and ``part_2``, are left out, and so is ``images`` where a label has all its files there. A person or
    video that has real and fake below it counts as one below each.
    """
    above, inside = {}, {}
    for folder, level in at.items():
        named = [(i, name) for i, name in enumerate(folder) if i != splits.get(folder)]
        above[folder] = tuple(name for i, name in named if i < level and not PIECE.fullmatch(name))
        inside[folder] = tuple(name for i, name in named if i > level)
    by_label: dict[str, list[Folder]] = {}
    for folder, level in at.items():
        by_label.setdefault(folder[level], []).append(folder)
    for own in by_label.values():
        n = _n_fillers([inside[folder] for folder in own])
        inside.update({folder: inside[folder][n:] for folder in own})
    shared = shared_depth(list(above.values()))
    above = {folder: names[shared:] for folder, names in above.items()}
    sources: dict[Folder, str] = {}
    units = _units_above((names, n_files[folder]) for folder, names in above.items())
    for folder, names in above.items():
        n = next((i for i in range(len(names)) if names[: i + 1] in units), len(names))
        is_unit = n < len(names)
        below = ("" if n else names[n]) if is_unit else "".join(inside[folder][:1])
        sources[folder] = _source(folder[at[folder]], names[:n], below, sides)
        inside[folder] = names[n:] + inside[folder]
    return sources, inside


def _n_fillers(folders: Sequence[Folder]) -> int:
    """How many names that say nothing all these begin with, where each goes on below them."""
    most = min(shared_depth(folders), min(map(len, folders)) - 1)
    return next((i for i, name in enumerate(folders[0]) if i >= most or not is_filler(name)), 0)


def _units_above(folders: Iterable[tuple[Folder, int]]) -> set[Folder]:
    """Which folders above labels, given with the number of their files, are a person's, a video's or a session's.

    Below a generator, words that say nothing are classes of images (``progan/cat``), not first names.
    """
    beside: dict[Folder, Counter[str]] = {}
    for folder, n in folders:
        for i, name in enumerate(folder):
            beside.setdefault(folder[:i], Counter())[name] += n
    found = set()
    for parent, sizes in beside.items():
        level = {name: Content(n, []) for name, n in sizes.items()}
        units, why = which_are_units(level, SEVERAL_BELOW if parent else SEVERAL)
        found |= {(*parent, name) for name in units if not parent or why != MAY_BE_PEOPLE}
    return found


def _source(label: str, above: Folder, below: str, sides: Mapping[str, str]) -> str:
    """The names above the label and the one below it; the label's where there is none.

    A folder whose name says more than real or fake (one of ``sides``) is a source itself.
    """
    if label in sides and not said_by(label):
        below = _without_split_word(label)
    return "/".join(filter(None, [*above, below])) or sides.get(label, label)


def _without_split_word(name: str) -> str:
    """``train_fake_sdxl`` -> ``fake_sdxl``."""
    words = re.split(r"([-_. ]+)", name)
    return "".join("" if split_named(word) else word for word in words).strip("-_. ")
