"""The last blocks of EfficientNet-Lite0 trained on cached maps of its first ones, judged by left-out families.

    python benchmarks/tail_folds.py DATA CACHE/lite0-192-s10 --weights W.pth --views plain,0,1,2,3 --out SCORES

The first blocks keep ImageNet's weights, so their maps are computed once for each view (`face_features.py --maps 4`);
batch norms are folded into the convolutions and stay as they are. What comes out is a whole EfficientNet-Lite0 with one
logit. One file a fold and seed, `SCORES/SEED-FOLD.npz`: a killed run goes on. `--all` trains on all images instead and
writes `SCORES/SEED-all.pt`, timm's state.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from face_features import load_lite
from family_folds import FOLDS, Images, balanced, families_bootstrap, figures, framing, read_images, summary
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@dataclass(frozen=True)
class TailSettings:
    """How the last blocks are trained."""

    epochs: int = 4
    batch: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    dropout: float = 0.3
    smoothing: float = 0.05
    mixup: float = 0.0  # of maps; alpha of the Beta distribution
    ema: float = 0.99
    warmup: float = 0.1


def fused_tail(weights: str, block: int, dropout: float) -> nn.Sequential:
    """Blocks from `block` on and the head, batch norms folded into the convolutions: maps -> logit (n, 1)."""
    net = load_lite(0, weights)
    for module in net.modules():
        for conv, norm in (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")):
            if hasattr(module, conv) and hasattr(module, norm) and hasattr(module, "conv_pwl"):
                _fold(module, conv, norm)
    _fold(net, "conv_head", "bn2")
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(net.num_features, 1))
    nn.init.normal_(head[-1].weight, std=0.01)
    nn.init.zeros_(head[-1].bias)
    tail = nn.Sequential(*net.blocks[block:], nn.Sequential(net.conv_head, net.bn2), head)
    return tail.requires_grad_(True).to(memory_format=torch.channels_last)


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    bn = getattr(module, norm)
    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), bn))
    setattr(module, norm, bn.act)


def timm_state(tail: nn.Sequential, weights: str, block: int) -> dict[str, torch.Tensor]:
    """The whole network in timm's names: folded convolutions keep their weights, the norms behind them add the bias."""
    net = load_lite(0, weights)
    state = net.state_dict()
    blocks = len(net.blocks) - block
    for number, part in enumerate([*tail[:blocks], tail[blocks]]):
        prefix = f"blocks.{block + number}." if number < blocks else ""
        names = {"0": ("conv_head", "bn2")} if number == blocks else None
        for name, module in part.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            parent, _, own = name.rpartition(".")
            conv, norm = names[name] if names else (own, {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}[own])
            place = f"{prefix}{parent}." if parent else prefix
            eps = net.get_submodule(f"{place}{norm}").eps
            state[f"{place}{conv}.weight"] = module.weight.detach().contiguous()
            state[f"{place}{norm}.bias"] = module.bias.detach()
            state[f"{place}{norm}.running_mean"] = torch.zeros_like(module.bias)
            state[f"{place}{norm}.running_var"] = torch.ones_like(module.bias)
            state[f"{place}{norm}.weight"] = torch.full_like(module.bias, (1 + eps) ** 0.5)
    state["classifier.weight"], state["classifier.bias"] = tail[-1][-1].weight.detach(), tail[-1][-1].bias.detach()
    return state


def fit_tail(
    tail: nn.Sequential,
    views: Sequence[np.ndarray],
    rows: np.ndarray,
    images: Images,
    settings: TailSettings,
    seed: int,
) -> nn.Sequential:
    """Train on these rows, a view drawn for each in each epoch; gives the exponential average of the weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(balanced(images.fake[rows], images.source[rows])).float()
    label = torch.from_numpy(images.fake[rows]).float() * (1 - settings.smoothing) + settings.smoothing / 2
    optimiser = torch.optim.AdamW(tail.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(rows) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, steps, pct_start=settings.warmup, cycle_momentum=False
    )
    mean = torch.optim.swa_utils.AveragedModel(
        tail, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema)
    )
    tail.train()
    for epoch in range(settings.epochs):
        started, total = time.monotonic(), 0.0
        drawn = rng.integers(len(views), size=len(rows))
        for picked in torch.randperm(len(rows)).split(settings.batch):
            x = _maps(views, drawn[picked.numpy()], rows[picked.numpy()])
            y, w = label[picked], weight[picked]
            if settings.mixup:
                share = float(rng.beta(settings.mixup, settings.mixup))
                other = torch.randperm(len(x))
                x, y, w = (share * part + (1 - share) * part[other] for part in (x, y, w))
            loss = (nn.functional.binary_cross_entropy_with_logits(tail(x)[:, 0], y, reduction="none") * w).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(tail.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            mean.update_parameters(tail)
            total += loss.item() * len(x) / len(rows)
        print(f"  epoch {epoch}: loss {total:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return mean.module.eval()


def _maps(views: Sequence[np.ndarray], drawn: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    batch = np.stack([views[view][row] for view, row in zip(drawn, rows, strict=True)])
    return torch.from_numpy(batch).float().contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def score(tail: nn.Module, view: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Logits of these rows of a view, float32."""
    parts = [
        tail(_maps([view], np.zeros(len(part), int), part))[:, 0] for part in np.array_split(rows, len(rows) // 64 + 1)
    ]
    return torch.cat(parts).numpy()


def main() -> None:
    """Train the folds that are missing and print the figures of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--views", default="plain,0,1,2,3")
    parser.add_argument("--test", default="plain,aligned80")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", default="0,1,2,3,4", help="fewer, for a quick look")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of TailSettings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = TailSettings(**{key: json.loads(value) for key, _, value in (item.partition("=") for item in args.set)})
    images = read_images(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    load = {
        name: np.load(args.features / f"{name}.map{args.block}.npy", mmap_mode="r")
        for name in {*args.views.split(","), *args.test.split(",")}
    }
    views, tests = [load[name] for name in args.views.split(",")], args.test.split(",")
    wanted = [int(fold) for fold in args.folds.split(",")]
    everything = np.arange(len(images.fake))
    for seed in range(args.seeds):
        if args.all:
            tail = fit_tail(
                fused_tail(args.weights, args.block, settings.dropout), views, everything, images, settings, seed
            )
            torch.save(timm_state(tail, args.weights, args.block), args.out / f"{seed}-all.pt")
            continue
        for fold in wanted:
            file = args.out / f"{seed}-{fold}.npz"
            if file.exists():
                continue
            print(f"seed {seed}, fold {fold}", flush=True)
            torch.manual_seed(seed)
            tail = fused_tail(args.weights, args.block, settings.dropout)
            tail = fit_tail(tail, views, np.flatnonzero(images.fold != fold), images, settings, seed)
            out = np.flatnonzero(images.fold == fold)
            part = file.with_suffix(".part.npz")
            np.savez(part, **{name: score(tail, load[name], out) for name in tests})
            part.rename(file)
    if not args.all:
        report(images, args.out, range(args.seeds), wanted, tests, settings)


def report(
    images: Images, out: Path, seeds: Sequence[int], folds: Sequence[int], tests: Sequence[str], settings: TailSettings
) -> None:
    """Print the figures of the folds that are there, and keep them and the scores beside them."""
    runs = []
    for seed in seeds:
        run = {name: np.full(len(images.fake), np.nan) for name in tests}
        for fold in folds:
            found = np.load(out / f"{seed}-{fold}.npz")
            for name in tests:
                run[name][images.fold == fold] = found[name]
        runs.append(run)
    known = np.isin(images.fold, list(folds))
    part = Images(images.fake[known], images.source[known], images.family[known], images.fold[known])
    mean = {name: np.mean([run[name] for run in runs], 0)[known] for name in tests}
    np.save(out / "scores.npy", np.mean([run[tests[0]] for run in runs], 0))
    result = {
        "tail": asdict(settings), "folds_used": list(folds),
        **summary([figures(part, run[tests[0]][known]) for run in runs]),
        "interval": families_bootstrap(part, mean[tests[0]], balanced(part.fake, part.family)),
        "by_view": {name: round(figures(part, mean[name])["auc"], 4) for name in tests},
    }  # fmt: skip
    if {"plain", "aligned80"} <= set(tests):
        result["framing"] = framing(part, mean["plain"], mean["aligned80"])
    print(json.dumps(result))
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    assert FOLDS == 5
    main()
