"""Does a heat map mark what the score depends on? Deletion and insertion (Petsiuk et al. 2018, "RISE", section 4.3).

Deletion hides the most marked pixels first: the score of a faithful map falls at once. Insertion starts with everything
hidden and shows the most marked pixels first: the score rises at once. A hidden pixel is a strongly blurred one. Both
curves are compared with maps that do not depend on the model: the centre of the image, and smooth random blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import functional as F

FloatArray = NDArray[np.float64]
STEPS, RANDOM_MAPS, GRID = 10, 5, 7
FLAT = 0.05  # a score that moves less than this when all is hidden depends on nothing that a map could mark


@dataclass(frozen=True)
class Faithfulness:
    """How the score changed when pixels were hidden or shown in the order of a map.

    Attributes:
        deletion, insertion: "map", "centre" and "random" (the mean of several) -> scores in [0, 1] at
            0, 1/STEPS, ... 1 of the pixels.
        gain: for the same names, the area under insertion less that under deletion, in [-1, 1]; higher is better.
        beaten: share of the random maps with a lower gain.
        flat: the score hardly moves when all is hidden, so nothing can be said.
    """

    deletion: dict[str, FloatArray]
    insertion: dict[str, FloatArray]
    gain: dict[str, float]
    beaten: float
    flat: bool

    @property
    def trusted(self) -> bool:
        """Whether the map outperforms the centre and every random map."""
        return not self.flat and self.beaten == 1.0 and self.gain["map"] > self.gain["centre"]

    @property
    def sentence(self) -> str:
        """Whether to trust the map, for somebody who does not know how it was tested."""
        if self.trusted:
            return "This map is reliable for this image: the score depends on its bright areas more than on others."
        return "This map is not reliable for this image."

    @property
    def reason(self) -> str:
        """What the test found."""
        gains = f"(map {self.gain['map']:.2f}, centre {self.gain['centre']:.2f}, random {self.gain['random']:.2f})"
        if self.flat:
            return "Hiding the whole image hardly changes the score, so no map can show what it depends on."
        if self.trusted:
            return f"Hiding what the map marks changes the score more than hiding the centre or random parts {gains}."
        if self.beaten == 1.0:
            return f"The map is better than chance, but no better than the centre of the image {gains}."
        return (
            f"The map explains little: hiding random parts changes the score as much as hiding what it marks {gains}."
        )


def measure(
    pixels: torch.Tensor, heat: NDArray[np.float32], score: Callable[[list[torch.Tensor]], FloatArray], *, seed: int = 0
) -> Faithfulness:
    """Deletion and insertion curves of a map, beside those of the centre and of random maps.

    Args:
        pixels: float32 (3, h, w), as the model reads them.
        heat: float32 (h, w), higher is more important.
        score: pixel tensors (a list of n) -> the explained score, (n,) in [0, 1].
    """
    hidden = blurred(pixels)
    rng = np.random.default_rng(seed)
    maps: dict[str, NDArray[np.float32]] = {"map": heat, "centre": centre_map(heat.shape)}
    maps |= {f"random {i}": random_map(heat.shape, rng) for i in range(RANDOM_MAPS)}
    orders = {name: _ranks(heat) for name, heat in maps.items()}
    ends = score([pixels, hidden])
    deletion = {name: np.r_[ends[0], score(_between(pixels, hidden, ranks)), ends[1]] for name, ranks in orders.items()}
    insertion = {
        name: np.r_[ends[1], score(_between(hidden, pixels, ranks)), ends[0]] for name, ranks in orders.items()
    }
    gain = {name: float(np.trapezoid(insertion[name] - deletion[name]) / STEPS) for name in maps}
    randoms = [name for name in maps if name.startswith("random")]
    return Faithfulness(
        _averaged(deletion, randoms),
        _averaged(insertion, randoms),
        {"map": gain["map"], "centre": gain["centre"], "random": float(np.mean([gain[name] for name in randoms]))},
        float(np.mean([gain[name] < gain["map"] for name in randoms])),
        bool(abs(ends[0] - ends[1]) < FLAT),
    )


def blurred(pixels: torch.Tensor) -> torch.Tensor:
    """What a hidden pixel shows: float (3, h, w) blurred over a tenth of the shorter side, in the same units."""
    sigma = min(pixels.shape[1:]) / 10
    reach = min(2 * round(2 * sigma) + 1, (min(pixels.shape[1:]) - 1) // 2 * 2 + 1)
    return F.gaussian_blur(pixels, [reach, reach], [sigma, sigma])


def centre_map(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map that assumes a face in the middle: float32 (h, w)."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return np.exp(-2 * (y[:, None] ** 2 + x[None, :] ** 2)).astype(np.float32)


def random_map(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth blobs of the size that a network's last grid has: float32 (h, w)."""
    noise = torch.from_numpy(rng.random((1, 1, GRID, GRID), dtype=np.float32))
    return torch.nn.functional.interpolate(noise, size=tuple(shape), mode="bicubic")[0, 0].numpy()


def _ranks(heat: NDArray[np.float32]) -> torch.Tensor:
    """(h, w): the share of pixels that come before this one, from 0 for the most marked."""
    order = np.argsort(-heat, axis=None, kind="stable")
    ranks = np.empty(heat.size)
    ranks[order] = np.arange(heat.size) / heat.size
    return torch.from_numpy(ranks.reshape(heat.shape))


def _between(before: torch.Tensor, after: torch.Tensor, ranks: torch.Tensor) -> list[torch.Tensor]:
    """``before`` with 1/STEPS, 2/STEPS, ... of its pixels taken from ``after``, but not all."""
    return [torch.where(ranks < step / STEPS, after, before) for step in range(1, STEPS)]


def _averaged(curves: Mapping[str, FloatArray], randoms: list[str]) -> dict[str, FloatArray]:
    mean = np.mean([curves[name] for name in randoms], axis=0)
    return {"map": curves["map"], "centre": curves["centre"], "random": mean}
