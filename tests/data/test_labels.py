"""Names of folders and labels say real, fake or a split, however people spell them."""

from __future__ import annotations

import pytest

from bonaface.data.labels import find_real_label, said_by, split_named
from bonaface.errors import UsageError


@pytest.mark.parametrize(
    ("says", "names"),
    [
        (
            "real",
            ["real", "0_real", "REAL", "Real Images", "train_real", "RealFaces", "original_sequences", "photos"],
        ),
        ("fake", ["fake", "1_fake", "ai", "AI-generated", "DeepFakes", "synthetic images"]),
        ("", ["progan", "real_vs_fake", "cat", "train", "faces", "0", "realesrgan", "", "…"]),
    ],
)
def test_what_a_name_says(says: str, names: list[str]) -> None:
    assert [said_by(name) for name in names] == [says] * len(names)


def test_splits_under_any_usual_name() -> None:
    assert [split_named(name) for name in ("Train", " val ", "dev", "testing", "x_dev")] == [
        "train", "validation", "validation", "test", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "real"),
    [
        (["fake", "real"], "real"),
        (["0_real", "1_fake"], "0_real"),
        (["AI", "Genuine"], "Genuine"),
        (["gan", "diffusion", "bonafide"], "bonafide"),
        (["real_images", "fake_images"], "real_images"),
    ],
)
def test_the_real_label_is_found_by_its_name(labels: list[str], real: str) -> None:
    assert find_real_label(labels) == real


def test_the_real_label_can_be_named_and_is_never_guessed() -> None:
    assert find_real_label(["a", "b"], "b") == "b"
    with pytest.raises(UsageError, match="which label"):
        find_real_label(["a", "b"])
    with pytest.raises(UsageError, match="which label") as caught:
        find_real_label(["real", "authentic", "fake"])
    assert "--real-label" not in caught.value.hint  # it would call the photographs of the other name fake
    with pytest.raises(UsageError, match="no label `c`"):
        find_real_label(["a", "b"], "c")
