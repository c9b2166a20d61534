"""Archives of strangers: names lead nowhere, sizes are counted, what is not opened has a line that says why."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.web.archives import ArchiveError, is_zip, unpack
from bonaface.web.limits import Limits

LIMITS = Limits(files=5, unpacked_bytes=2_000_000)


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_an_archives_files_are_numbered_and_its_clutter_left_out(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip", {"x/a.jpg": b"A", "x/": b"", "__MACOSX/x/._a.jpg": b"m", ".hidden": b"h", "b.PNG": b"B"}
    )
    entries = list(unpack(path, tmp_path, LIMITS))
    assert is_zip(path)
    assert [entry.name for entry in entries] == ["x/a.jpg", "b.PNG"]
    assert [entry.path.name for entry in entries if entry.path] == ["000000.jpg", "000001.png"]
    assert [entry.path.read_bytes() for entry in entries if entry.path] == [b"A", b"B"]


@pytest.mark.parametrize("name", ["./a.jpg", "x/../a.jpg", ".\\a.jpg", "x//a.jpg"])
def test_dots_in_a_name_hide_no_file(name: str, tmp_path: Path) -> None:
    assert [entry.status for entry in unpack(make_zip(tmp_path / "a.zip", {name: b"A"}), tmp_path, LIMITS)] == ["ok"]


def test_a_file_without_a_name_is_one_like_others(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"Q": b"A", "b.jpg": b"B"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"Q", b"\0"))
    entries = list(unpack(path, tmp_path, LIMITS))
    assert [(entry.name, entry.path.name if entry.path else "") for entry in entries] == [
        ("", "000000"),
        ("b.jpg", "000001.jpg"),
    ]


@settings(max_examples=40, deadline=None)
@given(name=st.text(min_size=1, max_size=60).filter(lambda text: not text.endswith("/")))
def test_no_name_inside_an_archive_leads_out_of_the_folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is in an archive under whatever name, files appear only in the given folder, under numbers."""
    root = tmp_path_factory.mktemp("zip")
    folder = root / "in" / "here"
    folder.mkdir(parents=True)
    try:
        path = make_zip(
            root / "a.zip", {name: b"data", "../../out.jpg": b"1", "/etc/out.jpg": b"2", "..\\out.jpg": b"3"}
        )
    except (UnicodeEncodeError, ValueError, IndexError):
        return  # zipfile writes no such name
    before = {file for file in root.rglob("*") if file.is_file()}
    entries = list(unpack(path, folder, LIMITS))
    new = {file for file in root.rglob("*") if file.is_file()} - before
    assert new == {entry.path for entry in entries if entry.path}
    assert all(file.parent == folder and file.stem.isdecimal() for file in new)


def test_links_nested_archives_and_encrypted_files_get_a_line_and_are_not_opened(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", b"PK\x03\x04")
        archive.writestr("secret.jpg", b"x" * 20)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")  # the directory's entry of the last file: set "encrypted"
    data[at + 8] |= 1
    path.write_bytes(data)
    entries = list(unpack(path, tmp_path, LIMITS))
    assert [entry.path for entry in entries] == [None] * 3
    assert [entry.status for entry in entries] == ["unreadable", "not an image", "unreadable"]
    assert [entry.error for entry in entries] == [
        "a link; links are not followed", "an archive inside the archive; it is not opened", "encrypted",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["zip", "tar", "gz", "tgz", "7z", "rar", "bz2", "xz", "ZIP"])
def test_no_archive_inside_an_archive_is_opened(ending: str, tmp_path: Path) -> None:
    (entry,) = unpack(make_zip(tmp_path / "a.zip", {f"inner.{ending}": b"x"}), tmp_path, LIMITS)
    assert (entry.status, entry.path) == ("not an image", None)


@pytest.mark.parametrize("claimed", [None, 10])
def test_a_bomb_stops_at_the_limit_whether_it_says_its_size_or_lies(tmp_path: Path, claimed: int | None) -> None:
    path = make_zip(tmp_path / "bomb.zip", {"a.jpg": bytes(3_000_000)})
    if claimed is not None:
        data = bytearray(path.read_bytes())
        data[22:26] = struct.pack("<I", claimed)
        at = data.rfind(b"PK\x01\x02")
        data[at + 24 : at + 28] = struct.pack("<I", claimed)
        path.write_bytes(data)
        entries = list(unpack(path, tmp_path, LIMITS))
        assert entries[0].path is None
        assert entries[0].status != "ok"
    else:
        for name in ("", "b.zip"):
            with pytest.raises(ArchiveError, match=f"^{name or 'The archive'} unpacks to more than 2 MB"):
                list(unpack(path, tmp_path, LIMITS, name))
    assert sum(file.stat().st_size for file in tmp_path.rglob("0*")) <= 2_000_000


def test_too_many_files_are_refused_before_the_list_of_them_is_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "many.zip", {f"{i}.jpg": b"" for i in range(6)})
    for name, said in (("", "The archive contains 6 files; at most 5"), ("b.zip", "b.zip contains 6 files; at most 5")):
        with pytest.raises(ArchiveError, match=f"^{said} are allowed"):
            list(unpack(path, tmp_path, LIMITS, name))
    path = make_zip(tmp_path / "more.zip", {f"{i}.jpg": b"" for i in range(1500)})
    with pytest.raises(ArchiveError, match="too many files"):
        list(unpack(path, tmp_path, LIMITS))


def test_a_list_of_files_that_is_far_too_long_is_refused_whatever_number_it_states(tmp_path: Path) -> None:
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 2_000_000, 0, 0)
    (tmp_path / "a.zip").write_bytes(bytes(100) + end)
    with pytest.raises(ArchiveError, match="too many files"):
        list(unpack(tmp_path / "a.zip", tmp_path, LIMITS))


def test_a_file_that_is_too_large_for_an_image_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonaface.web.archives.MAX_BYTES", 100)
    path = make_zip(tmp_path / "a.zip", {"large.jpg": bytes(101), "just.jpg": bytes(100)})
    large, just = unpack(path, tmp_path, LIMITS)
    assert (large.status, large.path, just.status) == ("too many bytes", None, "ok")
    assert large.error == "more than 0 MB"  # by what it states: it is not unpacked first
    assert [file.name for file in tmp_path.glob("0*")] == ["000001.jpg"]


def test_what_is_really_unpacked_is_counted_whatever_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's zipfile stops at the stated size by itself; we do not rely on it."""
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"a" * 60, "b.jpg": b"b" * 40})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: io.BytesIO(bytes(70)))
    first, second = unpack(path, tmp_path, replace(LIMITS, unpacked_bytes=100))
    assert first.path is not None
    assert (second.status, second.path, second.error) == ("too many bytes", None, "larger than the archive states")
    assert [file.name for file in tmp_path.glob("0*")] == ["000000.jpg"]


def test_a_file_without_end_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        """Gives what is asked for, and counts it."""

        given = 0

        def read(self, size: int | None = -1) -> bytes:
            Endless.given += size or 0
            assert Endless.given < 10_000_000
            return bytes(size or 0)

    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"a"})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: Endless())
    (entry,) = unpack(path, tmp_path, LIMITS)
    assert (entry.status, entry.path) == ("too many bytes", None)


def test_an_archive_of_just_the_limit_is_taken(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"inner.zip": b"", "a.jpg": bytes(60), "b.jpg": bytes(40)})
    found = list(unpack(path, tmp_path, replace(LIMITS, unpacked_bytes=100)))
    assert [entry.status for entry in found] == ["not an image", "ok", "ok"]
    assert [entry.path.stat().st_size for entry in found if entry.path] == [60, 40]


def test_an_archive_whose_end_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "a.zip", {"a.jpg": b"abc"}).read_bytes()
    for cut in range(1, 23):
        (tmp_path / "a.zip").write_bytes(whole[:-cut])
        with pytest.raises(ArchiveError, match="its end is missing"):
            list(unpack(tmp_path / "a.zip", tmp_path, LIMITS))


@pytest.mark.parametrize("name", ["", "b.zip"])
def test_an_archive_that_is_damaged_is_named(name: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"abc"})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"XXXX"))
    assert is_zip(path)
    with pytest.raises(ArchiveError, match=f"^{name or 'The archive'} is damaged"):
        list(unpack(path, tmp_path, LIMITS, name))


def test_the_longest_comment_does_not_hide_the_end(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(100_000)}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"c" * 65_535
    assert [entry.status for entry in unpack(path, tmp_path, LIMITS)] == ["ok"]


def test_clutter_counts_only_where_there_is_far_too_much_of_it(tmp_path: Path) -> None:
    """So that the list of files stays small: twice as many as are allowed, and a thousand."""
    for clutter, refused in ((1009, False), (1010, True)):
        path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A"} | {f".{i}": b"" for i in range(clutter)})
        if refused:
            with pytest.raises(ArchiveError, match="too many files; at most 5"):
                list(unpack(path, tmp_path, LIMITS))
        else:
            assert [entry.name for entry in unpack(path, tmp_path, LIMITS)] == ["a.jpg"]


def test_a_file_that_is_damaged_inside_has_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"abc" * 20, "b.jpg": b"d"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcabc", b"abXabc", 1))
    damaged, good = unpack(path, tmp_path, LIMITS)
    assert (damaged.status, damaged.path, good.status) == ("unreadable", None, "ok")
    assert damaged.error == "damaged inside the archive (BadZipFile)"
    assert [file.name for file in tmp_path.glob("0*")] == ["000001.jpg"]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 300), at=st.integers(0, 300), byte=st.integers(0, 255))
def test_a_damaged_archive_is_refused_or_has_rows_never_anything_else(
    cut: int, at: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(make_zip(folder / "a.zip", {"a.jpg": b"abc" * 20, "b.jpg": b"d"}).read_bytes())
    data = data[: len(data) - cut] if cut < 40 else data
    if at < len(data):
        data[at] = byte
    (folder / "a.zip").write_bytes(data)
    try:
        entries = list(unpack(folder / "a.zip", folder, LIMITS))
    except ArchiveError:
        return
    assert all(bool(entry.path) == (entry.status == "ok") for entry in entries)
