"""Preparation: no file fact tells the class afterwards, nothing is lost silently, and a kill changes no
byte.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_faces
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonaface.data.alignment import Alignment
from bonaface.data.listing import list_data
from bonaface.data.prepare import prepare, run_prepare_command
from bonaface.errors import UsageError
from bonaface.imaging.faces import Face, FaceDetector
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import load_image


class Middle:
    """Stands in for a face detector: one face in the middle of every image wider than 60 px, after a
    while."""

    name = "the middle"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def detect(self, image: Image.Image) -> list[Face]:
        time.sleep(self.seconds)
        width, height = image.size
        return [Face((0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height), 0.9)] if width > 60 else []


def picture(seed: int, width: int = 120, height: int = 100) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def make_raw(root: Path, n: int = 6) -> Path:
    """Real: large JPEG photographs of two cameras with EXIF; fake: small square PNG and WebP files."""
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    kinds = [
        ("real/a", ".jpg", (150, 110), {"quality": 80, "exif": exif}),
        ("real/b", ".jpeg", (110, 170), {"quality": 97, "subsampling": 0, "progressive": True}),
        ("fake/gan", ".png", (96, 96), {}),
        ("fake/diffusion", ".webp", (128, 128), {"quality": 90}),
    ]
    for k, (folder, suffix, size, arguments) in enumerate(kinds):
        (root / folder).mkdir(parents=True)
        for i in range(n):
            picture(1000 * k + i, *size).save(root / folder / f"{i:03d}{suffix}", **arguments)
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_raw(tmp_path_factory.mktemp("raw") / "data")


SMALL = {"size_range": (32, 40), "detector": Middle(), "workers": 1}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_file_has_the_same_format_range_and_no_metadata(raw: Path, tmp_path: Path) -> None:
    summary = prepare(raw, tmp_path / "out", **SMALL)
    assert (summary.found, summary.written, summary.dropped) == (24, 24, {})
    table = pd.read_csv(tmp_path / "out/metadata.csv", keep_default_na=False)
    assert set(zip(table.label, table.source, strict=True)) == {
        ("real", "a"), ("real", "b"), ("fake", "gan"), ("fake", "diffusion")
    }  # fmt: skip
    for row in table.itertuples():
        data = (tmp_path / "out" / row.file_name).read_bytes()
        facts = inspect_image(data)
        assert (facts.format, facts.mode, facts.chroma_subsampling) == ("JPEG", "RGB", "4:2:0")
        assert not any((facts.progressive, facts.has_exif, facts.has_icc, facts.has_c2pa))
        assert facts.width == facts.height == row.side
        assert facts.jpeg_quality == row.quality
        assert 32 <= row.side <= 40
        assert 75 <= row.quality <= 95
        original = inspect_image((raw / row.original_path).read_bytes())
        assert (row.original_width, row.original_height) == (original.width, original.height)
        assert row.original_format == original.format
        assert row.face == ("ok" if min(original.width, original.height) >= 100 else "tiny")
        assert row.face_x0 == pytest.approx(0.3 * original.width, abs=0.06)
    # Nothing but the tables beside the images, and the commands here read it as the raw folder was read.
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "real", "fake", "metadata.csv", "dropped.csv", "scans.parquet", "prepare.json"
    }  # fmt: skip
    listing = list_data(tmp_path / "out")
    assert (len(listing.rows), listing.labels, listing.broken) == (24, ["fake", "real"], [])
    assert sorted(listing.rows["source"]) == sorted(table.source)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=20), st.integers(0, 2**31))
def test_draws_depend_on_seed_and_path_alone(path: str, seed: int) -> None:
    """Crops of two sizes and histories under one path: the same side and quality. So no class can differ in
    them."""
    alignment = Alignment(seed=seed, size_range=(20, 24))
    big, small = picture(1, 70, 70), picture(2, 33, 33)
    data, side, quality = alignment.apply(big, path)
    assert alignment.apply(small, path)[1:] == (side, quality)
    assert alignment.apply(big, path)[0] == data
    assert Image.open(io.BytesIO(data)).size == (side, side)


def test_draws_spread_over_their_ranges() -> None:
    draws = [Alignment(size_range=(20, 24)).apply(picture(1, 33, 33), f"real/{i}.png")[1:] for i in range(300)]
    assert {side for side, _ in draws} == set(range(20, 25))
    assert {quality for _, quality in draws} == set(range(75, 96))


def test_the_number_of_processes_changes_no_byte(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "one", **SMALL)
    prepare(raw, tmp_path / "three", **(SMALL | {"workers": 3}))
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    prepare(raw, tmp_path / "other", seed=1, **SMALL)
    first, other = tree(tmp_path / "one"), tree(tmp_path / "other")
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_killed_half_way_the_same_command_ends_with_the_same_bytes(tmp_path: Path) -> None:
    raw, out = make_raw(tmp_path / "raw", n=30), tmp_path / "out"
    slow = SMALL | {"detector": Middle(0.03), "workers": 2}
    process = multiprocessing.get_context("fork").Process(target=prepare, args=(raw, out), kwargs=slow)
    process.start()
    journal = out / ".prepare" / "journal.jsonl"
    wait_until(lambda: not process.is_alive() or (journal.is_file() and journal.read_bytes().count(b"\n") > 20))
    workers = [int(p.name) for p in Path("/proc").glob("[0-9]*") if parent_of(p) == process.pid]
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "prepare.json").exists()
    done = {name: path.stat().st_mtime_ns for name, path in pictures(out).items()}
    assert 0 < len(done) < 120
    assert len(workers) == 2
    wait_until(lambda: not any(alive(pid) for pid in workers))  # no orphan goes on

    with journal.open("a") as file:  # a line that the kill tore
        file.write('{"path": "real/a/0')
    (out / ".prepare" / "tmpleft").write_bytes(b"half a file")
    journalled = len(list(journal.open())) - 2
    prepare(raw, out, **SMALL)
    kept = sum(path.stat().st_mtime_ns == done.get(name) for name, path in pictures(out).items())
    assert kept >= journalled > 0  # continued, not begun again
    prepare(raw, tmp_path / "undisturbed", **SMALL)
    assert tree(out) == tree(tmp_path / "undisturbed")


def pictures(out: Path) -> dict[str, Path]:
    return {str(p): p for p in out.rglob("*.jpg")}


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(condition: object, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_finished_folder_is_left_alone(raw: Path, tmp_path: Path) -> None:
    first = prepare(raw, tmp_path / "out", **SMALL)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert prepare(raw, tmp_path / "out", **SMALL) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_other_options_or_data_are_refused(tmp_path: Path, state: str) -> None:
    raw, out = make_raw(tmp_path / "raw", 2), tmp_path / "out"
    prepare(raw, out, **SMALL)
    if state == "interrupted":
        (out / ".prepare").mkdir()
        known = json.loads((out / "prepare.json").read_text())
        (out / ".prepare/parameters.json").write_text(json.dumps(known["parameters"]))
        (out / ".prepare/journal.jsonl").write_text(json.dumps({"path": "real/a/0.jpg", "dropped": "empty"}) + "\n")
        (out / "prepare.json").unlink()
    with pytest.raises(UsageError, match=r"changed: seed, margin\)"):
        prepare(raw, out, seed=3, margin=0.5, **SMALL)
    picture(77).save(raw / "real/a/more.jpg")
    with pytest.raises(UsageError, match=r"changed: data\)"):
        prepare(raw, out, **SMALL)


def test_broken_and_duplicate_files_are_listed_with_their_reason(raw: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(raw, tmp_path / "raw"))
    (data / "real/a/empty.jpg").touch()
    (data / "real/a/text.jpg").write_text("this is no picture at all, only words")
    whole = (data / "real/a/000.jpg").read_bytes()
    (data / "real/a/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "real/b/again.jpg").write_bytes(whole)
    shutil.copy(data / "fake/gan/001.png", data / "real/b/001.png")  # under both labels
    summary = prepare(data, tmp_path / "out", **SMALL)
    dropped = pd.read_csv(tmp_path / "out/dropped.csv").set_index("original_path")
    assert dropped.reason.to_dict() == {
        "real/a/empty.jpg": "empty: the file is empty",
        "real/a/text.jpg": "wrong extension: named .jpg, but contains text",
        "real/a/cut.jpg": "truncated: the JPEG is truncated",
        "real/b/again.jpg": "duplicate: same file as real/a/000.jpg",
        "fake/gan/001.png": "same file under two labels: fake/gan/001.png = real/b/001.png",
        "real/b/001.png": "same file under two labels: fake/gan/001.png = real/b/001.png",
    }
    assert dropped.loc["fake/gan/001.png", ["label", "source"]].tolist() == ["fake", "gan"]
    assert summary.found == 29
    assert summary.written == 23
    assert summary.dropped == {
        "duplicate": 1, "empty": 1, "same file under two labels": 2, "truncated": 1, "wrong extension": 1
    }  # fmt: skip
    assert len(pictures(tmp_path / "out")) == 23
    assert len(pd.read_csv(tmp_path / "out/metadata.csv")) == 23


def test_near_duplicates_share_a_group_and_own_groups_stay(raw: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(raw, tmp_path / "raw"))
    picture(99, 200, 200).save(data / "fake/gan/big.png")
    picture(99, 200, 200).resize((150, 150)).save(data / "fake/diffusion/small.jpg", quality=80)
    summary = prepare(data, tmp_path / "out", **SMALL)
    groups = pd.read_csv(tmp_path / "out/metadata.csv").set_index("original_path").group
    assert groups["fake/gan/big.png"] == groups["fake/diffusion/small.jpg"]
    assert groups.nunique() == len(groups) - 1
    assert summary.near_duplicate_groups == 1


def test_images_without_a_face_give_their_centre_square_and_say_so(tmp_path: Path) -> None:
    data = make_raw(tmp_path / "raw", 2)
    picture(5, 60, 50).save(data / "real/a/small.png")  # in which the stand-in sees no face
    summary = prepare(data, tmp_path / "out", **SMALL)
    assert summary.no_face == {"real": 1}
    row = pd.read_csv(tmp_path / "out/metadata.csv").set_index("original_path").loc["real/a/small.png"]
    assert row.face == "none"
    assert row[["face_x0", "face_y0", "face_x1", "face_y1"]].tolist() == [5, 0, 55, 50]
    assert row.crop_side == 50
    every = prepare(data, tmp_path / "whole", faces=False, **SMALL)
    assert every.detector == "none"
    assert every.no_face == {}
    assert (pd.read_csv(tmp_path / "whole/metadata.csv").crop_side > 45).all()


def test_split_folders_stay(raw: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_raw(tmp_path / "raw" / split, 2)
    for file in (tmp_path / "raw/test").rglob("*.*"):  # other images than in train
        load_image(file).transpose(Image.Transpose.ROTATE_90).save(file.with_suffix(".png"))
        if file.suffix != ".png":
            file.unlink()
    prepare(tmp_path / "raw", tmp_path / "out", **SMALL)
    listing = list_data(tmp_path / "out")
    assert sorted(set(listing.rows["split"])) == ["test", "train"]
    assert all(r["path"].startswith(f"{r['split']}/") for r in listing.rows)
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == {"train", "test"}


def test_alpha_orientation_palette_and_grey_become_upright_rgb(raw: Path, tmp_path: Path) -> None:
    """The kinds of files people have: the face box counts in upright pixels, transparency is white."""
    data = Path(shutil.copytree(raw, tmp_path / "raw"))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(50, 160, 90).save(data / "real/a/turned.jpg", exif=turned)
    Image.new("RGBA", (90, 90), (255, 0, 0, 0)).save(data / "fake/gan/clear.png")
    picture(51).convert("P").save(data / "fake/gan/palette.gif")
    picture(52).convert("L").save(data / "real/a/grey.webp")
    Image.new("RGB", (1, 1)).save(data / "real/a/dot.png")
    prepare(data, tmp_path / "out", **SMALL)
    table = pd.read_csv(tmp_path / "out/metadata.csv").set_index("original_path")
    assert table.loc["real/a/turned.jpg", ["face_x1", "face_y1"]].tolist() == [63.0, 112.0]  # 90 x 160 upright
    clear = load_image(tmp_path / "out" / table.file_name["fake/gan/clear.png"])
    assert np.asarray(clear).min() > 250
    assert {"fake/gan/palette.gif", "real/a/grey.webp", "real/a/dot.png"} <= set(table.index)


def test_names_from_metadata_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = []
    for i, (label, source) in enumerate([("real", "../../up"), ("a fake/..", "=cmd()"), ("real", ".hidden")]):
        picture(i).save(tmp_path / "raw" / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "label": label, "source": source, "group": "one person"})
    pd.DataFrame(rows).to_csv(tmp_path / "raw/metadata.csv", index=False)
    prepare(tmp_path / "raw", tmp_path / "out", **SMALL)
    table = pd.read_csv(tmp_path / "out/metadata.csv")
    assert sorted(set(table.label)) == ["a fake/..", "real"]  # as they were
    assert table.group.nunique() == 1
    assert all((tmp_path / "out" / name).is_file() and ".." not in name for name in table.file_name)
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "out"}
    assert len(list_data(tmp_path / "out").rows) == 3


def test_folders_that_cannot_be_used_are_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep me")
    (tmp_path / "file").touch()
    for out, message in (
        (raw, "is the raw folder itself"),
        (raw / "out", "overlap"),
        (raw.parent, "overlap"),
        (tmp_path / "full", "not an empty folder"),
        (tmp_path / "file", "not an empty folder"),
        (tmp_path / "file" / "out", "cannot write"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            prepare(raw, out, **SMALL)
        assert error.value.hint
    assert (tmp_path / "full/mine.txt").read_text() == "keep me"
    with pytest.raises(UsageError, match="no data folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out", **SMALL)


def test_a_label_without_a_usable_file_is_an_error(tmp_path: Path) -> None:
    data = make_raw(tmp_path / "raw", 1)
    for file in (data / "fake").rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(UsageError, match="no usable file labelled fake"):
        prepare(data, tmp_path / "out", **SMALL)


@pytest.mark.parametrize(
    "wrong",
    [{"size_range": (40, 30)}, {"size_range": (0, 30)}, {"quality_range": (5, 101)}, {"seed": -1}, {"margin": 3.0}],
)
def test_options_out_of_range_are_refused(raw: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        prepare(raw, tmp_path / "out", **(SMALL | wrong))
    assert not (tmp_path / "out").exists()


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder that all may enter, and a user for whom permissions count (root passes them all by)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        root = os.geteuid() == 0
        if root:
            make_raw(Path(name) / "raw", 2)
            os.seteuid(65534)
        else:
            make_raw(Path(name) / "raw", 2)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def test_no_write_permission_is_said_and_nothing_is_made() -> None:
    with as_nobody() as folder:
        if os.geteuid() != 65534:
            folder.chmod(0o555)
        with pytest.raises(UsageError, match=r"cannot write to .*permission denied") as error:
            prepare(folder / "raw", folder / "out", **SMALL)
        folder_now = sorted(p.name for p in folder.iterdir())
        if os.geteuid() != 65534:
            folder.chmod(0o755)
    assert folder_now == ["raw"]
    assert "choose another folder" in error.value.hint


def test_unreadable_files_are_dropped_and_an_unreadable_folder_is_said() -> None:
    with as_nobody() as folder, tempfile.TemporaryDirectory() as out:
        locked = folder / "raw/real/a/000.jpg"
        nobody = os.geteuid()
        if nobody == 65534:
            os.seteuid(0)
        locked.chmod(0o000)
        os.seteuid(nobody)
        summary = prepare(folder / "raw", Path(out) / "out", **SMALL)
        assert summary.dropped == {"unreadable": 1}
        if nobody == 65534:
            os.seteuid(0)
        (folder / "raw").chmod(0o000)
        os.seteuid(nobody)
        with pytest.raises(UsageError, match=r"cannot read .*permission denied"):
            prepare(folder / "raw", Path(out) / "again", **SMALL)
        if nobody == 65534:
            os.seteuid(0)
        (folder / "raw").chmod(0o755)
        os.seteuid(nobody)


def test_the_command_prints_a_summary(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(raw, tmp_path / "raw"))
    (data / "real/a/empty.jpg").touch()
    run_prepare_command(str(data), str(tmp_path / "out"), **SMALL)
    text = capsys.readouterr().out
    assert "24 of 25 files written to" in text
    assert "the middle" in text
    assert "1 empty" in text
    assert "dropped.csv" in text


@pytest.mark.faces
def test_after_preparation_file_facts_hardly_tell_the_class(
    faces_dir: Path, yunet_weights: Path, tmp_path: Path
) -> None:
    """On real and generated faces whose files give the class away at once: the AUC of the same facts after
    it."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    for folder in sorted(faces_dir.glob("*/*")):
        target = tmp_path / "raw" / folder.relative_to(faces_dir)
        target.mkdir(parents=True)
        for file in sorted(folder.iterdir())[:12]:
            shutil.copy(file, target)

    def auc(data: Path) -> float:
        listing = list_data(data, check="none")
        facts = [inspect_image(Path(image["path"]).read_bytes()) for image in listing.rows["image"]]
        values = [
            (f.width, f.height, f.n_bytes / f.width / f.height, f.jpeg_quality or 0, f.format == "JPEG", f.has_exif)
            for f in facts
        ]
        model = ExtraTreesClassifier(200, min_samples_leaf=3, random_state=0)
        truth = np.array(listing.rows["label"])
        scores = cross_val_predict(model, np.array(values, float), truth, cv=5, method="predict_proba")[:, 1]
        return float(roc_auc_score(truth, scores))

    summary = prepare(tmp_path / "raw", tmp_path / "out", detector=FaceDetector(yunet_weights, kind="yunet"))
    assert summary.written == summary.found
    assert sum(summary.no_face.values()) <= 0.01 * summary.found
    assert sum(summary.upscaled.values()) <= 0.02 * summary.found
    assert auc(tmp_path / "raw") > 0.9
    assert auc(tmp_path / "out") < 0.7  # 132 files: the interval around it is ± 0.1


def test_a_finished_folder_that_lost_files_is_not_trusted(tmp_path: Path) -> None:
    from conftest import make_faces

    raw, out = make_faces(tmp_path / "raw", {"real": 3, "fake": 3}), tmp_path / "out"
    prepare(raw, out, faces=False, size_range=(32, 40), workers=1)
    next(out.glob("fake/*/*.jpg")).unlink()
    with pytest.raises(UsageError, match=r"the finished folder .* lacks 1 of its files"):
        prepare(raw, out, faces=False, size_range=(32, 40), workers=1)


def test_the_family_of_a_generator_is_kept(tmp_path: Path) -> None:
    """What comes from one making must still be known when folds are made of the copies."""
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [("real", "cam", ""), ("fake", "sd1", "sd"), ("fake", "sd2", "sd")]
    for i, (_, source, _) in enumerate(rows):
        picture(i).save(raw / f"{source}.png")
    lines = ["file_name,label,source,family", *(f"{source}.png,{label},{source},{fam}" for label, source, fam in rows)]
    (raw / "metadata.csv").write_text("\n".join(lines))
    prepare(raw, tmp_path / "out", faces=False, workers=1)
    made = list_data(tmp_path / "out").rows
    assert dict(zip(made["source"], made["family"], strict=True)) == {source: family for _, source, family in rows}


def test_a_folder_in_which_nothing_is_done_yet_takes_other_options(tmp_path: Path) -> None:
    """Its first call was stopped, or had no room, before one file was written."""
    raw = make_faces(tmp_path / "raw", {"real/cam": 4, "fake/gan": 4}, size=(80, 80))
    work = tmp_path / "out" / ".prepare"
    work.mkdir(parents=True)
    (work / "parameters.json").write_text('{"seed": 7}')
    assert prepare(raw, tmp_path / "out", faces=False, workers=1).written == 8
