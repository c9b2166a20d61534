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
    "fake", "fakes", "generated", "ai_generated", "ai", "aigc", "synthetic", "synthesis", "synthesized", "synthesised",
    "artificial",
    "deepfake", "deepfakes", "deep_fake", "deep_fakes", "forged", "manipulated", "spoof",
})
SET_WORDS = frozenset({"set", "dataset", "data", "split", "files", "images", "imgs", "pictures", "faces", "frames"})
FILLERS = frozenset({
    "image", "images", "img", "imgs", "picture", "pictures", "photos", "face", "faces", "frame", "frames", "video",
    "videos", "sequences", "samples", "data", "class", *SPLIT_NAMES,
})
# fmt: on


def said_by(name: str) -> Literal["real", "fake", ""]:
    """What a name says about the images under it: case, digits and words such as ``images`` are passed over."""
    plain = _plain(name)
    return "real" if plain in REAL_NAMES else "fake" if plain in FAKE_NAMES else ""


def leaning(name: str) -> Literal["real", "fake", ""]:
    """What the first or last word of a name says where the whole does not: ``Celeb-real``, ``fake_sdxl``."""
    words = [word for word in _words(name) if word not in FILLERS]
    sides = {side for word in (words[:1] + words[-1:]) if (side := said_by(word))}
    return said_by(name) or (sides.pop() if len(sides) == 1 else "")


def split_within(name: str) -> str:
    """The split that a word of a label's folder names, as in ``train_real``; "" where none or several do."""
    splits = {SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else ""


def split_named(name: str) -> str:
    """The split that a folder or a cell names, under any usual name (``val``, ``train_1``, ``Test Set``); else ""."""
    words = [word for word in _words(name) if word not in SET_WORDS]
    return SPLIT_NAMES.get(words[0], "") if len(words) == 1 else ""


def is_filler(name: str) -> bool:
    """``images``, ``data``: a name that says no more than that images are below it; a split says more."""
    words = _words(name)
    return bool(words) and all(word in FILLERS | SET_WORDS for word in words) and not split_within(name)


def find_real_label(labels: Sequence[str], real_label: str | None = None, *, origin: str = "the data") -> str:
    """The label that means "real": the given one, else the only one with such a name (see :func:`said_by`).

    Raises:
        RealLabelError: the given label is not there, or no name (or more than one) says "real".
    """
    if real_label is not None:
        if real_label in labels:
            return real_label
        raise RealLabelError(f"{origin} has no label `{real_label}`", f"choose one of {', '.join(labels)}")
    found = [label for label in labels if said_by(label) == "real"]
    if len(found) == 1:
        return found[0]
    several = found or [label for label in labels if leaning(label) == "real"]
    raise RealLabelError(
        f"cannot tell which label of {origin} is that of real images: {', '.join(labels)}",
        f"merge {' and '.join(several)} under one name, such as real; every other label means fake"
        if len(several) > 1
        else "name it with --real-label",
    )


def _plain(name: str) -> str:
    words = _words(name)
    return "_".join([word for word in words if word not in FILLERS] or words)


def _words(name: str) -> list[str]:
    """``RealFaces_2``: real, faces."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z\d])", "_", name).casefold()
    return [word for word in re.split(r"[\W_]+", apart) if word and not word.isdigit()]
