"""What stays on this machine: the paths that a run's files name, and tokens; and no word more is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_runs import SECRET_PLACE

from bonaface.errors import UsageError
from bonaface.hub.privacy import Redactor, paths_in, refuse_secrets, without_thumbnails


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("/home/me/faces", {"/home/me/faces"}),
        ("/home/me/my faces", {"/home/me/my faces", "/home/me/my"}),
        ("old=/home/me/a new=../b/c", {"/home/me/a", "../b/c"}),
        (r"C:\Users\me\faces", {r"C:\Users\me\faces"}),
        ("~/faces, resnet on /data/x.", {"~/faces", "/data/x"}),
        ("/d/x and /db, 50 images /s", {"/d/x", "/db"}),
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
    for text, left in (
        (f"{SECRET_PLACE} & _more_", "faces & _more_"),
        (f"{SECRET_PLACE} &amp; _more_", "faces &amp; _more_"),
        (f"{SECRET_PLACE} &amp; \\_more\\_", "faces &amp; \\_more\\_"),
    ):
        assert clean(f"<p>{text}</p>") == f"<p>{left}</p>"


def test_paths_are_found_in_every_file_that_stores_options(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "recipe.yaml").write_text("data: [/srv/a/one, {/srv/b/two: 1}]\n")
    (tmp_path / "config.json").write_text('{"bonaface": {"trained_on": [["/srv/c/three"]]}}')
    (tmp_path / "report" / "metrics.json").write_text('{"title": "on /srv/d/four", "n": 3}')
    said = "/srv/a/one /srv/b/two /srv/c/three /srv/d/four /srv/e/five"
    assert Redactor(tmp_path).text(said) == "one two three four /srv/e/five"
    (tmp_path / "config.json").write_text("{ no JSON")
    assert Redactor(tmp_path).text(said) == "one two /srv/c/three four /srv/e/five"


def test_of_paths_in_one_another_the_longest_goes_first(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: [/srv/a, /srv/a/b, /srv/a/b/c]\n")
    assert Redactor(tmp_path).text("/srv/a/b/c, /srv/a/b and /srv/a") == "c, b and a"


def test_thumbnails_go_and_plots_stay() -> None:
    page = '<img src="data:image/jpeg;base64,AA+/9=="><img src="data:image/png;base64,AAAA">'
    clean = without_thumbnails(page)
    assert "image/jpeg" not in clean
    assert clean.count("<img") == 2
    assert clean.endswith('<img src="data:image/png;base64,AAAA">')


def test_letters_beyond_ascii_go_however_json_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers escapes them in config.json, we do not."""
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jürgen"))
    path = "/srv/größe/Ω faces"
    (tmp_path / "recipe.yaml").write_text(f"data: {path}\n", encoding="utf-8")
    clean = Redactor(tmp_path).text
    for ensure_ascii in (True, False):
        text = json.dumps({"data": path, "made": "/home/jürgen/runs/x"}, ensure_ascii=ensure_ascii)
        assert json.loads(clean(text)) == {"data": "Ω faces", "made": "runs/x"}


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
    monkeypatch.setattr("bonaface.hub.privacy.get_token", lambda: "ninety")
    with pytest.raises(UsageError, match="d contains"):
        refuse_secrets([("d", b"ninety")])
    for none in (None, "", "short"):  # a word of five letters may be anywhere
        monkeypatch.setattr("bonaface.hub.privacy.get_token", lambda none=none: none)
        refuse_secrets([("d", b"a short text")])


def test_folders_of_this_machine_go_but_not_from_the_middle_of_a_word(tmp_path: Path) -> None:
    clean = Redactor(tmp_path / "run").text
    assert clean(f"{tmp_path}/run/x.png and file://{tmp_path}/y.png") == "run/x.png and file://y.png"
    for whole in (f"data:image/png;base64,AAAA{tmp_path}/AAAA", f"https://example.org{tmp_path}/z"):
        assert clean(whole) == whole


def test_the_root_of_all_folders_is_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert Redactor(tmp_path).text("see /a/b/ and / alone") == "see /a/b/ and / alone"


def test_paths_of_windows_go_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(r"data: 'C:\Users\me\faces\'")
    clean = Redactor(tmp_path).text
    assert clean(r"from C:\Users\me\faces\ alone") == "from faces alone"
    assert clean(r'{"data": "C:\\Users\\me\\faces\\"}') == '{"data": "faces"}'
