"""The sections of a model card, in words: each a function of the run's files, empty where there is nothing to say."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bonaface.evaluation.sections import judged_on
from bonaface.models.cnn import PlainCNNConfig
from bonaface.models.head import HiddenHeadConfig
from bonaface.report.findings import worth_in_words

OUR_TYPES = {PlainCNNConfig.model_type, HiddenHeadConfig.model_type}
# What tells little about a run and fills lines; the file itself has all.
DULL = {"data_fingerprint", "remove_unused_columns", "greater_is_better", "load_best_model_at_end", "use_cpu"}


@dataclass(frozen=True)
class RunFiles:
    """A run's files, read: ``where`` is the id or folder to load it from, ``unseen`` the kind and text of a
    cross-validation, ``weights`` the SHA-256 of the weights."""

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
    unseen: tuple[str, str] | None

    @property
    def facts(self) -> dict[str, Any]:
        """What the training told the report."""
        return self.metrics["facts"]

    @property
    def ours(self) -> bool:
        """Whether the architecture comes with bonaface."""
        return self.config.get("model_type") in OUR_TYPES or str(self.config.get("model_type")).startswith("bonaface_")


def sections(run: RunFiles) -> dict[str, str]:
    """All of them by name, in their order."""
    found = {
        "about": _about(run),
        "use": _use(run),
        "quality": f"## How good it is\n\n{run.report.strip()}",
        "unseen": _unseen(run),
        "calibration": _calibration(run),
        "data": _data(run),
        "recipe": _recipe(run),
        "limits": _limits(run),
        "howto": _howto(run),
        "environment": _environment(run),
        "citation": _citation(run),
        "license": _license(run),
    }
    return {key: text for key, text in found.items() if text}


def weights_of(folder: Path) -> str:
    """SHA-256 of the weights' files, in the order of their names; empty where there are none."""
    files = sorted(folder.glob("model*.safetensors")) or sorted([*folder.glob("*.onnx"), *folder.glob("openvino*.bin")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else ""


def cell(text: object) -> str:
    """Names are untrusted: nothing in them may end a table cell or start markup."""
    kept = "".join(character if character.isprintable() else " " for character in str(text))
    return kept.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _about(run: RunFiles) -> str:
    labels = ", ".join(f"`{cell(label)}`" for label in run.metrics["labels"])
    architecture = (run.config.get("architectures") or [run.config.get("model_type", "a network")])[0]
    kind = run.config.get("architecture") or architecture.removesuffix("ForImageClassification")
    parts = [f"Its architecture is {cell(kind)}"]
    if run.facts.get("parameters"):
        parts.append(f"with {run.facts['parameters'] / 1e6:.1f} million parameters")
    if side := _side(run):
        parts.append(f"on inputs of {side}")
    needs = " It needs `import bonaface`, which brings the architecture." if run.ours else ""
    return (
        f"# {cell(run.name)}\n\nA classifier of face images with the labels {labels}; `{run.metrics['real_label']}` "
        f"means a photograph, every other label an image that was generated. {', '.join(parts)}; the weights are "
        f"safetensors, and nothing in this repository is pickled.{needs}\n\nTrained, calibrated and judged with "
        "bonaface, which wrote this card from the run's own files."
    )


def _side(run: RunFiles) -> str:
    size = run.processor.get("crop_size") or run.processor.get("size") or {}
    if not size and run.config.get("pretrained_cfg"):
        _, height, width = run.config["pretrained_cfg"].get("input_size", (0, 0, 0))
        size = {"height": height, "width": width}
    if {"height", "width"} <= set(size):
        return f"{size['width']} x {size['height']} pixels"
    return f"{size['shortest_edge']} pixels" if "shortest_edge" in size else ""


def _use(_: RunFiles) -> str:
    return """## What it is for, and what it is not

It ranks pictures of faces by how much they look like the generated ones it was trained on, and supports the judgement
of a person who looks at the picture, its origin and its context too: an editor with a doubt, a moderator with a queue,
a researcher who compares detectors.

It proves nothing: not that a picture is real, not that one is fake, and nothing about a person shown. Do not let it
decide alone about people (accusations, bans, identity checks, evidence), do not read a low score as a certificate of
authenticity, and do not apply it to what it never saw: pictures without a face, drawings, screens, video frames,
retouched photographs, generators newer than its training data. Who knows the detector can make pictures that pass."""


def _unseen(run: RunFiles) -> str:
    seen, rows = set(run.facts.get("train_sources") or []), run.metrics.get("sources") or []
    head = "## On sources that it was not trained on\n\n"
    if run.unseen is not None:
        what = "families of generators" if "family" in run.unseen[0] else "generators and cameras"
        return (
            f"{head}Other models of the same recipe, each trained without some {what} and tested on those. Expect of "
            f"this model what they show when it meets something new.\n\n{run.unseen[1].strip()}"
        )
    strange = [row for row in rows if row["source"] not in seen] if seen else []
    if strange:
        lines = [
            f"| {cell(r['source'])} | {cell(r['label'])} | {r['n']:,} | {_number(r.get('auc'))} "
            f"| {_share(r.get('fpr') if r.get('recall') is None else r.get('recall'))} |"
            for r in strange
        ]
        table = "| source | label | images | AUC | called fake |\n|---|---|---:|---:|---:|\n" + "\n".join(lines)
        return f"{head}Of the sources above, these were not among its training images:\n\n{table}"
    return (
        f"{head}Not measured: every source of the test is also one of its training. Its figures above are those of "
        "generators and cameras that it knows, and on others they are usually much lower."
    )


def _calibration(run: RunFiles) -> str:
    facts = run.config.get("bonaface") or {}
    parts = []
    if calibration := facts.get("calibration"):
        folded = (
            "They are folded into the last layer: every program that loads the model gets calibrated scores."
            if calibration.get("folded")
            else "`import bonaface` applies them; the bare network's scores are not calibrated."
        )
        parts.append(
            f"Scores are calibrated with a temperature of {calibration['temperature']:.3f} and a bias for each label, "
            f"fitted on {calibration['n']:,} images that trained nothing. {folded}"
        )
    if band := facts.get("band"):
        parts.append(
            f"**Its verdict**: up to {band['low']:.3f} *real*, from {band['high']:.3f} on *fake*, in between "
            f"*uncertain*. On {judged_on(facts)}: {band['note']}."
        )
    if worth := worth_in_words(facts):
        parts.append(f"**What that is worth on sources that are new to it**: {worth}")
    rows = [
        f"| {_share(row['fpr'])} | {_number(row['threshold'])} | {_share(row['tpr'])} | {cell(row['note'])} |"
        for row in facts.get("thresholds") or []
    ]
    if rows:
        head = "| false alarms at most | threshold | fakes found | what is promised |\n|---|---:|---:|---|\n"
        parts.append(head + "\n".join(rows))
    if unfamiliar := facts.get("unfamiliar"):
        parts.append(
            f"Pictures whose features lie farther than {unfamiliar['threshold']:.3f} from the training data (where "
            f"{_share(unfamiliar['quantile'])} of familiar ones do not) get no verdict; `unfamiliar.safetensors` holds "
            "what the distance is measured to."
        )
    return "## Calibration and thresholds\n\n" + "\n\n".join(parts) if parts else ""


def _data(run: RunFiles) -> str:
    counts = run.facts.get("counts") or []
    total = Counter({"": 0})
    for row in counts:
        total.update({"": row["n"], row["split"]: row["n"]})
    parts = []
    if run.datasets:
        links = ", ".join(f"[{name}](https://huggingface.co/datasets/{name})" for name in run.datasets)
        parts.append(f"On the Hub: {links}.")
    if counts:
        splits = ", ".join(f"{n:,} {split}" for split, n in total.items() if split)
        sources = len({(row["label"], row["source"]) for row in counts})
        made = run.facts.get("splits_made_by_us") or []
        cut = f" The splits {', '.join(made)} were cut by label and source, whole groups together." if made else ""
        parts.append(f"{total['']:,} images from {sources} sources: {splits}.{cut}")
        rows = [f"| {r['split']} | {cell(r['label'])} | {cell(r['source'])} | {r['n']:,} |" for r in counts]
        parts.append("| split | label | source | images |\n|---|---|---|---:|\n" + "\n".join(rows))
    if broken := run.facts.get("broken"):
        parts.append(f"{len(broken):,} files could not be read and were left out.")
    audit = run.facts.get("audit")
    parts.append(
        f"**Audit of the raw files**: {cell(audit['verdict'])}."
        if audit
        else "**Audit**: not done, so nobody looked for what gives the classes away beside their content."
    )
    parts.append(
        f"**Licences of the images**: {cell(run.data_license)}."
        if run.data_license
        else "**Licences of the images**: not stated by whoever published this model. The images themselves are not "
        "part of this repository."
    )
    return "## Training data\n\n" + "\n\n".join(parts)


def _recipe(run: RunFiles) -> str:
    if not run.recipe:
        return ""
    told = {key: value for key, value in sorted(run.recipe.items()) if key not in DULL}
    text = yaml.safe_dump(told, sort_keys=True, allow_unicode=True).replace("```", "'''").strip()
    again = (
        "\n\n`recipe.yaml` holds all of it: `python train_hf.py recipe.yaml --data DATA` repeats the run, and on the "
        "same data and CPU ends with the same bits."
    )
    return f"## Recipe\n\n```yaml\n{text}\n```{again}"


def _limits(run: RunFiles) -> str:
    limits = [
        "Generators appear faster than detectors: a fake of a kind that was not trained on is often called real.",
        "Heavy compression, resizing, screenshots, crops and filters change scores; where degradations are listed "
        "above, look there before you rely on it."
        if (run.metrics.get("sections") or {}).get("robustness")
        else "How scores change under compression, resizing, crops and filters was not measured.",
        "Error rates may differ by age, skin, sex, glasses, light or camera: whom the sources show, nobody chose, and "
        "none of these was measured.",
        "A score is calibrated for images like those of the calibration, with their share of fakes.",
    ]
    audit = run.facts.get("audit") or {}
    if audit.get("level") == "leak":
        limits.insert(0, "The audit of the raw data found a leak: part of what looks like skill may be the leak.")
    return "## Limits\n\n" + "\n".join(f"- {text}" for text in limits)


def _howto(run: RunFiles) -> str:
    needs = "import bonaface  # brings the architecture\n" if run.ours else ""
    where, margin = run.where, run.facts.get("face_margin")
    crop = (
        f"\n\nIt was trained on face crops with a border of {_share(margin)} around the face: `Detector` finds and "
        "crops faces by itself, `pipeline` takes the picture as it is."
        if isinstance(margin, int | float)
        else ""
    )
    where_text = json.dumps(where, ensure_ascii=False)
    return f"""## How to use it

```python
{needs}from transformers import pipeline

pipeline("image-classification", model={where_text})("photo.jpg")
```

With bonaface: faces, the band, warnings, explanations.

```python
from bonaface import Detector

result = Detector.from_pretrained({where_text})("photo.jpg")[0]
print(result.verdict, result.p_fake, result.warnings)
```

```
python -m bonaface predict photo.jpg folder/ --model {where} --out scores.csv
python app.py --model {where}
curl -s http://127.0.0.1:7860/gradio_api/run/predict -H "Content-Type: application/json" \\
     -d "{{\\"data\\": [{{\\"url\\": \\"data:image/jpeg;base64,$(base64 -w0 photo.jpg)\\"}}]}}"
```

`{where}@REVISION` takes a branch, tag or commit.{crop}"""


def _environment(run: RunFiles) -> str:
    facts = run.config.get("bonaface") or {}
    parts = []
    if versions := facts.get("versions"):
        parts.append("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    if minutes := run.facts.get("minutes"):
        n = run.facts.get("processes") or 1
        parts.append(f"The run took {minutes:,.0f} minutes in {n} process{'es' if n > 1 else ''}.")
    prints = [("data", facts.get("data_fingerprint")), ("weights (SHA-256)", run.weights)]
    rows = [f"| {name} | `{value}` |" for name, value in prints if value]
    if rows:
        parts.append("| fingerprint of | |\n|---|---|\n" + "\n".join(rows))
    return "## Environment and fingerprints\n\n" + "\n\n".join(parts) if parts else ""


def _citation(run: RunFiles) -> str:
    key = "".join(c if c.isalnum() else "_" for c in run.name)
    title = "".join(c for c in run.name if c.isalnum() or c in " ._-")
    address = f",\n  howpublished = {{Hugging Face Hub, {run.where}}}" if "/" in run.where else ""
    return f"""## Citation

```bibtex
@misc{{{key},
  title = {{{title}: a detector of AI-generated faces}}{address},
  note = {{trained with bonaface; weights {run.weights[:16] or "not included"}}}
}}
```"""


def _license(run: RunFiles) -> str:
    word = (
        f"The weights are published under `{run.license}`."
        if run.license != "unknown"
        else "The publisher has not stated a licence for the weights, so none is granted."
    )
    return f"## Licence\n\n{word} bonaface itself is Apache-2.0; the training images keep the licences of their owners."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
