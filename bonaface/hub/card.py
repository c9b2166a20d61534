"""The model card of a run, from the run's own files alone: metrics.json, config.json, recipe.yaml, report.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from bonaface.errors import UsageError
from bonaface.files import write_json, write_text
from bonaface.hub import merge
from bonaface.hub.card_values import RunFiles, Unseen, card_values
from bonaface.hub.privacy import Redactor
from bonaface.hub.templates import render_sections
from bonaface.models.load import PRESETS
from bonaface.models.pretrained import PACKAGED
from bonaface.models.weights import weights_digest
from bonaface.stats.figures import FIGURES

STORY = "hub.json"  # in a run's folder: what its publisher said about it
# Our figures -> the Hub's metric types, those of the `evaluate` library where it has one.
MODEL_INDEX = {
    "auc": "roc_auc",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "average_precision": "average_precision",
    "recall": "recall",
    "fpr": "fpr",
    "tpr_at_1pct_fpr": "tpr_at_1pct_fpr",
    "eer": "eer",
    "brier": "brier_score",
    "ece": "ece",
}
TAGS = ["bonaface", "deepfake-detection", "ai-generated-images", "faces"]
SAMPLE_LICENSE, UNKNOWN_LICENSE = "apache-2.0", "unknown"


@dataclass(frozen=True)
class Story:
    """What the publisher knows about a run beyond its own files.

    Attributes:
        repo_id: where it will be on the Hub.
        license: of the weights, as the Hub spells it.
        data_license: of the images, in words or as the Hub spells it.
        datasets: Hub ids of the data; those that the run names itself can be left out.
        unseen: folder of a cross-validation that left sources out (``python -m bonaface crossval``).
    """

    repo_id: str | None = None
    license: str | None = None
    data_license: str | None = None
    datasets: tuple[str, ...] = ()
    unseen: Path | None = None


def write_card(folder: Path, story: Story | None = None) -> Path:
    """Write ``folder/README.md``: metadata that the Hub validates, and what a person should know about the model.

    What a person changed in an existing card is kept (see :mod:`bonaface.hub.merge`).

    Raises:
        FileNotFoundError: the run has no report yet.
        UsageError: the folder contains no cross-validation.
    """
    story = remembered(folder, story or Story())
    file, fresh = folder / "README.md", card_of(folder, story)
    if file.is_file():
        fresh = merge.merge(merge.read_card(file), fresh)[0]
    write_text(file, fresh)
    remember(folder, story)
    return file


def remembered(folder: Path, story: Story) -> Story:
    """The story, completed from the last one of this folder, so that a push says no less than the one before.

    ``FOLDER/hub.json`` keeps it (:func:`remember`), and is never published.
    """
    last = _json(folder / STORY, {})
    license, data_license = story.license or last.get("license"), story.data_license or last.get("data_license")
    datasets = story.datasets or tuple(last.get("datasets") or ())
    unseen = story.unseen or (Path(last["unseen"]) if last.get("unseen") else None)
    if story.unseen is None and unseen is not None and not unseen.is_dir():
        unseen = None  # it was deleted since
    return Story(story.repo_id, license, data_license, datasets, unseen)


def remember(folder: Path, story: Story) -> None:
    """Store what a publisher said about a run, once it has been published or written into its card."""
    told = {"license": story.license, "data_license": story.data_license, "datasets": list(story.datasets)}
    told["unseen"] = str(story.unseen.resolve()) if story.unseen else None
    if any(told.values()):
        write_json(folder / STORY, told, indent=1)


def card_of(folder: Path, story: Story) -> str:
    """The card as we would write it, as :func:`bonaface.hub.merge.merge` takes it. Raises as :func:`write_card`."""
    metrics, config = _json(folder / "report" / "metrics.json"), _json(folder / "config.json")
    run = RunFiles(
        name=(story.repo_id or folder.resolve().name).split("/")[-1],
        where=story.repo_id or folder.resolve().name,
        metrics=metrics,
        config=config,
        processor=_json(folder / "preprocessor_config.json", {}),
        recipe=_recipe(folder, metrics),
        report=(folder / "report" / "report.md").read_text(encoding="utf-8"),
        weights=weights_digest(folder),
        license=_license(story, metrics),
        data_license=story.data_license,
        datasets=_datasets(story, metrics),
        unseen=_unseen(story.unseen),
    )
    data = card_data(run.name, metrics, license=run.license, datasets=run.datasets)
    clean = Redactor(folder).text  # before the digests are taken
    sections = render_sections("model_card.md.j2", **card_values(run))
    return merge.compose(data.to_dict(), {key: clean(text) for key, text in sections.items()})


def card_data(
    name: str, metrics: dict[str, Any], *, license: str = UNKNOWN_LICENSE, datasets: tuple[str, ...] = ()
) -> ModelCardData:
    """The card's metadata; the figures are those of metrics.json, to the digit, with their 95 % intervals."""
    details, figures = metrics["facts"], metrics["figures"]
    hub_data = datasets[0] if len(datasets) == 1 else None
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Real against AI-generated faces",
            dataset_type=hub_data or "imagefolder",
            dataset_name=hub_data or _plain_name(details.get("data", "image folder")),
            dataset_split=metrics["split"],
            metric_type=kind,
            metric_name=FIGURES[key].name,
            metric_value=figures[key]["value"],
            metric_args=_interval(figures[key]),
        )
        for key, kind in MODEL_INDEX.items()
        if key in figures and figures[key]["value"] is not None
    ]
    return ModelCardData(
        model_name=name,
        eval_results=results,
        library_name="transformers",
        pipeline_tag="image-classification",
        license=license,
        tags=list(TAGS),
        datasets=list(datasets) or None,
        base_model=_base_model(details),
    )


def _interval(figure: dict[str, Any]) -> dict[str, float] | None:
    if figure.get("low") is None:
        return None
    return {"confidence": 0.95, "low": figure["low"], "high": figure["high"]}


def _base_model(details: dict[str, Any]) -> str | None:
    """The Hub id that the weights came from; None for a folder, and for weights that were drawn."""
    said = details["base_model"] if "base_model" in details else details.get("model")
    name = str(said or "").partition("@")[0]
    name = PACKAGED[name].hub_id if name in PACKAGED else name
    drawn = (details.get("recipe") or {}).get("from_scratch") or name in PRESETS
    return None if drawn or "/" not in name or Path(name).exists() or not _is_repo_id(name) else name


def _datasets(story: Story, metrics: dict[str, Any]) -> tuple[str, ...]:
    said = (metrics["facts"].get("recipe") or {}).get("data", metrics["facts"].get("data"))
    named = [str(item).rpartition("=")[2].partition("@")[0] for item in (said if isinstance(said, list) else [said])]
    return story.datasets or tuple(n for n in named if "/" in n and _is_repo_id(n) and not Path(n).exists())


def _license(story: Story, metrics: dict[str, Any]) -> str:
    """The publisher's word; the embedded sample is ours, and so is what came of it alone."""
    recipe = metrics["facts"].get("recipe") or {}
    ours = recipe.get("data") in ("sample", ["sample"]) and _base_model(metrics["facts"]) is None
    return story.license or (SAMPLE_LICENSE if ours else UNKNOWN_LICENSE)


def _is_repo_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _plain_name(data: object) -> str:
    return ", ".join(Path(word.rpartition("=")[2]).name for word in str(data).split()) or "image folder"


def _recipe(folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    file = folder / "recipe.yaml"
    stored = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return dict(stored or metrics["facts"].get("recipe") or {})


def _unseen(folder: Path | None) -> Unseen | None:
    """What a cross-validation by sources found."""
    if folder is None:
        return None
    report = folder / "report" if (folder / "report").is_dir() else folder
    try:
        found, text = _json(report / "crossval.json"), (report / "crossval.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} contains no cross-validation", "create one with `bonaface crossval`") from error
    if not str(found.get("kind", "")).startswith("leave-"):
        raise UsageError(f"{folder} left no source out", "use a crossval with --leave-one-source-out")
    return Unseen(found["kind"], text)


def _json(path: Path, otherwise: Any = None) -> Any:
    if otherwise is not None and not path.is_file():
        return otherwise
    return json.loads(path.read_text(encoding="utf-8"))
