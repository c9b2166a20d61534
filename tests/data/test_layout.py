"""Label, source and split are found at whatever level folder names speak of them, or the level is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonaface.data.layout import read_layout
from bonaface.errors import UsageError

ROOT = Path("DATA")


def places(*folders: str, real_label: str | None = None) -> list[tuple[str, str, str]]:
    """Label, source and split of a file in each of these folders."""
    return [row[1:4] for row in read_layout(ROOT, [f"{folder}/x.png".lstrip("/") for folder in folders], real_label)]


LAYOUTS = {
    "as in the README": {"real/ffhq": "real ffhq -", "fake": "fake fake -", "fake/gen/deeper": "fake gen -"},
    "any names beside one that says real": {"real": "real real -", "sdxl/a": "sdxl a -", "flux": "flux flux -"},
    "a generator with both classes beside the labels": {
        "train/real/ffhq": "real ffhq train",
        "train/fake": "fake fake train",
        "train/progan/real": "real progan train",
        "train/progan/fake/cat": "fake progan/cat train",
    },
    "splits at the top": {"train/real/cam": "real cam train", "Val/fake": "fake fake validation"},
    "generator, class, label": {
        "progan/cat/0_real": "0_real progan/cat -",
        "progan/car/1_fake": "1_fake progan/car -",
        "deepfake/0_real": "0_real deepfake -",  # a generator whose name says fake
        "deepfake/1_fake": "1_fake deepfake -",
    },
    "split, class, label": {"train/cat/0_real": "0_real cat train", "val/car/1_fake": "1_fake car validation"},
    "generator, split, label": {
        "sd14/train/nature": "nature sd14 train",
        "sd14/val/ai": "ai sd14 validation",
        "mj/train/ai/person": "ai mj/person train",
    },
    "one generator": {"progan/cat/0_real": "0_real cat -", "progan/car/1_fake": "1_fake car -"},
    "each source of one label": {"ffhq/real": "real ffhq -", "stylegan/church/fake": "fake stylegan/church -"},
    "an archive in a folder of its name": {
        "real_vs_fake/real-vs-fake/train/real": "real real train",
        "real_vs_fake/real-vs-fake/test/fake": "fake fake test",
    },
    "an archive whose name says real": {"original/real": "real real -", "original/fake": "fake fake -"},
    "an archive of any names": {"x/real": "real real -", "x/sdxl": "sdxl sdxl -"},
    "an archive called like a split": {"train/train/real": "real real train", "train/test/fake": "fake fake test"},
    "pairs in folders of which one says real": {
        "original/real": "real original -",
        "original/fake": "fake original -",
        "augmented/real": "real augmented -",
        "augmented/fake": "fake augmented -",
    },
    "splits below the label": {
        "real/train": "real real train",
        "real/test/cam": "real cam test",
        "fake/train": "fake fake train",
        "fake/test": "fake fake test",
    },
    "numbered splits": {
        "train_1/real": "real real train",
        "train2/fake": "fake fake train",
        "Test Set/real": "real real test",
        "val-01/fake/sdxl": "fake sdxl validation",
    },
    "split and label in one name": {
        "train_real": "real real train",
        "train_fake": "fake fake train",
        "test_real": "real real test",
        "test_fake_sdxl": "fake fake_sdxl test",
    },
    "pieces of one set": {"part_1/real": "real real -", "part_2/real/cam": "real cam -", "part_2/fake": "fake fake -"},
    "Celeb-DF": {
        "Celeb-real/id0_0000": "real Celeb-real -",
        "YouTube-real/00000": "real YouTube-real -",
        "Celeb-synthesis/id0_id1_0000": "fake Celeb-synthesis -",
    },
    "each source with its label's name": {
        "train/real_ffhq": "real real_ffhq train",
        "train/real_lfw": "real real_lfw train",
        "test/fake_sdxl": "fake fake_sdxl test",
    },
    "two names for real": {"original": "real real -", "photos": "real real -", "deepfakes/a": "fake a -"},
    "a generator whose name begins with real": {"real": "real real -", "Real-ESRGAN": "Real-ESRGAN Real-ESRGAN -"},
    "one split below the label": {"real/train/ffhq": "real ffhq train", "fake/train": "fake fake train"},
    "persons below splits below the label": {
        "real/train/Ada": "real Ada train",
        "real/val/Bo": "real Bo validation",
        "fake/train/Ada": "fake Ada train",
        "fake/test/Cy/deeper": "fake Cy test",
    },
    "the class of trains": {
        "progan/train/0_real": "0_real progan/train -",
        **{f"progan/{name}/1_fake": f"1_fake progan/{name} -" for name in ("bird", "boat", "bus", "car", "cat")},
        "biggan/0_real": "0_real biggan -",
    },
    "a level that says nothing": {
        "fake/images/sdxl": "fake sdxl -",
        "fake/images/flux/x": "fake flux -",
        "real/data/img/ffhq": "real ffhq -",
        "real/data/img/celeba": "real celeba -",
    },
    "such a level beside a source, and one with images": {
        "fake/images": "fake images -",
        "real/images/ffhq": "real images -",
        "real/own": "real own -",
    },
    "persons above the label": {
        f"person_{i}/{side}": f"{side} person_{i} -" for i in (1, 2) for side in ("real", "fake")
    },
    "videos above the label": {
        "train/000/real": "real 000 train",
        "train/003/fake/sdxl": "fake 003 train",
        "test/007/real": "real 007 test",
        "test/007/fake": "fake 007 test",
    },
    "persons between a generator and the label": {
        f"{gen}/id{i}/{side}": f"{side} {gen} -"
        for gen in ("sdxl", "flux")
        for i in (1, 2)
        for side in ("real", "fake")
    },
    "a source called like a split": {"real/ffhq": "real ffhq -", "fake/train": "fake train -"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_that_people_publish(name: str) -> None:
    expected = LAYOUTS[name]
    assert [" ".join(place[:2] + (place[2] or "-",)) for place in places(*expected)] == list(expected.values())


def test_a_named_real_label_is_looked_for_too() -> None:
    assert places("x/cam", "x/gan/a", real_label="cam") == [("cam", "cam", ""), ("gan", "a", "")]


@pytest.mark.parametrize(("real", "fake"), [("0", "1"), ("human", "machine")])
def test_a_named_real_label_below_generators_makes_its_neighbour_the_fake_one(real: str, fake: str) -> None:
    above = ["progan/train/airplane", "progan/train/bird", "stylegan/train"]
    assert places(*(f"{folder}/{name}" for folder in above for name in (real, fake)), real_label=real) == [
        *((name, "progan/airplane", "train") for name in (real, fake)),
        *((name, "progan/bird", "train") for name in (real, fake)),
        *((name, "stylegan", "train") for name in (real, fake)),
    ]


def test_two_names_in_every_generator_are_offered_as_labels() -> None:
    """The name of a generator as the real label would train one generator against another."""
    with pytest.raises(UsageError, match="progan, stylegan, or 0 and 1, which are in each") as caught:
        places("progan/cat/0", "progan/cat/1", "stylegan/cat/0", "stylegan/cat/1")
    assert "--real-label 0" in caught.value.hint


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["progan/real", "stylegan/real"], "folders are progan, stylegan, and progan/real is deeper"),
        (["progan/cat", "stylegan/fake"], "stylegan/fake is deeper"),
        (["progan/real", "progan/fake", "sdxl"], "DATA/sdxl/x.png is in no label folder.* fake, real"),
        (["real", "progan/0_real", "progan/1_fake"], "DATA/real/x.png is in no label folder.* 0_real, 1_fake"),
        (["", "real", "fake"], "DATA/x.png is in no label folder"),
        (["train/real", "train/fake", "extra/real"], r"mixes split folders \(train\) with others \(extra\)"),
        (["a/train/real", "a/train/fake", "b/fake"], r"mixes split folders \(a/train\) with others \(b/fake\)"),
        (["train_1/real", "train_1/fake", "extra_2/real"], r"mixes split folders \(train_1\) with others \(extra_2\)"),
        (["train_real", "train_fake", "real"], r"mixes split folders \(train_fake, train_real\) with others \(real\)"),
        (
            ["real/train/Ada", "real/test/Bo", "fake/sdxl", "fake/flux"],
            r"mixes split folders \(real/test, real/train\) with others \(fake/flux, fake/sdxl\)",
        ),
        (["real/train", "real/test", "fake"], r"mixes split folders \(real/test, real/train\) with others \(fake\)"),
        (
            ["real/a/train", "real/a/val", "fake/b"],
            r"split folders \(real/a/train, real/a/val\) with others \(fake/b\)",
        ),
        (["a/photo/real", "a/ai/real", "a/ai/fake", "c/real", "c/fake"], "could be its label, ai and real"),
    ],
)
def test_what_cannot_be_told_names_the_level_and_never_a_wrong_label(folders: list[str], message: str) -> None:
    """The advice to name a generator as the real label would train one generator against another."""
    with pytest.raises(UsageError, match=message) as caught:
        places(*folders)
    assert "real-label" not in caught.value.hint


levels = st.lists(st.sampled_from(["progan", "cat", "x_dev", "part 1", "0", "faces", "été"]), max_size=3)


@given(levels, levels, st.sampled_from(["", "train", "test"]), st.booleans())
def test_wherever_the_labels_lie_a_pair_of_them_is_found(
    above: list[str], below: list[str], split: str, split_first: bool
) -> None:
    """Folders above and below them, and a split on either side of those above, change nothing."""
    names = [split, *above] if split_first else [*above, split]
    folders = ["/".join(name for name in [*names, label, *below] if name) for label in ("real", "fake")]
    while len(below) > 1 and below[0] == "faces":
        below = below[1:]  # says nothing, and all images of the label are below it
    source = below[0] if below else ""
    kind = {"train": "train", "test": "test"}.get(split, "")
    assert places(*folders) == [("real", source or "real", kind), ("fake", source or "fake", kind)]


@given(st.lists(st.lists(st.sampled_from(["real", "fake", "train", "val", "progan", "a"]), max_size=4), min_size=1))
def test_any_tree_is_read_whole_or_refused(folders: list[list[str]]) -> None:
    paths = list(dict.fromkeys("/".join([*folder, "x.png"]) for folder in folders))
    try:
        rows = read_layout(ROOT, paths)
    except UsageError:
        return
    assert [row.path for row in rows] == paths
    assert all(row.label in row.path.split("/") and row.source for row in rows)
