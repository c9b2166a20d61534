"""What reads bytes of strangers, as functions of bytes: each gives a result or one of the errors that it documents."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin

from bonaface.data.dialects import read_table
from bonaface.data.listing import list_data
from bonaface.errors import UsageError
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import ImageError, decode_image
from bonaface.inference.journal import Inputs, Journal
from bonaface.models.facts import ModelFacts
from bonaface.provenance.read import read_provenance
from bonaface.training.calibrate import read_unseen
from bonaface.training.recipe import read_recipe
from bonaface.video import animations, films
from bonaface.video.frames import Sampling
from bonaface.video.opening import open_clip
from bonaface.web.archives import ArchiveError, unpack
from bonaface.web.limits import Limits

MAX_PIXELS = 1_000_000  # so that an input takes milliseconds
ROOM = Path(tempfile.mkdtemp(prefix="bonaface-fuzz-"))


@dataclass(frozen=True)
class Target:
    """A reader and valid inputs to begin with; ``read`` raises nothing but what is a fault."""

    read: Callable[[bytes], Any]
    seeds: Callable[[], list[bytes]]


def _file(name: str, data: bytes) -> Path:
    path = ROOM / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- images ----------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> None:
    """Pixels of an image: RGB within the limit, or an ImageError."""
    with suppress(ImageError):
        image = decode_image(data, max_pixels=MAX_PIXELS)
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= MAX_PIXELS


def header(data: bytes) -> None:
    """Facts of an image's header, or an ImageError."""
    with suppress(ImageError):
        facts = inspect_image(data)
        assert min(facts.width, facts.height) > 0
        assert facts.n_bytes == len(data)


def provenance(data: bytes) -> None:
    """What a file says of its origin, or an ImageError; unsigned bytes never read as signed."""
    with suppress(ImageError):
        json.dumps([str(line) for line in read_provenance(data).lines()])


def images() -> list[bytes]:
    """Small files of every format that Pillow writes, with metadata."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 17, 3), dtype=np.uint8)
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a face\nSteps: 20, Sampler: Euler")
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"exif": exif, "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", "progressive": True},
        "PNG": {"pnginfo": text, "exif": exif}, "WEBP": {"exif": exif}, "GIF": {}, "BMP": {}, "TIFF": {}, "AVIF": {},
    }  # fmt: skip
    found = []
    for name, settings in options.items():
        buffer = io.BytesIO()
        picture.save(buffer, name, **settings)
        found.append(buffer.getvalue())
    return found


def clip(data: bytes) -> None:
    """Frames of a video or an animation, in the order of time and within the limits, or an ImageError."""
    path = str(_file("clip.bin", data))
    with (
        patch.object(animations, "MAX_PIXELS", MAX_PIXELS),
        patch.object(animations, "MOST_DECODED", 4 * MAX_PIXELS),
        patch.object(films, "MAX_PIXELS", MAX_PIXELS),
        suppress(ImageError),
        open_clip(path, Sampling(most=8)) as opened,
    ):
        times = [frame.time for frame in opened.frames()]
        assert times == sorted(times)
        assert len(times) <= opened.n <= 8


def clips() -> list[bytes]:
    """Small animations, and videos in two containers."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
    frames, found = [Image.fromarray(frame) for frame in pixels], []
    for name in ("GIF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        frames[0].save(buffer, name, save_all=True, append_images=frames[1:], duration=40)
        found.append(buffer.getvalue())
    for suffix in ("mp4", "mkv"):
        path = ROOM / f"seed.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
        found.append(path.read_bytes())
    return found


# --- what the app and the commands are given -------------------------------------------------------------------------


def archive(data: bytes) -> None:
    """An uploaded zip: entries below the folder made for it and within the limits, or an ArchiveError."""
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        limits = Limits(files=20, unpacked_bytes=1_000_000)
        with suppress(ArchiveError):
            for entry in unpack(_file("upload.zip", data), Path(folder), limits):
                assert entry.path is None or entry.path.parent == Path(folder)
        assert sum(path.stat().st_size for path in Path(folder).rglob("*")) <= 2 * limits.unpacked_bytes


def archives() -> list[bytes]:
    """Zips, stored and packed, with a folder and a zip inside."""
    found = []
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", packing) as file:
            file.writestr("a/b.png", images()[1])
            file.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
        found.append(buffer.getvalue())
    return found


def table(data: bytes) -> None:
    """A table of splits: rows of text, or a UsageError."""
    with suppress(UsageError):
        for row in read_table(_file("splits.csv", data), {"path": ("file",), "split": ()}):
            assert all(isinstance(cell, str) for cell in row.values())


def tables() -> list[bytes]:
    """The dialects of spreadsheets."""
    text = 'path,split\nreal/a.jpg,train\n"fake/b, c.jpg",test\n'
    return [text.encode(), text.replace(",", ";").encode("utf-16"), text.encode("utf-8-sig"), b"sep=;\npath;split\na;b"]


def metadata(name: str) -> Callable[[bytes], None]:
    """A data folder with such a metadata file: a listing, or a UsageError."""

    def read(data: bytes) -> None:
        folder = ROOM / name
        for image in ("a.jpg", "b.jpg"):
            if not (folder / image).is_file():
                _file(f"{name}/{image}", images()[0])
        _file(f"{name}/{name}", data)
        with suppress(UsageError):
            list_data(folder, check="none")

    return read


def metadata_lines() -> list[bytes]:
    """JSON lines."""
    rows = [{"file_name": "a.jpg", "label": "real"}, {"file_name": "b.jpg", "label": "fake", "source": "sd"}]
    return ["\n".join(map(json.dumps, rows)).encode()]


def recipe(data: bytes) -> None:
    """A recipe of a stranger: settings, or a UsageError."""
    with suppress(UsageError):
        read_recipe([str(_file("recipe.yaml", data)), "--output_dir", str(ROOM / "run")])


def recipes() -> list[bytes]:
    """Every recipe that ships."""
    return [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))]


def predictions(data: bytes) -> None:
    """The table that calibrates on unseen sources: its rows, or a UsageError."""
    with suppress(UsageError):
        rows = read_unseen(_file("predictions.parquet", data), ["fake", "real"])
        assert rows["fold"].nunique() > 1


def prediction_tables() -> list[bytes]:
    """A table of two folds."""
    rows = pd.DataFrame({
        "fold": ["a", "a", "b", "b"], "source": list("wxyz"), "label": ["real", "fake"] * 2,
        "p_fake": [0.1, 0.9, 0.2, 0.8], "p_real": [0.9, 0.1, 0.8, 0.2],
    })  # fmt: skip
    return [rows.to_parquet(), rows.to_parquet(compression=None)]


def facts(data: bytes) -> None:
    """The block of a model's config.json: facts that survive being written and read, or a UsageError."""
    with suppress(ValueError, RecursionError):  # of JSON itself, which transformers reads before we do
        block = json.loads(data)
        with suppress(UsageError):
            known = ModelFacts.from_block(block)
            assert ModelFacts.from_block(known.to_block()) == known


def facts_blocks() -> list[bytes]:
    """The shipped model's."""
    config = json.loads((Path(__file__).parents[2] / "models" / "bonaface-small" / "config.json").read_text())
    block = config["bonaface"]
    block.pop("train_sources", None)
    return [json.dumps(block).encode(), b'{"version": 1, "real_label": "real"}']


def journal(data: bytes) -> None:
    """The journal of a scoring run that was killed: what is whole of it, or a UsageError."""
    with suppress(UsageError), Inputs(["a.jpg", "b.jpg", "c.jpg"]) as inputs:
        path = _file("journal", data)
        with Journal(path, {"batch_size": 2, "model": "m"}) as log:
            whole = log.resume(inputs, 2)
        assert whole in (0, 2, 3)
        assert len([*Journal(path, {}).records()]) == whole
        assert [*Journal(path, {}).rows()] or not whole or b'"rows"' in data


def journals() -> list[bytes]:
    """A head and two rows, and one that was cut off."""
    lines = [json.dumps({"batch_size": 2, "model": "m"}), *(json.dumps({"path": f"{name}.jpg"}) for name in "ab")]
    text = "".join(f"{line}\n" for line in lines).encode()
    return [text, text + b'{"path": "c.']


TARGETS = {
    "decode": Target(decode, images),
    "header": Target(header, images),
    "provenance": Target(provenance, images),
    "clip": Target(clip, clips),
    "archive": Target(archive, archives),
    "table": Target(table, tables),
    "metadata.csv": Target(metadata("metadata.csv"), lambda: [b"file_name,label\na.jpg,real\nb.jpg,fake\n"]),
    "metadata.jsonl": Target(metadata("metadata.jsonl"), metadata_lines),
    "recipe": Target(recipe, recipes),
    "predictions": Target(predictions, prediction_tables),
    "facts": Target(facts, facts_blocks),
    "journal": Target(journal, journals),
}
