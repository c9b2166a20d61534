"""A table reads the same whatever a spreadsheet or a person made of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonaface.data.dialects import read_table
from bonaface.errors import UsageError

NEEDED = {"file_name": ("path",), "label": ()}

cells = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
).filter(lambda text: text == text.strip())  # fmt: skip


@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["", "blank", "delimiters"]),
    st.booleans(),
)
def test_any_delimiter_encoding_and_line_end(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    delimiter: str,
    encoding: str,
    line_end: str,
    tail: str,
    declared: bool,
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    text.write(f"sep={delimiter}{line_end}" if declared else "")
    text.write(f"file_name{delimiter}label{line_end}")
    writer.writerows(rows)
    text.write({"blank": line_end, "delimiters": delimiter + line_end}.get(tail, ""))
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    assert [(row["file_name"], row["label"]) for row in read_table(path, NEEDED)] == rows


@pytest.mark.parametrize(
    "text",
    [
        "File Name , LABEL\n a.jpg , real \n",
        'file-name, label\n"a.jpg" , "real"\n',
        "\n\nfile_name,label,,\na.jpg,real,,\n,,,\n",
        "label|Path\nreal|a.jpg",
        "path,label,file_name\nelsewhere,real,a.jpg\n",
    ],
)
def test_blanks_capitals_and_other_names_in_the_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    (row,) = read_table(tmp_path / "t.csv", NEEDED)
    assert (row["file_name"], row["label"]) == ("a.jpg", "real")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("'file_name','label'\n'a,b.jpg','real'\n", "a,b.jpg"),
        ("file_name;label\n'a.jpg';'real'\n", "a.jpg"),
        ("file_name,label\n'a.jpg',real\n", "a.jpg"),
        ("file_name,label\no'brien.jpg,real\n", "o'brien.jpg"),
        ("file_name,label\n\"o'brien's.jpg\",'real\n", "o'brien's.jpg"),
    ],
)
def test_single_quotation_marks_around_cells_and_apostrophes_in_them(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert [row["file_name"] for row in read_table(tmp_path / "t.csv", NEEDED)] == [name]


def test_the_code_page_of_western_windows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file_name;label\nétude–1.jpg;real\n".encode("cp1252"))
    assert read_table(tmp_path / "t.csv", NEEDED)[0]["file_name"] == "étude–1.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,kind\na,b\n", "no columns file_name and label: its header is `name,kind`"),
        ("real/0.jpg,real\n", "its header is `real/0.jpg,real`"),
        ("", "its header is ``"),
        ("file_name,label,label\na.jpg,real,fake\n", "more than one column label"),
        ("file_name,Label,label\na.jpg,real,fake\n", "more than one column label"),
        ("file_name,label,Group,group\na.jpg,real,1,2\n", "more than one column group"),
        ("file_name,label\na,b.jpg,real\n", "row 1 has 3 cells, but the header has 2"),
        ('file_name,label\n"a.jpg,real\nb.jpg,fake\n', "an unclosed quotation mark"),
        ("file_name,label\n" + "x" * 200_000 + ",real\n", "cannot be read: field larger"),
    ],
)
def test_a_table_that_cannot_be_understood_shows_what_was_found(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_table(tmp_path / "t.csv", NEEDED)
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"\xff\xfef\x00i", b"\xff\xfe\x00", bytes(range(256)) * 20])
def test_bytes_that_are_no_table_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UsageError):
        read_table(tmp_path / "t.csv", NEEDED)
