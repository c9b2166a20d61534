"""Near duplicates: copies are found whatever was done to them, different images are not, and no pair is missed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from scipy.fft import idctn

from bonaface.data.duplicates import (
    _MIRROR,
    SIDE,
    SIMILARITY,
    _close_pairs,
    duplicate_groups,
    file_thumbnail,
    near_duplicate_groups,
    near_duplicates,
    perceptual_hashes,
    similarity,
    thumbnail,
)
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import ImageError, load_image


def pictures(n: int, seed: int = 0, size: int = 160) -> list[Image.Image]:
    """Random images whose spectrum falls like that of photographs."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:size, :size]
    found = []
    for _ in range(n):
        waves = rng.standard_normal((size, size, 3)) / (1 + np.hypot(u, v))[:, :, None] ** 1.5
        waves[0, 0] = 0
        levels = idctn(waves, axes=(0, 1), norm="ortho")
        found.append(Image.fromarray((128 + 45 * levels / levels.std()).clip(0, 255).astype(np.uint8)))
    return found


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def recompressed(image: Image.Image, quality: int = 40) -> Image.Image:
    return Image.open(io.BytesIO(saved(image, quality=quality))).convert("RGB")


def cropped(image: Image.Image, share: float = 0.02) -> Image.Image:
    """Two per cent of width and height are cut off, all at one side of each."""
    return image.crop((round(image.width * share), 0, image.width, round(image.height * (1 - share))))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((image.width * 2 // 5, image.height * 2 // 5), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BICUBIC),
    "recompressed": recompressed,
    "cropped": cropped,
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: image.point(lambda level: round(0.85 * level + 25)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "all at once": lambda image: recompressed(cropped(ImageOps.mirror(image)).resize((128, 128)), 50),
}


def recall(originals: list[Image.Image], copy: Callable[[Image.Image], Image.Image]) -> tuple[float, int]:
    """Share of the copies that ended up in their original's group, and links between anything else."""
    n = len(originals)
    links = near_duplicates(np.stack([thumbnail(i) for i in [*originals, *map(copy, originals)]]))
    groups = duplicate_groups(2 * n, links.first, links.second)
    wrong = sum(int(a) % n != int(b) % n for a, b in zip(links.first, links.second, strict=True))
    return float(np.mean(groups[:n] == groups[n:])), wrong


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_nothing_else(kind: str) -> None:
    share, wrong = recall(pictures(80), COPIES[kind])
    assert share >= 0.97
    assert wrong == 0


@pytest.mark.faces
@pytest.mark.parametrize("kind", ["smaller", "recompressed", "cropped", "mirrored", "all at once"])
def test_copies_of_faces_are_found(faces_dir: Path, kind: str) -> None:
    """Faces resemble each other far more than random images do."""
    paths = [path for folder in sorted(faces_dir.glob("*/*/")) for path in sorted(folder.iterdir())[:12]]
    share, wrong = recall([load_image(path) for path in paths], COPIES[kind])
    assert share >= 0.97
    assert wrong == 0


def test_a_link_says_whether_it_is_mirrored() -> None:
    first, second = pictures(2)
    links = near_duplicates(np.stack([thumbnail(i) for i in (first, second, ImageOps.mirror(first), second)]))
    assert sorted(zip(*links[:2], links.mirrored, strict=True)) == [(0, 2, True), (1, 3, False)]
    assert (links.similarity >= SIMILARITY).all()


def test_mirrored_hashes_are_those_of_mirror_images() -> None:
    thumbnails = np.stack([thumbnail(image) for image in pictures(50)])
    mirrored = perceptual_hashes(thumbnails[:, :, ::-1])
    distance = np.bitwise_count(mirrored ^ perceptual_hashes(thumbnails) ^ _MIRROR)
    assert distance.max() <= 1  # a coefficient of nearly 0 may fall on either side


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(2, 120))
def test_every_pair_within_the_radius_is_found_once(seed: int, radius: int, n: int) -> None:
    """Against the comparison of all pairs, on hashes that crowd around a few."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 4, dtype=np.uint64, endpoint=False)
    noise = np.packbits(rng.random((n, 64)) < 0.1, axis=1).view(np.uint64)[:, 0]
    hashes = centres[rng.integers(0, 4, n)] ^ noise
    for mirrored in (False, True):
        others = hashes ^ _MIRROR if mirrored else hashes
        apart = np.bitwise_count(hashes[:, None] ^ others[None, :])
        wanted = {(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(apart <= radius, 1)), strict=True)}
        found = [
            tuple(sorted((int(x), int(y))))
            for a, b, m in _close_pairs(hashes, radius)
            if m == mirrored
            for x, y in zip(a, b, strict=True)
        ]
        assert len(found) == len(set(found))
        assert set(found) == wanted


def test_many_copies_of_one_image_cost_as_many_links() -> None:
    """Not as many as there are pairs, which would be 4.5 million."""
    image, other = (thumbnail(picture) for picture in pictures(2))
    noise = np.random.default_rng(0).integers(-2, 3, (3000, SIDE, SIDE))
    copies = (image[None] + noise).clip(0, 255).astype(np.uint8)
    links = near_duplicates(np.concatenate([copies, other[None]]))
    groups = duplicate_groups(3001, links.first, links.second)
    assert len(set(groups[:3000])) == 1
    assert groups[3000] == 3000
    assert len(links.first) < 20_000


def test_flat_images_are_alike_where_their_grey_is() -> None:
    thumbnails = np.stack([np.full((SIDE, SIDE), grey, np.uint8) for grey in (0, 0, 128, 255)])
    thumbnails = np.concatenate([thumbnails, thumbnail(pictures(1)[0])[None]])
    links = near_duplicates(thumbnails)
    assert list(zip(*links[:2], strict=True)) == [(0, 1)]
    assert similarity(thumbnails[[0, 2, 4]], thumbnails[[1, 3, 0]]).tolist() == [1, 0, 0]


def test_a_negative_is_no_copy() -> None:
    shown = thumbnail(pictures(1)[0])[None]
    assert similarity(shown, 255 - shown)[0] == 0


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare(n: int) -> None:
    assert len(near_duplicates(np.zeros((n, SIDE, SIDE), np.uint8)).first) == 0


def test_groups_are_named_after_their_first_path() -> None:
    a, b, c = pictures(3)
    thumbnails = np.stack([thumbnail(i) for i in (a, b, ImageOps.mirror(a), c, recompressed(a))])
    assert near_duplicate_groups(["a", "b", "m", "c", "r"], thumbnails) == {
        "a": "a", "b": "b", "m": "a", "c": "c", "r": "a",
    }  # fmt: skip


def test_groups_join_chains() -> None:
    groups = duplicate_groups(6, np.array([4, 2, 1]), np.array([2, 1, 5]))
    assert groups.tolist() == [0, 1, 1, 3, 1, 1]


@pytest.mark.parametrize(
    "data",
    [
        lambda image: saved(image, quality=92),
        lambda image: saved(image, quality=92, progressive=True),
        lambda image: saved(image.convert("L"), quality=92),
        lambda image: saved(image.convert("CMYK"), quality=92),
        lambda image: saved(image, "PNG"),
        lambda image: saved(image, "WEBP", quality=90),
    ],
)
def test_the_quick_thumbnail_is_that_of_the_whole_image(data: Callable[[Image.Image], bytes]) -> None:
    image = pictures(1, size=400)[0]
    quick = file_thumbnail(data(image), inspect_image(data(image)))
    assert similarity(quick[None], thumbnail(image)[None])[0] > 0.999


def test_the_quick_thumbnail_is_upright() -> None:
    image = pictures(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(image.rotate(90, expand=True), exif=exif, quality=95)
    assert similarity(file_thumbnail(data, inspect_image(data))[None], thumbnail(image)[None])[0] > 0.999


def test_a_truncated_file_gives_no_thumbnail() -> None:
    data = saved(pictures(1)[0])
    facts = inspect_image(data)
    with pytest.raises(ImageError) as error:
        file_thumbnail(data[: len(data) // 2], facts)
    assert error.value.reason == "truncated"


def test_an_impossible_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="radius"):
        near_duplicates(np.zeros((2, SIDE, SIDE), np.uint8), radius=13)
