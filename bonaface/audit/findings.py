"""What an audit measured -> findings in words, each with one of three levels and a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from bonaface.audit.leaks import Leak
from bonaface.data.rows import BrokenFile

LEVELS = ("clean", "warning", "leak")
FEW_IMAGES = 20  # a source with fewer cannot be tested on
MOST_UNEVEN = 3.0  # largest to smallest class

# (AUC, lower bound) from which a leak of this kind is a warning or a leak. What images show always differs a little
# between sources, so the limits are higher for appearance than for facts that have nothing to do with it.
FACTS_LIMITS = {"leak": (0.75, 0.65), "warning": (0.65, 0.55)}
APPEARANCE_LIMITS = {"leak": (0.95, 0.9), "warning": (0.75, 0.65)}
SOURCE_LIMITS = {"leak": (0.95, 0.85), "warning": (0.85, 0.7)}


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found, and what to do about it."""

    level: str
    topic: str
    text: str
    hint: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Files that show the same image: ``kind`` is "exact" (all the same bytes) or "near"."""

    kind: str
    paths: tuple[str, ...]
    labels: tuple[str, ...]  # the different ones
    splits: tuple[str, ...]  # the different ones; empty where the data set names no splits


def list_findings(
    files: pd.DataFrame,
    broken: Sequence[BrokenFile],
    duplicates: Sequence[DuplicateGroup],
    facts: Leak,
    appearance: Leak | None,
    looks: pd.DataFrame,
    real_label: str,
) -> list[Finding]:
    """All findings, the worst first."""
    found = [*_facts(facts), *_duplicates(duplicates, len(files)), *_divided_units(files)]
    if appearance is not None:
        found += [*_appearance(appearance), *_faces(looks, files)]
    found += [*_broken(broken, len(files)), *_balance(files, real_label)]
    return sorted(found, key=lambda finding: -LEVELS.index(finding.level))


def leak_level(auc: float, low: float, limits: dict[str, tuple[float, float]]) -> str:
    """The level of an AUC and its lower bound; clean where they are not defined."""
    for level in ("leak", "warning"):
        least, least_low = limits[level]
        if auc >= least and low >= least_low:
            return level
    return "clean"


def _facts(leak: Leak) -> Iterator[Finding]:
    hint = "give all files the same encoding history with `python -m bonaface prepare`"
    if leak.why_not:
        yield Finding("warning", "file facts", f"file facts could not be assessed: {leak.why_not}", "add images")
    level = leak_level(leak.auc, leak.low, FACTS_LIMITS)
    if level != "clean":
        clues = _most_telling(leak)
        figure = f"AUC {leak.auc:.3f} ({leak.low:.3f} to {leak.high:.3f})"
        yield Finding(level, "file facts", f"file facts alone tell real from fake, {figure}{clues}", hint)
    else:
        yield from _single_sources(leak, "file facts", "file facts", hint)


def _appearance(leak: Leak) -> Iterator[Finding]:
    hint = "align the faces with `python -m bonaface prepare`, and collect both classes under similar conditions"
    level = leak_level(leak.auc, leak.low, APPEARANCE_LIMITS)
    if level != "clean":
        clues = _most_telling(leak)
        figure = f"AUC {leak.auc:.3f} ({leak.low:.3f} to {leak.high:.3f})"
        text = f"colour, light, borders, sharpness and framing tell real from fake, {figure}{clues}"
        yield Finding(level, "appearance", text, hint)
    else:
        yield from _single_sources(leak, "appearance", "colour, light and framing", hint, most="warning")


def _most_telling(leak: Leak) -> str:
    return "; " + "; ".join(clue.text for clue in leak.clues[:2]) if leak.clues else ""


def _single_sources(leak: Leak, topic: str, what: str, hint: str, most: str = "leak") -> Iterator[Finding]:
    """Sources that stand out although the class as a whole does not."""
    for level in ("leak", "warning"):
        rows = leak.sources
        levels = [leak_level(a, low, SOURCE_LIMITS) for a, low in zip(rows["auc"], rows["auc_low"], strict=True)]
        names = [f"{s} ({a:.2f})" for s, a, x in zip(rows["source"], rows["auc"], levels, strict=True) if x == level]
        if names:
            text = f"{what} reveal {'one source' if len(names) == 1 else 'some sources'}, AUC: {', '.join(names)}"
            yield Finding(min(level, most, key=LEVELS.index), topic, text, hint)


def _duplicates(groups: Sequence[DuplicateGroup], n: int) -> Iterator[Finding]:
    """Copies are a warning; across labels or splits they are a leak if they make up 1 % of the files."""

    def level(found: Sequence[DuplicateGroup]) -> str:
        return _level_of_share(sum(len(group.paths) for group in found), n)

    across_labels = [group for group in groups if len(group.labels) > 1]
    across_splits = [group for group in groups if len(group.splits) > 1]
    if across_labels:
        text = f"{_groups(across_labels)} under more than one label, for example {_example(across_labels[0])}"
        yield Finding(level(across_labels), "duplicates", text, "find out which label is right and remove the others")
    if across_splits:
        text = f"{_groups(across_splits)} in more than one split, for example {_example(across_splits[0])}"
        yield Finding(level(across_splits), "duplicates", text, "move each group into one split")
    rest = [group for group in groups if len(group.labels) == 1 and len(group.splits) <= 1]
    if rest:
        text = f"{_groups(rest)}, for example {_example(rest[0])}"
        yield Finding("warning", "duplicates", text, "`python -m bonaface prepare` drops or groups them")


def _divided_units(files: pd.DataFrame) -> Iterator[Finding]:
    """Persons, videos or sessions that the data's own splits have on both sides."""
    if files["split"].nunique() < 2:
        return
    divided = files[files.groupby("unit")["split"].transform("nunique") > 1]
    if len(divided):
        first = divided[divided["unit"] == divided["unit"].iloc[0]].drop_duplicates("split")
        n = divided["unit"].nunique()
        text = (
            f"{n:,} {'group' if n == 1 else 'groups'} that should stay whole (a person, a video, a session) "
            f"{'is' if n == 1 else 'are'} in more than one split, for example {first['path'].iloc[0]} "
            f"({first['split'].iloc[0]}) and {first['path'].iloc[1]} ({first['split'].iloc[1]})"
        )
        hint = "move each group into one split; `--groups none` if its images have nothing in common"
        yield Finding(_level_of_share(len(divided), len(files)), "splits", text, hint)


def _level_of_share(n: int, of: int) -> str:
    return "leak" if n >= max(0.01 * of, 2) else "warning"


def _groups(groups: Sequence[DuplicateGroup]) -> str:
    kinds = Counter(group.kind for group in groups)
    words = {"exact": "identical files", "near": "near duplicates"}
    return " and ".join(f"{n:,} group{'s' * (n > 1)} of {words[kind]}" for kind, n in sorted(kinds.items()))


def _example(group: DuplicateGroup) -> str:
    return f"{group.paths[0]} and {group.paths[1]}"


def _faces(looks: pd.DataFrame, files: pd.DataFrame) -> Iterator[Finding]:
    lost = looks[looks["face"] == "none"] if len(looks) else looks
    if len(lost) >= max(0.1 * len(looks), 3):
        source = files.set_index("path")["source"].loc[lost["path"]].value_counts()
        text = f"no face was found in {len(lost):,} of {len(looks):,} sampled images, mostly in {source.index[0]}"
        yield Finding(
            "warning", "faces", text, "check them in the report; the Haar cascade misses more faces than YuNet"
        )


def _broken(broken: Sequence[BrokenFile], n: int) -> Iterator[Finding]:
    if broken:
        kinds = Counter(file.reason.split(":")[0] for file in broken)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in kinds.most_common())
        text = f"{len(broken):,} of {n + len(broken):,} files cannot be used ({reasons}), such as {broken[0].path}"
        yield Finding("warning", "broken files", text, "replace or delete them; they are left out")


def _balance(files: pd.DataFrame, real_label: str) -> Iterator[Finding]:
    labels = files["label"].value_counts()
    if labels.iloc[0] > MOST_UNEVEN * labels.iloc[-1]:
        text = f"uneven classes: {labels.iloc[0]:,} {labels.index[0]} against {labels.iloc[-1]:,} {labels.index[-1]}"
        yield Finding("warning", "balance", text, "add images to the smaller class, or weight the loss")
    kind = (files["label"] == real_label).map({True: "real", False: "fake"})
    for name in ("real", "fake"):
        counts = files.loc[kind == name, "source"].value_counts()
        if len(counts) == 1:
            text = f"all {name} images come from one source, {counts.index[0]}: accuracy on other sources is unknown"
            yield Finding("warning", "sources", text, "sort the images by source (fake/GENERATOR/…) or add sources")
        small = counts[counts < FEW_IMAGES]
        if len(small):
            listed = ", ".join(f"{source} ({n})" for source, n in small.items())
            text = f"{name} sources with fewer than {FEW_IMAGES} images, too few to test on: {listed}"
            yield Finding("warning", "sources", text, "add images or merge them with a similar source")
    if set(kind) == {"real", "fake"}:
        area = (files["width"] * files["height"]) ** 0.5
        middle = area.groupby(kind).median()
        if middle.max() > 2 * middle.min():
            text = (
                f"uneven sizes: real images are about {middle['real']:.0f} px per side, fake ones {middle['fake']:.0f}"
            )
            yield Finding("warning", "balance", text, "`python -m bonaface prepare` resizes all to the same range")
