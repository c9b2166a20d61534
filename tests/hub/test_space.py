"""A Space's folder: what is in it, what the Hub reads of it, and that it runs from its own files alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import make_image
from hub_repos import Repo
from hub_runs import SECRET_PLACE, ask_app, go_online, small_run
from hub_server import HubServer, hub_server

from bonaface.errors import UsageError
from bonaface.hub.space import make_space, space_files
from bonaface.models.load import load_model
from bonaface.page import space as static_space


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        go_online(monkeypatch, server, tmp_path / "cache")
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model can be asked."""
    folder = small_run(tmp_path_factory.mktemp("runs") / "mine")
    model, processor = load_model("resnet", ["fake", "real"], image_size=32)
    model.config.bonaface = {"real_label": "real"}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def published(hub: HubServer, run: Path) -> Repo:
    repo = hub.repos["model", "user/faces"] = Repo("model", "user/faces")
    names = ("config.json", "model.safetensors", "preprocessor_config.json", "report/metrics.json", "training_args.bin")
    repo.add("main", {name: (run / name).read_bytes() for name in names})
    return repo


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_space_names_its_model_by_commit_and_preloads_what_it_needs(hub: HubServer, published: Repo) -> None:
    done = make_space("user/faces", "user/app")
    space = hub.repo("user/app", "space")
    files, commit = space.files(), published.branches["main"]
    assert (len(space.commits), space.sdk, done.commit) == (2, "gradio", space.branches["main"])
    head = front_matter(files["README.md"].decode())
    assert (head["sdk"], head["app_file"], head["models"]) == ("gradio", "app.py", ["user/faces"])
    name, wanted, pinned = head["preload_from_hub"][0].split()
    assert (name, pinned) == ("user/faces", commit)
    assert set(wanted.split(",")) == set(published.files()) - {"training_args.bin"}
    assert f'MODEL = "user/faces@{commit}"' in files["app.py"].decode()
    assert {"app.py", "requirements.txt", "LICENSE", "bonaface/inference/detector.py", "bonaface/web/style.css"} <= set(
        files
    )
    assert "bonaface/web/templates/about.html.j2" in files
    assert not [path for path in files if "__pycache__" in path or path.startswith(("tests", "hub", "model/"))]


def test_a_second_time_nothing_is_new_and_an_edited_front_matter_stays(hub: HubServer, published: Repo) -> None:
    make_space("user/faces", "user/app")
    assert make_space("user/faces", "user/app").changed == ()
    space = hub.repo("user/app", "space")
    space.edit(README_md=space.files()["README.md"].decode().replace("colorFrom: indigo", "colorFrom: red"))
    published.add("main", published.files() | {"recipe.yaml": b"new"})
    make_space("user/faces", "user/app")
    head = front_matter(space.files()["README.md"].decode())
    assert head["colorFrom"] == "red"
    assert head["preload_from_hub"][0].endswith(published.branches["main"])


def test_a_docker_space_starts_the_same_app(run: Path) -> None:
    files, card = space_files(str(run), "user/app", docker=True)
    head = front_matter(card)
    assert (head["sdk"], head["app_port"]) == ("docker", 7860)
    assert "sdk_version" not in head
    docker = bytes(files["Dockerfile"]).decode()
    assert 'ENTRYPOINT ["python", "app.py"]' in docker
    assert "HEALTHCHECK" in docker
    assert docker.index("USER 1000") < docker.index("ENTRYPOINT")


def test_a_folder_of_the_model_comes_along_without_secrets_and_pickles(run: Path) -> None:
    files, _ = space_files(str(run), "user/app")
    inside = {name for name in files if name.startswith("model/")}
    assert {"model/config.json", "model/model.safetensors", "model/report/metrics.json"} <= inside
    assert not [name for name in inside if name.endswith((".pt", ".bin", ".pth"))]
    assert SECRET_PLACE.encode() not in bytes(files["model/report/metrics.json"])
    (run / "README.md").write_text(f"# mine\n\nfrom {SECRET_PLACE}\n")
    files, _ = space_files(str(run), "user/app")
    assert bytes(files["model/README.md"]) == b"# mine\n\nfrom faces\n"  # the page shows it


def test_a_folder_of_this_machine_is_not_in_the_commits_message(hub: HubServer, run: Path) -> None:
    make_space(str(run), "user/app")
    assert hub.repos["space", "user/app"].messages[-1] == f"The app, serving {run.name}"


def test_mistakes(hub: HubServer, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model on the Hub"):
        make_space("user/nothing", "user/app")
    assert ("space", "user/app") not in hub.repos
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        make_space(str(run), "user/app", out=tmp_path / "out")


@pytest.mark.slow
def test_the_folder_runs_from_its_own_files_alone(run: Path, tmp_path: Path) -> None:
    """In an environment that has the packages but not the project, from another folder, it serves and answers."""
    space = make_space(str(run), "user/app", out=tmp_path / "space")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    # A plain path: the .pth files in it, and with them the project's own editable installation, are not followed.
    (Path(site) / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "BONAFACE_YUNET": ""}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    gone = subprocess.run([python, "-c", "import bonaface"], cwd=elsewhere, env=env, capture_output=True, text=True)
    assert "No module named 'bonaface'" in gone.stderr
    command = [str(python), str(Path(str(space)) / "app.py"), "--host", "127.0.0.1"]
    (answer,) = ask_app(command, [make_image(tmp_path / "photo.png")], cwd=elsewhere, env=env)
    assert answer["status"] == "ok"
    assert set(answer["labels"]) == {"fake", "real"}


def test_a_static_space_is_published_in_one_commit_and_follows_its_page(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"index.html": b"page", "files-1/app.js": b"script"}
    monkeypatch.setattr(static_space, "page_files", lambda _: files)
    static_space.make_static_space("runs/x", "user/app")
    there = hub.repo("user/app", "space")
    assert (len(there.commits), there.sdk) == (2, "static")
    assert static_space.make_static_space("runs/x", "user/app").changed == ()
    files["files-2/app.js"] = files.pop("files-1/app.js")
    static_space.make_static_space("runs/x", "user/app")
    assert {name for name in there.files() if name.startswith("files-")} == {"files-2/app.js"}
