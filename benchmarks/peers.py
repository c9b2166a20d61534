"""Other detectors beside this one on the same images, under the same protocol.

    python benchmarks/peers.py --data DATA --ours RUNS/CROSSVAL --out benchmarks/results/peers.json
    python benchmarks/peers.py … --hub haywoodsloan/ai-image-detector-deploy --images 1000

Ours are the predictions of a cross-validation that leaves families out: no model saw the family of an image that it
scores. Nobody says what the peers saw, which can only flatter them. Packages that contain their weights are installed
with uv into environments of their own; detectors on the Hub are loaded by transformers where the Hub can be reached.
Figures are those of the cross-validation's report: AUC with families weighted by the square root of their size (95 %
interval by resampling families), AUC pooled over images, and the shares called fake.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from record import record
from sklearn.metrics import roc_auc_score
from tqdm import tqdm
from transformers import pipeline

from bonaface.crossval.family_figures import family_figures

FAKE = re.compile(r"\bai\b|artificial|fake|generated|synthetic")  # in a label on the Hub, in lower case
# requirement -> code that defines `score(path)`: a number that rises with "fake", and whether that is the verdict
PEERS = {
    "sahu65==1.1.0": """
import sahu65
def score(path):
    found = sahu65.detect(path)
    return found.detector_probability, found.is_ai
""",
    "minosse==0.1.0": """
from minosse.detector import analyze_path
def score(path):
    found = analyze_path(path)
    return found.score, bool(found.reasons)
""",
}
LOOP = """
import json, sys
for line in sys.stdin:
    print(json.dumps(score(line.rstrip("\\n"))), flush=True)
"""


def scores_of_package(requirement: str, paths: Sequence[Path], folder: Path) -> list[tuple[float, bool]]:
    """Score and verdict of each image by a package of PEERS, in an environment made below ``folder``."""
    home = folder / requirement.replace("==", "-")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", home / "bin" / "python", requirement], check=True)
    command = [home / "bin" / "python", "-c", PEERS[requirement] + LOOP]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        found = []
        for path in tqdm(paths, desc=requirement, unit="image", disable=None):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            found.append(tuple(json.loads(process.stdout.readline())))
        process.stdin.close()
    return found


def scores_from_hub(name: str, paths: Sequence[Path]) -> list[tuple[float, bool]]:
    """Score and verdict of each image by a classifier on the Hub, whose labels say which is which.

    Raises:
        OSError: the Hub cannot be reached, or has no such model.
    """
    classify = pipeline("image-classification", name, device="cpu")
    found = []
    for path in tqdm(paths, desc=name, unit="image", disable=None):
        scores = {str(row["label"]).lower(): float(row["score"]) for row in classify(str(path), top_k=None)}
        fake = sum(p for label, p in scores.items() if FAKE.search(label))
        found.append((fake, fake > 0.5))
    return found


def figures(table: pd.DataFrame, families: dict[str, list[str]], called: Iterable[bool]) -> dict[str, Any]:
    """What is printed and kept of one detector; ``table`` has label, source and p_fake."""
    by_family = family_figures(table, families, "real")
    fake, called = table["label"] != "real", pd.Series(list(called), index=table.index)
    return {
        "images": len(table),
        **{key: round(by_family[key], 4) for key in ("auc", "auc_low", "auc_high")},
        "auc_pooled": round(float(roc_auc_score(fake, table["p_fake"])), 4),
        "fakes_called_fake": round(float(called[fake].mean()), 4),
        "real_called_fake": round(float(called[~fake].mean()), 4),
    }


def main() -> None:
    """Print a line for each detector, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="labels real and fake, with metadata.csv")
    parser.add_argument("--ours", required=True, type=Path, help="a cross-validation that left families out")
    parser.add_argument("--hub", nargs="*", default=[], help="detectors on the Hub, by id")
    parser.add_argument("--images", type=int, help="of each label at most, drawn evenly; default all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = pd.read_parquet(options.ours / "report" / "predictions.parquet")
    if options.images:
        parts = [part.iloc[:: -(-len(part) // options.images)] for _, part in table.groupby("label")]
        table = pd.concat(parts)
    paths = [options.data / path for path in table["path"]]
    known = pd.read_csv(options.data / "metadata.csv")
    families = {str(name): sorted(set(part["source"])) for name, part in known.groupby("family")}
    result = {"bonaface": figures(table, families, table["p_fake"] > 0.5)}
    print("bonaface", json.dumps(result["bonaface"]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in [*PEERS, *options.hub]:
            try:
                by_package = name in PEERS
                found = scores_of_package(name, paths, Path(folder)) if by_package else scores_from_hub(name, paths)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{name}: not available ({error})", file=sys.stderr)
                continue
            scored = table.assign(p_fake=[score for score, _ in found])
            result[name] = figures(scored, families, (verdict for _, verdict in found))
            print(name, json.dumps(result[name]), flush=True)
    record(options.out, None, "none: figures of accuracy", detectors=result)


if __name__ == "__main__":
    main()
