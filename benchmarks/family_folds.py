"""How far a head on frozen features carries: folds that leave whole families out on both sides, minutes an idea.

    python benchmarks/family_folds.py DATA CACHE/lite0-224-s10 --use s3,s4,s5,s6 --views plain,0,1,2,3 --out RESULT.json

The features are those of `face_features.py`; several folders are joined (`A B --use s3,s4/l5,l6`). Families,
largest first, go to the emptiest fold of their class; every image is scored by heads that saw no image of its
family, nor of the fold's families of the other class. Images count n^-1/2 of their source in training and of their
family in the figures, since families differ in size by 300 to 1; the pooled figures, where each image counts alike,
stand beside them. Intervals come from a bootstrap over families. Each seed is a training of its own; the figures
are means over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score, roc_curve
from timm.layers import QuickGELU
from timm.models.vision_transformer import Block
from torch import nn

from bonaface.training.head_fit import HeadFit
from bonaface.training.heads import BlockHead

FOLDS, SHOWN = 5, 40
WRONG = 0.05  # share of wrong verdicts that the band is to keep


@dataclass(frozen=True)
class HeadSettings:
    """A small perceptron on standardised features."""

    hidden: int = 256
    epochs: int = 12
    batch: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    dropout: tuple[float, float] = (0.3, 0.5)
    mixup: float = 0.0
    members: int = 3
    smoothing: float = 0.0
    block: bool = False  # what `head_block` trains, on a class token and a mean token, in place of a perceptron
    units: int = 3072  # hidden units of that block


# --- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """Rows of the table: which are fake, whose source and family they are, and the fold that tests them."""

    fake: np.ndarray
    source: np.ndarray
    family: np.ndarray
    fold: np.ndarray


def read_images(data: Path, folds: int = FOLDS) -> Images:
    """`metadata.csv`, its families dealt to folds."""
    with (data / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    fake = np.array([row["label"] == "fake" for row in rows])
    family = np.array([row["family"] or row["source"] for row in rows])
    return Images(fake, np.array([row["source"] for row in rows]), family, deal(fake, family, folds))


def deal(fake: np.ndarray, family: np.ndarray, folds: int) -> np.ndarray:
    """Fold of each image: families of each class, largest first, to the emptiest fold."""
    fold = np.zeros(len(fake), int)
    for kind in (False, True):
        load = [0] * folds
        for name, count in sorted(Counter(family[fake == kind]).items(), key=lambda item: (-item[1], item[0])):
            place = int(np.argmin(load))
            load[place] += count
            fold[(family == name) & (fake == kind)] = place
    return fold


def balanced(fake: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Weight n^-1/2 of each image's unit (source or family), both classes of the same total, mean 1."""
    count = Counter(zip(fake.tolist(), unit.tolist(), strict=True))
    weight = np.array([count[key] ** -0.5 for key in zip(fake.tolist(), unit.tolist(), strict=True)])
    for kind in (False, True):
        weight[fake == kind] *= len(fake) / 2 / weight[fake == kind].sum()
    return weight


def load_views(folders: Sequence[Path], use: str, views: Sequence[str]) -> dict[str, np.ndarray]:
    """View -> float16 (images, features) of the stages named for each folder (`s3,s4/l5`)."""
    found = {}
    for view in views:
        parts = []
        for folder, names in zip(folders, use.split("/"), strict=True):
            slices, array = np.load(folder / "slices.npz"), np.load(folder / f"{view}.npy", mmap_mode="r")
            parts += [array[:, slice(*slices[name])] for name in names.split(",")]
        found[view] = np.concatenate(parts, 1)
    return found


# --- heads ----------------------------------------------------------------------------------------------------------


def fit_block(
    views: Sequence[np.ndarray], fake: np.ndarray, weight: np.ndarray, settings: HeadSettings, seed: int
) -> list[nn.Module]:
    """As :func:`fit_head`, by the project's own training of a vision transformer's last block."""
    stack, labels, heads = np.stack(views).astype(np.float32), torch.from_numpy(fake).long(), []
    width = stack.shape[2] // 2
    block = Block(width, 1, settings.units / width, act_layer=QuickGELU)
    for member in range(settings.members):
        torch.manual_seed(seed * 1000 + member)
        head = BlockHead(block, stack, 2)
        fit = HeadFit(
            head, 2, rate=settings.learning_rate, decay=settings.weight_decay, epochs=settings.epochs,
            mixup=settings.mixup, smoothing=settings.smoothing, seed=seed * 1000 + member,
        )  # fmt: skip
        for _ in range(settings.epochs):
            fit.epoch(stack, labels, torch.from_numpy(weight).float())
        heads.append(nn.Sequential(head, nn.Linear(2, 1, bias=False)).eval().requires_grad_(False))
        heads[-1][1].weight.copy_(torch.tensor([[-1.0, 1.0]]))
    return heads


def fit_head(
    views: Sequence[np.ndarray], fake: np.ndarray, weight: np.ndarray, settings: HeadSettings, seed: int
) -> list[nn.Module]:
    """Perceptrons on the same rows of several views, a view drawn for each row in each epoch."""
    stack = torch.stack([torch.from_numpy(view) for view in views])  # float16: (views, rows, features)
    mean = torch.stack([view.float().mean(0) for view in stack]).mean(0)
    std = (torch.stack([((view.float() - mean) ** 2).mean(0) for view in stack]).mean(0) + 1e-6).sqrt()
    standard = Standard(mean, std)
    label, weights = torch.from_numpy(fake).float(), torch.from_numpy(weight).float()
    label = label * (1 - settings.smoothing) + settings.smoothing / 2
    heads = []
    for member in range(settings.members):
        torch.manual_seed(seed * 1000 + member)
        rng = np.random.default_rng(seed * 1000 + member)
        body = (
            [nn.Linear(len(mean), settings.hidden), nn.GELU(), nn.Dropout(settings.dropout[1])]
            if settings.hidden
            else []
        )
        head = nn.Sequential(nn.Dropout(settings.dropout[0]), *body, nn.Linear(settings.hidden or len(mean), 1))
        optimiser = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        steps = settings.epochs * -(-len(label) // settings.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(settings.epochs):
            drawn = torch.randint(len(stack), (len(label),))
            for rows in torch.randperm(len(label)).split(settings.batch):
                x = standard(stack[drawn[rows], rows].float())
                y, w = label[rows], weights[rows]
                if settings.mixup:
                    share = float(rng.beta(settings.mixup, settings.mixup))
                    other = torch.randperm(len(rows))
                    x, y, w = (share * a + (1 - share) * a[other] for a in (x, y, w))
                loss = (nn.functional.binary_cross_entropy_with_logits(head(x)[:, 0], y, reduction="none") * w).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        heads.append(nn.Sequential(standard, head).eval())
    return heads


class Standard(nn.Module):
    """(x - mean) / std, clipped at six deviations."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, features) alike."""
        return ((x - self.mean) / self.std).clamp(-6, 6)


@torch.inference_mode()
def score(heads: Sequence[nn.Module], view: np.ndarray) -> np.ndarray:
    """Mean logit of the heads, float (images,)."""
    return torch.stack([head(torch.from_numpy(view).float())[:, 0] for head in heads]).mean(0).numpy()


def left_out_scores(
    images: Images,
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    settings: HeadSettings,
    seed: int,
    only: Sequence[int] = range(FOLDS),
) -> dict[str, np.ndarray]:
    """Test view -> logit of each image, by heads that saw none of its fold."""
    found = {name: np.full(len(images.fake), np.nan) for name in test}
    for fold in only:
        out = images.fold == fold
        weight = balanced(images.fake[~out], images.source[~out])
        fit = fit_block if settings.block else fit_head
        heads = fit([view[~out] for view in train.values()], images.fake[~out], weight, settings, seed)
        for name, view in test.items():
            found[name][out] = score(heads, view[out])
    return found


# --- figures --------------------------------------------------------------------------------------------------------


def platt(logit: np.ndarray, fake: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic curve through scores (Platt 1999)."""

    def loss(ab: np.ndarray) -> float:
        z = ab[0] * logit + ab[1]
        return float((weight * (np.logaddexp(0, z) - fake * z)).sum() / weight.sum())

    return tuple(minimize(loss, [1.0, 0.0], method="Nelder-Mead").x)  # type: ignore[return-value]


def band(p: np.ndarray, fake: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The narrowest (low, high) with at most :data:`WRONG` of the verdicts wrong on each side."""
    grid = np.linspace(0.005, 0.995, 199)
    low = max((t for t in grid if _share(fake[p <= t], weight[p <= t]) <= WRONG), default=0.0)
    high = min((t for t in grid if _share(~fake[p >= t], weight[p >= t]) <= WRONG), default=1.0)
    return (low, high) if low < high else (0.5, 0.5)


def _share(hit: np.ndarray, weight: np.ndarray) -> float:
    return float(weight[hit].sum() / weight.sum()) if len(weight) else 0.0


def calibrated(images: Images, logit: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(fake) and verdict (-1 real, 0 none, 1 fake) of each image, set by the images of the other folds."""
    p, verdict = np.zeros(len(logit)), np.zeros(len(logit), int)
    for fold in np.unique(images.fold):
        out = images.fold == fold
        a, b = platt(logit[~out], images.fake[~out], weight[~out])
        others = 1 / (1 + np.exp(-(a * logit[~out] + b)))
        p[out] = 1 / (1 + np.exp(-(a * logit[out] + b)))
        low, high = band(others, images.fake[~out], weight[~out])
        verdict[out] = np.where(p[out] >= high, 1, np.where(p[out] <= low, -1, 0))
    return p, verdict


def calibration_error(p: np.ndarray, fake: np.ndarray, weight: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error in equal bins of P(fake), weighted."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [
        abs(np.average(p[place == i] - fake[place == i], weights=weight[place == i])) * weight[place == i].sum()
        for i in np.unique(place)
    ]
    return float(sum(gaps) / weight.sum())


def families_bootstrap(images: Images, logit: np.ndarray, weight: np.ndarray, rounds: int = 300) -> tuple[float, float]:
    """95 % interval of the weighted AUC under a bootstrap of whole families, each class by itself."""
    rng, found = np.random.default_rng(0), []
    families = [np.unique(images.family[images.fake == kind]) for kind in (False, True)]
    key = np.where(images.fake, "f:", "r:").astype(object) + images.family
    names, place = np.unique(key.astype(str), return_inverse=True)
    for _ in range(rounds):
        drawn = Counter(
            f"{'fr'[not kind]}:{name}" for kind in (0, 1) for name in rng.choice(families[kind], len(families[kind]))
        )
        times = np.array([drawn.get(name, 0) for name in names])[place]
        found.append(roc_auc_score(images.fake, logit, sample_weight=weight * times))
    return tuple(np.percentile(found, [2.5, 97.5]).round(4).tolist())  # type: ignore[return-value]


def figures(images: Images, logit: np.ndarray) -> dict[str, Any]:
    """The figures of one seed's left-out scores."""
    fake, weight = images.fake, balanced(images.fake, images.family)
    p, verdict = calibrated(images, logit, weight)
    said, wrong = verdict != 0, np.where(verdict > 0, ~fake, fake) & (verdict != 0)
    fpr, tpr, _ = roc_curve(fake, logit, sample_weight=weight)
    return {
        "auc": roc_auc_score(fake, logit, sample_weight=weight),
        "auc_pooled": roc_auc_score(fake, logit),
        "folds": [roc_auc_score(fake[m], logit[m], sample_weight=weight[m]) for m in fold_masks(images)],
        "tpr_at_5_fpr": float(np.interp(0.05, fpr, tpr)),
        "verdicts": float(weight[said].sum() / weight.sum()),
        "wrong_of_verdicts": float(weight[wrong].sum() / max(weight[said].sum(), 1e-9)),
        "verdicts_pooled": float(said.mean()),
        "wrong_of_verdicts_pooled": float(wrong.sum() / max(said.sum(), 1)),
        "ece": calibration_error(p, fake, weight),
        "brier": float(np.average((p - fake) ** 2, weights=weight)),
    }


def fold_masks(images: Images) -> Iterator[np.ndarray]:
    """The images of each fold."""
    return (images.fold == fold for fold in np.unique(images.fold))


def family_table(images: Images, logit: np.ndarray) -> list[dict[str, Any]]:
    """Families of 40 images and more: AUC against the whole other class, weighted by family; share called fake."""
    weight, found = balanced(images.fake, images.family), []
    p, _ = calibrated(images, logit, weight)
    for kind, name in sorted(set(zip(images.fake.tolist(), images.family.tolist(), strict=True))):
        own = (images.fake == kind) & (images.family == name)
        if own.sum() >= SHOWN:
            seen = own | (images.fake != kind)
            auc = roc_auc_score(images.fake[seen], logit[seen], sample_weight=weight[seen])
            row = {"family": name, "fake": bool(kind), "images": int(own.sum()), "auc": round(float(auc), 4)}
            found.append({**row, "called_fake": round(float((p[own] > 0.5).mean()), 3)})
    return found


def framing(images: Images, box: np.ndarray, aligned: np.ndarray) -> dict[str, float]:
    """AUC between the aligned and the box-framed halves of one class: 0.5 where framing says nothing."""
    found = {}
    for kind, name in ((False, "real"), (True, "fake")):
        half = np.random.default_rng(0).random(len(box)) < 0.5
        mine = images.fake == kind
        mixed = np.where(half, aligned, box)[mine]
        found[name] = round(float(roc_auc_score(half[mine], mixed)), 4)
    return found


def summary(per_seed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of each figure, and the spread of the AUC."""
    mean = {key: np.mean([seed[key] for seed in per_seed], 0).round(4).tolist() for key in per_seed[0]}
    return {**mean, "auc_by_seed": [round(seed["auc"], 4) for seed in per_seed]}


def main() -> None:
    """Judge one idea and print (and keep) its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("features", type=Path, nargs="+")
    parser.add_argument("--use", required=True, help="stages, with commas; those of several folders with slashes")
    parser.add_argument("--views", default="plain,0,1,2,3", help="what heads are trained on")
    parser.add_argument("--test", default="plain", help="what they are judged on: the first is the one that counts")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of HeadSettings")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--scores", type=Path, help=".npy of the mean left-out logits to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print each large family")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = HeadSettings(**{key: json.loads(value) for key, _, value in (item.partition("=") for item in args.set)})
    images, started = read_images(args.data), time.monotonic()
    train = load_views(args.features, args.use, args.views.split(","))
    test = load_views(args.features, args.use, args.test.split(","))
    runs = [left_out_scores(images, train, test, settings, seed) for seed in range(args.seeds)]
    first = args.test.split(",")[0]
    mean = {name: np.mean([run[name] for run in runs], 0) for name in test}
    weight = balanced(images.fake, images.family)
    others = {name: roc_auc_score(images.fake, mean[name], sample_weight=weight) for name in test}
    result = {
        "features": [folder.name for folder in args.features], "use": args.use, "views": args.views,
        "head": asdict(settings), "test": first, **summary([figures(images, run[first]) for run in runs]),
        "interval": families_bootstrap(images, mean[first], weight),
        "other_views": {name: round(float(auc), 4) for name, auc in others.items()},
        "minutes": round((time.monotonic() - started) / 60, 1),
    }  # fmt: skip
    aligned = next((name for name in test if name.startswith("aligned")), None)
    if aligned and "plain" in test:
        result["framing"] = framing(images, mean["plain"], mean[aligned])
    print(json.dumps(result))
    result["families"] = family_table(images, mean[first])
    if args.table:
        print(*(json.dumps(row) for row in result["families"]), sep="\n")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.scores:
        np.save(args.scores, mean[first])


if __name__ == "__main__":
    main()
