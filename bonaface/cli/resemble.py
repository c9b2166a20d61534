"""``python -m bonaface resemble``: what a training learns of its generators, added to a run that was trained before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bonaface.cli.train import read_data
from bonaface.errors import UsageError
from bonaface.evaluation.resemblance import in_training
from bonaface.files import read_json, write_json
from bonaface.inference.rows import outputs_of
from bonaface.models.facts import ModelFacts
from bonaface.models.load import load_model
from bonaface.training.recipe import read_recipe
from bonaface.training.resemblance import learn_resemblance


def add_resemblance(folder: Path, data: str | None = None) -> str:
    """Learn it from the run's own training images and write it beside the model; what it is worth, in words.

    Args:
        data: where the data is now; by default where the run's recipe says.

    Raises:
        UsageError: not a run's folder, or data that it was not trained on.
    """
    if not (folder / "recipe.yaml").is_file() or not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is not a run", "give a folder with config.json, model.safetensors and recipe.yaml")
    recipe, args, _ = read_recipe([str(folder / "recipe.yaml"), *(["--data", data] if data else [])])
    images, _ = read_data(recipe, args.seed)
    config = read_json(folder / "config.json")
    facts = ModelFacts.from_block(config.get("bonaface"), str(folder))
    if facts.data_fingerprint != images.fingerprint:
        raise UsageError(
            f"{folder} was not trained on {images.origin} (fingerprint {facts.data_fingerprint or 'unknown'}, now "
            f"{images.fingerprint})",
            "name the same images with --data",
        )
    model, processor = load_model(str(folder), images.labels)
    told = learn_resemblance(images, outputs_of(model, processor), folder)
    write_json(folder / "config.json", config | {"bonaface": replace(facts, resembles=told).to_block()})
    if told is None:
        return "not available: too few generators, or too few images of each"
    return f"{'on' if told.on else 'off, no better than chance'}. {in_training(told)}"
