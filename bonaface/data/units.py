"""Which images must stay in one split: the folders below a label are sources, or units of one person, video or session.

``fake/sdxl/x.png`` and ``real/Ada_Lovelace/x.jpg`` look alike, but `sdxl` is a *source* (a generator, a camera, a
collection), which every split should have its share of, and `Ada_Lovelace` a *unit*, whose images are so much alike
that they must not be in training and test at once. What a level of folders contains is recognised by its names, their
number and their files; units may also lie below a source (``fake/sdxl/video_3/frame_0001.png``), or flat
in one folder (``video3_0001.png``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from bonaface.data.unit_folders import SEVERAL, SEVERAL_BELOW, Content, are_ranges, most, which_are_units
from bonaface.data.unit_joins import Key, Unit, join_units, key_of, shared_names, telling_images
from bonaface.data.unit_names import is_unit_name, split_stem
from bonaface.errors import UsageError

GROUPS = ("auto", "folder", "none")
GROUPS_HELP = (
    "What stays in one split: auto (persons, videos and sessions that have a folder or a series of names), folder "
    "(every folder of images), none (each image on its own), or patterns of folders, such as real/*,fake/*/*."
)


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
    """Of one label: the units, in words by the reason and with their rows, and the sources.

    ``shared`` are names of units by all labels.
    """

    shared: set[Key] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    said: dict[str, int] = field(default_factory=dict)
    units: dict[str, list[_Row]] = field(default_factory=dict)

    def add(self, what: str, why: str, place: str, rows: list[_Row]) -> None:
        """Keep the rows of ``place`` whole: a folder or series, by all names from the label on."""
        self.units.setdefault(place, []).extend(rows)
        said = f"{what} kept whole ({why})"
        self.said[said] = self.said.get(said, 0) + 1


def find_units(
    labels: Sequence[str],
    sources: Sequence[str],
    paths: Sequence[str],
    how: str = "auto",
    *,
    sources_given: bool = False,
    inside: Sequence[tuple[str, ...] | None] | None = None,
) -> Units:
    """Tell sources from units by the folders and names of the files.

    Args:
        labels: of each row; the folder of that name in the row's path is where sources and units begin.
        sources: as the folders name them: the first folder below the label, or the label itself where there is none.
        paths: of each row, unique, with ``/`` between folders.
        how: see ``GROUPS_HELP``.
        sources_given: the data set itself names its sources, and they are kept.
        inside: of each row, the folders below the label; without them, those below the first folder of its name.

    Raises:
        UsageError: ``how`` is none of these, or a pattern that no folder has.
    """
    check_groups(how)
    result = Units(list(sources), list(paths))
    by_label: dict[str, list[_Row]] = {}
    for number, (label, source, path) in enumerate(zip(labels, sources, paths, strict=True)):
        *parts, name = path.split("/")
        folders, stem = inside[number] if inside else None, name.rpartition(".")[0] or name
        if folders is None:
            after = parts.index(label) + 1 if label in parts else 0 if sources_given else len(parts)
            folders = tuple(parts[after:])
        by_label.setdefault(label, []).append(_Row(number, folders, stem, source))
    if how == "none":
        return result
    said = []
    found: dict[str, _Found] = {}
    shared = shared_names({label: {name for row in rows for name in row.folders} for label, rows in by_label.items()})
    for label, rows in sorted(by_label.items()):
        found[label] = _Found(shared)
        if how == "auto":
            _judge_label(label, rows, sources_given, result, found[label])
            if line := _line(found[label]):
                said.append(f"{label}: {line}")
    if how != "auto":
        _as_told(by_label, how, sources_given, result, found)
        said.append(f"{sum(len(own.units) for own in found.values()):,} folders kept whole (`--groups {how}`)")
    if joined := _write_groups(by_label, found, result, with_images=how == "auto"):
        said.append(joined)
    result.note = "; ".join(said) + (" (`--groups` overrides this)" if said and how == "auto" else "")
    return result


def _write_groups(
    by_label: Mapping[str, list[_Row]], found: Mapping[str, _Found], result: Units, *, with_images: bool
) -> str:
    """Make the units the rows' groups, one for those that show the same under several labels or sources; the note."""
    units = []
    taken: set[int] = set()
    for label, own in found.items():
        for place, rows in own.units.items():
            units.append(Unit(place, place.rpartition("/")[2], label, len(rows)))
            taken |= {row.number for row in rows}
            for row in rows:
                result.groups[row.number] = place
    if with_images and len(by_label) > 1:
        free = {label: [row for row in rows if row.number not in taken] for label, rows in by_label.items()}
        telling = telling_images({label: [row.stem for row in rows] for label, rows in free.items()}, units)
        for label, numbers in telling.items():
            rows = [free[label][number] for number in numbers]
            units += [Unit(result.groups[row.number], row.stem, label, 1) for row in rows]
    joined = join_units(units)
    result.groups = [joined.get(group, group) for group in result.groups]
    n = len(set(joined.values()))
    return (
        f"{n:,} {'group spans' if n == 1 else 'groups span'} labels or sources, where names are the same" if n else ""
    )


def check_groups(how: str) -> None:
    """Refuse what is neither a name in ``GROUPS`` nor a pattern of folders. Raises :class:`UsageError`."""
    if how not in GROUPS and "/" not in how:
        raise UsageError(
            f"groups: `{how}` is not one of {', '.join(GROUPS)}", "choose one, or give patterns such as real/*,fake/*/*"
        )


# --- what the user says -------------------------------------------------------------------------------------------


def _as_told(
    by_label: Mapping[str, list[_Row]], how: str, sources_given: bool, result: Units, found: Mapping[str, _Found]
) -> None:
    """Units are the folders that contain images, or those that a pattern names."""
    patterns = [pattern.strip("/ ").split("/") for pattern in how.split(",")]
    used: set[int] = set()
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
                found[label].units.setdefault("/".join(place[:depth]), []).append(row)
            if depth == 2 and not sources_given and row.source == row.folders[0]:
                result.sources[row.number] = label
    if how != "folder" and len(used) < len(patterns):
        unused = next("/".join(pattern) for i, pattern in enumerate(patterns) if i not in used)
        raise UsageError(f"groups: no folder of images matches {unused}", "begin patterns with the label, as in real/*")


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
    if are_ranges(contents):  # one source, dealt to folders
        by_source.setdefault(label, []).extend(row for members in first.values() for row in members)
        for row in by_source[label]:
            result.sources[row.number] = label
        first = {}
    units = _units_among(contents, SEVERAL, found)
    for name, members in first.items():
        if name in units:
            found.add("folders", units[name], f"{label}/{name}", members)
            for row in members:
                result.sources[row.number] = label
        else:
            found.sources.add(name)
            inside = [_Row(row.number, row.folders[1:], row.stem, row.source) for row in members]
            _judge_below(f"{label}/{name}", inside, found)
    for source, members in by_source.items():
        _judge_below(label if source == label else f"{label}/{source}", members, found)


def _judge_below(place: str, rows: list[_Row], found: _Found) -> None:
    """Units below a source: folders at any depth, or series of file names in one folder."""
    children: dict[str, list[_Row]] = {}
    for row in rows:
        if row.folders:
            children.setdefault(row.folders[0], []).append(row)
    units = _units_among(_contents(children), SEVERAL_BELOW, found)
    for name, members in children.items():
        if name in units:
            found.add("folders", units[name], f"{place}/{name}", members)
        else:
            inside = [_Row(row.number, row.folders[1:], row.stem, row.source) for row in members]
            _judge_below(f"{place}/{name}", inside, found)
    series, why = _series([row for row in rows if not row.folders])
    for name, members in series.items():
        found.add("series of file names", why, f"{place}/{name}", members)


def _units_among(folders: Mapping[str, Content], several: int, found: _Found) -> dict[str, str]:
    """Those of one level's folders that are units -> why."""
    units, why = which_are_units(folders, several)
    shared = dict.fromkeys((name for name in folders if key_of(name) in found.shared), "named alike under all labels")
    return shared | dict.fromkeys(units, why)


def _contents(folders: Mapping[str, list[_Row]]) -> dict[str, Content]:
    return {
        name: Content(len(rows), [row.stem for row in rows if len(row.folders) < 2]) for name, rows in folders.items()
    }


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
    if len(set(numbers)) > len(numbers) / 2 and not most(map(is_unit_name, series)):
        return {}, ""
    contents = {name: Content(len(m), [row.stem for row in m]) for name, m in series.items()}
    units, why = which_are_units(contents, several=SEVERAL)
    return {name: members for name, members in series.items() if name in units}, why


# --- what is said -------------------------------------------------------------------------------------------------


def _line(found: _Found) -> str:
    parts = []
    if found.sources:
        names = sorted(found.sources)
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        parts.append(f"{len(names)} {'source' if len(names) == 1 else 'sources'} ({shown})")
    parts += [f"{n:,} {what}" for what, n in found.said.items()]
    return ", ".join(parts)
