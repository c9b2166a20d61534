"""A vision transformer made small: it gives nearly the tokens of the whole one, and a kill costs only what was left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_data
from transformers import pipeline

import train_hf
from bonaface.cli.prune import prune_recipe
from bonaface.data.dataset import FaceData
from bonaface.errors import DivergedError, UsageError
from bonaface.inference.detector import Detector
from bonaface.models.load import load_model
from bonaface.models.pretrained import base_model
from bonaface.models.save import save_model
from bonaface.training import prune as pruning_module
from bonaface.training.prune import Pruning, drawn_views, prune
from bonaface.training.recipe import read_recipe

FLAGS = ["--augmentation", "light", "--use_cpu", "True", "--dataloader_num_workers", "0", "--bf16", "False"]
FLAGS += ["--disable_tqdm", "True"]
SMALL = Pruning(blocks=3, units=192, images=512, views=1024, learning_rate=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def network() -> Any:
    """Four blocks whose perceptrons say more than fresh ones do."""
    torch.manual_seed(0)
    model, processor = load_model("timm/vit_tiny_patch16_224", ["fake", "real"], image_size=32, from_scratch=True)
    del model.timm_model.blocks[4:]
    model.config.model_args = {**model.config.model_args, "depth": 4}
    for block in model.timm_model.blocks:
        torch.nn.init.normal_(block.mlp.fc1.weight, std=0.1)
        torch.nn.init.normal_(block.mlp.fc2.weight, std=0.1)
    return model, processor


def args_of(*flags: str) -> Any:
    return read_recipe([*FLAGS, *flags])[1]


@torch.inference_mode()
def mismatch(whole: Any, small: Any, pixels: torch.Tensor) -> float:
    """Squared error after the last kept block, as a share of the variance."""
    given, mine = (
        each.timm_model.forward_intermediates(
            pixels, indices=[len(small.timm_model.blocks) - 1], output_fmt="NLC", intermediates_only=True
        )[0]
        for each in (whole.eval(), small.eval())
    )
    return float((given - mine).square().mean() / given.flatten(0, 1).var(0).mean())


def pixels_of(network: Any, data: FaceData) -> torch.Tensor:
    views = drawn_views(data.splits["test"], network[1], "light", 32, 99)
    return torch.stack([views[row]["pixel_values"] for row in range(len(views))])


@pytest.mark.slow
def test_a_smaller_network_gives_nearly_the_same_tokens(network: Any, data: FaceData, tmp_path: Path) -> None:
    model, processor = network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = prune(model, processor, data.splits["train"], "light", SMALL, args_of(), tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [block.mlp.fc1.out_features for block in small.timm_model.blocks] == [192] * 3
    assert all(parameter.requires_grad for parameter in small.parameters())
    pixels = pixels_of(network, data)
    naive = pruning_module._smaller(model, SMALL)
    for whole, block in zip(model.timm_model.blocks, naive.timm_model.blocks, strict=False):
        block.mlp.fc1.weight.data.copy_(whole.mlp.fc1.weight[:192])
        block.mlp.fc1.bias.data.copy_(whole.mlp.fc1.bias[:192])
        block.mlp.fc2.weight.data.copy_(whole.mlp.fc2.weight[:, :192])
        block.mlp.fc2.bias.data.copy_(whole.mlp.fc2.bias)
    refitted = pruning_module._smaller(model, SMALL)
    refitted.load_state_dict(pruning_module.load_file(tmp_path / "units.safetensors"))
    errors = [mismatch(model, each, pixels) for each in (naive, refitted, small)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.5 * errors[0]


@pytest.mark.slow
def test_with_all_blocks_and_units_nothing_is_lost(network: Any, data: FaceData, tmp_path: Path) -> None:
    model, processor = network
    whole = Pruning(blocks=4, units=768, images=128, views=32, learning_rate=0.0)
    small = prune(model, processor, data.splits["train"], "light", whole, args_of(), tmp_path)
    assert mismatch(model, small, pixels_of(network, data)) < 0.01


@pytest.mark.slow
def test_a_killed_one_goes_on_where_it_was(
    network: Any, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = network
    rows, args = data.splits["train"], args_of()
    expected = prune(model, processor, rows, "light", SMALL, args, tmp_path / "whole").state_dict()
    saved: list[int] = []

    def killed(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        mark(self, args, state, control)
        saved.append(state.global_step)
        if len(saved) == 3:
            raise KeyboardInterrupt

    mark = pruning_module._Completed.on_save
    monkeypatch.setattr(pruning_module._Completed, "on_save", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(model, processor, rows, "light", SMALL, args, tmp_path / "killed")
    monkeypatch.setattr(pruning_module, "_keep_units", lambda *_: pytest.fail("the units are chosen already"))
    found = prune(model, processor, rows, "light", SMALL, args, tmp_path / "killed").state_dict()
    assert saved[3] == saved[2] + 4  # of 32 batches: none was done again
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_one_that_diverges_says_so_and_keeps_no_checkpoint(network: Any, data: FaceData, tmp_path: Path) -> None:
    wild = Pruning(blocks=2, units=192, images=64, views=128, learning_rate=1e30)
    with pytest.raises(DivergedError, match="not finite"):
        prune(*network, data.splits["train"], "light", wild, args_of(), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("wrong", "told"), [({"blocks": 5}, "blocks: 5"), ({"units": 1000}, "units: 1000")])
def test_more_than_there_is_is_refused(
    network: Any, data: FaceData, tmp_path: Path, wrong: dict[str, int], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        prune(
            *network, data.splits["train"], "light", Pruning(**{"blocks": 3, "units": 9, **wrong}), args_of(), tmp_path
        )


def test_a_network_of_another_kind_is_refused(data: FaceData, tmp_path: Path) -> None:
    model, processor = load_model("resnet", ["fake", "real"], image_size=32)
    with pytest.raises(UsageError, match="pruning needs a vision transformer"):
        prune(model, processor, data.splits["train"], "light", SMALL, args_of(), tmp_path)


@pytest.mark.slow
def test_a_recipe_trains_on_what_the_command_writes(
    network: Any, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = network
    model.config.base_model = "timm/vit_tiny_patch16_224.augreg_in21k"
    save_model(tmp_path / "whole", model, processor)
    monkeypatch.chdir(tmp_path)
    root = Path(data.origin)
    flags = [*FLAGS, "--data", str(root), "--prepare", "False", "--audit", "False"]
    out = tmp_path / "small"
    told = prune_recipe([*flags, "--model", str(tmp_path / "whole")], out, SMALL)
    assert "M parameters" in told
    assert not (out / ".steps").exists()
    smaller = load_model(str(out), ["fake", "real"])[0]
    assert len(smaller.timm_model.blocks) == 3
    assert base_model(str(out), smaller.config) == model.config.base_model
    assert "Nothing to do" in prune_recipe([*flags, "--model", str(tmp_path / "whole")], out, SMALL)
    (tmp_path / "whole").rename(tmp_path / "renamed")
    renamed = [*flags, "--model", str(tmp_path / "renamed")]
    assert "Nothing to do" in prune_recipe(renamed, out, SMALL)
    with pytest.raises(UsageError, match="other settings"):
        prune_recipe(renamed, out, replace(SMALL, units=96))
    model.timm_model.blocks[0].mlp.fc1.bias.data += 1
    save_model(tmp_path / "renamed", model, processor)  # trained again
    with pytest.raises(UsageError, match="other settings"):
        prune_recipe(renamed, out, SMALL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        prune_recipe(flags, tmp_path / "other", SMALL)

    head = ["--head_only", "1", "--head_block", "--num_train_epochs", "3", "--float8", "True", "--robustness", "none"]
    train_hf.main([*flags, *head, "--model", str(out), "--output_dir", str(tmp_path / "run")])
    assert len(list((tmp_path / "features").iterdir())) == 1  # the body is stored as it was read, so it is the same
    assert (tmp_path / "run" / "model.safetensors").stat().st_size < 0.3 * 4 * 3 * 270_000
    images = [str(path) for path in sorted(root.glob("fake/x/*"))[:4]]
    facts = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())["facts"]
    assert facts["base_model"] == model.config.base_model
    results = Detector.from_pretrained(tmp_path / "run")(images, faces=False)
    for rows, result in zip(pipeline("image-classification", str(tmp_path / "run"))(images), results, strict=True):
        assert {row["label"]: row["score"] for row in rows}["fake"] == pytest.approx(result.p_fake, abs=1e-4)
