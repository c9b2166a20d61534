"""Five points (eyes, nose, corners of the mouth) of each face crop: what `face_views.py` aligns by.

    python benchmarks/face_points.py DATA POINTS.npz --yunet face_detection_yunet.onnx

Writes `name` and `points`, float32 (n, 5, 2) in pixels, NaN where YuNet finds no face; of several faces the large one
near the centre.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

SIDE, CENTRED = 256, 40  # pixels; a face that is 1 px off the centre must be so many square pixels larger


def main() -> None:
    """Write the points of every row of `metadata.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--yunet", required=True, help="YuNet's weights, as `opencv/face_detection_yunet` has them")
    args = parser.parse_args()
    with (args.data / "metadata.csv").open(encoding="utf-8") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    finder = cv2.FaceDetectorYN.create(args.yunet, "", (SIDE, SIDE), 0.5)
    points = np.full((len(names), 5, 2), np.nan, np.float32)
    for row, name in enumerate(tqdm(names, unit="image", disable=None)):
        image = cv2.imread(str(args.data / name))
        scale = SIDE / max(image.shape[:2])
        image = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))
        height, width = image.shape[:2]
        finder.setInputSize((width, height))
        _, faces = finder.detect(image)
        if faces is not None:
            middle = faces[:, :2] + faces[:, 2:4] / 2
            off = np.hypot(middle[:, 0] - width / 2, middle[:, 1] - height / 2)
            best = faces[np.argmax(faces[:, 2] * faces[:, 3] - CENTRED * off)]
            points[row] = best[4:14].reshape(5, 2) / scale
    np.savez(args.out, name=names, points=points)
    print(f"{np.isnan(points[:, 0, 0]).sum()} of {len(names)} crops without a face")


if __name__ == "__main__":
    main()
