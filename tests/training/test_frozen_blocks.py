"""Blocks trained on kept maps: the same network comes out, only what may learn has learned, and a kill is harmless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_data
from transformers import AutoModelForImageClassification

import train_hf
from bonaface.data.dataset import FaceData
from bonaface.data.loading import ImageRows
from bonaface.errors import UsageError
from bonaface.imaging.transforms import EvalTransform
from bonaface.inference.rows import run_rows
from bonaface.models.load import load_model
from bonaface.training.frozen_blocks import FrozenBlocks
from bonaface.training.optimization import freeze, learnable
from bonaface.training.options import Stage
from bonaface.training.recipe import read_recipe
from bonaface.training.teacher import train_teacher

FLAGS = [
    "--augmentation", "faces", "--freeze", "all_but_last_3", "--cached_views", "2", "--num_train_epochs", "2",
    "--learning_rate", "0.01", "--use_cpu", "True", "--bf16", "False", "--dataloader_num_workers", "0",
    "--per_device_train_batch_size", "16", "--disable_tqdm", "True",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tiny_data(tmp_path_factory.mktemp("data"))


def stage_of(*flags: str) -> Stage:
    recipe, args, _ = read_recipe([*FLAGS, *flags])
    return Stage("blocks", recipe, args)


def frozen_network(name: str = "resnet", what: str = "all_but_last_3", side: int = 32) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model, processor = load_model(name, ["fake", "real"], image_size=side, from_scratch=True)
    freeze(model, what, learnable(model))
    return model, processor


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("resnet", "all_but_last_3"),
        ("convnext", "all_but_last_4"),
        ("lite0", "all_but_last_9"),
        ("timm/resnet18", "all_but_last_3"),
    ],
)
def test_the_rest_on_maps_gives_what_the_whole_network_gives(
    name: str, what: str, data: FaceData, tmp_path: Path
) -> None:
    model, processor = frozen_network(name, what)
    rows = data.splits["validation"]
    expected = run_rows(model, ImageRows(rows, EvalTransform(processor))).logits
    frozen = FrozenBlocks(model, processor, stage_of(), tmp_path)
    maps = frozen.plain(rows)
    with frozen.bypassed(), torch.inference_mode():
        assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 0
        found = model.eval()(pixel_values=maps.maps(0, range(len(rows)))).logits
    np.testing.assert_allclose(found, expected, atol=2e-2)  # maps are kept as float16
    again = run_rows(model, ImageRows(rows, EvalTransform(processor))).logits
    np.testing.assert_array_equal(again, expected)  # and the network is whole again


def test_maps_are_computed_by_the_whole_network_also_while_it_is_bypassed(data: FaceData, tmp_path: Path) -> None:
    model, processor = frozen_network()
    rows = data.splits["validation"].select(range(8))
    frozen = FrozenBlocks(model, processor, stage_of(), tmp_path / "a")
    outside = frozen.plain(rows).maps(0, range(8))
    other = FrozenBlocks(model, processor, stage_of(), tmp_path / "b")
    with other.bypassed():
        assert torch.equal(other.plain(rows).maps(0, range(8)), outside)


def test_a_network_whose_blocks_do_more_than_follow_each_other_is_refused(tmp_path: Path) -> None:
    model, processor = frozen_network("vit", "all_but_last_2", 96)
    with pytest.raises(UsageError, match="cached_views"):
        FrozenBlocks(model, processor, stage_of(), tmp_path)


def test_a_teacher_learns_from_the_labels_and_leaves_the_network_alone(data: FaceData, tmp_path: Path) -> None:
    model, processor = frozen_network()
    frozen = FrozenBlocks(model, processor, stage_of(), tmp_path)
    rows = frozen.drawn(data.splits["train"], 0)
    with frozen.bypassed():
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.get_rng_state()
        teachers = [train_teacher(model, rows, torch.ones(len(rows)), 2, stage_of("--teachers", "1")) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
    maps = frozen.plain(data.splits["test"]).maps(0, range(len(data.splits["test"])))
    said, again = (teacher(maps) for teacher in teachers)
    assert torch.equal(said, again)
    torch.testing.assert_close(said.sum(1), torch.ones(len(said)))
    fake = torch.tensor(data.splits["test"]["label"]) == data.labels.index("fake")
    assert said[fake, 0].mean() > said[~fake, 0].mean() + 0.2


def test_the_main_job_trains_blocks_on_kept_maps_and_a_kill_changes_nothing(
    data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = [
        "--data", data.origin, "--model", "resnet", "--image_size", "32", "--prepare", "False", "--audit", "False",
        "--robustness", "none", "--teachers", "1", "--mixup", "1.0", "--ema_decay", "0.9", "--face_margin", "0.5",
        *FLAGS,
    ]  # fmt: skip
    from bonaface.training import stages

    def die_after_an_epoch(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        evaluate = trainer.evaluate

        def once(*args: Any, **kwargs: Any) -> Any:
            if trainer.state.epoch and trainer.state.epoch > 1.5:
                raise KeyboardInterrupt
            return evaluate(*args, **kwargs)

        monkeypatch.setattr(trainer, "evaluate", once)
        return trainer

    train_hf.main([*told, "--output_dir", "whole"])
    build = stages.build_trainer
    monkeypatch.setattr(stages, "build_trainer", die_after_an_epoch)
    with pytest.raises(KeyboardInterrupt):
        train_hf.main([*told, "--output_dir", "killed"])
    monkeypatch.setattr(stages, "build_trainer", build)
    train_hf.main([*told, "--output_dir", "killed"])
    whole, killed = (AutoModelForImageClassification.from_pretrained(name) for name in ("whole", "killed"))
    for (name, one), other in zip(whole.state_dict().items(), killed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert json.loads(Path("whole/config.json").read_text())["bonaface"]["face_margin"] == 0.5
    assert json.loads(Path("killed/report/metrics.json").read_text())["facts"]["continued_from_checkpoint"]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--freeze", "none"], "cached_views"),
        (["--freeze", "backbone"], "cached_views"),
        (["--cutmix", "0.5"], "cached_views"),
        (["--head_only", "2"], "cached_views"),
    ],
)
def test_what_does_not_go_with_kept_maps_is_refused(flags: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_recipe([*FLAGS, *flags])


def test_teachers_need_kept_maps() -> None:
    with pytest.raises(UsageError, match="teachers"):
        read_recipe(["--teachers", "2"])
