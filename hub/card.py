"""The model card of a run, written from the run's own files alone: metrics.json, config.json and report.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bonafide.run import write_text

MODEL_INDEX = {"auc": "roc_auc", "accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "ece": "ece"}


def write_card(folder: Path) -> Path:
    """Write ``folder/README.md``: metadata that the Hub validates, then the report in short and how to use the model.

    Raises:
        FileNotFoundError: the run has no report yet.
    """
    metrics = json.loads((folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    report = (folder / "report" / "report.md").read_text(encoding="utf-8")
    card = ModelCard(f"---\n{card_data(folder, metrics).to_yaml()}\n---\n\n{prose(folder, metrics, config, report)}")
    write_text(folder / "README.md", str(card))
    return folder / "README.md"


def card_data(folder: Path, metrics: dict[str, Any]) -> ModelCardData:
    """The card's metadata; the figures are those of metrics.json, to the digit."""
    facts, figures = metrics["facts"], metrics["figures"]
    data_name = str(facts.get("data", "image folder"))
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Real against AI-generated faces",
            dataset_type="imagefolder",
            dataset_name=Path(data_name).name,
            dataset_split=metrics["split"],
            metric_type=kind,
            metric_name=kind,
            metric_value=figures[name]["value"],
        )
        for name, kind in MODEL_INDEX.items()
        if figures[name]["value"] is not None
    ]
    base = str(facts.get("model", ""))
    return ModelCardData(
        model_name=folder.name,
        eval_results=results,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["bonafide", "deepfake-detection", "ai-generated-images", "faces"],
        base_model=base if "/" in base and not Path(base).exists() else None,
    )


def prose(folder: Path, metrics: dict[str, Any], config: dict[str, Any], report: str) -> str:
    """The card's text, Markdown."""
    facts = metrics["facts"]
    labels = ", ".join(f"`{label}`" for label in metrics["labels"])
    counts = "\n".join(
        f"| {row['split']} | {_cell(row['label'])} | {_cell(row['source'])} | {row['n']:,} |" for row in facts["counts"]
    )
    needs = (
        "" if not config["model_type"].startswith("bonafide_") else "import bonafide  # registers the architecture\n"
    )
    audit = (facts.get("audit") or {}).get("verdict", "not done")
    return f"""# {folder.name}

A classifier of face images with the labels {labels}; `{metrics["real_label"]}` means a photograph.
Trained with bonafide.

## What it is for

It ranks pictures of faces by how much they look like the generated ones it was trained on. It supports a person's
judgement and proves nothing: not that a picture is real, not that one is fake, and nothing about a person shown. It is
not meant for decisions about people.

## How good it is

{report.strip()}

## How to use it

```python
{needs}from transformers import pipeline

pipeline("image-classification", model="{folder.name}")("photo.jpg")
```

## Training data

Audit of the raw files: {audit}.

| split | label | source | images |
|---|---|---|---:|
{counts}

Fingerprint of the data: `{config["bonafide"]["data_fingerprint"]}`. The recipe is in `recipe.yaml`; the versions
that it ran with are in `config.json` under `bonafide`.
"""


def _cell(text: str) -> str:
    """Names are untrusted: nothing in them may end a table cell or start markup."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return kept.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
