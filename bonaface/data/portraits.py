"""Parametric portraits: drawn people before natural backgrounds, the content of the embedded sample set."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # images are (H, W, 3) RGB in 0..1, sRGB-coded; masks and fields (H, W)


class Canvas:
    """A square RGB drawing in units of half a head: x to the right, y down, the face centred near (0, 0)."""

    def __init__(self, pixels: int, rng: np.random.Generator) -> None:
        self.pixels = pixels
        angle, zoom = rng.normal(0, 0.06), pixels * rng.uniform(0.27, 0.32)
        self.turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.origin = pixels * (np.array([0.5, 0.47]) + rng.normal(0, 0.025, 2))
        y, x = np.mgrid[:pixels, :pixels].astype(np.float32)
        back = np.linalg.inv(self.turn).astype(np.float32)
        dx, dy = x - np.float32(self.origin[0]), y - np.float32(self.origin[1])
        self.x, self.y = back[0, 0] * dx + back[0, 1] * dy, back[1, 0] * dx + back[1, 1] * dy
        self.planes: Floats = np.zeros((3, pixels, pixels), np.float32)  # R, G, B: planes are quicker than pixels

    def mask(self, points: NDArray[np.float64], soft: float = 0.0) -> Floats:
        """Coverage (H, W) in 0..1 of a polygon (k, 2), its edge blurred by ``soft`` units."""
        at = points @ self.turn.T + self.origin
        polygon = np.zeros((self.pixels, self.pixels), np.uint8)
        cv2.fillPoly(polygon, [np.round(at * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        mask = polygon.astype(np.float32) / np.float32(255)
        sigma = soft * float(np.hypot(*self.turn[0]))
        if sigma > 0:
            low = np.clip(at.min(axis=0) - 4 * sigma - 2, 0, self.pixels - 1).astype(int)
            high = np.clip(at.max(axis=0) + 4 * sigma + 2, 1, self.pixels).astype(int)
            box = slice(low[1], high[1] + 1), slice(low[0], high[0] + 1)
            mask[box] = cv2.GaussianBlur(mask[box], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return mask

    def paint(
        self, mask: Floats, colour: NDArray[np.floating], opacity: float = 1.0, light: Floats | None = None
    ) -> None:
        """Lay a colour (3,), times a field of light (H, W) where given, over the drawing."""
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        cover = mask[box] * np.float32(opacity)
        for plane, value in zip(self.planes, colour.astype(np.float32), strict=True):
            paint = value if light is None else value * light[box]
            plane[box] += cover * (paint - plane[box])


def oval(
    x: float, y: float, width: float, height: float, power: float = 2.0, taper: float = 0.0
) -> NDArray[np.float64]:
    """A superellipse (96, 2) with half axes ``width`` and ``height``, narrowing downwards by ``taper``."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    unit = np.stack([np.sin(t), -np.cos(t)], axis=1)
    unit = np.sign(unit) * np.abs(unit) ** (2 / power)
    unit[:, 0] *= 1 - taper * np.clip(unit[:, 1], 0, 1) ** 2
    return unit * [width, height] + [x, y]


def band(x: NDArray[np.float64], middle: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.float64]:
    """The polygon between ``middle - half`` and ``middle + half`` over ``x``, each (k,)."""
    return np.concatenate([np.stack([x, middle - half], 1), np.stack([x, middle + half], 1)[::-1]])


def natural_texture(pixels: int, rng: np.random.Generator, slope: float, stretch: float = 1.0) -> Floats:
    """A field (H, W) of unit variance with the 1/f**slope amplitude spectrum of natural scenes.

    Field, J. Opt. Soc. Am. A 4(12), 1987: slope is about 1. ``stretch`` > 1 draws it out vertically, as hair.
    """
    down, along = (f(pixels).astype(np.float32) for f in (np.fft.fftfreq, np.fft.rfftfreq))
    frequency = np.hypot(down[:, None] * np.float32(stretch), along[None, :])
    frequency[0, 0] = np.inf
    white = scipy.fft.rfft2(rng.standard_normal((pixels, pixels), dtype=np.float32))
    field = scipy.fft.irfft2(white / frequency ** np.float32(slope), s=(pixels, pixels))
    return (field - field.mean()) / field.std()


_SKIN = np.array(
    [
        [0.96, 0.80, 0.70],
        [0.90, 0.70, 0.57],
        [0.78, 0.57, 0.43],
        [0.60, 0.41, 0.29],
        [0.42, 0.28, 0.20],
    ]
)
_HAIR = np.array(
    [
        [0.10, 0.08, 0.07],
        [0.25, 0.16, 0.10],
        [0.45, 0.29, 0.16],
        [0.75, 0.58, 0.34],
        [0.58, 0.24, 0.12],
        [0.62, 0.61, 0.60],
    ]
)
_EYES = np.array(
    [
        [0.30, 0.18, 0.10],
        [0.42, 0.32, 0.16],
        [0.30, 0.45, 0.60],
        [0.32, 0.48, 0.36],
        [0.40, 0.42, 0.45],
    ]
)
_CLOTHES = np.array(
    [
        [0.16, 0.22, 0.36],
        [0.62, 0.20, 0.20],
        [0.88, 0.86, 0.80],
        [0.20, 0.36, 0.30],
        [0.35, 0.35, 0.38],
        [0.80, 0.62, 0.30],
    ]
)
_PLACES = np.array(
    [
        [0.55, 0.70, 0.85],
        [0.40, 0.55, 0.35],
        [0.75, 0.68, 0.58],
        [0.45, 0.45, 0.50],
        [0.70, 0.52, 0.42],
        [0.30, 0.40, 0.48],
    ]
)


def _colour(palette: NDArray[np.float64], rng: np.random.Generator, spread: float = 0.04) -> Floats:
    """Between two entries of a palette, a little off."""
    first, second = palette[rng.integers(len(palette), size=2)]
    colour = first + rng.uniform(0, 0.5) * (second - first) + rng.normal(0, spread, 3)
    return np.clip(colour, 0.03, 0.97).astype(np.float32)


def draw_portrait(pixels: int, rng: np.random.Generator) -> Floats:
    """One person before one background, (pixels, pixels, 3)."""
    canvas = Canvas(pixels, rng)
    width, jaw = rng.uniform(0.64, 0.76), rng.uniform(0.12, 0.34)
    skin, hair = _colour(_SKIN, rng, 0.015), _colour(_HAIR, rng, 0.012)
    head = oval(0, 0, width, 1.0, power=rng.uniform(2.0, 2.35), taper=jaw)
    light = rng.uniform(-0.9, 0.9), rng.uniform(-0.7, -0.1)
    shade = _ball_shade(canvas, width, light)
    grain = natural_texture(pixels, rng, 0.8)
    strands = np.clip(1 + 0.22 * natural_texture(pixels, rng, 0.9, stretch=4.0), 0.3, 1.9) * (0.3 + 0.7 * shade)
    skin_light = shade * (1 + 0.035 * grain)

    _draw_background(canvas, rng)
    length = rng.choice([0.0, 0.25, 0.9, 1.5])
    if length:
        back = oval(0, -0.15 + length / 2, width + 0.26, 1.0 + length / 2, 2.6)
        canvas.paint(canvas.mask(back, 0.02), hair, light=strands)
    _draw_body(canvas, rng, skin, grain, width)
    for side in (-1, 1):
        canvas.paint(canvas.mask(oval(side * width, 0.06, 0.1, 0.2), 0.01), skin * 0.88, light=skin_light)
    face = canvas.mask(head, 0.008)
    canvas.paint(face, skin, light=skin_light)
    _draw_features(canvas, rng, face, skin, hair, width)
    _draw_hair_front(canvas, rng, hair, strands, width)
    return np.clip(np.moveaxis(canvas.planes, 0, -1), 0.02, 0.98)


def _ball_shade(canvas: Canvas, width: float, light: tuple[float, float]) -> Floats:
    """Lambert's law on an ellipsoid about the head, over an ambient floor: (H, W), about 0.5..1.15."""
    nx, ny = canvas.x / np.float32(width * 1.25), canvas.y / np.float32(1.3)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
    toward = (np.array([*light, 1.0]) / np.sqrt(1 + light[0] ** 2 + light[1] ** 2)).astype(np.float32)
    return 0.48 + 0.66 * np.clip(nx * toward[0] + ny * toward[1] + nz * toward[2], 0, 1)


def _draw_background(canvas: Canvas, rng: np.random.Generator) -> None:
    """A gradient, things out of focus, and a texture with the spectrum of natural scenes."""
    everywhere = np.ones_like(canvas.x)
    canvas.paint(everywhere, _colour(_PLACES, rng))
    tilt = np.float32(rng.normal(0, 0.4))
    canvas.paint(np.clip(0.5 + 0.3 * (canvas.y + tilt * canvas.x), 0, 1), _colour(_PLACES, rng))
    for _ in range(rng.integers(3, 9)):
        x, y, width, height = rng.uniform([-2, -2, 0.1, 0.1], [2, 1.5, 0.5, 0.7])
        thing = canvas.mask(oval(x, y, width, height, rng.uniform(2, 5)), rng.uniform(0.03, 0.12))
        canvas.paint(thing, _colour(_PLACES, rng, 0.12), rng.uniform(0.3, 0.7))
    field = np.float32(rng.uniform(0.03, 0.07)) * natural_texture(canvas.pixels, rng, rng.uniform(1.2, 1.6))
    for plane, tint in zip(canvas.planes, rng.normal(1, 0.12, 3).astype(np.float32), strict=True):
        plane += tint * field


def _draw_body(canvas: Canvas, rng: np.random.Generator, skin: Floats, grain: Floats, width: float) -> None:
    """Neck, shoulders and a collar; the cloth takes the skin's grain, made stronger, for its weave."""
    neck = width * rng.uniform(0.55, 0.68)
    neck_light = (1 + 0.035 * grain) * (0.62 + 0.1 * canvas.y)
    canvas.paint(canvas.mask(oval(0, 1.05, neck, 0.75, 4), 0.015), skin, light=neck_light)
    cloth_light = (1 + 0.10 * grain) * np.clip(1.15 - 0.18 * np.abs(canvas.x), 0.5, 1.2)
    shoulders = canvas.mask(oval(0, 2.55, rng.uniform(1.5, 1.8), rng.uniform(1.15, 1.3), 2.6), 0.01)
    collar = canvas.mask(oval(0, 1.28, neck * rng.uniform(1.05, 1.3), rng.uniform(0.25, 0.5), 2), 0.01)
    canvas.paint(shoulders * (1 - collar), _colour(_CLOTHES, rng), light=cloth_light)
    canvas.paint(shoulders * collar, skin, light=neck_light)


def _draw_features(
    canvas: Canvas,
    rng: np.random.Generator,
    face: Floats,
    skin: Floats,
    hair: Floats,
    width: float,
) -> None:
    """Eyes, brows, nose, mouth, cheeks; for some a beard or glasses."""
    apart, eye_y, eye_w = width * rng.uniform(0.42, 0.5), rng.uniform(-0.12, -0.02), rng.uniform(0.14, 0.175)
    open_, gaze, iris = rng.uniform(0.055, 0.085), rng.normal(0, 0.02), _colour(_EYES, rng, 0.02)
    blush, dark = skin * [1.06, 0.84, 0.82], skin * 0.45
    mouth_y, mouth_w = rng.uniform(0.5, 0.56), rng.uniform(0.2, 0.28)
    if rng.random() < 0.25:
        beard = face * canvas.mask(oval(0, 0.72, width * 1.1, 0.5, 2.5), 0.05)
        canvas.paint(beard, 0.5 * hair + 0.3 * skin, rng.uniform(0.35, 0.85))
    brow_x, brow_thick = np.linspace(-1, 1, 24), rng.uniform(0.018, 0.04)
    for side in (-1, 1):
        x = side * apart
        canvas.paint(face * canvas.mask(oval(x * 1.15, 0.3, 0.17, 0.13), 0.08), blush, 0.35)
        canvas.paint(canvas.mask(oval(x, eye_y, eye_w * 1.25, open_ * 1.9), 0.04), skin * 0.74, 0.6)
        lens = canvas.mask(band(x + eye_w * brow_x, np.full(24, eye_y), open_ * (1 - brow_x**2) ** 0.7), 0.004)
        canvas.paint(lens, np.array([0.93, 0.92, 0.90]))
        for radius, colour in ((0.078, iris), (0.037, np.full(3, 0.04))):
            canvas.paint(lens * canvas.mask(oval(x + gaze, eye_y - 0.005, radius, radius), 0.005), colour)
        canvas.paint(canvas.mask(oval(x + gaze + 0.025, eye_y - 0.03, 0.014, 0.014), 0.003), np.full(3, 0.97))
        lid = band(x + eye_w * brow_x, eye_y - open_ * (1 - brow_x**2) ** 0.7, np.full(24, 0.013))
        canvas.paint(canvas.mask(lid, 0.004), dark * 0.6, 0.9)
        arch = eye_y - rng.uniform(0.19, 0.21) + 0.035 * brow_x**2 - 0.02 * side * brow_x
        brow = band(x + eye_w * 1.2 * brow_x, arch, brow_thick * (1.15 - 0.6 * brow_x * side) * (1 - brow_x**4))
        canvas.paint(canvas.mask(brow, 0.012), hair * 0.8, 0.85)
        canvas.paint(canvas.mask(oval(side * 0.07, 0.29, 0.035, 0.018), 0.012), dark, 0.75)
    canvas.paint(canvas.mask(oval(0.05, 0.1, 0.05, 0.2), 0.05), skin * 0.72, 0.5)
    canvas.paint(canvas.mask(oval(-0.01, 0.2, 0.05, 0.07), 0.04), np.clip(skin * 1.2, 0, 1), 0.5)
    canvas.paint(canvas.mask(oval(0, 0.33, 0.12, 0.02), 0.02), skin * 0.65, 0.6)
    _draw_mouth(canvas, rng, skin, mouth_y, mouth_w)
    if rng.random() < 0.2:
        frame = rng.uniform(0.15, 0.4, 3) * rng.uniform(0.3, 1)
        for side in (-1, 1):
            glass = oval(side * apart, eye_y + 0.02, 0.235, 0.19, 3)
            inner = oval(side * apart, eye_y + 0.02, 0.212, 0.167, 3)
            canvas.paint(canvas.mask(glass, 0.003) * (1 - canvas.mask(inner, 0.003)), frame)
        canvas.paint(canvas.mask(oval(0, eye_y, apart - 0.22, 0.014), 0.003), frame)


def _draw_mouth(canvas: Canvas, rng: np.random.Generator, skin: Floats, y: float, width: float) -> None:
    lips = np.clip(skin * [1.0, 0.62, 0.62] + rng.normal(0, 0.03, 3), 0, 1)
    x, smile = np.linspace(-1, 1, 32), rng.uniform(-0.01, 0.07)
    line, round_ = y - smile * x**2, 1 - x**2
    lower, upper = rng.uniform(0.05, 0.085), rng.uniform(0.035, 0.06)
    canvas.paint(canvas.mask(band(width * x, line + lower * round_ / 2, lower * round_ / 2), 0.008), lips)
    bow = upper * round_ * (1 + 0.35 * np.cos(2.2 * np.pi * x) * round_)
    canvas.paint(canvas.mask(band(width * x, line - bow / 2, bow / 2), 0.008), lips * 0.86)
    if rng.random() < 0.35:
        gap = 0.035 * round_
        canvas.paint(canvas.mask(band(width * 0.8 * x, line + gap / 2, gap / 2), 0.004), np.array([0.95, 0.94, 0.91]))
    else:
        canvas.paint(canvas.mask(band(width * x, line, 0.008 * round_), 0.004), lips * 0.4, 0.9)
    canvas.paint(canvas.mask(oval(0, y + 0.17, 0.13, 0.03), 0.03), skin * 0.72, 0.5)


def _draw_hair_front(canvas: Canvas, rng: np.random.Generator, hair: Floats, strands: Floats, width: float) -> None:
    """A cap over the skull, cut off along a hairline with a parting; a few heads are bald."""
    if rng.random() < 0.06:
        return
    cap = canvas.mask(oval(0, -0.12, width + rng.uniform(0.06, 0.14), 1.0 + rng.uniform(0, 0.12), 2.2), 0.012)
    parting, height, sides = rng.uniform([-0.35, -0.68, 1.5], [0.35, -0.42, 4.8]).astype(np.float32)
    hairline = height - 0.25 * np.exp(-(((canvas.x - parting) * 4) ** 2))
    hairline += sides * np.clip(np.abs(canvas.x) - 0.35, 0, 1) ** 1.5
    edge = np.clip((hairline - canvas.y) * 20 + 0.5, 0, 1)
    canvas.paint(cap * edge, hair, light=strands)
