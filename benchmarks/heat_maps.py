"""Do heat maps mark what decides? Real photographs with a part of a generated face pasted in.

    python benchmarks/heat_maps.py --model runs/NAME --data DATA --images 60

Eyes or mouth of a generated face are scaled onto those of a real one (by the landmarks of YuNet) with a soft edge, so
the one generated part of the picture is known. Of those that the model calls fake and whose original it calls real, the
map is compared with maps that know nothing: gain is insertion less deletion (Petsiuk et al. 2018); mass is the
share of the heat inside the pasted part, beside that part's share of the picture. Means and paired differences have
their 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image, ImageFilter
from tqdm.auto import tqdm

from bonaface.data.dataset import image_bytes, list_data
from bonaface.imaging.faces import FaceDetector
from bonaface.imaging.images import decode_image
from bonaface.inference.detector import Detector
from bonaface.inference.explain import METHODS, explain
from bonaface.inference.faithfulness import centre_map

EYES, MOUTH = (0, 1), (3, 4)  # YuNet's landmarks
TRIES = 4  # generated faces whose part is tried in one photograph
GAINS = ("map", "centre", "random")


def part_box(landmarks: np.ndarray, part: tuple[int, int]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around both eyes or the mouth; half as high as wide."""
    left, right = sorted((landmarks[part[0]], landmarks[part[1]]), key=lambda point: point[0])
    x, y = (left + right) / 2
    half = (right[0] - left[0]) * (0.9 if part == EYES else 0.8)
    return x - half, y - half / 2, x + half, y + half / 2


def splice(
    real: Image.Image, fake: Image.Image, boxes: tuple[tuple[float, ...], tuple[float, ...]]
) -> tuple[Image.Image, np.ndarray]:
    """The real picture with the fake one's part, and where that is: bool (height, width)."""
    x0, y0, x1, y1 = (round(v) for v in boxes[0])
    patch = fake.crop(tuple(round(v) for v in boxes[1])).resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS)
    edge = max(1, (y1 - y0) // 10)
    mask = Image.new("L", patch.size, 0)
    mask.paste(255, (edge, edge, patch.width - edge, patch.height - edge))
    spliced = real.copy()
    spliced.paste(patch, (x0, y0), mask.filter(ImageFilter.GaussianBlur(edge / 2)))
    inside = np.zeros((real.height, real.width), dtype=bool)
    inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return spliced, inside


def spliced_pair(
    rng: np.random.Generator, real: Image.Image, fake: Image.Image, finder: FaceDetector
) -> tuple[Image.Image, np.ndarray] | None:
    """Eyes or mouth, by chance, of one picture in the other; None where either shows no face large enough."""
    part = (EYES, MOUTH)[rng.integers(2)]
    faces = [finder.detect(picture) for picture in (real, fake)]
    if not all(faces):
        return None
    boxes = tuple(part_box(found[0].landmarks, part) for found in faces)
    if min(box[2] - box[0] for box in boxes) < 16:
        return None
    return splice(real, fake, boxes)


def main() -> None:
    """Paste parts of fakes into photographs, explain those that turn fake, and print how well maps mark the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=60, help="spliced pictures to explain")
    parser.add_argument("--method", default="auto", choices=["auto", *METHODS])
    parser.add_argument("--yunet", help="weights of YuNet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    detector, finder = Detector.from_pretrained(args.model), FaceDetector(args.yunet, kind="yunet")
    listing = list_data(args.data, check="none")
    rng = np.random.default_rng(args.seed)
    is_real = np.array(listing.rows["label"]) == listing.labels.index(listing.real_label)
    reals, fakes = rng.permutation(np.flatnonzero(is_real)), np.flatnonzero(~is_real)
    figures: list[list[float]] = []
    n_real, progress = 0, tqdm(total=args.images, desc="spliced pictures", disable=None)
    for index in map(int, reals):  # each photograph in one pair at most, so that the pairs are independent
        if len(figures) == args.images:
            break
        real = decode_image(image_bytes(listing.rows[index]["image"]))
        if detector(real, faces=False)[0].p_fake >= 0.5:
            continue
        n_real += 1
        for fake in map(int, rng.choice(fakes, TRIES, replace=False)):
            pair = spliced_pair(rng, real, decode_image(image_bytes(listing.rows[fake]["image"])), finder)
            if pair is None or detector(pair[0], faces=False)[0].p_fake < 0.5:
                continue
            found = explain(detector, pair[0], faces=False, method=args.method)
            assert found.faithfulness is not None
            gain = found.faithfulness.gain
            figures.append([*(gain[name] for name in GAINS), *masses(found.heat, found.region, pair[1])])
            progress.update()
            break
    progress.close()
    if not figures:
        raise SystemExit(f"none of {n_real} photographs that are called real was called fake with a part pasted in")
    table = np.array(figures)
    print(f"{len(table)} of {n_real} photographs that are called real were called fake with a part pasted in")
    for name, values in zip(
        [*GAINS, "mass of the map", "mass of the centre", "share of the picture"], table.T, strict=True
    ):
        print(f"  {name:<28}{interval(values, rng)}")
    for name, first, second in (
        ("gain, map less centre", 0, 1),
        ("gain, map less random", 0, 2),
        ("mass, map less centre", 3, 4),
    ):
        wins = np.mean(table[:, first] > table[:, second])
        print(f"  {name:<28}{interval(table[:, first] - table[:, second], rng)}; above 0 on {wins:.0%}")


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """The mean of (n,) with its 95 % percentile bootstrap interval over pairs (Efron and Tibshirani 1993)."""
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():7.3f} ({low:.3f} to {high:.3f})"


def masses(heat: np.ndarray, region: tuple[float, ...], inside: np.ndarray) -> tuple[float, float, float]:
    """Share of the heat and of a centre map that lies in the pasted part, and that part's share of what was seen."""
    x0, y0, x1, y1 = (round(v) for v in region)
    seen = Image.fromarray(inside[y0:y1, x0:x1]).resize(heat.shape[::-1])
    part = np.asarray(seen, dtype=bool)
    centre = centre_map(heat.shape)
    return float(heat[part].sum() / max(heat.sum(), 1e-9)), float(centre[part].sum() / centre.sum()), float(part.mean())


if __name__ == "__main__":
    main()
