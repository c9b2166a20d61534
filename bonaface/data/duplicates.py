"""Near duplicates: resized, recompressed, slightly cropped and mirrored copies, found without comparing all pairs.

1. Every image becomes a grey 32 x 32 thumbnail; the signs of its 64 lowest DCT coefficients are its perceptual hash
   (Zauner 2010, with the sign in place of the median so that mirroring is a fixed bit mask).
2. Multi-index hashing (Norouzi, Punjani and Fleet 2012) finds all pairs within a Hamming radius, exactly: of 4 bands of
   16 bits at least one must nearly agree, and those that do are looked up in tables.
3. Aligned portraits resemble each other in the low frequencies, so every candidate is then registered: one affine
   Lucas and Kanade (1981) step, and the correlation that remains decides. Copies cropped by 2 % a side stay above
   0.995, two different faces on the same plain background below 0.99.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bonaface.imaging.header import ImageFacts
from bonaface.imaging.images import MAX_PIXELS, decode_image

SIDE = 32  # of a thumbnail
RADIUS = 10  # bits of 64 in which two hashes may differ; within it are 99 % of copies cropped by 2 % a side
SIMILARITY = 0.995
_ROUGH = 0.75  # plain correlation below which no pair is worth a registration
_BANDS, _BITS = 4, 16
_BLOCK = 2_000_000  # candidate pairs held at once
_FLAT = 1.0  # grey levels of standard deviation below which a thumbnail shows nothing

# The 64 lowest frequencies but the constant one, in zigzag order; mirroring flips those odd in x.
_FREQUENCIES = sorted(((v, u) for v in range(SIDE) for u in range(SIDE) if u + v), key=lambda f: (sum(f), f))[:64]
_ROWS, _COLUMNS = np.array(_FREQUENCIES).T
_MIRROR = np.packbits(_COLUMNS % 2 == 1).view(np.uint64)[0]

Thumbnails = NDArray[np.uint8]


class Links(NamedTuple):
    """Pairs of near duplicates, enough of them to connect every group: row numbers, similarity, mirrored or not."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float32]
    mirrored: NDArray[np.bool_]


def thumbnail(image: Image.Image) -> Thumbnails:
    """An image of any mode and size as grey uint8 (32, 32), averaged over areas, aspect not kept."""
    grey = image if image.mode == "L" else image.convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def file_thumbnail(data: bytes, facts: ImageFacts, name: str = "") -> Thumbnails:
    """:func:`thumbnail` of a file's bytes; a JPEG is decoded at a fraction of its size, in grey.

    Raises:
        bonaface.imaging.images.ImageError: as :func:`bonaface.imaging.images.decode_image`.
    """
    # Beyond the limit, the careful decoder reports the reason.
    if facts.format == "JPEG" and facts.width * facts.height <= MAX_PIXELS:
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                image.draft("L", (2 * SIDE, 2 * SIDE))
                return thumbnail(ImageOps.exif_transpose(image))
        except Exception:  # noqa: S110 - the careful decoder says what is wrong, or copes
            pass
    return thumbnail(decode_image(data, name=name))


def perceptual_hashes(thumbnails: Thumbnails) -> NDArray[np.uint64]:
    """Thumbnails (n, 32, 32) -> hashes (n,); the Hamming distance of two tells how much the images differ."""
    hashes = np.empty(len(thumbnails), np.uint64)
    for start in range(0, len(thumbnails), 8192):
        block = thumbnails[start : start + 8192]
        waves = dctn(block.astype(np.float32), axes=(1, 2))[:, _ROWS, _COLUMNS]
        hashes[start : start + len(block)] = np.ascontiguousarray(np.packbits(waves > 0, axis=1)).view(np.uint64)[:, 0]
    return hashes


def similarity(first: Thumbnails, second: Thumbnails) -> NDArray[np.float32]:
    """How alike thumbnails (n, 32, 32) are pairwise after registration: correlation in [0, 1], float32 (n,).

    Contrast, brightness and an affine move of about a pixel are free. Flat images are alike if their grey levels are.
    """
    blur = (0, 0.8, 0.8)  # a linear step reaches about as far as the image is smooth
    a, b = (gaussian_filter(x.astype(np.float32), blur, mode="nearest") for x in (first, second))
    dy, dx = np.gradient((a + b) / 2, axis=(1, 2))
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    terms = np.stack([a, np.ones_like(a), dx, dy, dx * x, dx * y, dy * x, dy * y], axis=3)[:, 1:-1, 1:-1]
    n, pixels = len(a), (SIDE - 2) ** 2
    terms, target = terms.reshape(n, pixels, 8), b[:, 1:-1, 1:-1].reshape(n, pixels, 1)
    turned = terms.transpose(0, 2, 1)
    weights = np.linalg.solve(turned @ terms + 1e-2 * np.eye(8, dtype=np.float32), turned @ target)
    left = np.square(target - terms @ weights).sum(axis=(1, 2))
    whole = np.square(target - target.mean(axis=1, keepdims=True)).sum(axis=(1, 2))
    found = np.sqrt(np.clip(1 - left / np.maximum(whole, 1e-3), 0, 1)) * (weights[:, 0, 0] > 0)
    flat_a, flat_b = (x.std(axis=(1, 2)) < _FLAT for x in (a, b))
    level = np.abs(a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))) < 2
    return np.where(flat_a | flat_b, flat_a & flat_b & level, found).astype(np.float32)


def near_duplicates(thumbnails: Thumbnails, *, radius: int = RADIUS, least: float = SIMILARITY) -> Links:
    """All groups of near duplicates among thumbnails (n, 32, 32), as links that connect each group.

    Pairs already connected through others are not compared again, so a thousand frames of one video cost thousands of
    comparisons, not half a million.

    Args:
        radius: largest Hamming distance of two hashes, in [0, 12].
        least: least :func:`similarity` of a pair, in [0, 1].
    """
    if not 0 <= radius <= 12:
        raise ValueError(f"radius {radius} is not in [0, 12]")
    forest = _Forest(thumbnails, least)
    hashes = perceptual_hashes(thumbnails)
    nodes = _join_equal(hashes, forest)
    for first, second, mirrored in _close_pairs(hashes[nodes], radius):
        forest.compare(nodes[first], nodes[second], mirrored)
    return forest.links()


def duplicate_groups(n: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each of ``n`` rows, (n,): the lowest row number that links lead to."""
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, lowest = np.unique(component, return_index=True)
    return lowest[component].astype(np.int64)


def near_duplicate_groups(paths: Sequence[str], thumbnails: Thumbnails) -> dict[str, str]:
    """The group of every path, named after the group's first path; alone in it where there is no near duplicate."""
    links = near_duplicates(thumbnails)
    groups = duplicate_groups(len(paths), links.first, links.second)
    return {path: paths[group] for path, group in zip(paths, groups, strict=True)}


class _Forest:
    """Compares candidate pairs and keeps those links that connect something new."""

    def __init__(self, thumbnails: Thumbnails, least: float) -> None:
        self.thumbnails, self.least = thumbnails, least
        self.group = np.arange(len(thumbnails))
        self._kept: list[Links] = []

    def compare(self, first: NDArray[np.int64], second: NDArray[np.int64], mirrored: bool) -> NDArray[np.bool_]:
        """Which of these pairs are now in one group."""
        for start in range(0, len(first), 1024):
            a, b = first[start : start + 1024], second[start : start + 1024]
            fresh = self.group[a] != self.group[b]
            if fresh.any():
                self._link(a[fresh], b[fresh], mirrored)
        return self.group[first] == self.group[second]

    def _link(self, a: NDArray[np.int64], b: NDArray[np.int64], mirrored: bool) -> None:
        ours, theirs = self.thumbnails[a], self.thumbnails[b]
        if mirrored:
            theirs = theirs[:, :, ::-1]
        rough = _rough_match(ours, theirs)
        a, b = a[rough], b[rough]
        alike = similarity(ours[rough], theirs[rough])
        good = alike >= self.least
        if good.any():
            a, b, alike = a[good], b[good], alike[good]
            self._kept.append(Links(a, b, alike, np.full(len(a), mirrored)))
            merged = duplicate_groups(len(self.group), self.group[a], self.group[b])
            self.group = merged[self.group]

    def links(self) -> Links:
        if not self._kept:
            none = np.empty(0, np.int64)
            return Links(none, none, np.empty(0, np.float32), np.empty(0, bool))
        return Links(*(np.concatenate(parts) for parts in zip(*self._kept, strict=True)))


def _rough_match(first: Thumbnails, second: Thumbnails) -> NDArray[np.bool_]:
    a, b = (x.reshape(len(x), SIDE * SIDE).astype(np.float32) for x in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (np.einsum("np,np->n", a, b) >= _ROUGH * norms) | (norms < (SIDE * _FLAT) ** 2)


def _join_equal(hashes: NDArray[np.uint64], forest: _Forest, rounds: int = 8) -> NDArray[np.int64]:
    """Link images of equal hash to the first of them, so that a thousand copies do not make a million pairs.

    What does not match the first is tried against the first that is left, and so on. Returns the rows that the search
    must still consider: one for every set of linked rows, and those left over.
    """
    order = np.argsort(hashes, kind="stable")
    nodes, rest = [], order
    for _ in range(rounds):
        if not len(rest):
            break
        starts = np.flatnonzero(np.append(True, hashes[rest][1:] != hashes[rest][:-1]))
        leaders = np.repeat(rest[starts], np.diff(np.append(starts, len(rest))))
        nodes.append(rest[starts])
        others = leaders != rest
        joined = forest.compare(leaders[others], rest[others], False)
        rest = rest[others][~joined]
    return np.sort(np.concatenate([*nodes, rest]))


def _close_pairs(
    hashes: NDArray[np.uint64], radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], bool]]:
    """All pairs of hashes within ``radius`` bits, each once, plain and then mirrored, in blocks.

    The radius is spread over the bands as in section 3.1 of Norouzi et al.: if no band differed by its share or less,
    the whole would differ by more than the radius.
    """
    base, extra = divmod(radius, _BANDS)
    reach = [base if band <= extra else base - 1 for band in range(_BANDS)]
    for mirrored in (False, True):
        flip = _MIRROR if mirrored else np.uint64(0)
        for band in range(_BANDS):
            keys = _band(hashes, band)
            order = np.argsort(keys, kind="stable")
            keys, ranked = keys[order], hashes[order]
            ends = np.cumsum(np.bincount(keys, minlength=1 << _BITS))
            starts = np.append(0, ends[:-1])
            for mask in _masks(reach[band]):
                for a, b in _partners(keys, starts, ends, mask ^ int(_band(flip, band))):
                    apart = ranked[a] ^ ranked[b] ^ flip
                    kept = np.flatnonzero(np.bitwise_count(apart) <= radius)
                    for earlier in range(band):  # an earlier band has found the others
                        kept = kept[np.bitwise_count(_band(apart[kept], earlier)) > reach[earlier]]
                    if len(kept):
                        yield order[a[kept]], order[b[kept]], mirrored


def _band(hashes: NDArray[np.uint64] | np.uint64, band: int) -> NDArray[np.int64]:
    return np.asarray((hashes >> np.uint64(band * _BITS)) & np.uint64((1 << _BITS) - 1)).astype(np.int64)


def _masks(reach: int) -> list[int]:
    """All patterns of at most ``reach`` flipped bits in a band."""
    bits = [1 << bit for bit in range(_BITS)]
    return [sum(flipped) for n in range(reach + 1) for flipped in combinations(bits, n)]


def _partners(
    keys: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], delta: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of places in the sorted ``keys`` whose keys differ by ``delta``, each pair once, in blocks."""
    if delta:  # of two such keys, one lacks the highest bit of delta: only that one is looked up
        asking = np.flatnonzero(keys & (1 << (delta.bit_length() - 1)) == 0)
        first, last = starts[keys[asking] ^ delta], ends[keys[asking] ^ delta]
    else:
        asking = np.arange(len(keys))
        first, last = asking + 1, ends[keys]
    some = last > first
    asking, first, counts = asking[some], first[some], (last - first)[some]
    totals = np.cumsum(counts)
    begin = 0
    while begin < len(asking):
        done = totals[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(totals, done + _BLOCK, side="right")))
        n = counts[begin:end]
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        yield np.repeat(asking[begin:end], n), np.repeat(first[begin:end], n) + within
        begin = end
