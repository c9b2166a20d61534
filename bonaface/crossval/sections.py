"""The folds of a cross-validation in words, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bonaface.crossval.family_figures import family_sentence, shown_families
from bonaface.data.folds import BY_FAMILY, FAMILY_FOLDS, FOLDS
from bonaface.report import fold_plots
from bonaface.report.pages import Block, Plot, Section, Table, cell
from bonaface.stats import metrics
from bonaface.stats.figures import ALL_FIGURES, NONE_FIGURES, UNFAMILIAR, amount, span
from bonaface.stats.intervals import Interval

SHOWN = (
    "auc", "accuracy", "ece", "tpr_at_5pct_fpr", "band_recall", "uncertain", "band_error", UNFAMILIAR, *NONE_FIGURES
)  # fmt: skip


def fold_section(result: Mapping[str, Any], worth: str) -> Section:
    """Every fold, and every family that was left out, with all figures; ``worth`` is what verdicts are worth, or ""."""
    kind, folds, by_family = result["kind"], result["folds"], result["families"]
    table = Table(shown_table(folds, result["over_folds"], result["pooled"], wide=True))
    blocks: list[Block] = [method(kind, len(folds)), table]
    if worth:
        blocks.append(worth)
    if by_family:
        blocks += [family_sentence(by_family), Table(shown_families(by_family))]
    data = {key: result[key] for key in ("kind", "folds", "over_folds", "worst", "pooled", "unseen")}
    return Section("folds", "By fold", blocks, data=data, brief=True)


def conclude(
    kind: str, folds: pd.DataFrame, summary: Mapping[str, metrics.Figures], worst: Mapping[str, Any] | None
) -> str:
    """What the AUC is, how far it varies, and where it is lowest."""
    auc = summary["auc"]
    what = "families of generators" if kind in (BY_FAMILY, FAMILY_FOLDS) else "generators"
    ground = (
        "On new images from known generators and cameras"
        if kind == FOLDS
        else f"On images from unseen {what} and unseen cameras"
    )
    spread = f" ± {auc['sd']:.3f}" if np.isfinite(auc["sd"]) else ""
    sentences = [
        f"{ground}, a detector trained with this recipe reaches AUC {cell(auc['mean'])}{spread} "
        f"(mean ± standard deviation over {auc['n']} folds)."
    ]
    if worst is not None:
        sentences.append(f"Its worst fold is {worst['title']}: AUC {cell(worst['auc'])} {auc_span(worst)}.")
    if small := int(folds["small"].sum()):
        sentences.append(
            f"{small} of {len(folds)} folds test fewer than {metrics.WORST_MIN_IMAGES} real or fake images: they count "
            "towards the mean, but are never named the worst."
        )
    return " ".join(sentences)


def method(kind: str, folds: int) -> str:
    """How the figures were obtained, for a reader of the table."""
    how = {
        FOLDS: f"The images were divided into {folds} folds, stratified by label and source, with copies of an image "
        "in the same fold; each fold is the test set of a model trained on the others.",
        BY_FAMILY: "Each fold leaves a family of generators out of training, and one of the real sources in turn.",
        FAMILY_FOLDS: f"Families, real and generated, were divided into {folds} folds; each fold is the test set of a "
        "model trained on the others, so every image is tested once, by a model that was not trained on its family.",
    }.get(kind, "Each fold leaves a generator out of training, and one of the real sources in turn.")
    return (
        f"{how} AUC with its 95 % interval (DeLong). Each fold has its own uncertainty band, set on images of its "
        "training sources. The models share most of their training images, so the standard deviation over folds is not "
        "a standard error. The last row pools the scores of all models"
        + ("." if kind in (FOLDS, FAMILY_FOLDS) else "; an image counts once for each fold that tests it.")
    )


def shown_table(
    folds: pd.DataFrame, summary: Mapping[str, metrics.Figures], together: Mapping[str, Any], *, wide: bool = False
) -> pd.DataFrame:
    """The folds for a reader, then mean ± sd over them, then all images pooled; ``wide`` with every figure."""
    names = [name for name in SHOWN if name == "auc" or (wide and summary[name]["n"])]
    held = wide and any(len(fold["held_out"].get("fake", [])) > 1 for _, fold in folds.iterrows())
    rows = []
    for _, fold in folds.iterrows():
        row = {"fold": fold["title"] + (" (small)" if fold["small"] else "")}
        row |= {"real": cell(fold["n_real"]), "fake": cell(fold["n_fake"])}
        row |= {ALL_FIGURES[name].short: _figure(name, fold) for name in names}
        rows.append(row | ({"fake sources": ", ".join(fold["held_out"]["fake"])} if held else {}))
    rows.append({"fold": "mean ± sd"} | {ALL_FIGURES[name].short: _mean_and_sd(name, summary[name]) for name in names})
    last = {"fold": "pooled", "real": cell(together["n_real"]), "fake": cell(together["n_fake"])}
    rows.append(last | {ALL_FIGURES[name].short: _figure(name, together) for name in names})
    return pd.DataFrame(rows).fillna("")


def lead_plots(
    folds: pd.DataFrame,
    tests: Sequence[pd.DataFrame],
    real_label: str,
    summary: Mapping[str, metrics.Figures],
    worst: Mapping[str, Any] | None,
) -> list[Block]:
    """AUC by fold, and the ROC curves of all of them."""
    pairs = [((rows["label"] != real_label).to_numpy(), rows["p_fake"].to_numpy(float)) for rows in tests]
    curves = dict(zip(folds["title"], pairs, strict=True))
    pooled = tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))
    auc = summary["auc"]
    return [
        Plot(
            "folds_auc",
            "AUC of each fold with its 95 % interval; the dashed line is their mean, the shaded area one standard "
            "deviation (hollow: fewer than 50 real or fake images).",
            lambda theme: fold_plots.fold_dots(folds, mean=auc["mean"], sd=auc["sd"], theme=theme),
        ),
        Plot(
            "folds_roc",
            "ROC curves of all folds.",
            lambda theme: fold_plots.fold_roc_curves(
                curves, (pooled[0], pooled[1]), worst=worst["title"] if worst else None, theme=theme
            ),
        ),
    ]


def auc_span(row: Mapping[str, Any]) -> str:
    """The interval of a row's AUC."""
    return span("auc", Interval(row["auc_low"], row["auc_high"]))


def _figure(name: str, row: Any) -> str:
    text = amount(name, row[name]) if np.isfinite(row.get(name, np.nan)) else ""
    return f"{text} {auc_span(row)}".strip() if name == "auc" else text


def _mean_and_sd(name: str, values: Mapping[str, Any]) -> str:
    if not np.isfinite(values["sd"]):
        return amount(name, values["mean"])
    return f"{amount(name, values['mean'])} ± {amount(name, values['sd'])}"
