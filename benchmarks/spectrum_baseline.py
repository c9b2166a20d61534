"""What 31 numbers know: a linear classifier on the radial power spectrum, by the folds of ``crossval``.

    python benchmarks/spectrum_baseline.py --data PREPARED
    python benchmarks/spectrum_baseline.py --data PREPARED --colour

``PREPARED`` is an aligned copy (``python -m bonaface prepare RAW PREPARED``), so size and encoding tell nothing. A
picture becomes the mean log amplitude in 31 rings of spatial frequency: how sharp it is, and no more. ``--colour`` adds
eight statistics of each Lab channel. Linear discriminant analysis with shrinkage, each source weighing the same. What a
network finds in sources that it has not seen is worth what it finds beyond this.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from scipy.stats import skew
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from bonaface.data.dataset import image_bytes
from bonaface.data.folds import BY_FAMILY, BY_SOURCE, FOLDS, make_folds
from bonaface.data.listing import list_data
from bonaface.imaging.images import decode_image
from bonaface.stats.intervals import auc_interval

SIDE, RINGS, PER_SOURCE = 128, 31, 300
FAMILIES = {"stylegan2": ["stylegan2_*"], "sheets": ["sdxl", "flux1_*"]}


def spectrum(grey: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) grey levels -> mean log amplitude by ring, float (RINGS,), windowed against the borders."""
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    amplitude = np.abs(np.fft.fft2(grey * window))
    frequency = np.fft.fftfreq(SIDE)
    ring = np.minimum(np.hypot(frequency[:, None], frequency[None]) * 48, RINGS - 1).astype(int).ravel()
    return np.log(np.bincount(ring, amplitude.ravel(), RINGS) / np.bincount(ring, minlength=RINGS) + 1e-3)


def colours(rgb: np.ndarray) -> np.ndarray:
    """Mean, spread, quantiles and skewness of the Lab channels, float (24,)."""
    channels = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(float)
    quantiles = np.percentile(channels, [1, 10, 50, 90, 99], axis=0)
    return np.concatenate([channels.mean(0), channels.std(0), quantiles.ravel(), skew(channels + 1e-9)])


def main() -> None:
    """Print each fold's AUC with its interval, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="aligned folder, as `python -m bonaface prepare` makes it")
    parser.add_argument("--colour", action="store_true", help="and statistics of colour")
    args = parser.parse_args()
    listing = list_data(args.data, check="none")
    table = []
    for image in tqdm(listing.rows["image"], unit="image", disable=None):
        rgb = cv2.resize(np.array(decode_image(image_bytes(image))), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        grey = spectrum(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(float))
        table.append(np.concatenate([grey, colours(rgb)]) if args.colour else grey)
    features, sources = np.array(table), np.array(listing.rows["source"])
    fake = np.array([listing.labels[label] != listing.real_label for label in listing.rows["label"]])
    number = {path: i for i, path in enumerate(listing.rows["path"])}
    for kind in (FOLDS, BY_SOURCE, BY_FAMILY):
        rng, found = np.random.default_rng(0), []
        print(f"\n{kind}, {features.shape[1]} numbers a picture")
        for fold in make_folds(listing, None, kind=kind, k=5, families=FAMILIES, validation_size=0.2, seed=42):
            rows = np.array([number[path] for path in fold.table["path"]])
            test = (fold.table["split"] == "test").to_numpy()
            train = rows[~test]
            drawn = [rng.choice(train[sources[train] == name], PER_SOURCE) for name in sorted(set(sources[train]))]
            model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
            picked = np.concatenate(drawn)
            model.fit(features[picked], fake[picked])
            auc, (low, high) = auc_interval(fake[rows[test]], model.decision_function(features[rows[test]]))
            found.append(auc)
            print(f"  {fold.title:<40} AUC {auc:.3f} ({low:.3f}-{high:.3f})")
        print(f"  mean {np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}, worst {min(found):.3f}")


if __name__ == "__main__":
    main()
