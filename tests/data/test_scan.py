"""One reading of a file: what is kept of it comes back the same, and one bad file is a reason among the scans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import make_faces, make_image

from bonaface.data.listing import list_data
from bonaface.data.scan import Scan, broken_files, read_scans, scan_rows, write_scans


def same(first: Scan | str, second: Scan | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    return (first.facts, first.sha256) == (second.facts, second.sha256) and np.array_equal(
        first.thumbnail, second.thumbnail
    )


def test_scans_come_back_from_their_file_and_from_json(tmp_path: Path) -> None:
    root = make_faces(tmp_path / "data", {"real/cam": 2, "fake/gan": 2})
    make_image(root / "real/cam/x.jpg", quality=80, progressive=True)
    (root / "fake/gan/page.jpg").write_text("<html>not found</html>")
    listing = list_data(root, check="none")
    scans = scan_rows(listing.rows)
    assert [file.path for file in broken_files(listing.rows, listing.labels, scans)] == ["fake/gan/page.jpg"]
    write_scans(tmp_path / "scans.parquet", scans, tmp_path)
    back = read_scans(tmp_path / "scans.parquet")
    assert list(back) == list(scans)
    assert all(same(back[path], scan) for path, scan in scans.items())
    for scan in scans.values():
        if isinstance(scan, Scan):
            assert same(Scan.from_json(json.loads(json.dumps({"path": "x", **scan.to_json()}))), scan)


def test_where_nothing_can_be_read_or_everything_the_file_is_no_different(tmp_path: Path) -> None:
    """A column without a value has no type of its own."""
    listing = list_data(make_faces(tmp_path / "data", {"real": 1, "fake": 1}), check="none")
    good = scan_rows(listing.rows)
    for scans in (good, dict.fromkeys(good, "empty: the file is empty"), {}):
        write_scans(tmp_path / "scans.parquet", scans, tmp_path)
        back = read_scans(tmp_path / "scans.parquet")
        assert list(back) == list(scans)
        assert all(same(back[path], scan) for path, scan in scans.items())


def test_only_what_is_not_known_is_read(tmp_path: Path) -> None:
    root = make_faces(tmp_path, {"real": 2, "fake": 2})
    listing = list_data(root, check="none")
    known = scan_rows(listing.rows)
    (root / "real/000.png").unlink()
    changed = replace(known["fake/000.png"], sha256="as given")
    found = scan_rows(listing.rows, {"fake/000.png": changed, "real/000.png": known["real/000.png"]})
    assert found["fake/000.png"].sha256 == "as given"
    assert all(same(found[path], known[path]) for path in known if path != "fake/000.png")
    assert "missing: no such file" in scan_rows(listing.rows)["real/000.png"]
