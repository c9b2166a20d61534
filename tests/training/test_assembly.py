"""The data of a recipe: one set or several, given splits, and what is refused before any training."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import make_faces, make_image
from PIL import Image, ImageFile

from bonaface.cli import train
from bonaface.data.prepare import prepare
from bonaface.data.prepared import FINISHED, SCANS
from bonaface.errors import UsageError
from bonaface.training.assembly import assemble, choose_sets, split_assembly
from bonaface.training.balance import drawing_weights
from bonaface.training.options import named_data, weights_of
from bonaface.training.recipe import read_recipe

QUIET = ["--prepare", "False", "--audit", "False"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("old"), {"real/cam": 20, "fake/gan": 20})


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new")
    for split, n in (("train", 8), ("validation", 4), ("test", 4)):
        make_faces(root / split, {"real/phone": n, "fake/sd": n})
    return root


def data_of(*flags: str):
    recipe, args, _ = read_recipe([*flags, *QUIET])
    return split_assembly(assemble(recipe), recipe, args.seed)


def test_several_sets_become_one_and_keep_their_names(old: Path, new: Path) -> None:
    """A set with splits of its own keeps them; one without is cut; paths say whose they are."""
    data = data_of("--data", f"old={old}", f"new={new}")
    counts = {split: Counter(rows["dataset"]) for split, rows in data.splits.items()}
    assert counts["train"]["new"] == 16
    assert counts["test"]["new"] == 8
    assert counts["test"]["old"] == 6
    assert sum(c["old"] for c in counts.values()) == 40
    assert all(path.startswith(("old/", "new/")) for rows in data.splits.values() for path in rows["path"])
    assert data.load_image(data.splits["test"]["path"][0]).size == (40, 40)


def test_a_size_for_what_is_aligned_already_is_refused(tmp_path: Path) -> None:
    folder = make_faces(tmp_path / "aligned", {"real/cam": 4, "fake/gan": 4})
    (folder / FINISHED).touch()
    recipe, _, _ = read_recipe(["--data", str(folder), "--prepare_size", "224", "288"])
    with pytest.raises(UsageError, match="prepare_size has no effect"):
        assemble(recipe)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often this process opens a file, by its path, and decodes pixels, by their file's digest."""
    counts: Counter[str] = Counter()
    watched = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watched and event == "open" and arguments[1] and isinstance(arguments[0], str | os.PathLike):
            counts[os.fspath(arguments[0])] += 1

    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> object:
        if image.tile and isinstance(image.fp, io.BytesIO):  # not decoded yet
            counts[hashlib.sha256(image.fp.getvalue()).hexdigest()] += 1
        return load(image)

    sys.addaudithook(watch)  # for good
    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # so that files are aligned in this process
    yield counts
    watched.clear()


def opened_below(root: Path, readings: Counter[str]) -> dict[str, int]:
    return {Path(path).relative_to(root).as_posix(): n for path, n in readings.items() if path.startswith(f"{root}/")}


def raw_set(root: Path, n: int = 8) -> list[str]:
    """JPEGs, which the audit may decode at a fraction of their size, a copy, and two broken files; all paths."""
    for path in make_faces(root, {"real/cam": n, "fake/gan": n}).rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    whole = (root / "real/cam/000.jpg").read_bytes()
    (root / "real/cam/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "real/cam/copy.jpg").write_bytes(whole)
    (root / "fake/gan/empty.png").write_bytes(b"")
    return [path.relative_to(root).as_posix() for path in root.rglob("*.*")]


@pytest.mark.parametrize("audit", ["True", "False"])
@pytest.mark.parametrize("aligned", ["True", "False"])
def test_each_raw_file_is_read_and_decoded_once_and_broken_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readings: Counter[str], audit: str, aligned: str
) -> None:
    """A second start on an aligned folder reads no raw file; its audit says the same, of the raw files."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "raw"
    paths = raw_set(root)
    readings.clear()
    recipe, _, _ = read_recipe(["--data", str(root), "--audit", audit, "--prepare", aligned])
    assembly = assemble(recipe)
    assert len(assembly.listing.rows) == (16 if aligned == "True" else 17)
    assert opened_below(root, readings) == dict.fromkeys(paths, 1)
    whole = set(paths) - {"fake/gan/empty.png", "real/cam/cut.jpg"}
    digests = Counter(hashlib.sha256((root / path).read_bytes()).hexdigest() for path in whole)
    assert {digest: readings[digest] for digest in digests} == digests
    if aligned == "False":
        assert {file.path for file in assembly.listing.broken} == {"fake/gan/empty.png", "real/cam/cut.jpg"}
    if assembly.audit:
        assert {file.path: file.reason for file in assembly.audit.broken} == {
            "fake/gan/empty.png": "empty: the file is empty",
            "real/cam/cut.jpg": "truncated: the JPEG is truncated",
        }
        assert set(assembly.audit.files["path"]) | {f.path for f in assembly.audit.broken} == set(paths)
        assert any(set(g.paths) == {"real/cam/000.jpg", "real/cam/copy.jpg"} for g in assembly.audit.duplicates)
    readings.clear()
    again = assemble(recipe)
    if aligned == "True":
        assert opened_below(root, readings) == {}
    if again.audit:
        assert again.audit.findings == assembly.audit.findings
        assert again.audit.broken == assembly.audit.broken


def test_a_set_that_is_aligned_already_is_audited_beside_a_raw_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readings: Counter[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = raw_set(tmp_path / "raw")
    prepare(make_faces(tmp_path / "other", {"real/tv": 6, "fake/web": 6}), tmp_path / "aligned", workers=1)
    readings.clear()
    data = [f"raw={tmp_path / 'raw'}", f"aligned={tmp_path / 'aligned'}"]
    recipe, _, _ = read_recipe(["--data", *data, "--prepare", "True"])
    assembly = assemble(recipe)
    assert Counter(assembly.listing.rows["dataset"]) == {"raw": 16, "aligned": 12}
    assert opened_below(tmp_path / "raw", readings) == dict.fromkeys(paths, 1)
    assert Counter(path.partition("/")[0] for path in assembly.audit.files["path"]) == {"raw": 17, "aligned": 12}
    assert {file.path for file in assembly.audit.broken} == {"raw/fake/gan/empty.png", "raw/real/cam/cut.jpg"}


def test_a_folder_aligned_without_scans_is_audited_from_its_raw_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scans that are missing or damaged are made again."""
    monkeypatch.chdir(tmp_path)
    raw_set(tmp_path / "raw")
    recipe, _, _ = read_recipe(["--data", str(tmp_path / "raw"), "--prepare", "True"])
    first = assemble(recipe).audit
    kept = next(tmp_path.rglob(SCANS))
    for damage in (lambda: kept.write_bytes(kept.read_bytes()[:-40]), kept.unlink):
        damage()
        again = assemble(recipe).audit
        assert (again.findings, again.broken) == (first.findings, first.broken)


def test_a_leak_is_refused_where_the_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = make_faces(tmp_path / "raw", {"real/cam": 40, "fake/gan": 40})
    for path in (root / "real").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    for start in range(2):  # aligned in the first, known in the second
        recipe, _, _ = read_recipe(["--data", str(root), "--prepare", "True", "--strict_audit", "True"])
        with pytest.raises(UsageError, match="says leak") as caught:
            assemble(recipe)
        assert caught.value.exit_code == 3, start


def test_a_label_without_a_readable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = make_faces(tmp_path / "raw", {"real/cam": 4})
    (root / "fake").mkdir()
    (root / "fake/x.png").write_bytes(b"")
    for flags in (["--prepare", "True"], ["--prepare", "False"], ["--prepare", "False", "--audit", "False"]):
        recipe, _, _ = read_recipe(["--data", str(root), *flags])
        with pytest.raises(UsageError, match=r"no (usable file|readable image) labelled fake.*empty"):
            assemble(recipe)


def test_a_stage_chooses_among_the_sets_and_weighs_them(old: Path, new: Path) -> None:
    data = data_of("--data", f"old={old}", f"new={new}")
    chosen = choose_sets(data, {"new": 1.0})
    assert set(chosen.splits["train"]["dataset"]) == {"new"}
    assert set(chosen.splits["validation"]["dataset"]) == {"new"}
    rows = data.splits["train"]
    weights = drawing_weights(rows, "label", weights_of(["old=1", "new=3"]))
    share = sum(w for w, owner in zip(weights, rows["dataset"], strict=True) if owner == "new") / weights.sum()
    assert share == pytest.approx(0.75)
    assert drawing_weights(rows, "none", {}) is None


@pytest.mark.slow
@pytest.mark.usefixtures("plots_not_rendered")
def test_a_run_on_several_sets_reports_each(old: Path, new: Path, tmp_path: Path, tiny_model: str) -> None:
    train.main([
        "--data", f"old={old}", f"new={new}", "--mix", "old=1", "new=2", *QUIET, "--model", tiny_model,
        "--from_scratch", "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run"), "--robustness", "none",
        "--dataloader_num_workers", "0", "--bf16", "False", "--use_cpu", "True", "--disable_tqdm", "True",
    ])  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    rows = {row["dataset"]: row for row in metrics["sections"]["datasets"]}
    assert set(rows) == {"all", "old", "new"}
    assert rows["all"]["n"] == rows["old"]["n"] + rows["new"]["n"]
    assert rows["all"]["auc"] == pytest.approx(metrics["figures"]["auc"]["value"])
    table = pd.read_parquet(tmp_path / "run" / "report" / "predictions.parquet")
    assert set(table["dataset"]) == {"old", "new"}


def test_copies_across_sets_stay_together(tmp_path: Path) -> None:
    """The same image in two sets, neither split: the audit finds it, and one split gets both."""
    for name in ("a", "b"):
        make_faces(tmp_path / name, {"real/cam": 20, "fake/gan": 20}, size=(64, 64))
    recipe, args, _ = read_recipe(["--data", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--prepare", "False"])
    data = split_assembly(assemble(recipe), recipe, args.seed)
    homes = {path: split for split, rows in data.splits.items() for path in rows["path"]}
    assert all(home == homes["b" + path[1:]] for path, home in homes.items() if path.startswith("a/"))


def test_splits_can_be_given_as_a_table(old: Path, tmp_path: Path) -> None:
    paths = [f"{label}/{i:03d}.png" for label in ("real/cam", "fake/gan") for i in range(20)]
    splits = ["train"] * 12 + ["validation"] * 4 + ["test"] * 3 + [None]
    table = pd.DataFrame({"path": paths, "split": splits * 2}).dropna()
    table.to_csv(tmp_path / "splits.csv", index=False)
    data = data_of("--data", str(old), "--splits", str(tmp_path / "splits.csv"))
    assert dict.fromkeys(data.splits["test"]["path"], "test") == dict(
        table[table["split"] == "test"].itertuples(index=False)
    )
    assert len(data.splits["train"]) == 24
    assert len(data.splits["validation"]) + len(data.splits["calibration"]) == 8
    homes = {path for rows in data.splits.values() for path in rows["path"]}
    assert homes == set(table["path"])  # the row that the table leaves out is in no split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\nreal/cam/000.png,train\nreal/cam/000.png,test\n", "is listed twice"),
        ("path,split\nreal/cam/nobody.png,train\n", "is not in the data"),
        ("path,split\nreal/cam/000.png,learn\n", "has a split that is not one of"),
        ("path,where\nreal/cam/000.png,train\n", "no columns path and split"),
        ("", "no columns path and split"),
    ],
)
def test_slips_in_a_table_of_splits(old: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        data_of("--data", str(old), "--splits", str(tmp_path / "s.csv"))


def test_sets_need_names_and_the_same_labels(old: Path, tmp_path: Path) -> None:
    assert named_data(["DATA"]) == {"": "DATA"}
    assert named_data(["a=x", "b=y"]) == {"a": "x", "b": "y"}
    with pytest.raises(UsageError, match="need a name each"):
        named_data(["a=x", "y"])
    with pytest.raises(UsageError, match="need a name each"):
        named_data(["a=x", "a=y"])
    make_image(tmp_path / "other" / "real" / "1.png")
    make_image(tmp_path / "other" / "synthetic" / "1.png")
    with pytest.raises(UsageError, match=r"but .* has"):
        data_of("--data", f"a={old}", f"b={tmp_path / 'other'}")
    make_image(tmp_path / "half" / "real" / "1.png")
    with pytest.raises(UsageError, match="half contains only one class"):
        data_of("--data", f"a={old}", f"b={tmp_path / 'half'}")
    with pytest.raises(UsageError, match="unknown data set `c`") as caught:
        read_recipe(["--data", "old=x", "new=y", "--mix", "c=1"])
    assert caught.value.hint
