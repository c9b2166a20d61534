"""A row for every input in its order, after any kill and whatever the files are called or hold."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import torch
from conftest import make_image

from bonaface.errors import UsageError
from bonaface.imaging.images import Reason
from bonaface.inference.detector import Detector
from bonaface.inference.reader import ImageReader
from bonaface.inference.scoring import find_inputs, run_predict_command, score_files
from bonaface.models.facts import ModelFacts
from bonaface.models.load import load_model
from bonaface.stats.certificates import Band


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    network, processor = load_model("cnn", ["fake", "real"], from_scratch=True, image_size=32)
    network.config.bonaface = ModelFacts("real", band=Band(0.4, 0.6)).to_block()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return Detector.from_pretrained(model)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images and, among them, three files that are none."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(40):
        make_image(folder / f"{i:02d}.png", i, (40 + i % 3, 40))
    (folder / "05x.jpg").write_bytes(b"")
    (folder / "17x.jpg").write_bytes((folder / "01.png").read_bytes()[:300])
    (folder / "33x.png").write_text("not an image at all")
    return folder


def inputs(folder: Path) -> list[str]:
    return list(find_inputs([folder]))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_table_has_the_detector_s_numbers_in_input_order(
    detector: Detector, images: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"scores.{suffix}"
    paths = inputs(images)[::-1]
    summary = score_files(paths, detector, out, batch_size=8)
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda f: pd.read_json(f, lines=True)}[suffix]
    table = read(out)
    assert list(table["path"]) == paths
    assert list(table.columns) == [
        "path",
        "status",
        "error",
        "verdict",
        "p_fake",
        "p_real",
        "n_faces",
        "faces",
        "warnings",
    ]
    results = detector(paths)
    assert table["p_fake"].to_numpy(dtype=float) == pytest.approx([r.p_fake for r in results], abs=1e-6, nan_ok=True)
    assert list(table["verdict"]) == [r.verdict for r in results]
    assert set(table["status"]) == {"ok", "empty", "truncated", "wrong extension"}
    assert summary.verdicts["error"] == 3
    assert list(tmp_path.iterdir()) == [out]  # neither journal nor partial file is left


def test_the_command_gives_the_same_table(
    model: Path, detector: Detector, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score_files(inputs(images), detector, tmp_path / "library.csv")
    assert run_predict_command([str(images)], str(model), str(tmp_path / "command.csv")) == 0
    assert "43 files" in capsys.readouterr().out
    assert (tmp_path / "command.csv").read_bytes() == (tmp_path / "library.csv").read_bytes()


def test_without_a_file_the_command_prints_a_table(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_predict_command([str(images / "00.png"), str(images / "05x.jpg")], str(model)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[2].endswith("00.png")
    assert lines[2].startswith("error")
    assert run_predict_command([str(images / "05x.jpg")], str(model)) == 1


def test_inputs_are_files_folders_patterns_and_a_list(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a.png", "b/.hidden.png", ".git/x.png", "b/notes.txt"):
        make_image(tmp_path / name) if name.lower().endswith("png") else (tmp_path / name).write_text("x")
    found = [os.path.relpath(path, tmp_path) for path in find_inputs([tmp_path])]
    assert found == ["a.png", "b/10.JPG", "b/2.png"]
    assert list(find_inputs([str(tmp_path / "b" / "*.[pJ]*")])) == [
        str(tmp_path / "b" / n) for n in ("10.JPG", "2.png")
    ]
    assert list(find_inputs(["-", "x.png"], io.StringIO("one\n\ntwo three\r\n"))) == ["one", "two three", "x.png"]
    assert list(find_inputs([str(tmp_path / "none*.png")])) == [str(tmp_path / "none*.png")]  # its row says "missing"
    (tmp_path / "odd[1].png").write_bytes(b"")
    assert list(find_inputs([str(tmp_path / "odd[1].png")])) == [str(tmp_path / "odd[1].png")]


def test_names_that_attack_spreadsheets_terminals_and_tables(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=HYPERLINK(1).png", "+1.png", "-x.png", "@a.png", "a,b\"c'.png", "two\nlines.png", "\x1b[2J.png", "ü.png"]
    names.append(os.fsdecode(b"latin-\xe9.png"))
    for name in names:
        make_image(Path(name))
    for table in ("t.csv", "t.jsonl"):
        score_files(names, detector, table)
    with Path("t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names)
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())
    plain = [*names[:-1], "latin-\\xe9.png"]
    assert [row["path"].removeprefix("'") for row in rows] == plain
    assert [json.loads(line)["path"] for line in Path("t.jsonl").read_text().splitlines()] == plain
    run_predict_command(names, str(model))
    assert "\x1b" not in capsys.readouterr().out


KILLED = """
import sys, time
from bonaface.inference.detector import Detector
from bonaface.inference.scoring import find_inputs, score_files

detector = Detector.from_pretrained(sys.argv[1])
run = detector.engine

class Slow:
    name = run.name
    batch_size, workers = run.batch_size, run.workers
    def in_worker(self, pixels):
        time.sleep(0.1)
        return run(pixels)

detector.engine = Slow()
print("ready", flush=True)
score_files(find_inputs([sys.argv[2]]), detector, sys.argv[3], batch_size=4, model="m")
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_undisturbed_table(
    detector: Detector, model: Path, images: Path, tmp_path: Path
) -> None:
    score_files(inputs(images), detector, tmp_path / "whole.csv", batch_size=4, model="m")
    out, journal = tmp_path / "killed.csv", tmp_path / ".killed.csv.journal"
    command = [sys.executable, "-c", KILLED, str(model), str(images), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 10:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    rows = len(journal.read_bytes().splitlines()) - 1
    assert 9 <= rows < 43
    with journal.open("ab") as file:  # what a kill in the middle of a write leaves
        file.write(b'{"path": "/hal')
    summary = score_files(inputs(images), detector, out, batch_size=4, model="m")
    assert summary.continued_from == rows // 4 * 4
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not journal.exists()


def interrupted(detector: Detector, paths: list[str], out: Path, after: int) -> None:
    """Start a run that breaks after some inputs were scored."""

    def stream(images: Iterator[str], **kwargs: object) -> Iterator[object]:
        for n, result in enumerate(Detector.stream(detector, images, **kwargs)):  # type: ignore[arg-type]
            if n == after:
                raise KeyboardInterrupt
            yield result

    broken = Detector.__new__(Detector)
    broken.__dict__ = {**detector.__dict__, "stream": stream}
    with pytest.raises(KeyboardInterrupt):
        score_files(paths, broken, out, batch_size=4)


def test_a_run_that_ended_before_its_first_batch_binds_nobody(detector: Detector, images: Path, tmp_path: Path) -> None:
    paths, out = inputs(images), tmp_path / "s.csv"
    interrupted(detector, paths, out, 2)
    assert score_files(paths[1:], detector, out, batch_size=5).continued_from == 0
    assert out.is_file()


def test_a_run_is_not_continued_with_other_inputs_or_options(detector: Detector, images: Path, tmp_path: Path) -> None:
    paths, out = inputs(images), tmp_path / "s.csv"
    interrupted(detector, paths, out, 14)
    with pytest.raises(UsageError, match="other inputs"):
        score_files(paths[1:], detector, out, batch_size=4)
    with pytest.raises(UsageError, match="other options"):
        score_files(paths, detector, out, batch_size=4, faces=True)
    assert score_files(paths, detector, out, batch_size=4).continued_from == 12
    with pytest.raises(UsageError, match="already exists"):
        score_files(paths, detector, out, batch_size=4)


def test_two_runs_on_one_table_are_kept_apart(detector: Detector, images: Path, tmp_path: Path) -> None:
    paths, out = inputs(images), tmp_path / "s.csv"

    def second() -> Iterator[str]:
        with pytest.raises(UsageError, match="another process"):
            score_files(paths, detector, out)
        yield from ()

    def stream(images: Iterator[str], **kwargs: object) -> Iterator[object]:
        yield from second()
        yield from Detector.stream(detector, images, **kwargs)  # type: ignore[arg-type]

    first = Detector.__new__(Detector)
    first.__dict__ = {**detector.__dict__, "stream": stream}
    assert sum(score_files(paths, first, out).verdicts.values()) == 43


@pytest.mark.filterwarnings("ignore")
def test_hostile_files_have_a_row_each(detector: Detector, tmp_path: Path) -> None:
    """Cut off, flipped, lying about their size, bombs, odd modes: ten thousand more are in benchmarks/hostile.py."""
    path = Path(__file__).parents[2] / "benchmarks" / "hostile.py"
    spec = importlib.util.spec_from_file_location("hostile", path)
    assert spec is not None
    assert spec.loader is not None
    hostile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostile)
    hostile.MUTATIONS.pop(hostile.large)  # half a second each
    hostile.write_mutants(tmp_path / "files", 400, seed=1)
    paths = inputs(tmp_path / "files")
    score_files(paths, detector, tmp_path / "scores.csv")
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table["path"]) == paths
    assert set(table["status"]) <= {"ok", *get_args(Reason)}
    assert 50 < (table["status"] == "ok").sum() < 350
    assert table["p_fake"].notna().equals(table["status"] == "ok")
    assert set(table["verdict"][table["status"] == "ok"]) <= {"real", "fake", "uncertain"}


def test_faces_are_in_the_table(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_image(tmp_path / "x.png", size=(400, 400))
    monkeypatch.setattr(
        ImageReader, "find_faces", lambda *_: ([(10.0, 10.0, 60.0, 60.0), (90.0, 90.0, 150.0, 150.0)], [])
    )
    score_files([str(path)], detector, tmp_path / "s.csv")
    row = pd.read_csv(tmp_path / "s.csv").iloc[0]
    faces = json.loads(row["faces"])
    assert row["n_faces"] == 2
    assert [face["box"] for face in faces] == [[10.0, 10.0, 60.0, 60.0], [90.0, 90.0, 150.0, 150.0]]
    assert row["p_fake"] == max(face["p_fake"] for face in faces)


def test_mistakes_have_hints(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write a table"):
        score_files(["x.png"], detector, tmp_path / "scores.xlsx")
    with pytest.raises(UsageError, match="no images found"):
        score_files(find_inputs([tmp_path]), detector, tmp_path / "scores.csv")
    with pytest.raises(UsageError, match="unknown engine"):
        run_predict_command(["x.png"], "m", engine="tpu")


def test_memory_does_not_grow_with_the_inputs(detector: Detector, tmp_path: Path) -> None:
    """Python's own memory: images are a few tensors, rows and names are on disk."""
    path = str(make_image(tmp_path / "x.png", size=(32, 32)))
    peaks = []
    for n in (16, 160, 800):  # the first fills caches
        tracemalloc.start()
        score_files((path for _ in range(n)), detector, tmp_path / f"{n}.csv", progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 200_000  # 640 more rows would be more than that alone
