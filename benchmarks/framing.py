"""Whether framing moves the score: AUC between two framings of the same images of one class, by left-out families.

    python benchmarks/framing.py RUNS/CROSSVAL --data DATA --yunet face_detection_yunet.onnx --out RESULT.json

Each test image of each fold is scored by the fold's model twice: as it is, and aligned by its landmarks as FFHQ is.
An AUC of 0.5 says that a score does not tell the two framings apart; with the interval of a bootstrap over sources.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from bonaface.imaging.faces import FaceDetector
from bonaface.imaging.framing import cut, similarity
from bonaface.inference.detector import Detector

SHARE = 0.8  # of the side of FFHQ's crop: about what the middle of a crop of twice the face box shows
BATCH, ROUNDS = 64, 300


def both_framings(data: Path, paths: list[str], detector: Detector, finder: FaceDetector) -> np.ndarray:
    """P(fake) of each image as it is and aligned, float (n, 2); NaN where no landmarks are found."""
    found = np.full((len(paths), 2), np.nan)
    for start in tqdm(range(0, len(paths), BATCH), unit="batch", leave=False, disable=None):
        images = [Image.open(data / path).convert("RGB") for path in paths[start : start + BATCH]]
        faces = [finder.detect(image) for image in images]
        seen = [i for i, each in enumerate(faces) if each and each[0].landmarks is not None]
        aligned = [_bordered(cut(images[i], similarity(faces[i][0].landmarks), SHARE), detector) for i in seen]
        scores = detector([images[i] for i in seen] + aligned, faces=False)
        p = np.array([score.p_fake for score in scores]).reshape(2, len(seen))
        found[np.array(seen, int) + start] = p.T
    return found


def _bordered(crop: Image.Image, detector: Detector) -> Image.Image:
    """The crop with the border that the processor cuts away again."""
    side = round(crop.width / detector.processor.data_config["crop_pct"])
    canvas = crop.resize((side, side))
    canvas.paste(crop, ((side - crop.width) // 2, (side - crop.height) // 2))
    return canvas


def main() -> None:
    """Print the figures and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crossval", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--yunet", required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    finder, parts = FaceDetector(args.yunet, kind="yunet"), []
    table = pd.read_parquet(args.crossval / "report" / "predictions.parquet")
    for fold in sorted((args.crossval / "folds").iterdir()):
        splits = pd.read_csv(fold / "splits.csv")
        part = table[table["path"].isin(splits["path"][splits["split"] == "test"])].copy()
        detector = Detector.from_pretrained(fold / "run")
        part[["plain", "aligned"]] = both_framings(args.data, list(part["path"]), detector, finder)
        parts.append(part)
    scored = pd.concat(parts).dropna(subset=["plain", "aligned"])
    result = {"images": len(scored)}
    for label, rows in scored.groupby("label"):
        result[str(label)] = _figure(rows)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _figure(rows: pd.DataFrame) -> dict[str, float]:
    def auc(part: pd.DataFrame) -> float:
        return float(roc_auc_score([0] * len(part) + [1] * len(part), [*part["plain"], *part["aligned"]]))

    rng, sources = np.random.default_rng(0), [part for _, part in rows.groupby("source")]
    drawn = [auc(pd.concat([sources[i] for i in rng.integers(len(sources), size=len(sources))])) for _ in range(ROUNDS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"auc": round(auc(rows), 4), "low": round(float(low), 4), "high": round(float(high), 4), "n": len(rows)}


if __name__ == "__main__":
    main()
