"""A page's files: what they are, what they say, and what cannot become a page."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from served import run_folder
from static_page import files_of, page_folder
from transformers import ViTImageProcessor
from typer.testing import CliRunner

from bonaface.cli.hub import app
from bonaface.errors import UsageError
from bonaface.inference.detector import Detector, Result
from bonaface.inference.unfamiliar import fit_unfamiliar
from bonaface.models.load import load_model
from bonaface.page import runtime, space
from bonaface.page.build import make_page
from bonaface.page.network import Pixels, bank_bytes
from bonaface.page.runtime import SCRIPT, WASM, find_runtime


@pytest.fixture(scope="module")
def facts() -> dict:
    return json.loads((files_of(page_folder()) / "facts.json").read_text())


@pytest.mark.slow
def test_every_file_is_named_with_its_digest_and_the_folder_by_all_of_them(facts: dict) -> None:
    folder = files_of(page_folder())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert facts["files"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "facts.json"
    }
    assert facts["sizes"] == {name: len(files[name]) for name in facts["files"]}
    assert {"network.bin", "runtime.bin", "ort.js", "licences.txt", "bank.bin"} <= set(files)
    html = (page_folder() / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]+)"', html)) == {
        f"{folder.name}/{name}" for name in ("app.js", "style.css", "icon.svg", "licences.txt")
    }


@pytest.mark.slow
def test_the_policy_allows_nothing_from_elsewhere_and_no_style_or_script_in_the_markup() -> None:
    html = (page_folder() / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert policy[1].startswith("default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; ")
    assert not re.search(r"unsafe-inline|https?:|\*", policy[1])
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! type=.module. src=)", html)


@pytest.mark.slow
def test_the_pages_words_are_the_apps(facts: dict) -> None:
    from bonaface.web.markup import WORDS
    from bonaface.web.wording import WARNINGS, Wording

    detector = Detector.from_pretrained(run_folder())
    words, wording = facts["words"], Wording(detector, run_folder())
    assert words["verdicts"] == WORDS
    assert {name: text for name, (_, text) in words["warnings"].items()} == WARNINGS
    meanings = words["meanings"]
    for score, verdict in ((0.0, "real"), (0.31, "uncertain"), (1.0, "fake")):
        result = Result({}, score, verdict, detector.band)
        told = meanings["lines"][meanings["at"][round(score * (len(meanings["at"]) - 1))]]
        assert told == [wording.in_short(result), *wording.remarks(result)]
        assert words["beside"][verdict] == wording.beside(result)
        assert words["why"][verdict] == wording.why(result)
    assert meanings["unlike"] == [
        "What a score means for such an image is not known.",
        "This applies to images like those the model was trained on. This image is not like them.",
    ]
    assert "No score proves that an image is real or fake" in (page_folder() / "index.html").read_text()


@pytest.mark.slow
def test_no_path_of_this_machine_is_in_it() -> None:
    for path in page_folder().rglob("*"):
        if path.is_file():
            assert str(run_folder().parent).encode() not in path.read_bytes(), path.name


@pytest.mark.slow
def test_a_static_space_says_what_it_is_and_asks_for_isolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "page_files", lambda _: {"index.html": b"page", "files-1/app.js": b"script"})
    out = space.make_static_space("runs/x", "user/app", out=tmp_path / "space")
    assert sorted(path.relative_to(out).as_posix() for path in Path(str(out)).rglob("*") if path.is_file()) == [
        "README.md", "files-1/app.js", "index.html",
    ]  # fmt: skip
    head = yaml.safe_load((tmp_path / "space" / "README.md").read_text().split("---\n")[1])
    assert head["sdk"] == "static"
    assert head["custom_headers"]["cross-origin-embedder-policy"] == "require-corp"


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        make_page("any", tmp_path)


# --- the networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "resize"), [(32, None), (32, 40), (50, 77)])
def test_the_rule_of_an_image_processor_is_found(size: int, resize: int | None) -> None:
    processor = load_model("resnet", ["fake", "real"], image_size=size, resize=resize)[1]
    rule = Pixels.of(processor)
    assert (rule.height, rule.width, rule.edge, rule.kernel) == (size, size, resize or size, "bilinear")
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (71, 200, 3), dtype=np.uint8))
    wanted = processor(image, return_tensors="pt")["pixel_values"][0]
    found = torch.from_numpy(rule.levels(image)).permute(2, 0, 1)
    scale, offset = (torch.tensor(values).view(3, 1, 1) for values in (rule.scale, rule.offset))
    assert torch.allclose(found * scale + offset, wanted, atol=1e-4)


def test_both_sides_may_be_resized_at_once() -> None:
    processor = ViTImageProcessor(size={"height": 24, "width": 40}, resample=3)
    rule = Pixels.of(processor)
    assert (rule.edge, rule.resized, rule.kernel) == (None, (24, 40), "bicubic")


def test_a_processor_with_another_rule_is_refused() -> None:
    class Odd(ViTImageProcessor):
        def __call__(self, image: Image.Image, **options: object) -> object:
            return super().__call__(image.rotate(1), **options)

    with pytest.raises(UsageError, match="cannot resize images as this model's Odd does"):
        Pixels.of(Odd(size={"height": 24, "width": 24}))


def test_the_packed_bank_gives_nearly_the_same_distances() -> None:
    rng = np.random.default_rng(0)
    bank = np.maximum(rng.normal(size=(300, 64)), 0)
    known = fit_unfamiliar(bank, bank[:50] + 0.1)
    data = bank_bytes(known)
    scales = np.frombuffer(data[: 4 * 300], "<f4")
    rows = np.frombuffer(data[4 * 300 :], np.int8).reshape(300, 64) * scales[:, None]
    assert np.abs(rows - known.bank).max() <= np.abs(known.bank).max() / 254 + 1e-6


# --- onnxruntime-web ------------------------------------------------------------------------------------------------


def test_the_runtime_is_the_pinned_one_and_needs_no_network_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    find_runtime()  # fetched where the environment was set up
    monkeypatch.setattr(runtime, "_npm", lambda: pytest.fail("npm was asked again"))
    found = find_runtime()
    assert found[WASM].read_bytes()[:4] == b"\0asm"
    assert f"ONNX Runtime Web v{runtime.VERSION}" in found[SCRIPT].read_text()[:200]


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        archive.add(__file__, f"package/dist/{WASM}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(runtime.PACKAGE_ENV, str(package))
    with pytest.raises(UsageError, match="failed its checksum"):
        find_runtime()
    monkeypatch.setenv(runtime.PACKAGE_ENV, str(tmp_path / "missing.tgz"))
    with pytest.raises(UsageError, match="no file at"):
        find_runtime()
    assert list((tmp_path / "cache" / "bonaface").iterdir()) == []


def test_without_npm_or_a_network_the_hint_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="there is no npm") as caught:
        find_runtime()
    assert "pip install 'bonaface[page]'" in str(caught.value.hint)
    monkeypatch.setattr(runtime, "_npm", lambda: [sys.executable, "-c", "import sys; sys.exit('no network')"])
    with pytest.raises(UsageError, match=r"npm cannot fetch onnxruntime-web .*\(no network\)"):
        find_runtime()


def test_the_command_line_refuses_two_kinds_of_space_at_once() -> None:
    done = CliRunner().invoke(app, ["space", "x", "user/app", "--static", "--docker"])
    assert done.exit_code == 2
    assert "--static and --docker exclude each other" in done.output
