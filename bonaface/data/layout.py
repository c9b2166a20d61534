"""Folders of image files -> label, source and split of each file, by what the folders' names say.

The label is the level whose names say real and fake. Above it there may be folders that all files share (as archives
unpack to), a split, and generators or classes of images (``progan/cat/0_real``); below it a source. What is neither
label nor split names the source. Several folders may mean real (``Celeb-real``, ``YouTube-real``), or name a split
besides (``train_real``, ``test_real``): these are sources, or splits, of the labels ``real`` and ``fake``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from bonaface.data.labels import leaning, said_by, split_named, split_within
from bonaface.data.layout_sources import Folder, find_places
from bonaface.data.rows import FileRow, shared_depth
from bonaface.errors import RealLabelError, UsageError

Said = Callable[[str], str]

MANY = 5  # folders beside a lone one called "train" that make it a class of images
ADVICE = "sort the images into one folder per label, such as real/ and fake/"


def read_layout(root: Path, files: Iterable[str], real_label: str | None = None) -> list[FileRow]:
    """A row for every file; ``files`` are paths relative to ``root``, with ``/``.

    Args:
        root: only named in errors.
        real_label: a folder name that means "a photograph", beside those that say so.

    Raises:
        UsageError: files in no label folder, splits beside other folders, or no level that must be the labels'.
    """
    places = {file: tuple(file.split("/")[:-1]) for file in files}
    examples: dict[Folder, str] = {}
    for file, folder in places.items():
        examples.setdefault(folder, file)

    beside = _beside(examples, real_label)

    def said(name: str) -> str:
        return "real" if name == real_label else said_by(name) or ("fake" if name in beside else "")

    top = _names_at(examples, 0)
    _refuse_mixed(root, {name: name in _splits_among(top) for name in top})
    at = _label_levels(root, examples, said)
    splits = _split_levels(root, at)
    sides = _several_a_side({folder[level] for folder, level in at.items()})
    named = {folder[level]: split_within(folder[level]) for folder, level in at.items()} if sides else {}
    if any(named.values()) and not splits:
        _refuse_mixed(root, {name: bool(split) for name, split in named.items()})
    sources, inside = find_places(at, splits, sides, Counter(places.values()))
    rows = {
        folder: FileRow(
            "",
            label=sides.get(folder[level], folder[level]),
            source=sources[folder],
            split=split_named(folder[splits[folder]]) if folder in splits else named.get(folder[level], ""),
            inside=inside[folder],
        )
        for folder, level in at.items()
    }
    return [rows[folder]._replace(path=file) for file, folder in places.items()]


# -- the label -----------------------------------------------------------------------------------------------------


def _label_levels(root: Path, examples: Mapping[Folder, str], said: Said) -> dict[Folder, int]:
    """Which of its names is a folder's label, for every folder that contains files."""
    folders = list(examples)
    pairs = _pairs(folders, said)
    level = _common_level(folders, pairs, said)
    if level is None and (nested := _nested_levels(root, examples, pairs, said)):
        return nested
    if level is None:
        sided = (n for n in _candidates(folders) if _several_a_side(_names_at(folders, n)))
        level = next(sided, None)
    if level is None:
        level = _unnamed_level(root, folders, said)
    for folder, file in examples.items():
        if len(folder) <= level:
            raise UsageError(f"{root / file} is in no label folder", ADVICE)
    return dict.fromkeys(folders, level)


def _beside(folders: Iterable[Folder], real_label: str | None) -> set[str]:
    """The names beside the real label that was given, if its own does not say so and they are the same everywhere."""
    if real_label is None or said_by(real_label):
        return set()
    beside = {frozenset(names) for names in _children(folders).values() if real_label in names}
    together = set[str]().union(*beside)
    return together - {real_label} if len(beside) == 1 or len(together) == 2 else set()


def _children(folders: Iterable[Folder]) -> dict[Folder, set[str]]:
    """Every folder that contains folders -> their names; splits are taken out of all paths."""
    found: dict[Folder, set[str]] = {}
    for folder in map(_without_splits, folders):
        for i, name in enumerate(folder):
            found.setdefault(folder[:i], set()).add(name)
    return found


def _pairs(folders: Iterable[Folder], said: Said) -> dict[Folder, set[str]]:
    """The folders (splits taken out of their path) right below which names say both real and fake -> these names."""
    below: dict[Folder, set[str]] = {}
    for folder in folders:
        for i, name in enumerate(folder):
            if said(name):
                below.setdefault(_without_splits(folder[:i]), set()).add(name)
    return {parent: names for parent, names in below.items() if {said(name) for name in names} == {"real", "fake"}}


def _without_splits(folder: Folder) -> Folder:
    return tuple(name for name in folder if not split_named(name))


def _candidates(folders: Sequence[Folder]) -> list[int]:
    """Levels that could be the labels': below folders that all files share, and below splits."""
    found = []
    for level in range(shared_depth(folders) + 1):
        names = {folder[level] for folder in folders if len(folder) > level}
        found.append(level + bool(names and all(map(split_named, names))))
    return found


def _names_at(folders: Iterable[Folder], level: int) -> set[str]:
    return {folder[level] for folder in folders if len(folder) > level}


def _common_level(folders: Sequence[Folder], pairs: Mapping[Folder, set[str]], said: Said) -> int | None:
    """The first level, the same for all, at which one of several names says real; the others may be any names.

    Where none of them says fake, and real and fake lie side by side deeper down, that one is no label but a source; so
    is a name that says neither and has real and fake of its own below it.
    """
    for level in _candidates(folders):
        names = _names_at(folders, level)
        if len(names) > 1 and any(said(name) == "real" for name in names):
            own = next(_without_splits(folder[:level]) for folder in folders if len(folder) > level)
            deeper = [parent for parent in pairs if len(parent) > len(own) and parent[: len(own)] == own]
            if not any(own not in pairs or not said(parent[len(own)]) for parent in deeper):
                return level
    return None


def _nested_levels(
    root: Path, examples: Mapping[Folder, str], pairs: Mapping[Folder, set[str]], said: Said
) -> dict[Folder, int] | None:
    """The label below each generator or class; None where folder names do not say both real and fake."""
    if pairs:
        known = {name.casefold() for names in pairs.values() for name in names}
    else:  # each generator has its fakes, and a camera the real ones
        speaking = [[name for name in folder if said(name)] for folder in examples]
        alone = {names[0] for names in speaking if len(names) == 1}
        if {said(name) for name in alone} != {"real", "fake"}:
            return None
        known = {name.casefold() for name in alone}
    levels = {}
    for folder, file in examples.items():
        paired = [i for i, name in enumerate(folder) if said(name) and _without_splits(folder[:i]) in pairs]
        found = paired or [i for i, name in enumerate(folder) if name.casefold() in known]
        if not found:
            example = next((f", as in {'/'.join(parent)}" for parent in pairs), "")
            raise UsageError(
                f"{root / file} is in no label folder: the labels here are {', '.join(sorted(known))}",
                f"put every image below a label folder{example}, or write a metadata.csv",
            )
        if len(paired) > 1:
            raise UsageError(
                f"{root / file} is in two folders that could be its label, {folder[paired[0]]} and {folder[paired[1]]}",
                "rename the folder that is not the label, or write a metadata.csv",
            )
        levels[folder] = found[0]
    return levels


def _several_a_side(names: Iterable[str]) -> dict[str, str]:
    """Name -> real or fake, where each of these says one of them and several say real; else empty."""
    sides: dict[str, str] = {name: leaning(name) for name in names}
    several = {name.casefold() for name, side in sides.items() if side == "real"}
    return sides if len(several) > 1 and set(sides.values()) == {"real", "fake"} else {}


def _unnamed_level(root: Path, folders: Sequence[Folder], said: Said) -> int:
    """The level to look for labels at where no name says real: the caller will ask for the real one's name."""
    candidates = _candidates(folders)
    named = [level for level in candidates if any(map(said, _names_at(folders, level)))]
    several = [level for level in candidates if len(_names_at(folders, level)) > 1]
    level = next(iter(named or several or candidates))
    deeper = {folder[: i + 1] for folder in folders for i, name in enumerate(folder) if i > level and said(name)}
    if deeper and not named:
        raise UsageError(
            f"cannot tell the labels of {root}: its folders are {', '.join(sorted(_names_at(folders, level)))}, and "
            f"{'/'.join(min(deeper))} is deeper, without its counterpart beside it",
            "put real and fake folders side by side, at the top or below each generator, or write a metadata.csv",
        )
    if not named and (pair := _unnamed_pair(folders)):
        raise RealLabelError(
            f"cannot tell the labels of {root}: {', '.join(sorted(_names_at(folders, level)))}, "
            f"or {' and '.join(pair)}, which are in each of them",
            f"name the folder of real images with --real-label, such as --real-label {pair[0]}",
        )
    return level


def _unnamed_pair(folders: Sequence[Folder]) -> list[str]:
    """The two names that lie side by side, with no folder below, in each of several folders; else none."""
    children = _children(folders)
    lowest = [names for parent, names in children.items() if not any((*parent, name) in children for name in names)]
    return (
        sorted(lowest[0]) if len(lowest) > 1 and len(lowest[0]) == 2 and len(set(map(frozenset, lowest))) == 1 else []
    )


# -- the split ----------------------------------------------------------------------------------------------


def _split_levels(root: Path, at: Mapping[Folder, int]) -> dict[Folder, int]:
    """Which of its names is a folder's split; empty where there are none.

    It is the name next above the label, else a level below it where all names are splits, one of them ``train``.
    """
    found = {}
    beside: dict[Folder, set[str]] = {}
    for folder in at:
        for i, name in enumerate(folder):
            beside.setdefault(folder[:i], set()).add(name)
    for folder, level in at.items():
        above = [i for i in range(level) if folder[i] in _splits_among(beside[folder[:i]])]
        if above:
            found[folder] = above[-1]
    if found:
        shown = {folder[: found.get(folder, level) + 1]: folder in found for folder, level in at.items()}
        _refuse_mixed(root, {"/".join(names): is_split for names, is_split in shown.items()})
        return found
    depth = max((len(folder) - level for folder, level in at.items()), default=0)
    for offset in range(1, depth):
        splits = {
            "/".join(folder[: level + offset + 1]): split_named("".join(folder[level + offset :][:1]))
            for folder, level in at.items()
        }
        said = set(splits.values())
        if "train" in said and "" not in said:
            return {folder: level + offset for folder, level in at.items()}
        if "train" in said and len(said) > 2:
            _refuse_mixed(root, {place: bool(split) for place, split in splits.items()})
    return {}


def _splits_among(names: Collection[str]) -> set[str]:
    """Which of the names in one folder mean splits: not a lone ``train``, the vehicle, among many classes of images."""
    splits = {name for name in names if split_named(name)}
    return set() if len(splits) == 1 and len(names) > MANY else splits


def _refuse_mixed(root: Path, is_split: Mapping[str, bool]) -> None:
    """Refuse folders of which only some name a split."""
    if len(set(is_split.values())) > 1:
        some, others = (sorted(name for name, yes in is_split.items() if yes is kind) for kind in (True, False))
        first, second = (", ".join(names[:4]) + ", …" * (len(names) > 4) for names in (some, others))
        raise UsageError(
            f"{root} mixes split folders ({first}) with others ({second})",
            "put every image below train/, validation/ or test/, or none of them",
        )
