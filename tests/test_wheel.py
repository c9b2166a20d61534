"""The wheel: what is in it, and that the command works from it alone, in an empty folder with no checkout near."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "bonaface", "hub", "models")
TRAINING = ["--model", "cnn", "--from_scratch", "true", "--image_size", "32", "--max_steps", "1"]
TRAINING += ["--robustness", "none", "--audit", "false"]
EXTRAS = {"export", "provenance", "heic", "video", "ray", "search", "lora", "weights", "page", "mcp", "all"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without the network, from a copy: what an earlier build left in the checkout does not get in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, source / name)
    done = subprocess.run([sys.executable, "-c", BUILD, out], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return file


class Installation:
    """An environment with the wheel, and with the packages of this one but not its copy of the project."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv, self.folder = folder / "venv", folder / "empty"
        self.folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        self.bin = venv / "bin"
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--no-config"]
        subprocess.run([*command, "--python", self.bin / "python", wheel], check=True)
        site = next((venv / "lib").glob("python*/site-packages"))
        # A plain path: the .pth files in it, and with them an editable installation, are not followed.
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "BONAFACE_YUNET": ""}

    def __call__(self, *arguments: str, ok: int = 0) -> str:
        done = subprocess.run(
            [self.bin / "bonaface", *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == ok, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def bonaface(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The command, in a folder that holds a drawn data set and one of its images."""
    installed = Installation(tmp_path_factory.mktemp("installed"), wheel)
    installed("sample", "data", "--n", "60", "--size", "64")
    image = next((installed.folder / "data").rglob("*.jpg"))
    shutil.copyfile(image, installed.folder / "photo.jpg")
    return installed


def test_the_wheel_holds_the_package_its_templates_and_the_model_and_nothing_beside_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bonaface"}  # the package and its .dist-info
    package, beside = ROOT / "bonaface", [*(ROOT / "models").rglob("*"), *(ROOT / "hub" / "templates").rglob("*")]
    own = [
        *package.rglob("*.py"),
        *package.rglob("*.j2"),
        package / "web" / "style.css",
        *(package / "page" / "static").iterdir(),
        package / "py.typed",
    ]
    assert {path.relative_to(ROOT).as_posix() for path in own} <= names
    assert {f"bonaface/_resources/{path.relative_to(ROOT).as_posix()}" for path in beside if path.is_file()} == {
        name for name in names if name.startswith("bonaface/_resources/")
    }


def test_its_metadata_names_command_requirements_and_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
        assert b"bonaface = bonaface.cli.main:main" in archive.read(name.replace("METADATA", "entry_points.txt"))
        assert name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert ranges(required) == ranges((ROOT / "requirements.txt").read_text().splitlines())


def ranges(lines: list[str]) -> dict[str, object]:
    """Name -> versions of each line that is no comment."""
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


def test_the_shipped_model_judges_an_image(bonaface: Installation) -> None:
    bonaface("predict", "photo.jpg", "--out", "scores.jsonl")
    (row,) = [json.loads(line) for line in (bonaface.folder / "scores.jsonl").read_text().splitlines()]
    assert (row["status"], row["path"]) == ("ok", "photo.jpg")
    assert row["verdict"] in {"real", "fake", "uncertain"}


def test_an_audit_writes_its_page(bonaface: Installation) -> None:
    assert "verdict:" in bonaface("audit", "data", "--out", "audit")
    assert "<html" in (bonaface.folder / "audit" / "audit.html").read_text()


def test_a_model_is_trained_and_gets_a_card_and_a_space(bonaface: Installation) -> None:
    bonaface("train", "--data", "data", *TRAINING, "--output_dir", "run")
    run = bonaface.folder / "run"
    (run / "README.md").unlink()
    bonaface("hub", "card", "run", "--license", "mit")
    assert "published under `mit`" in (run / "README.md").read_text()

    bonaface("hub", "space", "run", "user/app", "--docker", "--out", "space")
    space = bonaface.folder / "space"
    assert (space / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (space / "Dockerfile").read_text() == (ROOT / "hub" / "templates" / "space" / "Dockerfile").read_text()
    required = [(folder / "requirements.txt").read_text().splitlines() for folder in (space, ROOT)]
    assert ranges(required[0]) == ranges(required[1])
    assert not (space / "bonaface" / "_resources").exists()
    command = [bonaface.bin / "python", space / "app.py", "--help"]
    started = subprocess.run(command, cwd=bonaface.folder, env=bonaface.env, capture_output=True, text=True)
    assert "--max-upload" in started.stdout, started.stderr
