"""Training: from image folders to a fine-tuned model folder with a report.

    python train_hf.py                                             the embedded sample, to check the installation
    python train_hf.py recipes/faces.yaml --data DATA --output_dir runs/NAME
    python train_hf.py --data DATA --model timm/convnextv2_atto.fcmae --num_train_epochs 5
    torchrun --nproc_per_node 2 train_hf.py …                      the same on several processes
    python train_hf.py RECIPE.yaml --search 20                     tries settings, writes the best as a recipe
    python train_hf.py … --push_to_hub True --hub_model_id USER/NAME   publishes the finished run

Any field of a recipe and any flag of transformers' TrainingArguments can be given, with underscores or dashes; the
command line overrides the recipe. Flags that cannot work are refused before the data is read.
After a kill or a full disk, the same command resumes from the last complete checkpoint. If there is none, or the
training diverged, you may change the command and keep the folder.
"""

from __future__ import annotations

import bonaface.training.openmp  # noqa: F401  # before anything that loads torch

# isort: split

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd
from accelerate import PartialState
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments, set_seed
from transformers.utils import logging

from bonaface.data.dataset import FaceData
from bonaface.errors import usage_errors_exit, writing
from bonaface.evaluation.evaluate import evaluate
from bonaface.evaluation.options import EvaluationOptions
from bonaface.hub.card import write_card
from bonaface.hub.push import Push
from bonaface.inference.detector import Detector
from bonaface.inference.rows import outputs_of
from bonaface.models.facts import ModelFacts
from bonaface.models.head import with_hidden_head
from bonaface.models.load import load_model
from bonaface.models.pretrained import base_model
from bonaface.training.assembly import Assembly, assemble, split_assembly
from bonaface.training.calibrate import calibrate_run, read_unseen, recalibrate, write_known
from bonaface.training.head_training import kept_outputs
from bonaface.training.options import Recipe, Stage
from bonaface.training.recipe import read_recipe, stages_of
from bonaface.training.rehearsal import rehearse
from bonaface.training.resemblance import learn_resemblance
from bonaface.training.run import Run, on_main_process, versions
from bonaface.training.search import search
from bonaface.training.stages import train_stages


def main(argv: Sequence[str] | None = None) -> None:
    """Train with the arguments `argv` (the process's own when None)."""
    recipe, args, said = read_recipe(sys.argv[1:] if argv is None else argv)
    push = Push.taken_from(args)
    rehearse(recipe, args)
    if recipe.search:
        with writing(f"{args.output_dir}-search"):
            data, _ = read_data(recipe, args.seed)
            search(partial(build_model, recipe, data.labels), data, recipe, args, said)
        return
    assert args.output_dir is not None  # `read_recipe` gives every run a folder
    run = Run(args.output_dir)
    with writing(run.folder), ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(run.alone()))
        on_main_process(lambda: run.check_same(said, args))
        train(run, recipe, args, said, push)


def train(run: Run, recipe: Recipe, args: TrainingArguments, said: dict[str, Any], push: Push) -> None:
    """The run from its data to its report, or what remains of it; `said` is what its ``recipe.yaml`` stores."""
    started = time.monotonic()
    say = print if PartialState().is_main_process else lambda *_: None
    on_main_process(push.check)
    if run.is_finished:
        say(f"{run.folder} is finished: its report is {run.folder / 'report' / 'report.html'}. Nothing to do.")
        on_main_process(lambda: push.publish(run.folder))
        return

    # 1. Data: listed, checked, split. One process does it for all.
    data, assembly = on_main_process(lambda: read_data(recipe, args.seed))
    unseen = read_unseen(recipe.calibrate_on, data.labels) if recipe.calibrate_on else None
    on_main_process(lambda: run.check_same_data(data.fingerprint))
    on_main_process(lambda: run.write_recipe({**said, "data_fingerprint": data.fingerprint}))
    say(data.describe())
    if assembly.audit:
        say(f"audit: {assembly.audit.verdict}")

    # 2. Model: our labels in class order, seeded weights.
    set_seed(args.seed)
    model, processor = build_model(recipe, data.labels)
    if recipe.head_hidden_size:
        say("the head has a hidden layer: loading the model will need `import bonaface`")
    size = sum(parameter.numel() for parameter in model.parameters())
    say(f"model: {recipe.model}, {size / 1e6:.1f} M parameters")

    # 3. Training, stage by stage, resumed where it was interrupted.
    model, history, resumed = train_stages(model, processor, data, recipe, args, run.checkpoints, say)

    # 4. The model folder, calibrated on images that chose nothing: float32, eval preprocessing, as its users load it.
    facts = save_calibrated(run, model, processor, data, assembly.margin, unseen, stages_of(recipe, args)[-1])

    # 5. Evaluation and report, last of all: a run that has one is finished.
    def report() -> None:
        details = story(run, recipe, said, data, assembly) | {
            "base_model": base_model(recipe.model, model.config),
            "parameters": size,
            "processes": args.world_size,
            "minutes": round((time.monotonic() - started) / 60, 2),
            "continued_from_checkpoint": resumed,
        }
        say(run.summary(write_results(run, recipe, data, history, details | facts.to_dict())))
        push.publish(run.folder)

    on_main_process(report)


def save_calibrated(
    run: Run,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: FaceData,
    margin: float | None,
    unseen: pd.DataFrame | None,
    last: Stage,
) -> ModelFacts:
    """Write the model folder of a trained model, calibrate it, on `unseen` sources if given, and write it again.

    A head that was trained on kept features, in the last stage, is calibrated on them too.
    """
    facts = ModelFacts(
        real_label=data.real_label,
        face_margin=margin,
        data_fingerprint=data.fingerprint,
        train_sources=tuple(sorted(set(data.splits["train"]["source"]))),
        versions=versions(),
    )
    on_main_process(lambda: run.save_model(model, processor, facts, float8=last.recipe.float8))
    trained, processor = load_model(str(run.folder), data.labels)
    outputs = (
        kept_outputs(trained, processor, last)
        if last.recipe.head_only
        else outputs_of(trained, processor, workers=last.args.dataloader_num_workers)
    )
    calibrated = calibrate_run(trained, data, facts, outputs, folder=run.folder)
    told = learn_resemblance(data, outputs, run.folder)
    calibrated = replace(calibrated, resembles=told)
    if unseen is not None:
        calibrated, known = recalibrate(trained, calibrated, unseen, data.labels, data.real_index)
        on_main_process(partial(write_known, run.folder, known))
    on_main_process(lambda: run.save_model(trained, processor, calibrated, float8=last.recipe.float8))
    return calibrated


def story(run: Run, recipe: Recipe, said: dict[str, Any], data: FaceData, assembly: Assembly) -> dict[str, Any]:
    """What the report says of the run's model and data."""
    audit = assembly.audit
    return {
        "title": f"{run.folder.name}: {recipe.model} on {data.origin}",
        "model": recipe.model,
        "data": data.origin,
        "recipe": said,
        "counts": data.counts(),
        "broken": [asdict(file) for file in data.broken],
        "audit": {"level": audit.level, "verdict": audit.verdict} if audit else None,
        "splits_made_by_us": data.made_splits,
    }


def write_results(
    run: Run, recipe: Recipe, data: FaceData, history: list[dict[str, Any]], details: dict[str, Any]
) -> dict[str, Any]:
    """Evaluate the finished model and write its report and card; gives ``metrics.json``."""
    options = EvaluationOptions(robustness=recipe.robustness != "none", quick=recipe.robustness == "quick")
    metrics = evaluate(
        Detector.from_pretrained(run.folder), data, run.folder, options, history=history, details=details
    )
    write_card(run.folder)
    if not recipe.keep_checkpoints:
        run.drop_checkpoints()
    return metrics


def build_model(recipe: Recipe, labels: Sequence[str]) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The recipe's model over these labels, before any training, and its processor."""
    model, processor = load_model(
        recipe.model,
        labels,
        from_scratch=recipe.from_scratch,
        image_size=recipe.image_size,
        resize=recipe.resize,
        trust_remote_code=recipe.trust_remote_code,
    )
    if recipe.head_hidden_size:
        model = with_hidden_head(model, recipe.head_hidden_size, recipe.head_dropout)
    return model, processor


def read_data(recipe: Recipe, seed: int) -> tuple[FaceData, Assembly]:
    """The recipe's data with its splits, and what it was assembled from."""
    assembly = assemble(recipe)
    return split_assembly(assembly, recipe, seed), assembly


def run(argv: Sequence[str] | None = None) -> None:
    """:func:`main` for a terminal: quiet libraries, and ``error:`` and ``hint:`` lines in place of a traceback."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of loading and saving weights; training has its own
    with usage_errors_exit():
        main(argv)
