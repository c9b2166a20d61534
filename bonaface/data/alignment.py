"""One raw file -> one aligned face crop: the same framing, size and encoding history for every class."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bonaface.data.listing import image_bytes, whole_reason
from bonaface.data.scan import scan_bytes
from bonaface.errors import UsageError
from bonaface.files import write_bytes
from bonaface.imaging import FACE_MARGIN
from bonaface.imaging.degradations import common_history, encode_jpeg, random_kernel
from bonaface.imaging.faces import FaceDetector, crop_face, face_square, find_main_face
from bonaface.imaging.images import ImageError, decode_image

SIZE_RANGE = (128, 160)


@dataclass(frozen=True)
class Alignment:
    """What the bytes of an aligned file depend on, besides the raw file and the face detector."""

    seed: int = 0
    size_range: tuple[int, int] = SIZE_RANGE  # side of the crops in pixels, both ends included
    quality_range: tuple[int, int] = (75, 95)  # JPEG quality, both ends included
    margin: float = FACE_MARGIN  # around the face box, on each side, as a share of the box

    def __post_init__(self) -> None:
        for name, (low, high), (least, most) in (
            ("size_range", self.size_range, (16, 4096)),
            ("quality_range", self.quality_range, (1, 100)),
        ):
            if not least <= low <= high <= most:
                raise UsageError(
                    f"{name} {low} to {high} is not a range within {least} to {most}",
                    "give the lower number first",
                )
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative", "choose 0 or more")
        if not 0 <= self.margin <= 2:
            raise UsageError(
                f"margin {self.margin} is not in [0, 2]",
                "choose from 0 to 2: 0.15 adds 15 % of the face box on each side",
            )

    def apply(self, crop: Image.Image, path: str) -> tuple[bytes, int, int]:
        """A square RGB crop of any size -> JPEG file, its side in pixels, its quality.

        Every draw depends on ``path`` and the seed alone, so classes cannot differ in them.
        """
        rng = np.random.default_rng(_seed(self.seed, path))
        crop = common_history(crop, int(rng.integers(2**63)), quality=self.quality_range)
        side = int(rng.integers(self.size_range[0], self.size_range[1] + 1))
        quality = int(rng.integers(self.quality_range[0], self.quality_range[1] + 1))
        square = min(crop.size)  # the history cuts a few rows and columns
        crop = crop.resize((side, side), random_kernel(rng), box=(0, 0, square, square))
        return encode_jpeg(crop, quality), side, quality


def _seed(seed: int, path: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{path}".encode(errors="surrogateescape")).digest()[:7], "big")


def _out_name(label: str, source: str, split: str, path: str) -> str:
    """A file name that is safe on any system, says where the file came from, and is unique."""

    def plain(text: str) -> str:
        return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._")[:80] or "_"

    mark = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:8]
    parts = [split] * bool(split) + [plain(label), plain(source), f"{plain(Path(path).stem)}-{mark}.jpg"]
    return "/".join(parts)


def prepare_file(
    row: Mapping[str, Any], alignment: Alignment, detector: FaceDetector | None, out: Path, scratch: Path
) -> dict[str, Any]:
    """Read, crop, align and write one file; its journal record, or the reason why there is none."""
    path = row["path"]
    try:
        data = image_bytes(row["image"])
        image = decode_image(data, name=path)
        scan = scan_bytes(data, path, image)
    except ImageError as error:
        return {"path": path, "dropped": whole_reason(error, row["image"], path)}
    face = find_main_face(image, detector.detect(image) if detector else [])
    crop = crop_face(image, face_square(image, face, alignment.margin), margin=0.0)
    encoded, side, quality = alignment.apply(crop, path)
    name = _out_name(row["label"], row["source"], row["split"], path)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out / name, encoded, scratch)
    return {
        "path": path,
        "file_name": name,
        **scan.to_json(),
        "face": face.status,
        "face_score": round(face.score, 4),
        "n_faces": face.n_faces,
        "face_box": [round(float(v), 1) for v in face.box],
        "crop_side": crop.width,
        "side": side,
        "quality": quality,
    }
