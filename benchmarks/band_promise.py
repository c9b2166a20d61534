"""Does the promise hold? Calibration sets drawn with replacement from a pool of scores, whose own error is the truth.

    python benchmarks/band_promise.py
    python benchmarks/band_promise.py --predictions runs/NAME/report/predictions.parquet --real-label real

A promise of 95 % may be broken by 5 % of the sets, so among 1,000 by 6.4 % at most (two standard deviations).
Beside it, on the same sets, the naive threshold: the one that errs on delta of the calibration images themselves.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import pandas as pd

from bonaface.stats.certificates import images_needed, thresholds, uncertain_band, verdicts
from bonaface.stats.metrics import threshold_at_fpr


def drawn_pool(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two overlapping kinds, saturated and rounded as networks' are."""
    rng = np.random.default_rng(seed)
    fake = np.arange(n) % 2 == 0
    p = 1 / (1 + np.exp(-3 * rng.normal(np.where(fake, 1.2, -1.2))))
    return np.round(p, 4), fake


def trial(p: np.ndarray, fake: np.ndarray, part: np.ndarray, delta: float, fpr: float) -> Counter[str]:
    """Which promises one calibration set breaks."""
    broken: Counter[str] = Counter()
    band = uncertain_band(p[part], fake[part], delta=delta)
    wrong = {"real called fake": (p[~fake] >= band.high).mean(), "fake called real": (p[fake] <= band.low).mean()}
    for name, error in wrong.items():
        broken[f"band: {name}"] += error > delta
    broken["band: either"] += max(wrong.values()) > delta
    broken["no promise made"] += not band.certified
    row = thresholds(p[part][~fake[part]], [fpr])[0]
    if row.threshold is not None:
        broken[f"threshold at {fpr:.1%} FPR"] += (p[~fake] >= row.threshold).mean() > fpr
    reals, fakes = p[part][~fake[part]], p[part][fake[part]]
    broken["naive: real called fake"] += (p[~fake] >= threshold_at_fpr(reals, delta)).mean() > delta
    broken["naive: fake called real"] += (-p[fake] >= threshold_at_fpr(-fakes, delta)).mean() > delta
    broken[f"naive at {fpr:.1%} FPR"] += (p[~fake] >= threshold_at_fpr(reals, fpr)).mean() > fpr
    return broken


def main() -> None:
    """Draw calibration sets of each size and print how often the band's guarantee failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", help="predictions.parquet of a report; a drawn pool when not given")
    parser.add_argument("--real-label", default="real")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 600, 2000], help="images in a calibration set")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--fpr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.predictions:
        table = pd.read_parquet(args.predictions)
        p, fake = table["p_fake"].to_numpy(), (table["label"] != args.real_label).to_numpy()
    else:
        p, fake = drawn_pool(50_000, args.seed)
    print(
        f"pool of {len(p):,} scores; {args.trials} sets of each size; "
        f"a band needs {images_needed(args.delta)} images of each kind"
    )
    rng = np.random.default_rng(args.seed)
    columns, widths = {}, {}
    for size in args.sizes:
        parts = [rng.integers(0, len(p), size) for _ in range(args.trials)]
        broken = sum((trial(p, fake, part, args.delta, args.fpr) for part in parts), Counter())
        columns[f"n = {size}"] = {name: f"{count / args.trials:.1%}" for name, count in broken.items()}
        bands = [uncertain_band(p[part], fake[part], delta=args.delta) for part in parts[:100]]
        widths[f"n = {size}"] = np.mean([(verdicts(p, band) == "uncertain").mean() for band in bands])
    table = pd.DataFrame(columns).fillna("0.0%")
    table.loc["(share without a verdict)"] = {name: f"{share:.1%}" for name, share in widths.items()}
    print(table.sort_index().to_string())


if __name__ == "__main__":
    main()
