"""What stays on this machine: the paths that a run's files name, and tokens; and no word more is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_runs import SECRET_PLACE

from bonaface.errors import UsageError
from bonaface.hub.privacy import Redactor, paths_in, refuse_secrets


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("/home/me/faces", {"/home/me/faces"}),
        ("/home/me/my faces", {"/home/me/my faces", "/home/me/my"}),
        ("old=/home/me/a new=../b/c", {"/home/me/a", "../b/c"}),
        (r"C:\Users\me\faces", {r"C:\Users\me\faces"}),
        ("~/faces, resnet on /data/x.", {"~/faces", "/data/x"}),
        ("timm/resnet18 and 50 images/s, 1/2", set()),
        ("https://huggingface.co/user/faces", set()),
        ("user/faces", set()),
    ],
)
def test_paths_are_told_from_names(text: str, paths: set[str]) -> None:
    assert paths_in(text) == paths


def test_paths_go_however_they_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"data: '{SECRET_PLACE} & _more_'\n")
    clean = Redactor(tmp_path).text
    for text in (f"{SECRET_PLACE} & _more_", f"{SECRET_PLACE} &amp; _more_", f"{SECRET_PLACE} &amp; \\_more\\_"):
        assert "somebody" not in clean(f"<p>{text}</p>")


def test_a_short_path_is_no_part_of_an_address(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: /data\n")
    clean = Redactor(tmp_path).text
    address = "https://huggingface.co/datasets/user/data and /database"
    assert clean(address) == address
    assert clean("trained on /data, see `/data/x.jpg`") == "trained on data, see `data/x.jpg`"


def test_a_token_is_told_from_other_words() -> None:
    refuse_secrets([("a", b"half_" + b"a" * 40), ("b", b"hf_short"), ("c", b"sk-learn")])
    for token in ("hf_", "sk-", "sk-proj-", "sk-ant-api03-", "ghp_", "gho_", "ghs_", "github_pat_"):
        with pytest.raises(UsageError, match="d contains an access token"):
            refuse_secrets([("c", b"nothing"), ("d", b"token: " + token.encode() + b"aB3" * 12)])


def test_the_users_own_token_is_known_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonaface.hub.privacy.get_token", lambda: "of-another-form")
    with pytest.raises(UsageError, match="d contains"):
        refuse_secrets([("d", b"x of-another-form x")])
    for none in (None, "", "short"):  # a word of five letters may be anywhere
        monkeypatch.setattr("bonaface.hub.privacy.get_token", lambda none=none: none)
        refuse_secrets([("d", b"a short text")])


def test_folders_of_this_machine_go_but_not_from_the_middle_of_a_word(tmp_path: Path) -> None:
    clean = Redactor(tmp_path / "run").text
    assert clean(f"{tmp_path}/run/x.png and file://{tmp_path}/y.png") == "run/x.png and file://y.png"
    for whole in (f"data:image/png;base64,AAAA{tmp_path}/AAAA", f"https://example.org{tmp_path}/z"):
        assert clean(whole) == whole


def test_paths_of_windows_go_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(r"data: 'C:\Users\me\faces\'")
    clean = Redactor(tmp_path).text
    assert clean(r"from C:\Users\me\faces\ alone") == "from faces alone"
    assert clean(r'{"data": "C:\\Users\\me\\faces\\"}') == '{"data": "faces"}'
