"""What the names of folders, labels and splits say: real, fake, or a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from bonaface.errors import RealLabelError

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# fmt: off
REAL_NAMES = frozenset({
    "real", "reals", "bonafide", "genuine", "authentic", "original", "originals", "photo", "photograph", "photographs",
    "photos", "natural", "nature", "pristine",
})
FAKE_NAMES = frozenset({
    "fake", "fakes", "generated", "ai_generated", "ai", "aigc", "synthetic", "synthesized", "synthesised", "artificial",
    "deepfake", "deepfakes", "deep_fake", "deep_fakes", "forged", "manipulated", "spoof",
})
FILLERS = frozenset({
    "image", "images", "img", "imgs", "picture", "pictures", "photos", "face", "faces", "frame", "frames", "video",
    "videos", "sequences", "samples", "data", "class", *SPLIT_NAMES,
})
# fmt: on


def said_by(name: str) -> Literal["real", "fake", ""]:
    """What a name says about the images under it: case, digits and words such as ``images`` are passed over."""
    plain = _plain(name)
    return "real" if plain in REAL_NAMES else "fake" if plain in FAKE_NAMES else ""


def split_named(name: str) -> str:
    """The split that a folder or a cell names, under any usual name; "" where it names none."""
    return SPLIT_NAMES.get(name.strip().casefold(), "")


def find_real_label(labels: Sequence[str], real_label: str | None = None, *, origin: str = "the data") -> str:
    """The label that means "real": the given one, else the only one with such a name (see :func:`said_by`).

    Raises:
        RealLabelError: the given label is not there, or no name (or more than one) says "real".
    """
    if real_label is not None:
        if real_label in labels:
            return real_label
        raise RealLabelError(f"{origin} has no label `{real_label}`", f"its labels are: {', '.join(labels)}")
    found = [label for label in labels if said_by(label) == "real"]
    if len(found) != 1:
        raise RealLabelError(
            f"cannot tell which label of {origin} is that of real images: {', '.join(labels)}",
            f"merge {' and '.join(found)} under one name; every other label means fake"
            if found
            else "name it with --real-label",
        )
    return found[0]


def _plain(name: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()  # RealFaces
    words = [word for word in re.split(r"[\W_]+", apart) if word and not word.isdigit()]
    return "_".join([word for word in words if word not in FILLERS] or words)
