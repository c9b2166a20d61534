"""Do heat maps mark what decides? Real photographs with a part of a generated face pasted in.

    python benchmarks/heat_maps.py --model runs/NAME --data DATA --images 60

Eyes or mouth of a generated face are scaled onto those of a real one (by the landmarks of YuNet) with a soft edge, so
the one generated part of the picture is known. Of those that the model calls fake and whose original it calls real, the
map is compared with maps that know nothing: gain is insertion less deletion (Petsiuk et al. 2018); mass is the
share of the heat inside the pasted part, beside that part's share of the picture.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image, ImageFilter
from tqdm.auto import tqdm

from bonafide.data import image_bytes, list_data
from bonafide.detector import Detector
from bonafide.explain import explain
from bonafide.faces import FaceDetector
from bonafide.faithfulness import centre_map
from bonafide.images import decode_image

EYES, MOUTH = (0, 1), (3, 4)  # YuNet's landmarks


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=60, help="spliced pictures to explain")
    parser.add_argument("--method", default="auto", choices=["auto", "gradcam", "occlusion"])
    parser.add_argument("--yunet", help="weights of YuNet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    detector, finder = Detector.from_pretrained(args.model), FaceDetector(args.yunet, kind="yunet")
    listing = list_data(args.data, check="none")
    rng = np.random.default_rng(args.seed)
    real_id = listing.labels.index(listing.real_label)
    pools = {kind: np.flatnonzero((np.array(listing.rows["label"]) == real_id) == kind) for kind in (True, False)}
    figures: list[list[float]] = []
    tried = 0
    progress = tqdm(total=args.images, desc="spliced pictures", disable=None)
    while len(figures) < args.images and tried < 20 * args.images:
        tried += 1
        pictures = [
            decode_image(image_bytes(listing.rows[int(rng.choice(pools[kind]))]["image"])) for kind in (True, False)
        ]
        faces = [finder.detect(picture) for picture in pictures]
        if not all(faces):
            continue
        part = (EYES, MOUTH)[tried % 2]
        boxes = tuple(part_box(found[0].landmarks, part) for found in faces)
        if min(boxes[0][2] - boxes[0][0], boxes[1][2] - boxes[1][0]) < 16:
            continue
        spliced, inside = splice(*pictures, boxes)
        before, after = detector([pictures[0], spliced], faces=False)
        if before.p_fake >= 0.5 or after.p_fake < 0.5:
            continue
        found = explain(detector, spliced, faces=False, method=args.method)
        assert found.faithfulness is not None
        gain = found.faithfulness.gain
        figures.append(
            [*(gain[name] for name in ("map", "centre", "random")), *masses(found.heat, found.region, inside)]
        )
        progress.update()
    progress.close()
    if not figures:
        raise SystemExit(f"none of {tried} spliced pictures was called fake while its original was called real")
    table = np.array(figures)
    names = ("map", "centre", "random", "mass of the map", "mass of the centre", "share of the picture")
    print(f"{len(table)} of {tried} spliced pictures were called fake while their originals were called real")
    for name, values in zip(names, table.T, strict=True):
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        print(f"  {name:<22}{values.mean():7.3f} ± {1.96 * error:.3f}")
    for other, column in (("centre", 1), ("random", 2)):
        print(f"  the map's gain is above that of {other} on {np.mean(table[:, 0] > table[:, column]):.0%}")


def masses(heat: np.ndarray, region: tuple[float, ...], inside: np.ndarray) -> tuple[float, float, float]:
    """Share of the heat and of a centre map that lies in the pasted part, and that part's share of what was seen."""
    x0, y0, x1, y1 = (round(v) for v in region)
    seen = Image.fromarray(inside[y0:y1, x0:x1]).resize(heat.shape[::-1])
    part = np.asarray(seen, dtype=bool)
    centre = centre_map(heat.shape)
    return float(heat[part].sum() / max(heat.sum(), 1e-9)), float(centre[part].sum() / centre.sum()), float(part.mean())


if __name__ == "__main__":
    main()
