"""What learns, how fast and when: blocks, freezing, layer-wise decay, schedules after warm-up, averaged weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_faces
from torch import nn
from transformers import PreTrainedModel

from bonaface.data.dataset import FaceData, load_data
from bonaface.errors import UsageError
from bonaface.models.head import with_hidden_head
from bonaface.models.load import load_model
from bonaface.models.parts import head_of
from bonaface.training.build import build_trainer
from bonaface.training.optimization import blocks, freeze, layer_decay_groups, learnable, rest
from bonaface.training.recipe import read_recipe, stages_of
from bonaface.training.trainer import FaceTrainer

LABELS = ["fake", "real"]
MODELS = ["resnet", "convnext", "vit", "cnn", "timm/resnet18", "timm/convnextv2_atto", "timm/vit_tiny_patch16_224"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FaceData:
    root = make_faces(tmp_path_factory.mktemp("data"), {"real/cam": 16, "fake/gan": 16})
    return load_data(root, check="none")


def build(name: str, size: int = 32) -> PreTrainedModel:
    return load_model(name, LABELS, from_scratch=True, image_size=None if "vit" in name else size)[0]


def trainer(data: FaceData, out: Path, model: str, *flags: str) -> FaceTrainer:
    argv = ["--output_dir", str(out), "--bf16", "False", "--use_cpu", "True", "--dataloader_num_workers", "0"]
    argv += ["--disable_tqdm", "True", "--per_device_train_batch_size", "4", "--num_train_epochs", "3", *flags]
    recipe, args, _ = read_recipe(argv)
    network, processor = load_model(model, data.labels, from_scratch=True)
    return build_trainer(network, processor, data, stages_of(recipe, args)[0])


@pytest.mark.parametrize("name", MODELS)
def test_blocks_hold_every_parameter_once_from_stem_to_head(name: str) -> None:
    model = build(name)
    groups = blocks(model)
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(groups) >= 5
    head = {id(parameter) for parameter in head_of(model).parameters()}
    assert {id(model.get_parameter(name)) for name in groups[-1]} == head


def test_blocks_of_a_net_without_help_follow_its_layers() -> None:
    """A ViT of 6 layers: the embeddings, six blocks (the last with the final norm), the head."""
    groups = blocks(build("vit"))
    assert len(groups) == 8
    assert all("embeddings" in name for name in groups[0])
    assert any("layernorm" in name for name in groups[6])


@pytest.mark.parametrize("name", ["resnet", "timm/resnet18", "vit"])
def test_freezing_leaves_the_head_or_the_last_blocks(name: str) -> None:
    model = build(name)
    everything = learnable(model)
    groups = blocks(model)
    for what, kept in (("backbone", groups[-1:]), ("all_but_last_3", groups[-3:]), ("none", groups)):
        freeze(model, what, everything)
        assert learnable(model) == {name for group in kept for name in group}
    with pytest.raises(UsageError, match=f"has {len(groups)} blocks") as caught:
        freeze(model, "all_but_last_99", everything)
    assert str(len(groups)) in caught.value.hint


def test_what_never_learned_is_not_woken_by_a_later_stage() -> None:
    model = build("vit")
    model.vit.embeddings.position_embeddings.requires_grad_(False)
    everything = learnable(model)
    freeze(model, "backbone", everything)
    freeze(model, "none", everything)
    assert learnable(model) == everything


def test_batch_norms_of_a_frozen_part_keep_their_statistics(data: FaceData, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, "resnet", "--image_size", "32", "--max_steps", "2", "--eval_strategy", "no",
                  "--save_strategy", "no", "--load_best_model_at_end", "False")  # fmt: skip
    model = run.model
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    freeze(model, "all_but_last_2", learnable(model))
    asleep = [name for name, m in norms.items() if not m.weight.requires_grad]
    assert asleep
    assert len(asleep) < len(norms)
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    run.train()
    moved = [name for name, norm in norms.items() if not torch.equal(before[name], norm.running_mean)]
    assert sorted(moved) == sorted(set(norms) - set(asleep))


def test_rest_touches_learning_norms_no_more_than_it_must() -> None:
    model = build("resnet").train()
    rest(model)
    assert all(module.training for module in model.modules())


def test_learning_rates_shrink_from_the_head_to_the_stem() -> None:
    model = build("vit")
    groups = layer_decay_groups(model, 1.0, 0.05, 0.5)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    for depth, names in enumerate(reversed(blocks(model))):
        assert {rate[id(model.get_parameter(name))] for name in names} == {0.5**depth}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(model.classifier.bias)] == 0
    assert decay[id(model.classifier.weight)] == 0.05


def rates(run: FaceTrainer, validation: list[float] | None = None) -> list[float]:
    """The learning rate of every step, taken while it is in use; evaluations answer as told."""
    seen: list[float] = []
    step = run.training_step

    def watch(*args: object, **kwargs: object) -> torch.Tensor:
        seen.append(run.optimizer.param_groups[-1]["lr"])
        return step(*args, **kwargs)

    run.training_step = watch  # type: ignore[method-assign]
    if validation is not None:
        answers = iter(validation)
        run.compute_metrics = lambda _: {"auc": next(answers)}
    run.train()
    return seen


def test_one_cycle_goes_up_and_down_again(data: FaceData, tmp_path: Path, tiny_model: str) -> None:
    run = trainer(data, tmp_path, tiny_model, "--schedule", "one_cycle", "--warmup_steps", "0.5")
    seen = rates(run)
    top = seen.index(max(seen))
    assert max(seen) == pytest.approx(1e-3, rel=0.05)
    assert abs(top - len(seen) / 2) <= 1.5
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)


def test_a_plateau_comes_after_its_warm_up(data: FaceData, tmp_path: Path, tiny_model: str) -> None:
    """Epochs have 6 steps; warm-up lasts 6. The second validation is no better, so the third epoch is slower."""
    flags = ["--schedule", "plateau", "--warmup_steps", "6", "--lr_scheduler_kwargs", '{"patience": 0, "factor": 0.1}']
    run = trainer(data, tmp_path, tiny_model, *flags)
    seen = rates(run, [0.6, 0.6, 0.6])
    steps = len(seen) // 3
    assert seen[:6] == pytest.approx([1e-3 * (i + 1) / 6 for i in range(6)])
    assert seen[steps : 2 * steps] == pytest.approx([1e-3] * steps)
    assert seen[2 * steps :] == pytest.approx([1e-4] * steps)


def test_a_rising_figure_is_no_plateau(data: FaceData, tmp_path: Path, tiny_model: str) -> None:
    """AUC is better when higher: a scheduler that waits for it to fall would cut the rate."""
    flags = ["--schedule", "plateau", "--warmup_steps", "0", "--lr_scheduler_kwargs", '{"patience": 0}']
    seen = rates(trainer(data, tmp_path, tiny_model, *flags), [0.6, 0.7, 0.8])
    assert set(seen) == {1e-3}


def test_the_average_is_validated_and_kept_and_training_goes_on_from_the_weights(
    data: FaceData, tmp_path: Path, tiny_model: str
) -> None:
    run = trainer(data, tmp_path, tiny_model, "--ema_decay", "0.5", "--learning_rate", "0.01")
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    with run.average.applied():
        assert all(torch.equal(before[k], v) for k, v in run.model.state_dict().items())  # nothing averaged yet
    run.train()
    kept = {k: v.clone() for k, v in run.model.state_dict().items()}
    assert all(torch.equal(v, run.average.average.module.state_dict()[k]) for k, v in kept.items())
    raw = load_model(tiny_model, data.labels, from_scratch=True)[0]
    from safetensors.torch import load_file

    best = Path(run.state.best_model_checkpoint)
    raw.load_state_dict(load_file(best / "model.safetensors"))
    assert any(not torch.equal(v, kept[k]) for k, v in raw.state_dict().items())


def test_mixing_makes_soft_labels_in_training_alone(data: FaceData, tmp_path: Path, tiny_model: str) -> None:
    run = trainer(data, tmp_path, tiny_model, "--mixup", "0.4", "--cutmix", "1.0")
    inputs = run.data_collator([run.train_dataset[i] for i in range(8)])
    seen = []
    run.mix.register_forward_hook(lambda _, __, out: seen.append(out))
    run.model.train()
    loss = run.compute_loss(run.model, inputs)
    assert loss.requires_grad
    ((pixels, labels),) = seen
    assert labels.shape == (8, 2)
    assert labels.sum(1) == pytest.approx(torch.ones(8))
    assert not torch.equal(pixels, inputs["pixel_values"])
    run.model.eval()
    run.compute_loss(run.model, inputs)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["resnet", "vit", "timm/resnet18"])
def test_a_hidden_head_replaces_the_last_layer_and_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    body = build(name).eval()
    model = with_hidden_head(body, 16, 0.3).eval()
    assert with_hidden_head(model, 8) is model
    shared = [k for k in body.state_dict() if f"body.{k}" in model.state_dict()]
    assert len(shared) >= len(body.state_dict()) - 2
    assert all(torch.equal(body.state_dict()[k], model.state_dict()[f"body.{k}"]) for k in shared)
    side = 96 if "vit" in name else 32
    pixels = torch.randn(2, 3, side, side)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        assert torch.equal(model(pixels).logits, again(pixels).logits)
    assert model(pixels).logits.shape == (2, 2)
    assert {id(p) for p in head_of(model).parameters()} == {id(p) for p in model.head.parameters()}
