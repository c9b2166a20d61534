"""A run on the Hub, by the real client against a stand-in: all or nothing, nothing twice, nothing private."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from hub_runs import SECRET_PLACE, environment, go_online, small_run
from hub_server import HubServer, hub_server
from huggingface_hub import ModelCard

from bonaface.cli.hub import main
from bonaface.errors import UsageError
from bonaface.hub import publish
from bonaface.hub.card import Story
from bonaface.hub.push import MINE, model_files, push_model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        go_online(monkeypatch, server, tmp_path / "cache")
        monkeypatch.setattr(publish, "WAITS", (0.01, 0.01, 0.01))
        yield server


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "mine"))


# --- what is published ----------------------------------------------------------------------------------------------


def test_one_commit_holds_model_report_and_card_and_nothing_else(hub: HubServer, run: Path) -> None:
    done = push_model(run, "user/faces")
    repo = hub.repo("user/faces")
    assert len(repo.commits) == 2  # the Hub's own, and ours
    assert done.commit == repo.branches["main"]
    files = repo.files()
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"} <= set(files)
    assert {"report/metrics.json", "report/report.html", "report/predictions.parquet"} <= set(files)
    assert not [name for name in files if name.endswith((".pt", ".pth", ".bin", ".txt")) or "checkpoint" in name]
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()


def test_no_path_of_this_machine_is_published(hub: HubServer, run: Path) -> None:
    """The run's files name the data's folder in JSON, YAML, HTML and Markdown; its last part may stay."""
    home = str(Path.home() / "elsewhere")
    page = run / "report" / "report.html"
    page.write_text(page.read_text().replace("</body>", f"<p>see {home}/x.jpg</p></body>"))
    table = pd.read_parquet(run / "report" / "predictions.parquet")
    table["path"] = SECRET_PLACE + "/" + table["path"]
    table.to_parquet(run / "report" / "predictions.parquet", index=False)
    assert SECRET_PLACE in (run / "report" / "metrics.json").read_text()
    assert SECRET_PLACE in page.read_text()
    push_model(run, "user/faces")
    for name, data in hub.repo("user/faces").files().items():
        assert b"somebody" not in data, name
        assert str(Path.home()).encode() + b"/" not in data, name
    assert json.loads(hub.repo("user/faces").files()["report/metrics.json"])["facts"]["data"] == "faces"


def test_the_data_sets_thumbnails_stay_here_unless_they_are_asked_for(run: Path) -> None:
    page = run / "report" / "report.html"
    thumbnail = "data:image/jpeg;base64,/9j/4AAQSkZJRg=="
    page.write_text(page.read_text().replace("</body>", f'<img src="{thumbnail}"></body>'))
    plots = page.read_text().count("data:image/svg+xml")
    without = bytes(model_files(run)["report/report.html"]).decode()
    assert thumbnail not in without
    assert without.count("data:image/svg+xml") == plots > 0
    assert thumbnail in bytes(model_files(run, thumbnails=True)["report/report.html"]).decode()


@pytest.mark.parametrize("secret", ["hf_" + "a1" * 17, "hf_test"])
def test_a_token_in_a_file_stops_everything(hub: HubServer, run: Path, secret: str) -> None:
    (run / "recipe.yaml").write_text(f"hub_token: {secret}\n")
    with pytest.raises(UsageError, match=r"recipe\.yaml contains an access token"):
        push_model(run, "user/faces")
    assert not hub.log


def test_labels_without_names_are_refused(hub: HubServer, run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    with pytest.raises(UsageError, match="have no names") as caught:
        push_model(run, "user/faces")
    assert "--force" in caught.value.hint
    assert not hub.log
    assert push_model(run, "user/faces", force=True).changed


def test_a_run_without_figures_is_refused(hub: HubServer, run: Path) -> None:
    (run / "report" / "metrics.json").unlink()
    with pytest.raises(UsageError, match="has no figures"):
        push_model(run, "user/faces")
    assert not hub.log
    push_model(run, "user/faces", force=True)
    assert b"without figures" in hub.repo("user/faces").files()["README.md"]


def test_a_folder_without_a_model_is_refused(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a model folder"):
        push_model(tmp_path, "user/faces")
    assert not hub.log


@pytest.mark.parametrize("name", ["faces", "user/faces/more", "user/fa ces", "../faces"])
def test_what_is_no_repository_is_said_before_anything_is_sent(hub: HubServer, run: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a repository name"):
        push_model(run, name)
    assert not hub.log


# --- again ------------------------------------------------------------------------------------------------------------


def test_a_second_push_with_nothing_new_makes_no_commit(hub: HubServer, run: Path) -> None:
    first = push_model(run, "user/faces")
    second = push_model(run, "user/faces")
    assert (second.commit, second.changed) == (first.commit, ())
    assert hub.commits_asked() == 1
    assert "already" in str(second)


def test_a_change_is_one_more_commit_with_the_changed_files_alone(hub: HubServer, run: Path) -> None:
    push_model(run, "user/faces")
    hub.repo("user/faces").edit(NOTES_md="by a person")
    (run / "report" / "scores.png").unlink()
    (run / "recipe.yaml").write_text("model: resnet\nlearning_rate: 0.5\n")
    done = push_model(run, "user/faces")
    assert set(done.changed) == {"recipe.yaml", "README.md", "report/scores.png"}
    files = hub.repo("user/faces").files()
    assert "report/scores.png" not in files
    assert files["NOTES.md"] == b"by a person"


def test_what_a_person_wrote_in_the_card_is_kept(hub: HubServer, run: Path, capsys: pytest.CaptureFixture) -> None:
    push_model(run, "user/faces")
    repo = hub.repo("user/faces")
    text = repo.files()["README.md"].decode()
    text = text.replace("license: unknown", "license: mit").replace("It proves nothing", "It proves nothing at all")
    repo.edit(README_md=text + "\n## Thanks\n\nTo everybody.\n")
    (run / "recipe.yaml").write_text("model: resnet\nlearning_rate: 0.5\n")
    push_model(run, "user/faces")
    card = repo.files()["README.md"].decode()
    assert "license: mit" in card
    assert "It proves nothing at all" in card
    assert "## Thanks\n\nTo everybody." in card
    assert "learning_rate: 0.5" in card
    assert "edited by hand: metadata.license, use" in capsys.readouterr().err
    commits = len(repo.commits)
    push_model(run, "user/faces")
    assert len(repo.commits) == commits


def test_a_card_that_was_edited_before_the_first_push_is_published_as_it_is(hub: HubServer, run: Path) -> None:
    (run / "README.md").write_text("---\nlicense: mit\n---\n\n# My detector\n\nWritten by me.\n")
    push_model(run, "user/faces")
    card = hub.repo("user/faces").files()["README.md"].decode()
    assert "Written by me." in card
    assert "license: mit" in card
    assert "## Training data" in card
    assert (run / "README.md").read_text() == card


def test_edits_on_both_sides_are_both_there_afterwards(hub: HubServer, run: Path) -> None:
    push_model(run, "user/faces")
    repo = hub.repo("user/faces")
    repo.edit(README_md=repo.files()["README.md"].decode() + "\n\nwritten on the Hub\n")
    own = (run / "README.md").read_text() + "\n\nwritten at home\n"
    (run / "README.md").write_text(own)
    push_model(run, "user/faces")
    assert "written on the Hub" in repo.files()["README.md"].decode()
    assert "written on the Hub" in (run / "README.md").read_text()
    assert (run / MINE).read_text() == own


def test_a_card_written_by_hand_holds_no_token_and_no_path_either(hub: HubServer, run: Path) -> None:
    push_model(run, "user/faces")
    card = (run / "README.md").read_text()
    (run / "README.md").write_text(f"{card}\n\nfrom {SECRET_PLACE}/x, file://{SECRET_PLACE}/y\n")
    hub.repo("user/faces").edit(README_md=card)
    push_model(run, "user/faces")
    assert b"somebody" not in hub.repo("user/faces").files()["README.md"]
    (run / "README.md").write_text(f"{card}\n\nmy token is hf_{'a' * 34}\n")
    with pytest.raises(UsageError, match=r"README.md contains an access token"):
        push_model(run, "user/others")
    assert len(hub.repo("user/others").commits) == 1  # the Hub's own


def test_weights_of_another_form_go_when_the_run_has_them_no_more(
    hub: HubServer, run: Path, capsys: pytest.CaptureFixture
) -> None:
    (run / "model.onnx").write_bytes(b"an older network")
    push_model(run, "user/faces")
    assert "model.onnx" in hub.repo("user/faces").files()
    (run / "model.onnx").unlink()
    push_model(run, "user/faces")
    assert "model.onnx" not in hub.repo("user/faces").files()
    assert "deleting" in (said := capsys.readouterr().err)
    assert "model.onnx" in said


def test_what_was_said_once_need_not_be_said_again(hub: HubServer, run: Path) -> None:
    push_model(run, "user/faces", story=Story(license="mit", data_license="free to use"))
    first = hub.repo("user/faces").files()
    push_model(run, "user/faces")
    assert hub.repo("user/faces").files() == first
    assert b"license: mit" in first["README.md"]
    assert not [name for name in first if name == "hub.json"]


@pytest.mark.parametrize("name", ["config.json", "report/metrics.json", "report/predictions.parquet", "README.md"])
def test_a_damaged_file_is_named(hub: HubServer, run: Path, name: str) -> None:
    (run / name).write_bytes(b"\xff\xfe[")
    with pytest.raises(UsageError, match=name):
        push_model(run, "user/faces")


def test_a_private_repository_is_private_and_a_public_one_is_not_taken_for_one(hub: HubServer, run: Path) -> None:
    push_model(run, "user/secret", private=True)
    assert hub.repo("user/secret").private
    push_model(run, "user/open")
    commits = hub.commits_asked()
    (run / "recipe.yaml").write_text("model: vit\n")
    with pytest.raises(UsageError, match="already exists and is public"):
        push_model(run, "user/open", private=True)
    assert hub.commits_asked() == commits


def test_a_revision_is_a_branch_of_its_own(hub: HubServer, run: Path) -> None:
    push_model(run, "user/faces")
    (run / "recipe.yaml").write_text("model: vit\n")
    done = push_model(run, "user/faces", revision="v2")
    repo = hub.repo("user/faces")
    assert done.commit == repo.branches["v2"] != repo.branches["main"]
    assert repo.files("v2")["recipe.yaml"] != repo.files("main")["recipe.yaml"]
    assert done.url.endswith("/user/faces/tree/v2")


def test_the_published_card_passes_the_clients_own_classes(hub: HubServer, run: Path) -> None:
    push_model(run, "user/faces", story=Story(license="mit", datasets=("user/data",)))
    card = ModelCard(hub.repo("user/faces").files()["README.md"].decode())
    figures = json.loads((run / "report" / "metrics.json").read_text())["figures"]
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found["roc_auc"].metric_value == figures["auc"]["value"]
    assert found["roc_auc"].metric_args["low"] == figures["auc"]["low"]
    assert (card.data.license, card.data.datasets) == ("mit", ["user/data"])
    assert any("validate-yaml" in line for line in hub.log)


# --- when it goes wrong -----------------------------------------------------------------------------------------------


def whole_or_nothing(hub: HubServer, run: Path) -> None:
    """The repository is empty; after the same command again it holds everything, in one commit."""
    repo = hub.repos.get(("model", "user/faces"))
    assert repo is None or list(repo.files()) == [".gitattributes"]
    hub.faults.clear()
    push_model(run, "user/faces")
    assert len(hub.repo("user/faces").commits) == 2


@pytest.mark.parametrize("path", ["/api/repos/create", "/large/", "/commit/"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_line_that_breaks_is_mended_without_a_word_lost_or_said_twice(
    hub: HubServer, run: Path, path: str, when: str
) -> None:
    """Also where the commit was made and only its answer got lost: it is not made twice."""
    hub.cut("PUT" if path == "/large/" else "POST", path, when)
    done = push_model(run, "user/faces")
    repo = hub.repo("user/faces")
    assert len(repo.commits) == 2
    assert done.commit == repo.branches["main"]
    assert repo.files()["model.safetensors"] == (run / "model.safetensors").read_bytes()


def test_a_line_that_stays_broken_is_said_and_nothing_is_half_there(hub: HubServer, run: Path) -> None:
    hub.cut("POST", "/commit/", "before", times=99)
    with pytest.raises(UsageError, match="4 attempts failed") as caught:
        push_model(run, "user/faces")
    assert "same command again" in caught.value.hint
    whole_or_nothing(hub, run)


@pytest.mark.parametrize("path", ["/api/models/user/faces/revision", "/commit/"])
def test_a_hub_that_falls_silent_in_the_middle_of_an_answer_is_asked_again(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(publish, "SILENCE", 0.5)
    hub.stall("POST" if path == "/commit/" else "GET", path)
    push_model(run, "user/faces")
    assert len(hub.repo("user/faces").commits) == 2
    assert hub.faults[0].times == 0


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_in_trouble_is_asked_again(hub: HubServer, run: Path, status: int) -> None:
    hub.fail("POST", "/commit/", status, times=2)
    push_model(run, "user/faces")
    assert hub.commits_asked() == 3
    assert len(hub.repo("user/faces").commits) == 2


def test_a_hub_that_stays_in_trouble(hub: HubServer, run: Path) -> None:
    hub.fail("POST", "/commit/", 500, times=99)
    with pytest.raises(UsageError, match="the Hub answered 500; 4 attempts failed"):
        push_model(run, "user/faces")
    whole_or_nothing(hub, run)


def test_retry_after_is_waited_for(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(publish.time, "sleep", slept.append)
    hub.fail("POST", "/commit/", 429, Retry_After="7")
    push_model(run, "user/faces")
    assert slept == [7.0]


def test_a_hub_that_wants_to_be_left_alone_for_long_is(hub: HubServer, run: Path) -> None:
    hub.fail("POST", "/commit/", 429, times=99, Retry_After="3600")
    with pytest.raises(UsageError, match="429"):
        push_model(run, "user/faces")
    assert hub.commits_asked() == 1
    whole_or_nothing(hub, run)


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "not logged in"), ("hf_wrong", "did not accept the token"), ("hf_read", "may not write to the model")],
)
def test_who_may_not_is_told_so_at_once(
    hub: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    """No login, 401 and 403."""
    go_online(monkeypatch, hub, tmp_path / "cache", token)
    with pytest.raises(UsageError, match=said) as caught:
        push_model(run, "user/faces")
    assert "HF_TOKEN" in caught.value.hint
    assert not hub.repos
    go_online(monkeypatch, hub, tmp_path / "cache")
    whole_or_nothing(hub, run)


def test_uploads_in_chunks_that_fail_are_tried_again(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That part of the client is compiled, and has one error for everything."""
    real, failures = publish.HfApi.create_commit, [RuntimeError("Data processing error: CAS service error")] * 2

    def create_commit(self: publish.HfApi, *args: object, **kwargs: object) -> object:
        if failures:
            raise failures.pop()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(publish.HfApi, "create_commit", create_commit)
    push_model(run, "user/faces")
    assert len(hub.repo("user/faces").commits) == 2
    failures += [RuntimeError("Data processing error")] * 9
    (run / "recipe.yaml").write_text("model: vit\n")
    with pytest.raises(UsageError, match=r"the connection to the Hub failed \(RuntimeError: Data processing error\)"):
        push_model(run, "user/faces")


def test_another_persons_repository_is_not_written_to(hub: HubServer, run: Path) -> None:
    with pytest.raises(UsageError, match="may not write to the model stranger/faces"):
        push_model(run, "stranger/faces")


def test_offline_is_said(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        push_model(run, "user/faces")


def test_a_card_that_the_hub_refuses_is_said(hub: HubServer, run: Path) -> None:
    with pytest.raises(UsageError, match='"license" must be one of'):
        push_model(run, "user/faces", story=Story(license="mine-alone"))
    whole_or_nothing(hub, run)


def test_a_commit_of_somebody_else_in_between_is_built_upon(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_model(run, "user/faces")
    (run / "recipe.yaml").write_text("model: vit\n")
    card = hub.repo("user/faces").files()["README.md"].decode()
    real, meddled = publish.content_ids, []

    def meddling(content: bytes | Path) -> set[str]:
        if not meddled:
            meddled.append(True)
            hub.repo("user/faces").edit(README_md=card + "\n\nfrom elsewhere\n")
        return real(content)

    monkeypatch.setattr(publish, "content_ids", meddling)
    push_model(run, "user/faces")
    files = hub.repo("user/faces").files()
    assert b"from elsewhere" in files["README.md"]  # lost, had our commit not been refused and made anew
    assert b"vit" in files["recipe.yaml"]


@pytest.mark.slow
def test_the_command_line(hub: HubServer, run: Path, tmp_path: Path) -> None:
    """As a user gives it, in a process of its own."""
    command = [sys.executable, "-m", "hub", "push", str(run), "user/faces", "--private", "--license", "mit"]
    done = subprocess.run(command, cwd=ROOT, env=environment(hub, tmp_path / "home"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "files in one commit" in done.stdout
    assert hub.repo("user/faces").private


def test_a_mistake_is_two_lines_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["hub", "push", str(tmp_path), "user/faces"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.strip().splitlines()] == ["error", "hint"]
