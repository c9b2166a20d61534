"""The embedded sample set: drawn portraits whose two classes differ in nothing but how the image was formed.

Every portrait is a parametric drawing, made at twice the final size. A "real" one is then photographed by one of
two simulated cameras (lens blur, Bayer mosaic, shot and read noise, demosaicing, tone curve, sharpening), a "fake"
one is rendered by one of three simulated generators (a quantised latent, an upsampling chain, noise that went
through that chain instead of a sensor). Sharpness and the power of the noise are then set to targets that are
drawn alike for both, so that size, file statistics and appearance reveal nothing: only the traces of formation differ.

A model trained here shows that the installation works; it says nothing about photographs. It is never served by
default, and says what it is wherever it is used (:mod:`bonaface.models.drawings`).
"""

from __future__ import annotations

import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike
from PIL import Image
from tqdm import tqdm

from bonaface.data.portraits import Floats, draw_portrait
from bonaface.errors import UsageError
from bonaface.files import atomic_folder
from bonaface.models.drawings import FAKE, REAL
from bonaface.pools import cancelled_on_error

RECIPE = 1  # of the portraits and their traces; a change makes a different set
MARGIN = 8  # pixels cut off every side in the end, so that no filter's border shows
_MARKER = ".bonaface-sample.json"


@dataclass(frozen=True)
class SampleSpec:
    """All that the bytes of a sample set depend on."""

    n: int
    size: int  # pixels of a side, a multiple of 4
    seed: int
    recipe: int = RECIPE


_GREY = np.array([0, 0.5, 0.5], np.float32)  # OpenCV's zero of chroma
_FINE = np.array([0.9, 0.3, 0.3], np.float32)  # standard deviations of noise in Y, Cr, Cb, above and
_COARSE = np.array([0.35, 0.15, 0.15], np.float32)  # below a Gaussian's cut at sigma 1 pixel

# --- the formation of an image -------------------------------------------------------------------------------
# Both give (clean, noise), the image without its noise and the noise alone, each (H, W, 3) and sRGB-coded.


def photograph(scene: Floats, source: str, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """What a camera makes of a scene of twice its resolution."""
    second = source == "camera_b"
    lens = _blur(_to_linear(scene), 1.3 if second else 1.5)
    light = _half(lens)
    red, blue = (1.6, 1.9) if second else (2.0, 1.5)  # white balance: how much less these sensors see
    gains = np.array([red, 1.0, blue], np.float32)
    sites = _bayer_sites(light.shape[0], shift=second)
    electrons = rng.uniform(300, 900)
    raw = np.sum(light / gains * sites, axis=2)
    shot = np.sqrt(raw / electrons) * rng.standard_normal(raw.shape, np.float32)
    read = rng.uniform(0.002, 0.005) * rng.standard_normal(raw.shape, np.float32)
    develop = partial(_develop, sites=sites, gains=gains, by_hue=second)
    clean = develop(raw)
    return clean, 0.02 * _unit(develop(raw + shot + read) - clean)


def _bayer_sites(pixels: int, shift: bool) -> Floats:
    """Which of R, G, B every pixel measures, one-hot (H, W, 3): RGGB, or GRBG when shifted by a column."""
    y, x = np.mgrid[:pixels, :pixels]
    x = x + shift
    odd = y % 2 + x % 2
    return np.stack([odd == 0, odd == 1, odd == 2], axis=2).astype(np.float32)


def _develop(raw: Floats, sites: Floats, gains: Floats, by_hue: bool) -> Floats:
    """Demosaic (bilinear, or bilinear in the differences to green), white balance, tone curve."""
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / np.float32(4)
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / np.float32(4)
    balanced = raw[..., None] * sites * gains
    green = _filter(balanced[..., 1], cross)
    base = green if by_hue else np.zeros_like(green)
    red, blue = (_filter(balanced[..., c] - base * sites[..., c], square) + base for c in (0, 2))
    return _to_srgb(np.stack([red, green, blue], axis=2))


def generate(scene: Floats, source: str, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """What a decoder makes of the same scene: latents at a half and a quarter of the size, upsampled.

    The upsamplers are those whose periodic traces Odena et al., Distill 2016 (checkerboards), and Zhang et al.,
    WIFS 2019 (spectral replicas), found in the images of real generators.
    """
    full = _to_srgb(_half(_to_linear(scene)))
    half = _half(full)
    latent = (_half(half) * 48).round() / np.float32(48)
    upsample = partial(_upsample, how=source)
    skip = 0.4  # how much of the detail that upsampling cannot give comes through skip connections
    middle = upsample(latent)
    middle = middle + skip * (half - upsample(_half(half)))
    clean = upsample(middle)
    clean = clean + skip * (full - upsample(half))
    coarse, fine = (rng.standard_normal(level.shape, np.float32) for level in (latent, half))
    return clean, 0.02 * _unit(upsample(fine + upsample(coarse)))


def _upsample(image: Floats, how: str) -> Floats:
    """Twice the size, by the last layer of a generator."""
    height, width = image.shape[:2]
    if how in ("gen_nearest", "gen_bilinear"):
        rule = cv2.INTER_NEAREST if how == "gen_nearest" else cv2.INTER_LINEAR
        return _floats(cv2.resize(image, (2 * width, 2 * height), interpolation=rule))
    spread = np.zeros((2 * height, 2 * width, 3), np.float32)
    spread[::2, ::2] = image
    return _filter(spread, _TRANSPOSED)


def _learned_kernel() -> Floats:
    """A 4 x 4 kernel as training leaves it: an interpolator, its four phases not quite alike."""
    line = np.array([1, 3, 3, 1]) / 4
    kernel = np.outer(line, line) + np.random.default_rng(7).normal(0, 0.05, (4, 4))
    return (kernel * 4 / kernel.sum()).astype(np.float32)


_TRANSPOSED = _learned_kernel()


# --- the same finish for both --------------------------------------------------------------------------------


def finish(clean: Floats, noise: Floats, twin: Floats, quality: int) -> Floats:
    """Clean plus noise, with the sharpness of ``twin`` and as many bytes as it takes at that JPEG quality.

    The twin is the same portrait with no trace of either formation. Meeting its sharpness (the Laplacian's variance)
    and its size in bytes by two knobs, the amount of sharpening and of noise, leaves neither to tell classes apart.
    """
    sharpness, size = _laplacian(_floats(cv2.cvtColor(twin, cv2.COLOR_RGB2GRAY))).var(), len(encode(twin, quality))
    low, high = 0.2, 5.0
    image = clean
    for _ in range(8):
        amount = float(np.sqrt(low * high))
        image = _sharpen_to(clean + np.float32(amount) * noise, sharpness)
        low, high = (amount, high) if len(encode(image, quality)) < size else (low, amount)
    return image


def make_twin(reference: Floats, rng: np.random.Generator) -> Floats:
    """The portrait with structureless noise of a drawn power (standard deviation 0.016..0.030)."""
    power = np.float32(np.exp(rng.uniform(np.log(0.016), np.log(0.030))))
    noise = rng.standard_normal(reference.shape, np.float32)
    return _blur(reference, rng.uniform(0.4, 0.6)) + power * _unit(_blur(noise, 0.5))


def _sharpen_to(image: Floats, target: float) -> Floats:
    """Unsharp masking of the luma by the amount that makes the Laplacian's variance ``target``."""
    luma = _floats(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    detail = luma - _blur(luma, 1.0)
    have, more = _laplacian(luma), _laplacian(detail)
    a, b, c = more.var(), 2 * np.mean(have * more), have.var() - target
    amount = (-b + np.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a)
    return image + np.float32(amount) * detail[..., None]


def _unit(noise: Floats) -> Floats:
    """The same power in every noise: in luma and chroma, in the fine band and in the coarse one."""
    luma_chroma = cv2.cvtColor(noise, cv2.COLOR_RGB2YCrCb) - _GREY
    coarse = _blur(luma_chroma, 1.0)
    fine = luma_chroma - coarse
    shaped = fine * (_FINE / fine.std(axis=(0, 1))) + coarse * (_COARSE / coarse.std(axis=(0, 1)))
    return _floats(cv2.cvtColor(shaped + _GREY, cv2.COLOR_YCrCb2RGB))


def encode(image: Floats, quality: int) -> bytes:
    """A JPEG of the image without its margin."""
    inner = np.clip(image[MARGIN:-MARGIN, MARGIN:-MARGIN], 0, 1)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(inner * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _floats(pixels: MatLike) -> Floats:
    """What OpenCV made of float32: float32, which its types do not say."""
    return np.asarray(pixels, np.float32)


def _laplacian(luma: Floats) -> Floats:
    return _floats(cv2.Laplacian(luma, cv2.CV_32F, borderType=cv2.BORDER_REFLECT_101))


def _blur(image: Floats, sigma: float) -> Floats:
    return _floats(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))


def _filter(image: Floats, kernel: Floats) -> Floats:
    return _floats(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def _half(image: Floats) -> Floats:
    height, width = image.shape[:2]
    return _floats(cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA))


def _to_linear(image: Floats) -> Floats:
    return np.clip(image, 0, 1) ** 2


def _to_srgb(image: Floats) -> Floats:
    return np.sqrt(np.clip(image, 0, 1))


# --- the set -------------------------------------------------------------------------------------------------


def make_image(spec: SampleSpec, index: int) -> tuple[str, bytes]:
    """The source and the JPEG bytes of one image; they depend on ``spec.seed``, ``spec.size`` and ``index`` alone."""
    source = _source(index)
    pixels = spec.size + 2 * MARGIN
    rng = np.random.default_rng([spec.recipe, spec.seed, index])
    scene = draw_portrait(2 * pixels, rng)
    quality = int(rng.integers(86, 97))
    twin = make_twin(_to_srgb(_half(_to_linear(scene))), rng)
    clean, noise = (photograph if source in REAL else generate)(scene, source, rng)
    return source, encode(finish(clean, noise, twin, quality), quality)


def _source(index: int) -> str:
    """Labels take turns, and within a label its sources."""
    sources = FAKE if index % 2 else REAL
    return sources[index // 2 % len(sources)]


def write_sample(out: Path, n: int = 640, size: int = 160, seed: int = 0) -> Path:
    """Write ``n`` images of ``size`` pixels per side as ``out/{real,fake}/{source}/NNNN.jpg`` with a metadata.csv.

    Half are real (two cameras), half fake (three generators); every image shows a person of its own, so ``group``
    is the image's. The bytes depend on ``n``, ``size`` and ``seed`` alone. A folder that contains exactly this set is
    left as it is; the folder appears complete or not at all. Returns ``out``.

    Raises UsageError for n < 20, a size that is no multiple of 4 (latents are a quarter of it) or outside 32..1024,
    a negative seed, or an ``out`` that contains anything else.
    """
    if n < 20 or not 32 <= size <= 1024 or size % 4 or seed < 0:
        raise UsageError(
            f"cannot make a sample of {n} images of {size} pixels with seed {seed}",
            "give at least 20 images, a multiple of 4 from 32 to 1024 as size, and a seed of 0 or more",
        )
    out, spec = Path(out), SampleSpec(n, size, seed)
    if _is_complete(out, spec):
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and is not this sample set", "choose a new folder, or remove this one")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_folder(out) as folder:
            _write_folder(folder, spec)
    except OSError:  # another process (a rank, say) was quicker with the same set
        if not _is_complete(out, spec):
            raise
    return out


def _is_complete(out: Path, spec: SampleSpec) -> bool:
    try:
        written = json.loads((out / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return written == asdict(spec) and sum(1 for _ in out.glob("*/*/*.jpg")) == spec.n


def _write_folder(folder: Path, spec: SampleSpec) -> None:
    counts = dict.fromkeys(REAL + FAKE, 0)
    rows = []
    # Threads: nearly all of the work is OpenCV's, NumPy's and libjpeg's, which let go of the interpreter.
    with cancelled_on_error(ThreadPoolExecutor(os.cpu_count())) as pool:
        images = pool.map(partial(make_image, spec), range(spec.n))
        for index, (source, data) in enumerate(tqdm(images, "sample", spec.n, unit="image", disable=None)):
            label = "real" if source in REAL else "fake"
            path = folder / label / source / f"{counts[source]:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            counts[source] += 1
            rows.append((path.relative_to(folder).as_posix(), label, source, f"person_{index:04d}"))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "label", "source", "group"), *sorted(rows)])
    (folder / _MARKER).write_text(json.dumps(asdict(spec)) + "\n", encoding="utf-8")
