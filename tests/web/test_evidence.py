"""Evidence to take away says what was judged, by what, and how sure that is, and shows nothing that was left out."""

from __future__ import annotations

import hashlib
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter
from served import HOSTILE, noise, run_folder
from signing import signed, some_authority
from typer.testing import CliRunner

from bonaface import __version__
from bonaface.cli.main import app
from bonaface.inference.detector import Detector
from bonaface.provenance.trust import VARIABLE
from bonaface.web import evidence
from bonaface.web.evidence import Case, Origin, write_evidence
from bonaface.web.evidence_card import HEIGHT, WIDTH
from bonaface.web.judge import Judge
from bonaface.web.limits import Limits
from bonaface.web.one import provenance_html
from bonaface.web.uploads import Upload
from bonaface.web.wording import Wording


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(run_folder())


@pytest.fixture(scope="module")
def photograph() -> bytes:
    """A dark image, which the tiny model calls fake, of a camera with a hostile name."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", f"EOS {HOSTILE}"
    buffer = io.BytesIO()
    Image.fromarray(noise(1, dark=True)).save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    return buffer.getvalue()


def written(detector: Detector, data: bytes, folder: Path, *, with_image: bool = True) -> tuple[str, Image.Image]:
    case = Case.of(detector, f"{HOSTILE}.jpg", data, detector([data])[0])
    origin = Origin.of(detector, run_folder(), f"{HOSTILE}{'W' * 200}")
    page, card = write_evidence(case, Wording(detector, run_folder()), origin, folder, with_image=with_image)
    return page.read_text(encoding="utf-8"), Image.open(card)


def test_the_page_names_the_image_the_model_the_verdict_its_worth_and_the_limits(
    detector: Detector, photograph: bytes, tmp_path: Path
) -> None:
    page, card = written(detector, photograph, tmp_path)
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    assert hashlib.sha256(photograph).hexdigest() in text
    for said in (
        "AI-generated",
        "such verdicts",
        "that scored like this were generated",
        "calibration images that scored like this",
        "This map is ",
        "Hiding",
        "Canon EOS",
        __version__,
        detector.facts.data_fingerprint,
        "No score proves that an image is real or fake.",
        "UTC",
    ):
        assert said in text, said
    assert card.size == (WIDTH, HEIGHT)
    assert card.format == "PNG"


def test_the_page_loads_nothing_and_strangers_text_stays_text(
    detector: Detector, photograph: bytes, tmp_path: Path
) -> None:
    page, _ = written(detector, photograph, tmp_path)
    assert page.count("&lt;img src=x") >= 3  # file, camera, model
    assert "<img src=x" not in page
    assert "default-src 'none'" in page
    addresses = re.findall(r'<[^>]*(?:src|href)="([^"]+)', page)
    assert len(addresses) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "url(" not in page
    assert "<script" not in page
    assert "<link" not in page


def test_an_image_that_is_left_out_leaves_its_hash_and_no_pixel(
    detector: Detector, photograph: bytes, tmp_path: Path
) -> None:
    """Two images that differ in what cannot be seen of a heat map give pages that differ in their hash alone."""
    page, card = written(detector, photograph, tmp_path, with_image=False)
    assert page.count("data:image") == 1
    assert HOSTILE not in html.unescape(page).split("What the file says")[0]  # the file's name
    assert hashlib.sha256(photograph).hexdigest() in page
    case = Case.of(detector, "a.jpg", photograph, detector([photograph])[0])
    shown = np.asarray(card.convert("RGB"), dtype=float)[40:340, 40:340]
    pixels = np.asarray(case.heat.image.resize((300, 300)), dtype=float)
    heat = np.asarray(Image.fromarray(case.heat.heat).resize((300, 300)))
    unmarked = maximum_filter(heat, 25) < 0.002  # the drawn map is smoother than this one
    assert unmarked.any()
    assert np.ptp(shown[unmarked], axis=0).max() < 12  # plain grey, where the image is noise
    assert np.ptp(pixels[unmarked], axis=0).max() > 40


def test_content_credentials_are_named_with_the_list_that_knows_the_signer(
    detector: Detector, photograph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the page to keep, and beside the verdict."""
    data = signed(photograph)
    page, _ = written(detector, data, tmp_path)
    assert "Content credentials (C2PA): <b>signed by somebody unknown</b>." in page
    (tmp_path / "anchors.pem").write_bytes(some_authority().pem)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "anchors.pem"))
    page, _ = written(detector, data, tmp_path)
    assert "<b>signed and trusted</b>, by the trust list anchors.pem of 2" in page
    judge = Judge(str(run_folder()), Limits())
    beside = provenance_html(judge, Upload("a.jpg", data=data))
    assert "Content credentials (C2PA): <b>signed and trusted</b>." in beside
    assert "created by a trained model" in beside


def test_predict_writes_evidence_of_every_image_that_it_could_read(photograph: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(photograph)
    Image.fromarray(noise(2, dark=False)).save(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "c.jpg").write_bytes(b"no image")
    words = ["predict", str(tmp_path / "in"), "--model", str(run_folder()), "--evidence", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "scores.csv")])
    assert result.exit_code == 0, result.output
    digests = [hashlib.sha256((tmp_path / "in" / name).read_bytes()).hexdigest()[:12] for name in ("a.jpg", "b.png")]
    expected = {f"bonaface-{digest}.{kind}" for digest in digests for kind in ("html", "png")}
    assert {file.name for file in (tmp_path / "out").iterdir()} == expected
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 4
    refused = CliRunner().invoke(app, [*words, "--engine", "ray"])
    assert refused.exit_code == 2
    assert "--evidence needs the model on this machine" in refused.output


def test_the_heat_map_explains_the_score_as_it_was_asked_for(
    detector: Detector, photograph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole image with ``--no-faces``, where a face's map would explain another score."""
    asked = []
    monkeypatch.setattr(
        evidence, "explain", lambda *a, faces, explain=evidence.explain: asked.append(faces) or explain(*a)
    )
    (tmp_path / "a.jpg").write_bytes(photograph)
    write = evidence.EvidenceFolder(tmp_path / "out", str(run_folder()), faces=False)
    write(detector, str(tmp_path / "a.jpg"), detector([photograph], faces=False)[0])
    assert asked == [False]
