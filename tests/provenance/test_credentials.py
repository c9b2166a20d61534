"""Content credentials are trusted, from somebody unknown, broken or absent; the user says whom to trust."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from signing import authority, resigned, signed, some_authority
from typer.testing import CliRunner

from bonaface.cli.main import app
from bonaface.errors import UsageError
from bonaface.provenance.read import read_provenance
from bonaface.provenance.trust import VARIABLE, trust_list


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "tan").save(buffer, "JPEG")
    return buffer.getvalue()


def changed(data: bytes) -> bytes:
    """One bit of its pixels is another."""
    at = data.rfind(b"\xff\xda") + 20
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """A trust list of the authority that signs, after one that does not, of the first of May."""
    file = tmp_path / "anchors.pem"
    file.write_bytes(authority().pem + some_authority().pem)
    os.utime(file, (1777593600, 1777593600))
    return file


def test_the_answer_is_one_of_four(trusted: Path) -> None:
    data, known = signed(jpeg()), trust_list(str(trusted))
    assert read_provenance(data, trust=known).credentials == "signed and trusted"
    assert read_provenance(data).credentials == "signed by somebody unknown"
    assert read_provenance(signed(jpeg(), by=authority()), trust=known).credentials == "signed by somebody unknown"
    assert read_provenance(changed(data), trust=known).credentials == "broken"
    assert read_provenance(jpeg(), trust=known).credentials == "absent"


def test_a_statement_says_who_signed_and_by_which_list_that_is_known(trusted: Path) -> None:
    (item,) = read_provenance(signed(jpeg()), trust=trust_list(str(trusted))).evidence
    assert (item.says, item.source, item.verified) == ("generated", "C2PA", True)
    assert "by FaceMaker; signed by Generator Ltd" in item.text
    assert "trust list anchors.pem of 2026-05-01 vouches" in item.text
    (item,) = read_provenance(signed(jpeg())).evidence
    assert (item.says, item.verified) == ("generated", True)
    assert "in the name of Generator Ltd, but nobody known vouches for that name" in item.text


def test_a_broken_signature_names_no_signer(trusted: Path) -> None:
    (item,) = read_provenance(changed(signed(jpeg())), trust=trust_list(str(trusted))).evidence
    assert (item.says, item.verified) == ("unclear", False)
    assert "NOT VALID" in item.text
    assert "Generator Ltd" not in item.text


def test_actions_are_told_in_plain_words_and_in_order() -> None:
    done = [
        {"action": "c2pa.cropped", "softwareAgent": {"name": "Cutter\u202e"}},
        {"action": "c2pa.watermarked.unbound"},
        {"action": "org.example.sparkle"},
    ]
    _, item = read_provenance(signed(jpeg(), *done)).evidence
    assert (item.says, item.source) == ("edited", "C2PA actions")
    assert item.text == (
        "created, then cropped (Cutter ), then given an invisible mark, which cannot be checked here, then changed by "
        "`org.example.sparkle`"
    )
    _, item = read_provenance(signed(jpeg(), {"action": "c2pa.published"})).evidence
    assert (item.says, item.text) == ("unclear", "created, then published")
    _, item = read_provenance(signed(jpeg(), *[{"action": "c2pa.filtered"}] * 30)).evidence
    assert item.text.endswith("then filtered, and 19 more")


def test_what_an_earlier_signer_said_is_told_as_long_as_it_was_valid() -> None:
    """A program that opens a generated image and signs it again does not wash it."""
    first = signed(jpeg(), {"action": "c2pa.cropped"}, by=authority())
    statement, history = read_provenance(resigned(first, {"action": "c2pa.resized"})).evidence
    assert statement.says == "generated"
    assert "by FaceMaker; stated before in the name of Generator Ltd; the signature is valid, in" in statement.text
    assert "in the name of Editor Ltd, but nobody" in statement.text
    assert (history.says, history.text) == ("edited", "created, then cropped, then opened, then resized")
    statement, history = read_provenance(resigned(changed(first), {"action": "c2pa.resized"})).evidence
    assert (statement.says, history.text) == ("unclear", "opened, then resized")
    assert "no statement of how it was made; by Editor" in statement.text


def test_the_list_comes_from_the_option_or_the_environment(
    trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(signed(jpeg()))
    words = ["provenance", str(tmp_path / "a.jpg")]
    assert "signed by somebody unknown" in CliRunner().invoke(app, words).output
    shown = CliRunner().invoke(app, [*words, "--trust", str(trusted)]).output
    assert "content credentials (C2PA): signed and trusted" in shown
    assert shown.endswith("Known signers: by the trust list anchors.pem of 2026-05-01.\n")
    monkeypatch.setenv(VARIABLE, str(trusted))
    row = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert row["credentials"] == "signed and trusted"


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff\xfe", "broken"])
def test_what_is_no_trust_list_is_refused_by_name(tmp_path: Path, content: bytes | str | None) -> None:
    """At once, and not image by image."""
    file = tmp_path / "anchors.pem"
    if content == "broken":
        file.write_bytes(some_authority().pem[:200] + b"\n-----END CERTIFICATE-----\n")
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read the trust list .*anchors\.pem"):
        trust_list(str(file))
