"""Folders below a label: sources are told from persons, videos and sessions, whose images stay in one split."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import make_faces
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.audit.audit import audit_dataset
from bonaface.data.dataset import load_data
from bonaface.data.folds import BY_SOURCE, FOLDS, make_folds
from bonaface.data.listing import list_data
from bonaface.data.prepare import prepare
from bonaface.data.units import Units, find_units
from bonaface.errors import UsageError
from bonaface.training.assembly import assemble, split_assembly
from bonaface.training.options import Recipe

PEOPLE = ["Ada_Lovelace", "Bo_Diddley", "Che_Guevara", "Di_Ma", "Eli_W_Wallach", "Fay_Wray"]
GENERATORS = ["StyleGAN2", "sdxl", "flux1_dev", "flux1_schnell", "midjourney-v6", "DALL-E 3", "SD15", "wombo"]


def files(*folders: str, n: int = 30, name: str = "{:04d}.png") -> list[str]:
    return [f"{folder}/{name.format(i)}" for folder in folders for i in range(1, n + 1)]


def judged(paths: Sequence[str], how: str = "auto") -> Units:
    """As a folder with these files would be listed."""
    parts = [path.split("/") for path in paths]
    return find_units([p[0] for p in parts], [p[1] if len(p) > 2 else p[0] for p in parts], paths, how)


def groups_of(units: Units, paths: Sequence[str]) -> set[str]:
    """Groups of more than the image itself."""
    return {group for group, path in zip(units.groups, paths, strict=True) if group != path}


def some(*names: str) -> Iterator[str]:
    return (f"real/{name}" for name in names)


SOURCES = {
    "generators": files(*(f"fake/{name}" for name in GENERATORS)),
    "sites": files("real/Flickr_Faces", "real/Getty_Images", "real/News_Photos", n=60),
    "a site called after persons": files("fake/this-person-does-not-exist", "fake/thispersondoesnotexist", "fake/sdxl"),
    "parts of a data set": files("real/young women", "real/old men", "real/children", n=60),
    "unknown generators beside known ones": files("fake/sdxl", "fake/flux1", "fake/somenet", "fake/othernet"),
    "two cameras with few images each": files("real/a", "real/b", n=3),
    "sources of unknown names": files(*some("rome", "paris", "berlin", "oslo", "lima"), n=300),
    "numbered cameras": files(*(f"real/cam{i}" for i in range(1, 13)), n=40),
    "versions": files(*(f"fake/midjourney_v{i}" for i in range(1, 7)), n=20),
    "a plain numbered folder": files("real", "fake", name="{:05d}.png", n=200),
    "a prefix and a number": files("real/ffhq", name="img_{:05d}.png", n=200),
    "a time stamp": [
        f"real/IMG_2023{month:02d}{day:02d}_{month}{day:02d}59.jpg" for month in (1, 2) for day in range(9)
    ],
    "ages in names": [f"real/utkface/{age}_0_1_2017011{age}{i:03d}.jpg" for age in range(20, 40) for i in range(3)],
    "sources in the names of flat files": [f"fake/{s}_{i:04d}.png" for s in ("sdxl", "flux", "sd") for i in range(20)],
    "versions without a v": files("fake/sd14", "fake/sd15", "fake/sd21", "fake/sdxl_0", "fake/sdxl_1", n=40),
    "generations of a camera": files(*(f"real/iPhone_{i}" for i in range(11, 15)), n=40),
    "years and sizes of a source": files(
        *(f"real/flickr_{year}" for year in range(2018, 2022)), *(f"real/ffhq_{n}" for n in (256, 512, 768, 1024))
    ),
    "frames from two generators": files("fake/sdxl", "fake/roop", name="frame_{:04d}.png"),
    "chunks of a large set": files(*(f"real/images_{i}" for i in range(4)), n=300, name="x{:05d}.png"),
    "kinds below a source": files("fake/sdxl/old", "fake/sdxl/young", n=80),
}


def under_both(*names: str, n: int = 30) -> list[str]:
    return files(*(f"{label}/{name}" for label in ("real", "fake") for name in names), n=n)


# What divides real images and fakes alike, and is no person: kinds of people, sizes, compression, pieces, a known set.
SOURCES |= {
    "kinds of people under both labels": under_both("men", "women"),
    "sizes under both labels": under_both("256x256", "512x512"),
    "compression under both labels": under_both("c23", "c40"),
    "pieces under both labels": under_both("part_1", "part_2"),
    "sets under both labels, the fakes made from the real ones": under_both("ffhq", "celeba"),
    "one folder of the same name": under_both("stuff"),
    "a source of its own for each label": files("real/rome", "real/oslo", "fake/onenet", "fake/twonet"),
}


@pytest.mark.parametrize("paths", SOURCES.values(), ids=SOURCES)
def test_sources_stay_sources_and_their_images_stay_free(paths: list[str]) -> None:
    units = judged(paths)
    assert units.groups == paths
    assert units.sources == [p.split("/")[1] if p.count("/") > 1 else p.split("/")[0] for p in paths]


UNITS = {
    "LFW, mostly one image each": files(*(f"real/{a}_{b}" for a in "ABCDEFG" for b in PEOPLE), n=1),
    "a few people": files(*some(*PEOPLE[:4])),
    "people without a pattern": files(*some("anna", "ben", "cid", "dora", "eve", "finn", "gus", "hal"), n=12),
    "one image each": files(*some("anna", "ben", "cid", "dora"), n=1, name="{}.jpg"),
    "VGGFace2": files(*(f"real/n{i:06d}" for i in range(9)), n=70, name="{:04d}_01.jpg"),
    "numbers": files("real/000", "real/001", "real/002"),
    "FaceForensics pairs": files("fake/000_003", "fake/003_000", "fake/010_005", name="{:04d}.png"),
    "videos with frames": files("fake/holiday", "fake/match", "fake/news", name="frame_{:04d}.png"),
    "YouTube ids": files("real/1zcIwhmdeo4", "real/7gWzIy6yIIk", "real/Xx_Q0a8bCdE", name="{:07d}.jpg"),
    "sessions": files(*some("session-monday", "session-tuesday", "session-friday"), n=100),
    "many folders": files(*(f"real/{a}{b}" for a in "abcdefg" for b in "abcdefg"), n=60),
    "three lower-case names": files("real/ada-lovelace", "real/åsa_öberg", "real/li wei", n=60),
    "names in two spellings of one letter": files(*some("A\u030asa", "bjo\u0308rn", "Chloé", "李伟"), n=60),
    "first names": files("real/anna", "real/ben", "real/carla", n=40),
    "what people call the folders of persons": files("real/anna_photos", "real/ben_photos", "real/my uncle", n=300),
    "phone videos": files(*some("IMG_1200", "IMG_1203", "IMG_1209"), n=12),
    "swapped phone videos": files(*(f"fake/IMG_{i}_swap" for i in (1200, 1203, 1206, 1212)), n=12),
    "numbered faces": files(*some("face_000", "face_001", "face_002"), n=6),
    "numbered men": files(*some("man1", "man2", "man3"), n=6),
    "a counter after a camera": files(*(f"real/iPhone_{i}" for i in range(5)), n=6),
    "a counter before a generator": files(*(f"fake/out_{i}_roop" for i in range(5)), n=6),
    "zeros in front": files(*(f"fake/deepfake_{i:04d}" for i in range(100, 105)), n=6),
    "a generator's videos with frames": files(*(f"fake/roop{i}" for i in (5, 7, 8)), name="frame{:03d}.png"),
    "a clip for each folder": files(*some("aagf", "bbhn", "cize", "dkdw", "eqop", "fpsw", "gjyp", "hhvl"), n=90),
}


@pytest.mark.parametrize("paths", UNITS.values(), ids=UNITS)
def test_folders_of_a_person_a_video_or_a_session_are_units_and_no_sources(paths: list[str]) -> None:
    units = judged(paths)
    assert units.groups == [path.rpartition("/")[0] for path in paths]
    assert set(units.sources) == {paths[0].split("/")[0]}
    assert "kept whole" in units.note


def test_ranges_of_one_numbered_set_are_neither_sources_nor_units() -> None:
    paths = [f"real/{start:05d}/{start + i:05d}.png" for start in (0, 1000, 2000) for i in range(20)]
    units = judged(paths)
    assert units.groups == paths
    assert set(units.sources) == {"real"}
    below = [path.replace("real/", "real/ffhq/") for path in paths]
    assert judged(below).groups == below


def test_units_below_a_source_keep_it() -> None:
    paths = files(*(f"fake/{gen}/{video}" for gen in ("Deepfakes", "roop") for video in ("000_003", "010_005")))
    paths += files(*(f"real/lfw/{name}" for name in PEOPLE), n=2) + files("real/ffhq")
    units = judged(paths)
    assert set(units.sources) == {"Deepfakes", "roop", "lfw", "ffhq"}
    assert len(groups_of(units, paths)) == 2 + len(PEOPLE)  # a video is the same one in the hands of two generators
    assert units.note == (
        "fake: 2 sources (Deepfakes, roop), 4 folders kept whole (numbers as names); "
        "real: 2 sources (ffhq, lfw), 6 folders kept whole (names of people); "
        "2 groups span labels or sources, where names are the same (`--groups` overrides this)"
    )


def test_units_are_found_below_levels_that_say_nothing() -> None:
    paths = files(*(f"fake/FaceSwap/c23/images/{video}" for video in ("000_003", "010_005", "011_004")))
    assert groups_of(judged(paths), paths) == {path.rpartition("/")[0] for path in paths}


def test_all_that_lies_below_a_person_stays_with_the_person() -> None:
    paths = files(*(f"real/id{i:05d}/{video}" for i in range(4) for video in ("1zcIwhmdeo4", "7gWzIy6yIIk")), n=3)
    assert groups_of(judged(paths), paths) == {f"real/id{i:05d}" for i in range(4)}


def test_people_beside_a_known_source_in_one_label() -> None:
    paths = files("real/ffhq", n=100) + files(*some(*PEOPLE), n=2)
    units = judged(paths)
    assert set(units.sources) == {"ffhq", "real"}
    assert groups_of(units, paths) == set(some(*PEOPLE))


def joined(*folders: str, n: int = 4) -> list[set[str]]:
    """Groups of more than one folder, as the sets of these."""
    paths = files(*folders, n=n)
    found: dict[str, set[str]] = {}
    for path, group in zip(paths, judged(paths).groups, strict=True):
        found.setdefault(group, set()).add(path.rpartition("/")[0])
    return sorted((own for own in found.values() if len(own) > 1), key=min)


ACROSS = {
    "a person": (
        [f"{label}/{name}" for label in ("real", "fake") for name in PEOPLE],
        [{f"real/{name}", f"fake/{name}"} for name in PEOPLE],
    ),
    "in another spelling": (
        ["real/Åsa Öberg", "real/Person_A", "fake/a\u030asa-o\u0308berg", "fake/person a fake"],
        None,
    ),
    "below a source": (["real/cam/id01", "real/cam/id02", "fake/sdxl/id01", "fake/roop/id01", "fake/roop/id02"], None),
    "videos of FaceForensics++": (
        [
            "real/000",
            "real/003",
            "real/010",
            "real/005",
            "fake/000_003",
            "fake/003_000",
            "fake/010_005",
            "fake/005_010",
        ],
        [
            {"real/000", "real/003", "fake/000_003", "fake/003_000"},
            {"real/010", "real/005", "fake/010_005", "fake/005_010"},
        ],
    ),
    "files of videos": (
        ["real/000.mp4", "real/003.mp4", "real/7.mp4", "real/9.mp4", "fake/000_003.mp4", "fake/7_9"],
        None,
    ),
    "a chain, where only the target counts": (
        [f"real/{i:03d}" for i in range(8)] + [f"fake/{i:03d}_{(i + 1) % 8:03d}" for i in range(8)],
        [{f"real/{i:03d}", f"fake/{i:03d}_{(i + 1) % 8:03d}"} for i in range(8)],
    ),
    "Celeb-DF": (
        [f"real/id{i}_000{j}" for i in range(4) for j in range(2)]
        + [f"fake/id{i}_id{(i + 1) % 4}_0001" for i in range(4)],
        [{f"real/id{i}_0001", f"fake/id{i}_id{(i + 1) % 4}_0001"} for i in range(4)],
    ),
}


ACROSS |= {
    "two persons": (["real/alice", "real/bob", "fake/alice", "fake/Bob_fake"], None),
    "two persons below sources": (["real/studio/alice", "real/studio/bob", "fake/sdxl/alice", "fake/roop/bob"], None),
    "two persons beside a source": (["real/alice", "real/bob", "real/ffhq", "fake/alice", "fake/bob"], None),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_unit_of_both_labels_is_one_group(name: str) -> None:
    folders, expected = ACROSS[name]
    found = joined(*folders)
    if expected is None:  # two groups that share all
        assert len(found) == 2
        assert set().union(*found) == {folder for folder in folders if "ffhq" not in folder}
    else:
        assert found == sorted(expected, key=min)


@pytest.mark.parametrize(
    ("real", "fake", "n"),
    [
        ("{:03d}_{:04d}.png", "{0:03d}_{other:03d}_{1:04d}.png", 6),  # frames of videos
        ("Name{:c}_{:04d}.jpg", "Name{:c}_{:04d}_fake.png", 6),
    ],
)
def test_series_of_both_labels_are_one_group(real: str, fake: str, n: int) -> None:
    def name(form: str, unit: int, i: int) -> str:
        return form.format(unit + 64 if "{:c}" in form else unit, i, other=unit % n + 1)

    paths = [f"real/{name(real, u, i)}" for u in range(1, n + 1) for i in range(1, 9)]
    paths += [f"fake/{name(fake, u, i)}" for u in range(1, n + 1) for i in range(1, 9)]
    units = judged(paths)
    assert len(groups_of(units, paths)) == n
    assert f"{n} groups span labels" in units.note


def test_images_of_one_telling_name_are_one_group_and_counters_are_not() -> None:
    stems = ["ada_lovelace", "9f3a7c", "IMG_0001", "IMG_0002", "0007", "0008"]
    paths = [f"real/{stem}.jpg" for stem in stems] + [f"fake/{stem}.png" for stem in stems]
    assert groups_of(judged(paths), paths) == {"real/ada_lovelace.jpg", "real/9f3a7c.jpg"}
    pairs = [f"real/{i:03d}.png" for i in range(6)] + ["fake/000_003.png", "fake/001_002.png", "fake/004_005.png"]
    assert len(set(judged(pairs).groups)) == 3


@pytest.mark.parametrize(
    "name",
    [
        "vid{}_{:04d}.png",
        "clip-{}-frame-{:03d}.jpg",
        "{:03d}_{:03d}.png",
        "person {} - {}.jpg",
        "realperson{} ({}).png",
        "IMG_{}({}).png",
    ],
)
def test_series_in_one_folder_are_units(name: str) -> None:
    for folder in ("fake", "fake/roop"):
        paths = [f"{folder}/{name.format(video, frame)}" for video in range(1, 7) for frame in range(1, 21)]
        units = judged(paths)
        assert len(groups_of(units, paths)) == 6
        assert set(units.sources) == {folder.split("/")[-1]}


def test_series_with_the_frame_first_are_units() -> None:
    paths = [f"fake/frame{frame:03d}_rvideo{video}.png" for video in range(1, 4) for frame in range(20)]
    assert groups_of(judged(paths), paths) == {f"fake/rvideo{video}" for video in range(1, 4)}
    sides = [f"fake/frame_{frame:03d}_{side}.png" for side in ("left", "right", "0", "1") for frame in range(20)]
    assert groups_of(judged(sides), sides) == set()


@pytest.mark.parametrize("name", ["person_{}", "{:03d}"])
def test_a_person_above_the_labels_is_one_group(tmp_path: Path, name: str) -> None:
    make_faces(tmp_path, {f"{name.format(i)}/{side}": 2 for i in range(4) for side in ("real", "fake")})
    listing = list_data(tmp_path)
    persons: dict[str, set[str]] = {}
    for path, group in zip(listing.rows["path"], listing.rows["group"], strict=True):
        persons.setdefault(group, set()).add(path.partition("/")[0])
    assert sorted(persons.values(), key=min) == [{name.format(i)} for i in range(4)]
    assert set(listing.rows["source"]) == {"real", "fake"}


def test_a_person_between_a_generator_and_the_labels_keeps_the_generator(tmp_path: Path) -> None:
    make_faces(tmp_path, {f"{gen}/id_{i}/{side}": 1 for gen in ("sdxl", "roop") for i in range(3) for side in "ab"})
    listing = list_data(tmp_path, real_label="a")
    assert set(listing.rows["source"]) == {"sdxl", "roop"}
    assert len(set(listing.rows["group"])) == 3


def test_two_persons_under_both_labels_are_no_sources() -> None:
    paths = under_both("alice", "bob")
    units = judged(paths)
    assert set(units.sources) == {"real", "fake"}
    assert set(units.groups) == {"fake/alice", "fake/bob"}
    assert "real: 2 folders kept whole (named alike under all labels)" in units.note


def test_groups_can_be_told() -> None:
    paths = files("real/anna", "real/ben") + files("fake/sdxl/v1", "fake/sdxl/v2") + files("fake", n=2)
    assert judged(paths, "none").groups == paths
    folder = judged(paths, "folder")
    assert groups_of(folder, paths) == {"real/anna", "real/ben", "fake/sdxl/v1", "fake/sdxl/v2"}
    assert set(folder.sources) == {"real", "sdxl", "fake"}
    people = judged(paths, "real/*")
    assert groups_of(people, paths) == {"real/anna", "real/ben"}
    assert set(people.sources) == {"real", "sdxl", "fake"}
    assert groups_of(judged(paths, "real/*,fake/*/*"), paths) == groups_of(folder, paths)
    with pytest.raises(UsageError, match="no folder of images matches real/c"):
        judged(paths, "real/c*")
    with pytest.raises(UsageError, match="`folders` is not one of auto, folder, none"):
        judged(paths, "folders")


names = st.text(string.ascii_letters + string.digits + "_-. é名", min_size=1, max_size=8).filter(
    lambda s: s.strip(". ")
)
trees = st.lists(
    st.tuples(st.sampled_from(["real", "fake"]), st.lists(names, max_size=3), names), min_size=1, max_size=60
).map(lambda rows: sorted({"/".join([label, *folders, f"{stem}.png"]) for label, folders, stem in rows}))


@settings(deadline=None)
@given(trees, st.sampled_from(["auto", "folder", "none"]))
def test_any_tree_gives_groups_of_one_folder_or_of_one_name(paths: list[str], how: str) -> None:
    units = judged(paths, how)
    for path, source, group in zip(paths, units.sources, units.groups, strict=True):
        assert source in path.split("/")[:2]
        assert (
            group == path or path.startswith(group) or "span labels or sources" in units.note.replace("spans", "span")
        )
    assert units == judged(paths, how)


# --- what the rest of the project does with them ------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Persons with one to three images beside two generators, one of which has videos."""
    counts = {f"real/Person_{i:02d}": 1 + i % 3 for i in range(30)} | {"fake/sdxl": 30}
    counts |= {f"fake/roop/vid{i}": 4 for i in range(8)}
    return make_faces(tmp_path_factory.mktemp("mixed"), counts, size=(16, 16))


def homes(parts: dict[str, Sequence[str]]) -> dict[str, set[str]]:
    """Folder of a unit -> the parts that have images of it."""
    found: dict[str, set[str]] = {}
    for part, paths in parts.items():
        for path in paths:
            if "Person" in path or "vid" in path:
                found.setdefault(path.rpartition("/")[0], set()).add(part)
    return found


def test_splits_and_the_calibration_part_keep_units_whole_and_say_so(mixed: Path) -> None:
    assembly = assemble(Recipe(data=[str(mixed)], prepare=False, audit=False))
    data = split_assembly(assembly, Recipe(data=[str(mixed)], prepare=False), 1)
    found = homes({name: rows["path"] for name, rows in data.splits.items()})
    assert len(found) == 38
    assert all(len(parts) == 1 for parts in found.values())
    assert "30 folders kept whole" in data.describe()
    assert {row["source"] for row in data.counts()} == {"real", "sdxl", "roop"}


def test_folds_keep_units_whole(mixed: Path) -> None:
    listing = list_data(mixed, check="none")
    options = {"families": None, "validation_size": 0.2, "seed": 3}
    for fold in make_folds(listing, None, kind=FOLDS, k=4, **options):
        found = homes({split: part["path"] for split, part in fold.table.groupby("split")})
        assert all(len(parts) == 1 for parts in found.values())
    with pytest.raises(UsageError, match="needs two real sources, but the data has 1"):
        make_folds(listing, None, kind=BY_SOURCE, k=4, **options)


def test_copies_in_two_units_join_them(tmp_path: Path) -> None:
    make_faces(tmp_path, {f"real/Person_{i}": 3 for i in range(6)} | {"fake": 18}, size=(16, 16))
    (tmp_path / "real/Person_0/000.png").write_bytes((tmp_path / "real/Person_1/000.png").read_bytes())
    files = audit_dataset(list_data(tmp_path, check="none"), fast=True).files
    people = files[files["label"] == "real"]
    assert people["group"].nunique() == 5


def test_prepared_copies_keep_the_units_and_the_sources(mixed: Path, tmp_path: Path) -> None:
    summary = prepare(mixed, tmp_path / "out", faces=False, size_range=(16, 16), workers=1)
    assert "30 folders kept whole" in summary.units
    rows = list_data(tmp_path / "out", check="none").rows
    assert set(rows["source"]) == {"real", "sdxl", "roop"}
    assert len({group for group, label in zip(rows["group"], rows["label"], strict=True) if label == 1}) == 30


def test_groups_of_a_metadata_file_win_and_its_sources_are_kept(tmp_path: Path) -> None:
    make_faces(tmp_path, {f"real/Person_{i}": 2 for i in range(9)} | {"fake": 18}, size=(8, 8))
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    table = tmp_path / "metadata.csv"
    lines = [f"{p},{p.split('/')[0]},cam" for p in paths]
    table.write_text("\n".join(["file_name,label,source", *lines]))
    rows = list_data(tmp_path, check="none").rows
    assert set(rows["source"]) == {"cam"}
    assert len(set(rows["group"])) == 9 + 18
    table.write_text("\n".join(["file_name,label,source,group", *(f"{line},g{i % 7}" for i, line in enumerate(lines))]))
    assert set(list_data(tmp_path, check="none", groups="folder").rows["group"]) == {f"g{i}" for i in range(7)}


@pytest.mark.parametrize("counts", [{"real": 4, "fake": 200}, {"real": 3, "fake": 3}])
def test_rare_labels_reach_every_split(tmp_path: Path, counts: dict[str, int]) -> None:
    data = load_data(make_faces(tmp_path, counts, size=(8, 8)))
    assert all(set(rows["label"]) == {0, 1} for rows in data.splits.values())


def test_where_splits_cannot_be_made_the_cause_is_named(tmp_path: Path) -> None:
    make_faces(tmp_path / "few", {"real": 2, "fake": 20}, size=(8, 8))
    with pytest.raises(UsageError, match="2 real images cannot fill 3 splits"):
        load_data(tmp_path / "few")
    make_faces(tmp_path / "one", {"real/video_1": 20, "fake": 20}, size=(8, 8))
    with pytest.raises(UsageError, match="all 20 real images are in one group") as caught:
        load_data(tmp_path / "one")
    assert "--groups none" in caught.value.hint
    assert len(load_data(tmp_path / "one", groups="none").splits["test"]) == 6
