"""A model -> a static folder that judges images in the visitor's browser, as :class:`Detector` does.

``index.html`` and the service worker lie at the top; all else lies in a folder that is named by its contents, so that a
browser never mixes two versions. ``facts.json`` says what the model is, how it sees and what its scores have meant, and
names every file with its SHA-256. Its self-test holds drawn portraits with what the detector makes of them: a browser
that finds something else refuses to judge.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bonaface import __version__
from bonaface.data.sample import SampleSpec, make_image
from bonaface.hub.pack import refuse_existing, write_folder
from bonaface.imaging import FACE_MARGIN
from bonaface.imaging.faces import (
    FIRST_LOOK,
    SECOND_LOOK,
    SMALLEST_LOOK,
    TINY_FACE,
    YUNET_ENV,
    YUNET_REPO,
    FaceDetector,
    find_yunet,
)
from bonaface.imaging.images import MAX_BYTES, MAX_PIXELS
from bonaface.inference.detector import Detector
from bonaface.inference.reader import (
    COMPRESSED,
    CROP_SHARE,
    CROP_SIDE,
    HUGE,
    LARGEST_ASPECT,
    LOW_QUALITY,
    MAX_FACES,
    NO_FACE,
    SMALL,
    SMALL_SIDE,
)
from bonaface.models.drawings import WARNING as DRAWINGS_ONLY
from bonaface.models.weights import weights_digest
from bonaface.page.network import Pixels, bank_bytes, face_network, network_bytes
from bonaface.page.runtime import SCRIPT, WASM, find_runtime
from bonaface.page.words import STATIC, index_html, sentences, style_sheet

SCRIPTS = ("*.js", "*.txt", "*.svg")
# With these, which a plain file server does not send, a browser runs the networks on several threads from the first
# visit on; without, from the second on, when the service worker adds them.
HEADERS = {"cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin"}
TOLERANCE = 4e-3  # of a logit: the slope of a probability is at most 1/4
FACE_TOLERANCE = 2.0  # pixels


@dataclass(frozen=True)
class StaticPage:
    """What was written where."""

    folder: Path
    sizes: Mapping[str, int]  # bytes of each file
    finds_faces: bool

    def __str__(self) -> str:
        total = sum(self.sizes.values()) / 1e6
        missing = f"; without a face detector, whose weights were not found: set {YUNET_ENV} to a copy of {YUNET_REPO}"
        return f"{self.folder}: {len(self.sizes)} files, {total:.1f} MB{'' if self.finds_faces else missing}"


def make_page(model: str, out: Path) -> StaticPage:
    """Write the page of a model folder or Hub id.

    Raises:
        UsageError: ``out`` is not empty, the model cannot be loaded or exported, its image processor is not one that
            the page can repeat, or onnxruntime-web is missing.
    """
    refuse_existing(out)
    files = page_files(model)
    write_folder(out, files)
    sizes = {name: len(content) for name, content in files.items()}
    return StaticPage(out, sizes, any(name.endswith("/faces.bin") for name in files))


def page_files(model: str) -> dict[str, bytes]:
    """The page's files by their names. Raises as :func:`make_page`."""
    runtime = find_runtime()
    detector = Detector.from_pretrained(model, device="cpu", engine="torch")
    yunet = find_yunet() if detector.facts.face_margin is not None else None
    files = {path.name: path.read_bytes() for pattern in SCRIPTS for path in sorted(STATIC.glob(pattern))}
    service_worker = files.pop("sw.js")
    files |= {
        "style.css": style_sheet().encode(),
        "ort.js": runtime[SCRIPT].read_bytes(),
        "runtime.bin": _packed(runtime[WASM].read_bytes()),
        "network.bin": _packed(network_bytes(detector)),
    }
    if yunet:
        files["faces.bin"] = _packed(face_network(yunet))
    if detector.unfamiliar:
        files["bank.bin"] = _packed(bank_bytes(detector.unfamiliar))
    tests = _self_tests(detector, faces=bool(yunet))
    files |= {name: image for name, image, _ in tests}
    name = Path(model).resolve().name if Path(model).is_dir() else model
    facts = _facts(detector, name, [{"file": name, **wanted} for name, _, wanted in tests])
    facts["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    facts["sizes"] = {name: len(content) for name, content in sorted(files.items())}
    files["facts.json"] = json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()
    folder = f"files-{_digest(files)[:12]}"
    megabytes = sum(map(len, files.values())) / 1e6
    html = index_html(
        detector,
        name,
        folder,
        megabytes=megabytes,
        weights=facts["weights"],
        version=__version__,
        finds_faces=bool(yunet),
    )
    placed = {f"{folder}/{name}": content for name, content in files.items()}
    return {"index.html": html.encode(), "sw.js": service_worker, **placed}


def _facts(detector: Detector, name: str, tests: list[dict[str, Any]]) -> dict[str, Any]:
    facts, known = detector.facts, detector.unfamiliar
    calibration = facts.calibration if facts.calibration and not facts.calibration.folded else None
    assert detector.folder is not None  # it was loaded from there
    margin = FACE_MARGIN if facts.face_margin is None else facts.face_margin
    return {
        "name": name,
        "version": __version__,
        "weights": weights_digest(detector.folder)[:16],
        "labels": detector.labels,
        "real": detector.real_index,
        "sigmoid": detector.uses_sigmoid,
        "calibration": calibration and {"bias": calibration.bias, "temperature": calibration.temperature},
        "band": detector.band,
        "bank": known and {"rows": len(known.bank), "neighbour": known.neighbour, "threshold": known.threshold},
        "drawings_only": detector.knows_only_drawings,
        "searches": facts.face_margin is not None,
        "margin": margin,
        "pixels": asdict(Pixels.of(detector.processor)),
        "reader": {
            "crop_side": CROP_SIDE, "crop_share": CROP_SHARE, "max_faces": MAX_FACES, "tiny_face": TINY_FACE,
            "small_side": SMALL_SIDE, "low_quality": LOW_QUALITY, "largest_aspect": LARGEST_ASPECT, "huge": HUGE,
            "max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES,
            "looks": [SMALLEST_LOOK, FIRST_LOOK, SECOND_LOOK],
        },
        "warnings": {"drawings": DRAWINGS_ONLY, "no_face": NO_FACE, "small": SMALL, "compressed": COMPRESSED},
        "words": sentences(detector, detector.folder),
        "self_test": {"images": tests, "tolerance": TOLERANCE, "face_tolerance": FACE_TOLERANCE},
    }  # fmt: skip


def _self_tests(detector: Detector, faces: bool) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Small images with what the detector makes of them: portraits, and one in a large image, whose face is cut out."""
    spec = SampleSpec(3, size=160, seed=0)
    portraits = [Image.open(io.BytesIO(make_image(spec, i)[1])).convert("RGB") for i in range(spec.n)]
    wide = Image.new("RGB", (560, 420), (120, 130, 140))
    wide.paste(portraits.pop(), (77, 131))
    finder = FaceDetector(kind="yunet") if faces else None
    found = []
    for number, image in enumerate([*portraits, wide]):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        item = detector.reader.read([buffer.getvalue()], None if faces else False)[0]
        outputs = detector.run(item.pixels)
        wanted = {
            "pixels": hashlib.sha256(image.tobytes()).hexdigest(),
            "faces": [face.box for face in finder.detect(image)] if finder else [],
            "boxes": item.boxes,
            "logits": np.asarray(outputs.logits, dtype=float).tolist(),
        }
        found.append((f"test-{number}.png", buffer.getvalue(), wanted))
    return found


def _packed(data: bytes) -> bytes:
    """As gzip; under a name that no server takes for one, so that it arrives as it is."""
    return gzip.compress(data, 9, mtime=0)


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(name.encode() + hashlib.sha256(content).digest())
    return whole.hexdigest()
