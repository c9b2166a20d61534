"""The values of a model card's template, ``hub/templates/model_card.md.j2``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from bonaface.evaluation.sections import judged_on
from bonaface.models.cnn import PlainCNNConfig
from bonaface.models.facts import ModelFacts
from bonaface.models.head import HiddenHeadConfig
from bonaface.report.findings import worth_in_words

OUR_TYPES = {PlainCNNConfig.model_type, HiddenHeadConfig.model_type}
# Settings that say little about a run; the file itself has all of them.
DULL = {"data_fingerprint", "remove_unused_columns", "greater_is_better", "load_best_model_at_end", "use_cpu"}


@dataclass(frozen=True)
class Unseen:
    """A cross-validation that left sources out: its kind, and its report as Markdown."""

    kind: str
    text: str


@dataclass(frozen=True)
class RunFiles:
    """A run's files, read: ``where`` is the id or folder to load it from, ``weights`` the SHA-256 of the weights."""

    name: str
    where: str
    metrics: dict[str, Any]
    config: dict[str, Any]
    processor: dict[str, Any]
    recipe: dict[str, Any]
    report: str
    weights: str
    license: str
    data_license: str | None
    datasets: tuple[str, ...]
    unseen: Unseen | None

    @property
    def details(self) -> dict[str, Any]:
        """The details that the training gave to the report."""
        return self.metrics["facts"]

    @property
    def ours(self) -> bool:
        """Whether the architecture comes with bonaface."""
        return self.config.get("model_type") in OUR_TYPES or str(self.config.get("model_type")).startswith("bonaface_")


def card_values(run: RunFiles) -> dict[str, Any]:
    """All values of the template; what a run does not have is None or empty."""
    told, facts = run.details, ModelFacts.from_block(run.config.get("bonaface"), run.where)
    margin = told.get("face_margin")
    return {
        "run": run,
        "labels": run.metrics["labels"],
        "real_label": run.metrics["real_label"],
        "architecture": _architecture(run.config),
        "parameters": told.get("parameters"),
        "side": _side(run),
        "strange": _strange(run),
        **{name: getattr(facts, name) for name in ("calibration", "band", "thresholds", "versions")},
        **{name: getattr(facts, name) for name in ("unfamiliar", "resembles")},
        "judged_on": judged_on(facts),
        "worth": worth_in_words(facts.unseen),
        **_data(told),
        "recipe": _recipe(run),
        "robustness": bool((run.metrics.get("sections") or {}).get("robustness")),
        "margin": margin if isinstance(margin, int | float) else None,
        "minutes": told.get("minutes"),
        "processes": told.get("processes") or 1,
        "fingerprints": _fingerprints(facts.data_fingerprint, run.weights),
        "citation_key": "".join(c if c.isalnum() else "_" for c in run.name),
        "citation_title": "".join(c for c in run.name if c.isalnum() or c in " ._-"),
    }


def _architecture(config: dict[str, Any]) -> str:
    named = (config.get("architectures") or [config.get("model_type", "a network")])[0]
    return config.get("architecture") or named.removesuffix("ForImageClassification")


def _side(run: RunFiles) -> str:
    size = run.processor.get("crop_size") or run.processor.get("size") or {}
    if not size and run.config.get("pretrained_cfg"):
        _, height, width = run.config["pretrained_cfg"].get("input_size", (0, 0, 0))
        size = {"height": height, "width": width}
    if {"height", "width"} <= set(size):
        return f"{size['width']} x {size['height']} pixels"
    return f"{size['shortest_edge']} pixels" if "shortest_edge" in size else ""


def _strange(run: RunFiles) -> list[dict[str, Any]]:
    """Sources of the test that were not in the training data; none if those are not known."""
    seen = set(run.details.get("train_sources") or [])
    rows = [row for row in run.metrics.get("sources") or [] if seen and row["source"] not in seen]
    return [
        {**row, "auc": row.get("auc"), "called_fake": row.get("fpr") if row.get("recall") is None else row["recall"]}
        for row in rows
    ]


def _data(told: dict[str, Any]) -> dict[str, Any]:
    counts = told.get("counts") or []
    splits: Counter[str] = Counter()
    for row in counts:
        splits[row["split"]] += row["n"]
    return {
        "counts": counts,
        "splits": splits,
        "n_sources": len({(row["label"], row["source"]) for row in counts}),
        "splits_made": told.get("splits_made_by_us") or [],
        "n_broken": len(told.get("broken") or []),
        "audit": told.get("audit"),
    }


def _recipe(run: RunFiles) -> str:
    told = {key: value for key, value in sorted(run.recipe.items()) if key not in DULL}
    return yaml.safe_dump(told, sort_keys=True, allow_unicode=True).replace("```", "'''").strip() if run.recipe else ""


def _fingerprints(data: str, weights: str) -> dict[str, str]:
    prints = {"data": data, "weights (SHA-256)": weights}
    return {name: value for name, value in prints.items() if value}
