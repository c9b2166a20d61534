"""The circle: train on the sample, publish, fetch it elsewhere with the stock pipeline, and serve it: one score."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from hub_runs import ask_app, environment, go_online
from hub_server import HubServer, hub_server
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from bonaface.data.sample import write_sample
from bonaface.errors import UsageError
from bonaface.hub.push import Push
from bonaface.models import drawings
from bonaface.models.shipped import shipped_model
from bonaface.web.choice import default_model

NAME = "user/faces"
ELSEWHERE = """
import json, sys
from PIL import Image
from transformers import pipeline
name, *paths = sys.argv[1:]
stock = pipeline("image-classification", model=name)
found = [{r["label"]: r["score"] for r in stock(Image.open(path).convert("RGB"))}["fake"] for path in paths]
assert "bonaface" not in sys.modules
from bonaface.inference.detector import Detector
detector = Detector.from_pretrained(name)
print(json.dumps({"pipeline": found, "detector": [r.p_fake for r in detector(paths, faces=False)]}))
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        yield server


@pytest.mark.slow
def test_train_push_fetch_serve(hub: HubServer, tiny_model: str, tmp_path: Path) -> None:
    """Four processes with nothing in common but the Hub; the last has the second one's cache, and no Hub."""
    data = write_sample(tmp_path / "data", 80, 64, 0)
    run = tmp_path / "run"
    flags = ["--data", str(data), "--model", tiny_model, "--from_scratch", "--output_dir", str(run)]
    flags += ["--num_train_epochs", "1", "--robustness", "none", "--prepare", "False", "--use_cpu", "True"]
    flags += ["--bf16", "False", "--dataloader_num_workers", "0", "--disable_tqdm", "True"]
    flags += ["--push_to_hub", "True", "--hub_model_id", NAME, "--hub_private_repo", "True"]
    trained = subprocess.run(
        [sys.executable, str(ROOT / "train_hf.py"), *flags],
        cwd=tmp_path, env=environment(hub, tmp_path / "trainer"), capture_output=True, text=True,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert f"{hub.url}/{NAME}: " in trained.stdout
    repo = hub.repo(NAME)
    assert (len(repo.commits), repo.private) == (2, True)
    assert not [name for name in repo.files() if "checkpoint" in name or name.endswith((".bin", ".pt"))]
    assert ModelCard(repo.files()["README.md"].decode()).data.library_name == "transformers"
    for name, content in repo.files().items():
        assert str(tmp_path).encode() not in content, name

    table = pd.read_parquet(run / "report" / "predictions.parquet")
    table = table[table["split"] == "test"]
    images = [data / path for path in table["path"]]
    home = tmp_path / "visitor"
    fetched = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, NAME, *map(str, images)],
        cwd=tmp_path, env=environment(hub, home), capture_output=True, text=True,
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    scores = json.loads(fetched.stdout.splitlines()[-1])
    assert scores["pipeline"] == pytest.approx(list(table["p_fake"]), abs=1e-4)
    assert scores["detector"] == pytest.approx(list(table["p_fake"]), abs=1e-4)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = environment(hub, home) | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, str(ROOT / "app.py"), "--model", NAME]
    answers = ask_app(command, images[:4], cwd=elsewhere, env=env)
    assert [answer["p_fake"] for answer in answers] == pytest.approx(list(table["p_fake"])[:4], abs=1e-4)

    # Trained on drawings: its card, its report and every answer of it say so, and no app serves it unasked.
    assert drawings.MEANING in repo.files()["README.md"].decode()
    assert json.loads((run / "report" / "metrics.json").read_text())["caveats"][0] == drawings.MEANING
    assert all(drawings.WARNING in answer["warnings"] for answer in answers)
    (elsewhere / "runs").mkdir()
    run.rename(elsewhere / "runs" / "sample")
    assert default_model(elsewhere) == shipped_model()


def test_transformers_own_way_of_pushing_is_off(tmp_path: Path) -> None:
    """It uploads pickles and overwrites the card."""
    args = TrainingArguments(str(tmp_path), push_to_hub=True, hub_model_id=NAME, hub_token="hf_secret", use_cpu=True)
    push = Push.taken_from(args)
    assert (push.repo_id, push.private, args.push_to_hub) == (NAME, False, False)
    assert "hf_secret" not in repr(push)
    with pytest.raises(UsageError, match="needs a repository") as caught:
        Push.taken_from(TrainingArguments(str(tmp_path), push_to_hub=True, use_cpu=True))
    assert "--hub_model_id" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "token", "said"),
    [
        (NAME, None, "not logged in"),
        (NAME, "hf_wrong", "did not accept the token"),
        (NAME, "hf_read", "is read-only"),
        ("stranger/faces", "hf_test", "may not publish as stranger"),
    ],
)
def test_who_may_not_publish_is_told_before_the_training(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, token: str | None, said: str
) -> None:
    go_online(monkeypatch, hub, tmp_path / "cache", token)
    with pytest.raises(UsageError, match=said):
        Push(name).check()
    go_online(monkeypatch, hub, tmp_path / "cache", "hf_test")
    Push(NAME).check()
    Push(None).check()


def test_a_run_that_could_not_be_published_says_how_to_do_it_later(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_online(monkeypatch, hub, tmp_path / "cache")
    with pytest.raises(UsageError, match="not published: ") as caught:
        Push(NAME).publish(tmp_path)
    assert f"bonaface hub push {tmp_path} {NAME}" in caught.value.hint
