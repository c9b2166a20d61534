"""Models by their Hub id, by the real client against a stand-in: what comes, the cache, damage, and what is said."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import make_image
from hub_repos import Repo
from hub_runs import go_online
from hub_server import HubServer, hub_server
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from bonaface.errors import UsageError
from bonaface.evaluation.data import load_detector
from bonaface.evaluation.options import EvaluationOptions
from bonaface.inference.detector import Detector
from bonaface.inference.explain import run_explain_command
from bonaface.inference.scoring import run_predict_command
from bonaface.models import download
from bonaface.models.download import damaged_files, model_folder
from bonaface.models.load import checkpoint_labels, load_model
from bonaface.web.judge import Judge
from bonaface.web.limits import Limits

LABELS = ["fake", "real"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with all that may lie in a stranger's repository."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = load_model("resnet", LABELS, image_size=32)
    model.config.bonaface = {"real_label": "real"}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "model.safetensors").write_bytes(b"of another time")
    (folder / "report").mkdir()
    (folder / "report" / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def hub(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        go_online(monkeypatch, server, tmp_path / "cache", None)
        repo = server.repos["model", "user/tiny"] = Repo("model", "user/tiny")
        files = {p.relative_to(template).as_posix(): p.read_bytes() for p in template.rglob("*") if p.is_file()}
        repo.add("main", files)
        yield server


ASKED = httpx.Request("GET", "http://hub/x")


def downloads(hub: HubServer) -> int:
    return sum(line.startswith("GET") and "/resolve/" in line for line in hub.log)


def test_what_a_model_needs_comes_along_and_no_pickle_or_code(hub: HubServer) -> None:
    folder = model_folder("user/tiny")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json", "report/metrics.json"}
    assert (folder / "model.safetensors").read_bytes() == hub.repo("user/tiny").files()["model.safetensors"]


def test_every_kind_of_weights_comes_along(hub: HubServer) -> None:
    repo = hub.repo("user/tiny")
    wanted = [
        "processor_config.json", "recipe.yaml", "README.md", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "unfamiliar.safetensors", "resembles.safetensors", "model.onnx",
        "openvino_model.xml", "openvino_model.bin", "report/predictions.parquet",
    ]  # fmt: skip
    refused = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "other.safetensors", "run.py", "logs/x.log"]
    repo.add("main", repo.files() | dict.fromkeys(wanted + refused, b"x"))
    folder = model_folder("user/tiny")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found >= set(wanted)
    assert not found & set(refused)


def test_code_comes_where_the_user_trusts_it_and_weights_where_they_are_used(hub: HubServer) -> None:
    folder = model_folder("user/tiny", weights=False, code=True)
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.json", "preprocessor_config.json", "modeling_evil.py"}


def test_a_folder_is_taken_as_it_is_even_with_a_name_like_an_id(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user" / "tiny@v1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder("user/tiny@v1") == Path("user/tiny@v1")
    assert not hub.log


def test_detector_and_training_give_what_the_folder_gives(hub: HubServer, template: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    ours, theirs = Detector.from_pretrained(template), Detector.from_pretrained("user/tiny@main")
    assert np.array_equal(ours.scores([picture]), theirs.scores([picture]))
    assert theirs.folder is not None
    assert (theirs.folder / "report" / "metrics.json").is_file()
    model, _ = load_model("user/tiny", LABELS)
    original, _ = load_model(str(template), LABELS)
    assert all(bool((a == b).all()) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    assert checkpoint_labels("user/tiny") == LABELS


def test_commands_take_an_id_with_a_revision(hub: HubServer, tmp_path: Path) -> None:
    """Scoring, explaining, judging with a label named, and what the page says of the model."""
    picture, name = make_image(tmp_path / "photo.png"), f"user/tiny@{hub.repo('user/tiny').branches['main']}"
    assert run_predict_command([str(picture)], name, str(tmp_path / "scores.csv")) == 0
    assert run_explain_command(picture, name, tmp_path / "heat.png", test=False) == 0
    assert (tmp_path / "scores.csv").is_file()
    assert (tmp_path / "heat.png").is_file()
    detector, fakes = load_detector(name, EvaluationOptions(fake_label="fake"))
    assert (detector.real_label, fakes) == ("real", ["fake"])
    judge = Judge(name, Limits())
    assert judge.title == name
    assert len(judge.weights) == 16
    assert judge.folder == detector.folder


def test_a_revision_is_a_branch_or_a_commit(hub: HubServer) -> None:
    repo = hub.repo("user/tiny")
    first = repo.branches["main"]
    repo.add("main", repo.files() | {"recipe.yaml": b"second"})
    repo.add("try/out", repo.files() | {"recipe.yaml": b"third"})
    assert not (model_folder(f"user/tiny@{first}") / "recipe.yaml").exists()
    assert (model_folder("user/tiny") / "recipe.yaml").read_bytes() == b"second"
    assert (model_folder("user/tiny@try/out") / "recipe.yaml").read_bytes() == b"third"


def test_the_second_time_nothing_is_fetched_but_news(hub: HubServer) -> None:
    model_folder("user/tiny")
    before = downloads(hub)
    model_folder("user/tiny")
    assert downloads(hub) == before
    repo = hub.repo("user/tiny")
    repo.add("main", repo.files() | {"recipe.yaml": b"new"})
    assert (model_folder("user/tiny") / "recipe.yaml").read_bytes() == b"new"
    assert downloads(hub) == before + 1


@pytest.mark.parametrize("how", ["offline", "gone", "500"])
def test_without_the_hub_the_cache_serves(hub: HubServer, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    folder = model_folder("user/tiny")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "gone":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        hub.fail("GET", "/api/models/", 500, times=99)
    assert model_folder("user/tiny") == folder


def test_a_cut_line_is_taken_up_again(hub: HubServer) -> None:
    hub.cut("GET", "resolve/.*/model.safetensors", "body")
    folder = model_folder("user/tiny")
    assert (folder / "model.safetensors").read_bytes() == hub.repo("user/tiny").files()["model.safetensors"]


def test_a_hub_that_falls_silent_in_the_middle_of_a_file_is_asked_again(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    hub.stall("GET", "model.safetensors")
    folder = model_folder("user/tiny")
    assert (folder / "model.safetensors").read_bytes() == hub.repo("user/tiny").files()["model.safetensors"]
    assert hub.faults[0].times == 0


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_byte_that_changed_on_the_way_is_noticed_and_mended(hub: HubServer, name: str) -> None:
    """The size is right, so only the digest can tell: SHA-256 of large files, git's SHA-1 of others."""
    hub.corrupt(f"resolve/.*/{name}")
    folder = model_folder("user/tiny")
    assert (folder / name).read_bytes() == hub.repo("user/tiny").files()[name]


def test_a_line_that_always_changes_bytes_is_not_believed(hub: HubServer) -> None:
    hub.corrupt("model.safetensors", times=99)
    with pytest.raises(UsageError, match=r"model\.safetensors failed its checksum"):
        model_folder("user/tiny")
    hub.faults.clear()
    assert model_folder("user/tiny")


def test_copies_under_their_own_names_are_not_called_damaged(tmp_path: Path) -> None:
    """As the cache is on a file system without links: there is no digest to compare with."""
    (tmp_path / "report").mkdir()
    for name in ("config.json", "model.safetensors", "report/metrics.json", "abcdef0123", "0" * 41, "g" * 40):
        (tmp_path / name).write_bytes(b"x")
    assert damaged_files(tmp_path) == []
    (tmp_path / ("0" * 64)).write_bytes(b"x")
    (tmp_path / ("0" * 40)).write_bytes(b"x")
    (tmp_path / hashlib.sha256(b"y").hexdigest()).write_bytes(b"y")
    (tmp_path / hashlib.sha1(b"blob 1\0z").hexdigest()).write_bytes(b"z")
    assert [path.name for path in damaged_files(tmp_path)] == ["0" * 40, "0" * 64]


def test_a_cache_that_went_bad_is_mended(hub: HubServer) -> None:
    weights = model_folder("user/tiny") / "model.safetensors"
    blob = weights.resolve()
    blob.write_bytes(b"\0" + blob.read_bytes()[1:])
    again = model_folder("user/tiny") / "model.safetensors"
    assert hashlib.sha256(again.read_bytes()).hexdigest() == blob.name


# --- what is said -----------------------------------------------------------------------------------------------------


def refused(name: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        Detector.from_pretrained(name)
    assert str(caught.value).startswith(f"cannot load the model {name}: ")
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_missing_and_private_look_the_same_to_a_stranger(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    go_online(monkeypatch, hub, tmp_path / "cache", token)
    hub.repo("user/tiny").private = True
    for name in ("user/tiny", "user/nothing"):
        error = refused(name)
        assert "no such model on the Hub that you have access to" in str(error)
        assert "HF_TOKEN" in error.hint
    go_online(monkeypatch, hub, tmp_path / "cache", "hf_test")
    assert model_folder("user/tiny")


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_gated(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    go_online(monkeypatch, hub, tmp_path / "cache", token)
    hub.repo("user/tiny").gated = True
    error = refused("user/tiny")
    assert "it is a gated model" in str(error)
    assert f"{hub.url}/user/tiny" in error.hint
    go_online(monkeypatch, hub, tmp_path / "cache", "hf_test")
    assert model_folder("user/tiny")


def test_a_token_that_is_not_known(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_online(monkeypatch, hub, tmp_path / "cache", "hf_wrong")
    assert "does not accept the token" in str(refused("user/tiny"))


def test_a_revision_that_is_not_there(hub: HubServer) -> None:
    assert "no revision `v9`" in str(refused("user/tiny@v9"))


@pytest.mark.parametrize(("offline", "why"), [(True, "HF_HUB_OFFLINE is set"), (False, "the Hub cannot be reached")])
def test_no_network_and_nothing_in_the_cache(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, offline: bool, why: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    error = refused("user/other")
    assert why in str(error)
    assert "model folder" in error.hint


@pytest.mark.parametrize(
    ("fault", "why", "hint"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device", "check the free disk space"),
        (httpx.ReadError("reset"), "the connection to the Hub was lost", "try again: the download resumes"),
        (RuntimeError("Xet"), "the connection to the Hub was lost", "try again: the download resumes"),
        (HfHubHTTPError("x", response=httpx.Response(500, request=ASKED)), "the Hub answered 500", "try again"),
    ],
)
def test_what_happens_on_the_way_is_said(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, fault: Exception, why: str, hint: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(download, "snapshot_download", fail)
    error = refused("user/tiny")
    assert str(error).endswith(why)
    assert hint in error.hint


def test_a_wrong_proxy_is_named_before_anything_is_fetched(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:bad")
    with pytest.raises(UsageError, match="HTTPS_PROXY"):
        model_folder("user/tiny")
    assert not hub.log


def test_a_folder_that_is_not_there(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for a name that is short enough to be repeated whole
    assert "no such folder" in str(refused("./runs/mine"))
    assert not hub.log


def test_pickled_weights_are_not_taken(hub: HubServer) -> None:
    repo = hub.repo("user/tiny")
    repo.add("main", {name: data for name, data in repo.files().items() if not name.endswith(".safetensors")})
    assert "no safetensors weights" in str(refused("user/tiny"))


def test_a_timm_repository(hub: HubServer, tmp_path: Path) -> None:
    """As timm writes it: no image processor of its own, and a configuration in timm's form."""
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    facts = network.pretrained_cfg
    config = {"architecture": "test_resnet", "num_classes": 7, "num_features": network.num_features}
    config["pretrained_cfg"] = {key: facts[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct")}
    folder = tmp_path / "timm"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "model.safetensors")
    repo = hub.repos["model", "timm/test_resnet.r160_in1k"] = Repo("model", "timm/test_resnet.r160_in1k")
    repo.add("main", {path.name: path.read_bytes() for path in folder.iterdir()})
    shutil.rmtree(folder)
    model, processor = load_model("timm/test_resnet.r160_in1k", LABELS)
    pixels = processor(Image.new("RGB", (50, 50)), return_tensors="pt")["pixel_values"]
    assert model(pixel_values=pixels).logits.shape == (1, 2)
    trained = dict(network.named_parameters())["conv1.0.weight" if hasattr(network.conv1, "0") else "conv1.weight"]
    assert any(
        parameter.shape == trained.shape and bool((parameter == trained).all()) for parameter in model.parameters()
    )
