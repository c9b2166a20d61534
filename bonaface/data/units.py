"""Which images must stay in one split: the folders below a label are sources, or units of one person, video or session.

``fake/sdxl/x.png`` and ``real/Ada_Lovelace/x.jpg`` look alike, but `sdxl` is a *source* (a generator, a camera, a
collection), which every split should have its share of, and `Ada_Lovelace` a *unit*, whose images are so much alike
that they must not be in training and test at once. What a level of folders contains is recognised by its names, their
number and their files; units may also lie below a source (``fake/sdxl/video_3/frame_0001.png``), or flat
in one folder (``video3_0001.png``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import median

from bonaface.data.unit_names import (
    SOURCE_WORDS,
    are_serial,
    is_frame,
    is_number,
    is_opaque,
    is_person_name,
    is_unit_name,
    split_stem,
    words_of,
)
from bonaface.errors import UsageError

GROUPS = ("auto", "folder", "none")
GROUPS_HELP = (
    "What stays in one split: auto (persons, videos and sessions that have a folder or a series of names), folder "
    "(every folder of images), none (each image on its own), or patterns of folders, such as real/*,fake/*/*."
)

MOST_SOURCES = 40  # more folders than that are not the sources of one label
# At least this many folders of unknown names are units if they are small, or if file numbers restart in each.
SEVERAL, SEVERAL_BELOW = 8, 5  # on the first level, where sources are expected, and below a source
SMALL = 50  # images; fewer are too few to judge a source by


@dataclass
class Units:
    """For each row its source and its group, and one line that says what was taken for what ("": no folders)."""

    sources: list[str]
    groups: list[str]
    note: str = ""


@dataclass
class _Row:
    number: int
    folders: tuple[str, ...]  # below the label, or below the source where that is known
    stem: str
    source: str


@dataclass
class _Found:
    """Of one label: folders (or series of names) that are units, by the reason, and those that are sources."""

    sources: set[str] = field(default_factory=set)
    units: dict[str, set[str]] = field(default_factory=dict)

    def add(self, what: str, why: str, group: str) -> None:
        self.units.setdefault(f"{what} kept whole ({why})", set()).add(group)


def find_units(
    labels: Sequence[str],
    sources: Sequence[str],
    paths: Sequence[str],
    how: str = "auto",
    *,
    sources_given: bool = False,
) -> Units:
    """Tell sources from units by the folders and names of the files.

    Args:
        labels: of each row; the folder of that name in the row's path is where sources and units begin.
        sources: as the folders name them: the first folder below the label, or the label itself where there is none.
        paths: of each row, unique, with ``/`` between folders.
        how: see ``GROUPS_HELP``.
        sources_given: the data set itself names its sources, and they are kept.

    Raises:
        UsageError: ``how`` is none of these, or a pattern that no folder has.
    """
    check_groups(how)
    result = Units(list(sources), list(paths))
    by_label: dict[str, list[_Row]] = {}
    for number, (label, source, path) in enumerate(zip(labels, sources, paths, strict=True)):
        *parts, name = path.split("/")
        folders, stem = tuple(parts), name.rpartition(".")[0] or name
        if label in folders:
            folders = folders[folders.index(label) + 1 :]
        elif not sources_given:
            folders = ()
        by_label.setdefault(label, []).append(_Row(number, folders, stem, source))
    if how == "none":
        return result
    if how != "auto":
        _as_told(by_label, how, sources_given, result)
        return result
    said = []
    for label, rows in sorted(by_label.items()):
        found = _Found()
        _judge_label(label, rows, sources_given, result, found)
        if line := _line(found):
            said.append(f"{label}: {line}")
    result.note = "; ".join(said) + (" (`--groups` overrides this)" if said else "")
    return result


def check_groups(how: str) -> None:
    """Refuse what is neither a name in ``GROUPS`` nor a pattern of folders. Raises :class:`UsageError`."""
    if how not in GROUPS and "/" not in how:
        raise UsageError(
            f"groups: `{how}` is not one of {', '.join(GROUPS)}", "choose one, or give patterns such as real/*,fake/*/*"
        )


# --- what the user says -------------------------------------------------------------------------------------------


def _as_told(by_label: Mapping[str, list[_Row]], how: str, sources_given: bool, result: Units) -> None:
    """Units are the folders that contain images, or those that a pattern names."""
    patterns = [pattern.strip("/ ").split("/") for pattern in how.split(",")]
    used: set[int] = set()
    groups = set()
    for label, rows in by_label.items():
        for row in rows:
            place = (label, *row.folders)
            if how == "folder":
                depth = len(place)
            else:
                fits = [i for i, pattern in enumerate(patterns) if _fits(place, pattern)]
                used.update(fits)
                depth = min((len(patterns[i]) for i in fits), default=0)
            if depth > 1:
                result.groups[row.number] = "/".join(place[:depth])
                groups.add(result.groups[row.number])
            if depth == 2 and not sources_given and row.source == row.folders[0]:
                result.sources[row.number] = label
    if how != "folder" and len(used) < len(patterns):
        unused = next("/".join(pattern) for i, pattern in enumerate(patterns) if i not in used)
        raise UsageError(f"groups: no folder of images matches {unused}", "begin patterns with the label, as in real/*")
    result.note = f"{len(groups):,} folders kept whole (`--groups {how}`)"


def _fits(place: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(place) >= len(pattern) and all(map(fnmatchcase, place, pattern))


# --- what the folders say -----------------------------------------------------------------------------------------


def _judge_label(label: str, rows: list[_Row], sources_given: bool, result: Units, found: _Found) -> None:
    """Judge the first level of folders, and what is below those that are sources."""
    by_source: dict[str, list[_Row]] = {}
    first: dict[str, list[_Row]] = {}
    for row in rows:
        if row.folders and row.source == row.folders[0] and not sources_given:
            first.setdefault(row.source, []).append(row)
        else:
            by_source.setdefault(row.source, []).append(row)
    contents = _contents(first)
    if _are_ranges(contents):  # one source, dealt to folders
        by_source.setdefault(label, []).extend(row for members in first.values() for row in members)
        for row in by_source[label]:
            result.sources[row.number] = label
        first = {}
    units, why = _which_are_units(contents, several=SEVERAL)
    for name, members in first.items():
        if name in units:
            _keep_whole(members, f"{label}/{name}", result)
            found.add("folders", why, name)
            for row in members:
                result.sources[row.number] = label
        else:
            found.sources.add(name)
            inside = [_Row(row.number, row.folders[1:], row.stem, row.source) for row in members]
            _judge_below(f"{label}/{name}", inside, result, found)
    for source, members in by_source.items():
        _judge_below(label if source == label else f"{label}/{source}", members, result, found)


def _judge_below(place: str, rows: list[_Row], result: Units, found: _Found) -> None:
    """Units below a source: folders at any depth, or series of file names in one folder."""
    children: dict[str, list[_Row]] = {}
    for row in rows:
        if row.folders:
            children.setdefault(row.folders[0], []).append(row)
    units, why = _which_are_units(_contents(children), several=SEVERAL_BELOW)
    for name, members in children.items():
        if name in units:
            _keep_whole(members, f"{place}/{name}", result)
            found.add("folders", why, f"{place}/{name}")
        else:
            inside = [_Row(row.number, row.folders[1:], row.stem, row.source) for row in members]
            _judge_below(f"{place}/{name}", inside, result, found)
    series, why = _series([row for row in rows if not row.folders])
    for name, members in series.items():
        _keep_whole(members, f"{place}/{name}", result)
        found.add("series of file names", why, f"{place}/{name}")


def _keep_whole(rows: Iterable[_Row], group: str, result: Units) -> None:
    for row in rows:
        result.groups[row.number] = group


@dataclass(frozen=True)
class _Content:
    n: int
    stems: list[str]  # of the files in the folder itself


def _contents(folders: Mapping[str, list[_Row]]) -> dict[str, _Content]:
    return {
        name: _Content(len(rows), [row.stem for row in rows if len(row.folders) < 2]) for name, rows in folders.items()
    }


def _which_are_units(folders: Mapping[str, _Content], several: int) -> tuple[set[str], str]:
    """The names among folders of one level that are units, and why; none, and "", where they are sources or subsets."""
    known = {name for name in folders if words_of(name) & SOURCE_WORDS and not is_unit_name(name)}
    if 2 * len(known) < len(folders):  # a few persons may have the name of a camera
        known = {name for name in known if folders[name].n >= SMALL}
    elif len(known) > MOST_SOURCES and are_serial(known):
        known = set()
    rest = {name: content for name, content in folders.items() if name not in known}
    if _are_ranges(rest):
        return set(), ""
    why = next((reason for reason, holds in _REASONS if rest and holds(rest, several)), "")
    return (set(rest), why) if why else (set(), "")


def _most(values: Iterable[bool], share: float = 0.8) -> bool:
    flags = list(values)
    return bool(flags) and sum(flags) >= share * len(flags)


def _are_ranges(folders: Mapping[str, _Content]) -> bool:
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


def _are_small(folders: Mapping[str, _Content], several: int) -> bool:
    if not _most(bool(content.stems) for content in folders.values()):
        return False  # folders of folders
    size = median(content.n for content in folders.values())
    return (len(folders) >= several and size < SMALL) or (len(folders) >= 3 and size <= 2)


def _are_numbered_anew(folders: Mapping[str, _Content], several: int) -> bool:
    """Files are called 0001, 0002, … in each folder, from the start."""
    stems = [content.stems for content in folders.values() if content.stems]
    if len(stems) < max(several, 0.8 * len(folders)):
        return False
    numbers = [[int(stem) for stem in own if stem.isdecimal()] for own in stems]
    return all(numbers) and all(len(n) >= 0.8 * len(own) and min(n) <= 1 for n, own in zip(numbers, stems, strict=True))


_Reason = Callable[[Mapping[str, _Content], int], bool]
_REASONS: tuple[tuple[str, _Reason], ...] = (
    ("named like persons, videos or sessions", lambda folders, several: _most(map(is_unit_name, folders), 0.5)),
    (
        "they contain frames",
        lambda folders, several: (
            len(folders) > 1 and _most(_most((is_frame(stem) for stem in c.stems), 0.5) for c in folders.values())
        ),
    ),
    ("numbers as names", lambda folders, several: len(folders) > 1 and _most(map(is_number, folders))),
    ("ids as names", lambda folders, several: len(folders) > 1 and _most(map(is_opaque, folders))),
    ("numbered names", lambda folders, several: len(folders) > several / 2 and are_serial(folders)),
    (
        "names of people",
        lambda folders, several: len(folders) > 2 and _most(is_person_name(name) for name in folders),
    ),
    ("too many to be sources", lambda folders, several: len(folders) > MOST_SOURCES),
    ("many and small", _are_small),
    ("file numbers restart in each", _are_numbered_anew),
)


# --- what the names of files say ----------------------------------------------------------------------------------


def _series(rows: list[_Row]) -> tuple[dict[str, list[_Row]], str]:
    """Series of names among files of one folder that are units (``vid1_0001, vid1_0002, vid2_0001``), and why.

    One series is a plain numbered folder. Several are units where their names say so as those of folders would, and
    where the numbers start again in each: a running number or a time stamp makes no series.
    """
    series: dict[str, list[_Row]] = {}
    numbers = []
    for row in rows:
        if (split := split_stem(row.stem)) is not None:
            series.setdefault(split[0], []).append(row)
            numbers.append(split[1])
    several = {name: members for name, members in series.items() if len(members) > 1}
    if len(series) < 2 or len(numbers) < 0.8 * len(rows) or not several:
        return {}, ""
    if len(set(numbers)) > len(numbers) / 2 and not _most(map(is_unit_name, series)):
        return {}, ""
    contents = {name: _Content(len(m), [row.stem for row in m]) for name, m in series.items()}
    units, why = _which_are_units(contents, several=SEVERAL)
    return {name: members for name, members in series.items() if name in units}, why


# --- what is said -------------------------------------------------------------------------------------------------


def _line(found: _Found) -> str:
    parts = []
    if found.sources:
        names = sorted(found.sources)
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        parts.append(f"{len(names)} {'source' if len(names) == 1 else 'sources'} ({shown})")
    parts += [f"{len(groups):,} {what}" for what, groups in found.units.items()]
    return ", ".join(parts)
