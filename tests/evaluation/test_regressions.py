"""A reported mistake stays repaired: images that were right and are wrong now are named, and fail the command."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import make_faces
from PIL import Image
from served import noise, run_folder
from typer.testing import CliRunner

from bonaface.cli.main import app
from bonaface.errors import UsageError
from bonaface.evaluation.regressions import read_reports

HEADER = ["file_name", "label", "note", "score"]


@pytest.fixture(scope="module")
def reversed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its labels exchanged: whatever the one has right, the other has wrong."""
    folder = Path(shutil.copytree(run_folder(), tmp_path_factory.mktemp("reversed") / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "real", "1": "fake"}
    config["label2id"] = {"real": 0, "fake": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def reports(folder: Path, rows: list[list[str]]) -> Path:
    """Bright images, which the tiny model calls real, under the names in ``rows``, and their table."""
    folder.mkdir()
    for number, row in enumerate(rows):
        Image.fromarray(noise(number, dark=False)).save(folder / row[0])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return folder


def judged(folder: Path, before: Path, after: Path) -> tuple[int, str]:
    words = ["evaluate", "--model", str(after), "--before", str(before), "--regressions", str(folder)]
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.output


def test_an_image_that_was_right_and_is_wrong_now_fails_and_one_repaired_does_not(
    tmp_path: Path, reversed_model: Path
) -> None:
    folder = reports(tmp_path / "reports", [["a.png", "real", "my \x1b[2Jportrait", "0.91"]])
    code, output = judged(folder, run_folder(), reversed_model)
    assert code == 3
    assert "wrong now, right before; real 0." in output
    assert "0.91 when it was reported (my \\x1b[2Jportrait)" in output
    assert output.endswith("1 reported images: 1 right before; 1 wrong now; 1 right before and wrong now\n")
    code, output = judged(folder, reversed_model, run_folder())
    assert code == 0
    assert "right now, wrong before" in output
    code, output = judged(folder, run_folder(), run_folder())
    assert code == 0
    assert "right as before" in output


def test_an_image_that_cannot_be_read_has_its_line_and_the_rest_is_judged(tmp_path: Path) -> None:
    folder = reports(tmp_path / "reports", [["a.png", "real", "", ""], ["b.png", "real", "", ""]])
    (folder / "b.png").write_bytes(b"no image at all")
    code, output = judged(folder, run_folder(), run_folder())
    assert code == 0
    assert "unreadable as before" in output
    assert "1 right, 1 unreadable now" in output
    (folder / "a.png").write_bytes(b"")
    assert judged(folder, run_folder(), run_folder())[0] == 1


def test_without_a_table_the_folders_tell_the_truth(tmp_path: Path) -> None:
    """As in the app's corrections."""
    make_faces(tmp_path / "reports", {"real/corrected": 1, "fake/corrected": 1})
    assert [report.truth for report in read_reports(tmp_path / "reports")] == ["fake", "real"]
    make_faces(tmp_path / "reports", {"others": 1})
    with pytest.raises(UsageError, match="nothing says whether"):
        read_reports(tmp_path / "reports")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["a.png", "cat", "", ""], "has the label `cat`"),
        (["a.png", "real", "", "91"], "has the score `91`"),
        (["a.png", "real", "", "nan"], "has the score `nan`"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, row: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_reports(reports(tmp_path / "reports", [row]))


def test_no_report_is_left_out_uncounted_and_none_lies_elsewhere(tmp_path: Path) -> None:
    folder = reports(tmp_path / "reports", [["a.png", "real", "", ""]])
    shutil.copy(folder / "a.png", tmp_path / "outside.png")
    shutil.copy(folder / "a.png", folder / "unlisted.png")
    with pytest.raises(UsageError, match=r"leaves out 1 images, the first: unlisted\.png"):
        read_reports(folder)
    with (folder / "metadata.csv").open("a") as file:
        file.write("unlisted.png,fake,,\n../outside.png,real,,\n")
    with pytest.raises(UsageError, match=r"row 3 names \.\./outside\.png, which is no image here"):
        read_reports(folder)
    with pytest.raises(UsageError, match="no images found"):
        read_reports(tmp_path / "nowhere")


def test_evaluate_still_needs_its_data() -> None:
    result = CliRunner().invoke(app, ["evaluate", "--model", "m"])
    assert result.exit_code == 2
    assert "needs --data and --out" in result.output
