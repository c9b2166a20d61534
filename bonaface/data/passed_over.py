"""What a data folder contains beside its images, in words: nothing is left out without being counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# Usually no image that is missed, so named only where there is nothing else.
COMPANIONS = frozenset({".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".yaml", ".yml", ".xml", ".html", ".parquet"})
MOST_NAMED = 4


@dataclass
class PassedOver:
    """Files that are not images by their names, and names that :func:`walk.is_no_data` skips; paths as in the data."""

    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def without(self, used: Iterable[str]) -> PassedOver:
        """Without the files that a metadata file names."""
        used = set(used)
        return PassedOver([path for path in self.files if path not in used], self.skipped)

    def counted(self, images: Iterable[str] = ()) -> str:
        """``2 files are not images by their names, such as real/y0``; an example where no image is, if there is one."""
        if not self.files:
            return ""
        n, places = len(self.files), _tops(images)

        def usual(path: str) -> tuple[bool, bool]:
            return PurePosixPath(path).suffix.casefold() in COMPANIONS, path.partition("/")[0] in places

        example = min(self.files, key=usual).encode("utf-8", "replace").decode()
        return f"{n:,} {'file is not an image by its name' if n == 1 else 'files are not images by their names'}, " + (
            f"such as {example}" if n > 1 else example
        )

    def explained(self, images: Iterable[str] = ()) -> str:
        """The count and, where no image is, what was skipped, for an error about images that are missing."""
        places = _tops(images)
        names = [path.encode("utf-8", "replace").decode() for path in self.skipped]
        names = sorted(
            (path for path in names if path.partition("/")[0] not in places), key=lambda p: ("/" not in p, p)
        )
        shown = ", ".join(names[:MOST_NAMED]) + ", …" * (len(names) > MOST_NAMED)
        return "; ".join(filter(None, [self.counted(images), shown and f"skipped as hidden or a cache: {shown}"]))


def _tops(paths: Iterable[str]) -> set[str]:
    return {path.partition("/")[0] for path in paths}
