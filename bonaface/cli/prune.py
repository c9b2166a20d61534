"""``python -m bonaface prune``: the model of a recipe made small, as a model that the recipe can start from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging

from bonaface.cli.train import build_model, read_data
from bonaface.errors import UsageError
from bonaface.models.parts import last_linear
from bonaface.models.pretrained import base_model
from bonaface.models.save import save_model
from bonaface.training.prune import Pruning, prune
from bonaface.training.recipe import read_recipe

STEPS = ".steps"  # in the folder, while it is not finished


def prune_recipe(flags: Sequence[str], out: Path, pruning: Pruning) -> str:
    """Prune the recipe's model on the recipe's training images and write it to ``out``; what it is, in words.

    Args:
        flags: a recipe and flags, as `train_hf.py` takes them.

    Raises:
        UsageError: other files in the folder, a model in it that was made otherwise, or a network that cannot be
            pruned so.
    """
    finished = out / "config.json"
    if out.is_dir() and not finished.is_file() and any(path.name != STEPS for path in out.iterdir()):
        raise UsageError(f"{out} contains other files", "choose another folder with --out")
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of loading and saving weights; the steps have their own
    recipe, args, _ = read_recipe(list(flags))
    data, _ = read_data(recipe, args.seed)
    model, processor = build_model(recipe, data.labels)
    # What another command has begun here is not what this one asks for.
    facts = [asdict(pruning), recipe.augmentation, _facts(model), processor.to_dict(), args.seed, data.fingerprint]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]
    if finished.is_file():
        if json.loads(finished.read_text(encoding="utf-8")).get("pruning") != key:
            raise UsageError(
                f"{out} was made from other data or with other settings", "choose another folder with --out"
            )
        return f"{out} is finished. Nothing to do."
    small = prune(model, processor, data.splits["train"], recipe.augmentation, pruning, args, out / STEPS / key)
    small.config.pruning = key
    if not recipe.from_scratch:
        small.config.base_model = base_model(recipe.model, model.config)
    save_model(out, small, processor, float8=True)
    shutil.rmtree(out / STEPS)
    before, after = (sum(part.numel() for part in each.parameters()) / 1e6 for each in (model, small))
    return f"{out}: {after:.1f} M parameters of {before:.1f} M"


def _facts(model: PreTrainedModel) -> list[str]:
    """What a network is, whatever it is called and whichever release has loaded it: architecture and weights."""
    classifier = last_linear(model, model.config.num_labels)
    fresh = set() if classifier is None else {parameter.data_ptr() for parameter in classifier.parameters()}
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.data_ptr() not in fresh:
            digest.update(name.encode() + tensor.numpy().tobytes())
    config = model.config
    return [str(getattr(config, "architecture", "")), str(getattr(config, "model_args", "")), digest.hexdigest()]
