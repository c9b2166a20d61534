"""The audit: every kind of planted leak is found and named, and a set without one passes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_faces
from PIL import Image, ImageFilter, ImageOps
from scipy.fft import idctn

from bonaface.audit import audit as audit_module
from bonaface.audit.appearance import NAMES, appearance
from bonaface.audit.audit import audit_dataset, run_audit_command
from bonaface.audit.findings import APPEARANCE_LIMITS, FACTS_LIMITS, leak_level
from bonaface.audit.leaks import describe, measure_leak
from bonaface.audit.result import Audit
from bonaface.data.dataset import load_data
from bonaface.data.listing import list_data
from bonaface.data.scan import scan_rows
from bonaface.errors import UsageError
from bonaface.imaging.faces import Face

Change = Callable[[Image.Image], Image.Image]
SIDE = 96


class Middle:
    """Stands in for a face detector: a face in the middle of every image."""

    name = "the middle"

    def detect(self, image: Image.Image) -> list[Face]:
        w, h = image.size
        return [Face((w / 4, h / 4, 3 * w / 4, 3 * h / 4), 0.9)]


def picture(rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """A random image whose spectrum falls like that of photographs, with noise."""
    v, u = np.mgrid[:side, :side]
    waves = rng.standard_normal((side, side, 3)) / (1 + np.hypot(u, v))[:, :, None] ** 1.5
    waves[0, 0] = 0
    levels = idctn(waves, axes=(0, 1), norm="ortho")
    levels = 128 + 40 * levels / levels.std() + rng.normal(0, 4, levels.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def write(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 88} if path.suffix == ".jpg" else {}) | options)


def make_set(root: Path, n: int = 36, seed: int = 0, skip: tuple[str, ...] = ()) -> np.random.Generator:
    """Two sources a class, n files each, nothing to tell them apart; ``skip`` leaves sources to the caller."""
    rng = np.random.default_rng(seed)
    for source in ("real/alps", "real/bay", "fake/gan", "fake/diffusion"):
        for i in range(n if source not in skip else 0):
            write(root / source / f"{i:03}.jpg", picture(rng))
    return rng


def audited(root: Path, **options: Any) -> Audit:
    return audit_dataset(list_data(root, check="none"), **({"detector": Middle()} | options))


def texts(audit: Audit, topic: str, level: str | None = None) -> str:
    return " | ".join(f.text for f in audit.findings if f.topic == topic and level in (None, f.level))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    make_set(root)
    return root


# --- leaks -------------------------------------------------------------------------------------------------------


def test_a_set_without_a_leak_passes(clean: Path) -> None:
    audit = audited(clean)
    assert audit.level == "clean", audit.verdict
    assert audit.findings == []
    assert audit.facts_leak.auc < 0.62
    assert audit.appearance_leak is not None
    assert audit.appearance_leak.low < 0.6
    assert audit.face_detector == "the middle"


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x010F] = "Camera"
    return block


FILE_LEAKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "format": (".png", {}, "file format: fake images are PNG, real ones JPEG"),
    "quality": (".jpg", {"quality": 95}, "JPEG quality: fake images are 95, real ones 88"),
    "subsampling": (".jpg", {"subsampling": 0}, "chroma subsampling: fake images are 4:4:4, real ones 4:2:0"),
    "progressive": (
        ".jpg",
        {"progressive": True},
        "progressive JPEG: 100\N{NO-BREAK SPACE}% of the fake images, 0\N{NO-BREAK SPACE}% of the real ones",
    ),
    "exif": (
        ".jpg",
        {"exif": exif()},
        "EXIF metadata: 100\N{NO-BREAK SPACE}% of the fake images, 0\N{NO-BREAK SPACE}% of the real ones",
    ),
    "icc": (
        ".jpg",
        {"icc_profile": b"profile"},
        "ICC colour profile: 100\N{NO-BREAK SPACE}% of the fake images, 0\N{NO-BREAK SPACE}% of the real ones",
    ),
}


@pytest.mark.parametrize("kind", FILE_LEAKS)
def test_a_planted_file_leak_is_found_and_named(tmp_path: Path, kind: str) -> None:
    suffix, options, words = FILE_LEAKS[kind]
    rng = make_set(tmp_path, skip=("fake/gan", "fake/diffusion"))
    for i in range(72):
        write(tmp_path / f"fake/{'gan' if i % 2 else 'diffusion'}/{i:03}{suffix}", picture(rng), **options)
    audit = audited(tmp_path, fast=True)
    assert audit.level == "leak"
    assert audit.facts_leak.auc > 0.99
    assert 0.9 < audit.facts_leak.low <= audit.facts_leak.auc <= audit.facts_leak.high
    assert words in [clue.text for clue in audit.facts_leak.clues]
    assert "file facts alone tell real from fake" in audit.verdict


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((128, 128), "width: fake images are 128 px, real ones 96 px"),
        ((96, 80), "width by height: fake images are 1.2, real ones 1"),
    ],
)
def test_a_planted_size_is_named(tmp_path: Path, size: tuple[int, int], words: str) -> None:
    rng = make_set(tmp_path, skip=("fake/gan", "fake/diffusion"))
    for i in range(72):
        write(tmp_path / f"fake/{'gan' if i % 2 else 'diffusion'}/{i:03}.jpg", picture(rng, 128).resize(size))
    assert words in texts(audited(tmp_path, fast=True), "file facts", "leak")


def test_content_credentials_in_one_class_are_named(tmp_path: Path) -> None:
    make_set(tmp_path)
    store = b"\0\0\0\x26jumb\0\0\0\x1ejumd" + bytes.fromhex("6332706100110010800000aa00389b71") + b"\x03c2pa\0"
    segment = b"\xff\xeb\0\x30JP\0\x01\0\0\0\x01" + store
    for path in tmp_path.glob("fake/*/*.jpg"):
        data = path.read_bytes()
        path.write_bytes(data[:2] + segment + data[2:])
    words = (
        "content credentials (C2PA): 100\N{NO-BREAK SPACE}% of the fake images, 0\N{NO-BREAK SPACE}% of the real ones"
    )
    assert words in [clue.text for clue in audited(tmp_path, fast=True).facts_leak.clues]


def test_one_leaking_source_among_several_is_named(tmp_path: Path) -> None:
    rng = make_set(tmp_path)
    for source in ("vae", "flow", "token"):
        for i in range(36):
            write(tmp_path / f"fake/{source}/{i:03}.{'png' if source == 'flow' else 'jpg'}", picture(rng))
            write(tmp_path / f"real/{source}_camera/{i:03}.jpg", picture(rng))
    found = texts(audited(tmp_path, fast=True), "file facts", "leak")
    assert "flow" in found
    assert "vae" not in found


def bordered(image: Image.Image) -> Image.Image:
    framed = Image.new("RGB", image.size)
    edge = image.width * 30 // 100  # reaches into the face crop's margin
    framed.paste(image.crop((0, edge, image.width, image.height)), (0, edge))
    return framed


def reddened(band: Image.Image) -> Image.Image:
    return band.point(lambda level: level // 2 + 120)


LOOKS: dict[str, tuple[Change, str]] = {
    "brightness": (lambda image: image.point(lambda level: level // 2 + 100), "brightness"),
    "red": (lambda image: Image.merge("RGB", [reddened(image.split()[0]), *image.split()[1:]]), "mean red"),
    "sharpness": (lambda image: image.filter(ImageFilter.GaussianBlur(2)), "sharpness"),
    "contrast": (lambda image: image.point(lambda level: 64 + level // 2), "contrast"),
    "border": (bordered, "the top border"),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_a_planted_look_is_found_and_named(kind: str) -> None:
    change, words = LOOKS[kind]
    rng, fake = np.random.default_rng(0), np.arange(100) % 2 == 1
    shown = [picture(rng) for _ in fake]
    looks = [appearance(change(image) if odd else image, Middle()) for image, odd in zip(shown, fake, strict=True)]  # type: ignore[arg-type]
    facts = pd.DataFrame(looks)[list(NAMES)]
    leak = measure_leak(facts, fake, ["s"] * 100, [str(i) for i in range(100)], NAMES)
    assert leak_level(leak.auc, leak.low, APPEARANCE_LIMITS) == "leak"
    assert words in " ".join(clue.text for clue in leak.clues[:4])


def test_a_planted_look_is_a_finding(tmp_path: Path) -> None:
    rng = make_set(tmp_path, skip=("fake/gan", "fake/diffusion"))
    for i in range(72):
        write(tmp_path / f"fake/{'gan' if i % 2 else 'diffusion'}/{i:03}.jpg", LOOKS["brightness"][0](picture(rng)))
    assert "tell real from fake" in texts(audited(tmp_path), "appearance", "leak")


def test_framing_is_part_of_the_look(clean: Path) -> None:
    class Framed(Middle):
        def detect(self, image: Image.Image) -> list[Face]:
            red = np.asarray(image)[0, 0, 0]
            return [Face((10, 10, 40 + 20 * (red > 128), 40 + 20 * (red > 128)), 0.9)]

    listing = list_data(clean, check="none")
    audit = audit_dataset(listing, detector=Framed())  # type: ignore[arg-type]
    assert set(audit.looks["face_share"].round(2)) == {0.31, 0.52}
    assert audit.looks["face_x"].between(0, 1).all()


def test_an_unknown_difference_is_described_by_its_quartiles() -> None:
    values = pd.Series(np.concatenate([np.linspace(0, 1, 101), np.linspace(2, 3, 101)]))
    words = describe(values, np.arange(202) >= 101, "weight, kg")
    assert words == "weight: fake images 2.5 kg (quartiles 2.25 to 2.75), real ones 0.5 kg (0.25 to 0.75)"


def test_chance_facts_do_not_separate() -> None:
    """The interval of pure noise holds a half: out-of-fold scores, not those of the fit."""
    rng = np.random.default_rng(0)
    facts = pd.DataFrame(rng.standard_normal((400, 12))).add_prefix("f")
    leak = measure_leak(facts, rng.random(400) < 0.5, ["s"] * 400, [str(i) for i in range(400)], {"f0": "f0"})
    assert leak.low < 0.5 < leak.high + 0.06
    assert leak.clues == []


def test_copies_do_not_straddle_folds() -> None:
    """Twenty copies of each file would be recognised again, were they not kept in one fold."""
    rng = np.random.default_rng(0)
    facts = pd.DataFrame({"n": np.repeat(rng.standard_normal(40), 20)})
    fake, groups = np.repeat(rng.random(40) < 0.5, 20), [str(i // 20) for i in range(800)]
    apart = measure_leak(facts, fake, ["s"] * 800, groups, {})
    mixed = measure_leak(facts, fake, ["s"] * 800, [str(i) for i in range(800)], {})
    assert mixed.auc > 0.9
    assert apart.auc < 0.75


def test_levels_need_a_trustworthy_figure() -> None:
    assert leak_level(0.8, 0.7, FACTS_LIMITS) == "leak"
    assert leak_level(0.8, 0.56, FACTS_LIMITS) == "warning"  # too few images to be sure of a leak
    assert leak_level(0.8, 0.4, FACTS_LIMITS) == "clean"
    assert leak_level(float("nan"), float("nan"), FACTS_LIMITS) == "clean"


# --- duplicates, broken files, balance ---------------------------------------------------------------------------


def test_duplicates_inside_and_across_labels(tmp_path: Path) -> None:
    rng = make_set(tmp_path)
    shown = picture(rng)
    write(tmp_path / "real/alps/a.jpg", shown)
    (tmp_path / "real/alps/b.jpg").write_bytes((tmp_path / "real/alps/a.jpg").read_bytes())
    other = picture(rng)
    write(tmp_path / "real/bay/c.jpg", other)
    write(tmp_path / "fake/gan/d.jpg", ImageOps.mirror(other).resize((80, 80)), quality=60)
    audit = audited(tmp_path)
    assert [(g.kind, g.paths, g.labels) for g in audit.duplicates] == [
        ("near", ("fake/gan/d.jpg", "real/bay/c.jpg"), ("fake", "real")),
        ("exact", ("real/alps/a.jpg", "real/alps/b.jpg"), ("real",)),
    ]
    assert "1 group of near duplicates under more than one label" in texts(audit, "duplicates", "leak")
    assert "1 group of identical files, for example real/alps/a.jpg" in texts(audit, "duplicates", "warning")
    assert audit.groups["real/bay/c.jpg"] == audit.groups["fake/gan/d.jpg"]
    split = load_data(tmp_path, copies=audit.groups)
    homes = [name for name, rows in split.splits.items() for path in rows["path"] if path in audit.duplicates[0].paths]
    assert len(set(homes)) == 1


def test_copies_across_splits_are_a_leak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        make_set(tmp_path / split, 12, seed=len(split))
    for i in range(4):
        shown = picture(rng)
        write(tmp_path / f"train/real/alps/x{i}.jpg", shown)
        write(tmp_path / f"test/real/alps/y{i}.jpg", shown, quality=70)
    audit = audited(tmp_path)
    assert "4 groups of near duplicates in more than one split" in texts(audit, "duplicates", "leak")
    assert all(group.splits == ("test", "train") for group in audit.duplicates)


def test_a_person_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    counts = {f"{split}/real/Person_{i}": 3 for split in ("train", "test") for i in (1, 2)}
    counts |= {"train/real/Person_3": 3, "test/real/Person_4": 3, "train/fake": 9, "test/fake": 9}
    audit = audit_dataset(list_data(make_faces(tmp_path, counts, size=(16, 16)), check="none"), fast=True)
    (found,) = [finding for finding in audit.findings if finding.topic == "splits"]
    assert found.level == "leak"
    assert found.text.startswith("2 groups that should stay whole")
    assert "train/real/Person_1" in found.text or "test/real/Person_1" in found.text
    whole = {"train/real/Person_1": 3, "test/real/Person_2": 3, "train/fake": 9, "test/fake": 9}
    other = audit_dataset(list_data(make_faces(tmp_path / "whole", whole, size=(16, 16)), check="none"), fast=True)
    assert not [finding for finding in other.findings if finding.topic == "splits"]


def test_fast_finds_copies_but_looks_for_no_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies decide about splits, so that training needs them; thumbnails are enough for that."""
    make_set(tmp_path, 12)
    first, second = (tmp_path / f"real/alps/{i:03d}.jpg" for i in (0, 1))
    (tmp_path / "fake/gan/copy.jpg").write_bytes(first.read_bytes())
    Image.open(second).save(tmp_path / "real/alps/again.jpg", quality=60)
    monkeypatch.setattr(audit_module, "decode_image", lambda *_, **__: pytest.fail("a whole picture was decoded"))
    audit = audited(tmp_path, fast=True)
    assert sorted(group.kind for group in audit.duplicates) == ["exact", "near"]
    assert audit.appearance_leak is None


def test_fast_looks_at_a_part_of_a_large_set(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "FAST_FILES", 60)
    audit = audited(clean, fast=True)
    assert len(audit.files) == 60
    assert any("only 60 of" in finding.text for finding in audit.findings)
    assert audit.files["source"].value_counts().tolist() == [15] * 4


def test_broken_files_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    make_set(tmp_path, 12)
    whole = (tmp_path / "real/alps/000.jpg").read_bytes()
    (tmp_path / "real/alps/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "fake/gan/empty.png").write_bytes(b"")
    (tmp_path / "fake/gan/page.jpg").write_text("<html>not found</html>")
    audit = audited(tmp_path)
    assert {(f.path, f.reason) for f in audit.broken} == {
        ("real/alps/cut.jpg", "truncated: the JPEG is truncated"),
        ("fake/gan/empty.png", "empty: the file is empty"),
        ("fake/gan/page.jpg", "wrong extension: named .jpg, but contains an HTML page"),
    }
    text = texts(audit, "broken files", "warning")
    assert "3 of 51 files cannot be used" in text
    assert all(f"1 {kind}" in text for kind in ("empty", "wrong extension", "truncated"))


def test_an_audit_of_known_scans_reads_no_file_and_finds_the_same(tmp_path: Path) -> None:
    make_set(tmp_path / "data", 24)
    shutil.copy(tmp_path / "data/real/bay/003.jpg", tmp_path / "data/real/alps/copy.jpg")
    (tmp_path / "data/fake/gan/empty.png").write_bytes(b"")
    listing = list_data(tmp_path / "data", check="none")
    scans = scan_rows(listing.rows)
    read = audit_dataset(listing, fast=True)
    (tmp_path / "data").rename(tmp_path / "gone")
    known = audit_dataset(listing, scans=scans, fast=True)
    assert known.findings == read.findings
    assert known.duplicates == read.duplicates
    assert known.broken == read.broken
    pd.testing.assert_frame_equal(known.files, read.files)


def test_imbalance_and_thin_sources_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(80):
        write(tmp_path / f"real/only_camera/{i:03}.jpg", picture(rng, 64))
    for i in range(20):
        write(tmp_path / f"fake/{'gan' if i < 15 else 'rare'}/{i:03}.jpg", picture(rng, 160))
    audit = audited(tmp_path, fast=True)
    assert "uneven classes: 80 real against 20 fake" in texts(audit, "balance")
    assert "uneven sizes: real images are about 64 px per side, fake ones 160" in texts(audit, "balance")
    assert "all real images come from one source, only_camera" in texts(audit, "sources")
    assert "gan (15), rare (5)" in texts(audit, "sources")


def test_a_handful_of_files_is_judged_without_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("real", "fake"):
        for i in range(3):
            write(tmp_path / label / f"{i}.jpg", picture(rng))
    audit = audited(tmp_path)
    assert np.isnan(audit.facts_leak.auc)
    assert "too few to measure" in texts(audit, "file facts", "warning")
    assert json.loads(json.dumps(audit.to_dict()["level"])) == "warning"


def test_images_without_faces_are_told(clean: Path) -> None:
    class Blind(Middle):
        def detect(self, image: Image.Image) -> list[Face]:
            return []

    audit = audited(clean, detector=Blind())
    assert "no face was found in 144 of 144 sampled images" in texts(audit, "faces", "warning")


def test_a_split_data_set_is_audited_as_it_is(clean: Path) -> None:
    audit = audit_dataset(load_data(clean), fast=True)
    assert set(audit.files["split"]) == {"train", "validation", "test"}
    assert len(audit.files) == 144
    assert audit.level == "clean"


def test_the_same_seed_gives_the_same_audit(clean: Path) -> None:
    assert str(audited(clean, fast=True).to_dict()) == str(audited(clean, fast=True, workers=1).to_dict())


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "FaceDetector", Middle)


def test_the_command_writes_both_files(
    clean: Path, tmp_path: Path, middle: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_audit_command(clean, tmp_path / "new" / "out", strict=True) == 0
    printed = capsys.readouterr().out
    assert "verdict: clean" in printed
    assert "faces       by the middle" in printed
    result = json.loads((tmp_path / "new/out/audit.json").read_text(), parse_constant=pytest.fail)
    assert result["level"] == "clean"
    assert result["n_files"] == 144
    assert {row["source"] for row in result["counts"]} == {"alps", "bay", "gan", "diffusion"}
    assert result["file_facts"]["low"] < 0.5  # so that chance explains it
    assert sorted(path.name for path in (tmp_path / "new/out").iterdir()) == ["audit.html", "audit.json"]


def test_strict_exits_3_on_a_leak_only(tmp_path: Path, middle: None) -> None:
    rng = make_set(tmp_path / "data", 24, skip=("fake/gan",))
    for i in range(24):
        write(tmp_path / f"data/fake/gan/{i}.png", picture(rng))
    assert run_audit_command(tmp_path / "data", strict=True) == 3


def test_names_are_only_text_in_the_page(tmp_path: Path, middle: None) -> None:
    rng = make_set(tmp_path / "data", 12, skip=("fake/gan", "fake/diffusion"))
    hostile = '<img src=x onerror="alert(1)">$x$&'
    for i in range(24):
        write(tmp_path / "data" / "fake" / hostile / f"{i}<script>.png", picture(rng))
    assert run_audit_command(tmp_path / "data", tmp_path) == 0  # a leak, but not strict
    assert json.loads((tmp_path / "audit.json").read_text())["level"] == "leak"
    page = (tmp_path / "audit.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    assert 'src="http' not in page
    assert "prefers-color-scheme: dark" in page


def test_a_folder_that_cannot_be_written_is_told_before_the_work(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        run_audit_command(clean, tmp_path / "file" / "out")


def test_nothing_readable_is_a_usage_error(tmp_path: Path) -> None:
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the files can be read"):
        audited(tmp_path, fast=True)


def test_hub_rows_without_files_are_read_from_their_bytes(clean: Path, tmp_path: Path) -> None:
    """A data set of embedded bytes gives the same facts as the files."""
    listing = list_data(clean, check="none")
    rows = listing.rows.to_list()
    for row in rows:
        row["image"] = {"bytes": Path(row["image"]["path"]).read_bytes(), "path": None}
    table = pd.DataFrame(rows)
    embedded = type(listing.rows).from_pandas(table, features=listing.rows.features, preserve_index=False)
    listing.rows = embedded
    audit = audit_dataset(listing, fast=True)
    pd.testing.assert_frame_equal(audit.files, audited(clean, fast=True).files)


# --- on faces ----------------------------------------------------------------------------------------------------


@pytest.mark.faces
def test_the_faces_leak_by_their_files(faces_dir: Path) -> None:
    audit = audit_dataset(list_data(faces_dir, check="none"), fast=True)
    assert audit.level == "leak"
    assert audit.facts_leak.auc >= 0.99
    clues = {clue.name: clue.text for clue in audit.facts_leak.clues}
    assert clues["jpeg_quality"].startswith("JPEG quality: fake images are 75")
    assert clues["jpeg_quality"].endswith("real ones 75")
    assert re.search(r"real ones 250 px \(\d+\s%\) or 200 px", clues["width"])
    assert set(audit.counts()["source"]) == {path.name for path in faces_dir.glob("*/*/")}
