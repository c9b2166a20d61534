"""The pieces of a run that a Trainer does not give: order, randomness, decay, loss, checkpoints that are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, make_faces
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import TrainingArguments

from bonaface.cli import train
from bonaface.data.dataset import load_data
from bonaface.data.loading import Collator, EpochSampler, ImageRows
from bonaface.errors import DivergedError, UsageError
from bonaface.imaging.transforms import TrainTransform
from bonaface.models.load import load_model
from bonaface.models.parts import project_high_pass, stem
from bonaface.training.build import build_trainer
from bonaface.training.callbacks import Divergence
from bonaface.training.checkpoints import COMPLETE, drop_partial_checkpoints, last_complete_checkpoint
from bonaface.training.machine import be_polite, has_compiler
from bonaface.training.options import Recipe, Stage
from bonaface.training.recipe import read_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 24, "fake/gan": 12, "fake/sd": 12}, size=(40, 40))


def arguments(tmp_path: Path, *flags: str) -> tuple[Recipe, TrainingArguments]:
    recipe, args, _ = read_recipe(
        ["--output_dir", str(tmp_path), "--bf16", "False", "--use_cpu", "True", "--dataloader_num_workers", "0"]
        + ["--disable_tqdm", "True", *flags]
    )
    return recipe, args


@given(st.integers(1, 60), st.integers(0, 1000), st.integers(0, 20))
def test_every_row_once_an_epoch_in_an_order_of_its_own(n: int, seed: int, epoch: int) -> None:
    sampler = EpochSampler(n, seed)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert sorted(row for _, row, _ in keys) == list(range(n))
    assert {e for e, _, _ in keys} == {epoch}
    assert keys == list(sampler)


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=50), st.integers(0, 1000))
def test_weighted_rows_come_as_often_as_they_weigh(weights: list[float], seed: int) -> None:
    """Systematic resampling: the expected count rounded down or up, never more luck than that."""
    sampler = EpochSampler(len(weights), seed, np.array(weights))
    keys = list(sampler)
    assert len(keys) == len(sampler) == len(weights)
    counts = Counter(row for _, row, _ in keys)
    for row, weight in enumerate(weights):
        expected = weight / sum(weights) * len(weights)
        assert np.floor(expected - 1e-6) <= counts[row] <= np.ceil(expected + 1e-6)
    assert len(set(keys)) == len(keys)  # a row drawn twice gets two augmentations


def test_no_image_is_a_batch_by_itself() -> None:
    """A batch norm fails on one image; over the epochs none is left out for good."""
    sampler = EpochSampler(33, 0, None, 8)
    assert len(sampler) == len(list(sampler)) == 32
    seen = set()
    for epoch in range(4):
        sampler.set_epoch(epoch)
        seen |= {row for _, row, _ in sampler}
    assert seen == set(range(33))
    assert len(EpochSampler(34, 0, None, 8)) == 34
    assert len(EpochSampler(1, 0, None, 8)) == 1


def test_augmentation_depends_on_seed_epoch_and_row_alone(folder: Path, tiny_model: str) -> None:
    data = load_data(folder)
    _, processor = load_model(tiny_model, data.labels, from_scratch=True)
    rows = ImageRows(data.splits["train"], TrainTransform(processor, "robust"), seed=3)
    first = rows[(1, 5, 0)]["pixel_values"]
    torch.manual_seed(99)
    assert torch.equal(first, rows[(1, 5, 0)]["pixel_values"])
    assert not torch.equal(first, rows[(2, 5, 0)]["pixel_values"])
    assert not torch.equal(first, rows[(1, 5, 1)]["pixel_values"])
    other = ImageRows(data.splits["train"], TrainTransform(processor, "robust"), seed=4)
    assert not torch.equal(first, other[(1, 5, 0)]["pixel_values"])


def test_workers_give_the_same_batches_as_none(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    data = load_data(folder)
    batches = []
    for workers in (0, 2):
        recipe, args = arguments(tmp_path, "--dataloader_num_workers", str(workers))
        model, processor = load_model(tiny_model, data.labels, from_scratch=True)
        trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
        loader = trainer.get_train_dataloader()
        loader.set_epoch(4)
        batches.append([batch["pixel_values"] for batch in loader])
    assert len(batches[0]) == len(batches[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize("name", ["convnext", "vit", "resnet", "timm/vit_tiny_patch16_224", "timm/convnextv2_atto"])
def test_decay_spares_norms_biases_scales_tokens_and_positions(folder: Path, tmp_path: Path, name: str) -> None:
    data = load_data(folder, check="none")
    recipe, args = arguments(tmp_path)
    model, processor = load_model(name, data.labels, from_scratch=True)
    trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
    decayed = set(trainer.get_decay_parameter_names(model))
    spared = {key for key, _ in model.named_parameters()} - decayed
    norms = {
        f"{prefix}.{key}"
        for prefix, module in model.named_modules()
        if "norm" in type(module).__name__.lower() or "grn" in type(module).__name__.lower()
        for key, _ in module.named_parameters(recurse=False)
    }
    assert norms <= spared
    for key, parameter in model.named_parameters():
        if "token" in key or "pos" in key or key.endswith(("bias", "gamma")) or "layer_scale" in key:
            assert key in spared
        elif parameter.ndim in (2, 4) and min(parameter.shape[:2]) > 1:
            assert key in decayed
    groups = trainer.create_optimizer().param_groups
    assert {group["weight_decay"] for group in groups} == {0.05, 0.0}


def test_class_weights_and_smoothing_shape_the_training_loss_only(
    folder: Path, tmp_path: Path, tiny_model: str
) -> None:
    data = load_data(folder)
    recipe, args = arguments(tmp_path, "--balance", "class_weights", "--label_smoothing_factor", "0.1")
    model, processor = load_model(tiny_model, data.labels, from_scratch=True)
    trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
    inputs = Collator(False)([trainer.train_dataset[i] for i in range(8)])
    model.train()
    loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
    weights = trainer.loss_weights.float()
    expected = F.cross_entropy(outputs.logits, inputs["labels"], weights, label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item())
    model.eval()
    loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
    assert loss.item() == pytest.approx(F.cross_entropy(outputs.logits, inputs["labels"]).item())


def test_a_high_pass_stem_stays_one_through_training(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    data = load_data(folder)
    quiet = ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "False"]
    recipe, args = arguments(tmp_path, "--high_pass_stem", "True", "--max_steps", "3", *quiet)
    model, processor = load_model(tiny_model, data.labels, from_scratch=True)
    before = stem(model).weight.detach().clone()
    build_trainer(model, processor, data, Stage("train", recipe, args)).train()
    after = stem(model).weight.detach().clone()
    assert not torch.allclose(before, after)
    project_high_pass(stem(model))
    assert torch.allclose(stem(model).weight, after, atol=1e-6)


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for step, complete in ((9, True), (10, True), (20, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
        if complete:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    (tmp_path / "checkpoint-copy").mkdir()
    (tmp_path / "checkpoint-copy" / COMPLETE).touch()  # somebody's own
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    drop_partial_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9", "checkpoint-copy"]
    assert last_complete_checkpoint(tmp_path / "nothing") is None


def test_training_stops_early_and_keeps_the_best(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    data = load_data(folder)
    recipe, args = arguments(
        tmp_path, "--num_train_epochs", "8", "--early_stopping_patience", "1", "--learning_rate", "0"
    )
    model, processor = load_model(tiny_model, data.labels, from_scratch=True)
    trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
    trainer.train()
    assert trainer.state.epoch == 2  # the second evaluation was no better
    assert trainer.state.best_global_step == trainer.state.global_step // 2


def test_validation_runs_in_inference_mode_and_training_goes_on(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    data = load_data(folder)
    recipe, args = arguments(tmp_path, "--num_train_epochs", "2")
    model, processor = load_model(tiny_model, data.labels, from_scratch=True)
    trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
    modes: list[tuple[bool, bool]] = []
    model.register_forward_hook(lambda *_: modes.append((model.training, torch.is_inference_mode_enabled())))
    trainer.train()
    assert set(modes) == {(True, False), (False, True)}
    assert modes.index((False, True)) < len(modes) - 1 - modes[::-1].index((True, False))  # a second epoch came after


def test_levels_are_brought_to_the_models_units_where_it_runs(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    """Whether a worker resized them or the device does, the model sees what the processor would give it."""
    data = load_data(folder)
    recipe, args = arguments(tmp_path, "--augmentation", "standard")
    model, processor = load_model(tiny_model, data.labels, from_scratch=True)
    trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
    assert "sizes" not in next(iter(trainer.get_train_dataloader()))  # on a CPU the workers resize
    assert trainer.get_train_dataloader().worker_init_fn is be_polite
    losses = {}
    for regions in (False, True):
        trainer.train_dataset.transform = TrainTransform(processor, "standard", regions=regions)
        trainer.data_collator.regions = regions
        batch = trainer.data_collator([trainer.train_dataset[0, i, 0] for i in range(8)])
        assert batch["pixel_values"].dtype == torch.uint8
        assert ("sizes" in batch) == regions
        seen: list[torch.Tensor] = []
        hook = model.register_forward_pre_hook(
            lambda _, __, kwargs, seen=seen: seen.append(kwargs["pixel_values"]), with_kwargs=True
        )
        model.train()
        losses[regions] = trainer.compute_loss(model, batch).item()
        hook.remove()
        assert seen[0].dtype == torch.float32
        assert seen[0].shape == (8, 3, trainer.preprocessing.height, trainer.preprocessing.width)
        assert seen[0].abs().max() <= 3
    assert losses[True] == pytest.approx(losses[False], abs=0.02)


@pytest.mark.slow
def test_compiling_that_nobody_asked_for_never_ends_a_run(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    """A compiler that is there and does not work: the run goes on as it is, and says why."""
    code = (
        "import bonaface.training.openmp; from bonaface.training import machine; machine.PATIENCE = 0; "
        "from bonaface.cli import train; train.main()"
    )
    flags = f"--data {folder} --output_dir {tmp_path / 'run'} --model {tiny_model} --from_scratch --use_cpu True"
    flags += " --max_steps 1 --audit False"
    flags += " --prepare False --robustness none --dataloader_num_workers 0 --per_device_train_batch_size 8"
    done = subprocess.run(
        [sys.executable, "-c", code, *flags.split()],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "CXX": "false", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ", compiled, " in done.stdout
    assert "No working C++ compiler" in done.stderr
    assert (tmp_path / "run" / "report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(cpu=True), reason="no C++ compiler on this machine; .ci/run installs one")
@pytest.mark.usefixtures("plots_not_rendered")
def test_a_compiled_run_ends_as_an_eager_one_and_leaves_a_stock_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiled in a process of its own, as users run it: full batches are, the last one and evaluation are not."""
    flags = ["--data", str(folder), "--model", "vit", "--image_size", "32", "--bf16", "False", "--use_cpu", "True"]
    flags += ["--max_steps", "6", "--prepare", "False", "--robustness", "none", "--dataloader_num_workers", "0"]
    flags += ["--disable_tqdm", "True", "--per_device_train_batch_size", "8"]
    train.main([*flags, "--compile", "False", "--output_dir", str(tmp_path / "eager")])
    assert ", not compiled, " in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "train_hf.py", *flags, "--compile", "True", "--output_dir", str(tmp_path / "compiled")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ", compiled, " in done.stdout
    assert any((tmp_path / "cache").rglob("*.so"))
    eager, compiled = (
        pd.read_parquet(tmp_path / name / "report" / "predictions.parquet") for name in ("eager", "compiled")
    )
    for column in [name for name in eager.columns if name.startswith("p_")]:
        np.testing.assert_allclose(compiled[column], eager[column], atol=0.01)


def test_a_batch_larger_than_the_data_is_said_where_the_rest_is_dropped(folder: Path, tmp_path: Path) -> None:
    recipe, args = arguments(tmp_path, "--dataloader_drop_last", "True", "--per_device_train_batch_size", "512")
    data = load_data(folder)
    model, processor = load_model("cnn", data.labels, image_size=32)
    with pytest.raises(UsageError, match="dataloader_drop_last drops all"):
        build_trainer(model, processor, data, Stage("train", recipe, args))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_with_step_and_rate(value: float) -> None:
    watch = Divergence()
    watch.watch(torch.tensor(0.5), 1, 0.1)
    with pytest.raises(DivergedError, match=r"at step 2, where the learning rate was 0\.2"):
        watch.watch(torch.tensor(value), 2, 0.2)


def test_weights_that_are_not_finite_are_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    recipe, args = arguments(tmp_path / "out")
    data = load_data(folder)
    model, processor = load_model("cnn", data.labels, image_size=32)
    trainer = build_trainer(model, processor, data, Stage("train", recipe, args))
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    for work in (trainer.evaluate, lambda: trainer._save_checkpoint(model, None)):
        with pytest.raises(DivergedError, match="weights are not finite"):
            work()
    assert not list((tmp_path / "out").glob("checkpoint-*"))
