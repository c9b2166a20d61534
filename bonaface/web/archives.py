"""Files from an uploaded zip, none of which is trusted.

Names inside are only ever text: every file is written under a number. Sizes that the archive states are checked first,
and bytes are counted while it unpacks, so a zip bomb with a false size stops at the same limit.
Archives within archives, links and encrypted files are not opened; each gets a line that says so.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bonaface.imaging.images import IMAGE_SUFFIXES, MAX_BYTES
from bonaface.imaging.walk import is_no_data
from bonaface.web.limits import Limits

CHUNK = 1 << 20
END, END_BYTES, LONGEST_COMMENT = b"PK\x05\x06", 22, 0xFFFF
ENTRY_BYTES = 1000  # of a zip's directory for one file: far more than any honest name needs
NESTED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")


@dataclass(frozen=True)
class Entry:
    """A file that is to be checked, or the reason why it cannot be: ``name`` is untrusted text."""

    name: str
    path: Path | None = None
    status: str = "ok"
    error: str = ""


class ArchiveError(ValueError):
    """The archive as a whole is refused; the message is for the visitor."""


def known_suffix(name: str) -> str:
    """The ending of a name where it is that of an image, else nothing: all that is kept of a stranger's file name."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in IMAGE_SUFFIXES else ""


def is_zip(path: Path) -> bool:
    """By its first bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", END)


def unpack(path: Path, folder: Path, limits: Limits, name: str = "") -> Iterator[Entry]:
    """Write the files of a zip to ``folder``, under numbers, and give an entry for each.

    Folders and what operating systems add (``__MACOSX``, hidden files) are left out.

    Raises:
        ArchiveError: no zip, too many files, or more bytes than ``limits`` allow.
    """
    _check_directory(path, limits)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError(f"{name or 'The archive'} is damaged.") from error
    with archive:
        members = [member for member in archive.infolist() if not _is_clutter(member.filename)]
        if len(members) > limits.files:
            raise ArchiveError(
                f"{name or 'The archive'} contains {len(members):,} files; at most {limits.files:,} are allowed."
            )
        if sum(member.file_size for member in members) > limits.unpacked_bytes:
            raise ArchiveError(_too_large(name, limits))
        left = limits.unpacked_bytes
        for number, member in enumerate(members):
            entry = _unpack_one(archive, member, folder / f"{number:06d}{known_suffix(member.filename)}", left)
            left -= entry.path.stat().st_size if entry.path else 0
            yield entry


def _check_directory(path: Path, limits: Limits) -> None:
    """Bound the list of files before zipfile reads all of it into memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END_BYTES - LONGEST_COMMENT))
        tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < END_BYTES:
        raise ArchiveError("The archive is damaged: its end is missing.")
    n, directory_bytes = struct.unpack_from("<HI", tail, at + 10)
    if n > 2 * limits.files + 1000 or directory_bytes > (2 * limits.files + 1000) * ENTRY_BYTES:
        raise ArchiveError(f"The archive contains too many files; at most {limits.files:,} are allowed.")


def _is_clutter(name: str) -> bool:
    """A folder, or what operating systems add. An empty name (zipfile cuts at a zero byte) is a file."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {".", ".."}]
    return name.endswith("/") or any(map(is_no_data, parts))


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> Entry:
    name = member.filename
    if stat.S_ISLNK(member.external_attr >> 16):
        return Entry(name, status="unreadable", error="a link; links are not followed")
    if member.flag_bits & 1:
        return Entry(name, status="unreadable", error="encrypted")
    if name.lower().endswith(NESTED):
        return Entry(name, status="not an image", error="an archive inside the archive; it is not opened")
    if member.file_size > MAX_BYTES:
        return Entry(name, status="too many bytes", error=f"more than {MAX_BYTES / 1e6:.0f} MB")
    allowed, written = min(MAX_BYTES, left), 0
    try:
        with archive.open(member) as source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > allowed:
                    break
                file.write(chunk)
    except Exception as error:  # each way of packing has errors of its own, and some are of no common kind
        target.unlink(missing_ok=True)
        return Entry(name, status="unreadable", error=f"damaged inside the archive ({type(error).__name__})")
    if written > allowed:
        target.unlink(missing_ok=True)
        return Entry(name, status="too many bytes", error="larger than the archive states")
    return Entry(name, target)


def _too_large(name: str, limits: Limits) -> str:
    return f"{name or 'The archive'} unpacks to more than {limits.unpacked_bytes / 1e6:.0f} MB."
