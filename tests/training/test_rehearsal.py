"""Missing packages and wrong options are found before the data is read, in the words of the library that needs them."""

from __future__ import annotations

import gc

import pytest

from bonaface.errors import UsageError
from bonaface.training.recipe import read_recipe
from bonaface.training.rehearsal import rehearse

WRONG = {
    "--report_to wandb": "wandb",
    "--report_to somewhere": "somewhere is not supported",
    "--optim adamw_bnb_8bit": "bitsandbytes",
    "--optim_args nonsense": "optim_args",
    "--lr_scheduler_type cosine_with_min_lr": "min_lr",
    "--lr_scheduler_type polynomial --lr_scheduler_kwargs {\"foo\":1}": "foo",
    "--lr_scheduler_type cosine --lr_scheduler_kwargs {\"num_cycles\":\"x\"}": "could not convert string",
    "--schedule one_cycle --lr_scheduler_kwargs {\"foo\":1}": "foo",
    "--fsdp full_shard": "distributed training",
    "--torch_compile_backend foo": "FOO",
    "--gradient_checkpointing True": "the model resnet does not support gradient_checkpointing",
    "--activation_checkpointing True --model timm/resnet18": "the model timm/resnet18",
    "--gradient_checkpointing True --model vit --gradient_checkpointing_kwargs {\"foo\":1}": "foo",
}  # fmt: skip
RIGHT = [
    "",
    "--gradient_checkpointing True --model vit",
    "--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs {\"min_lr_rate\":0.1}",
    "--schedule one_cycle",
    "--schedule plateau",
    "--optim sgd --optim_args momentum=0.9",
    "--eval_strategy no --load_best_model_at_end False",
]  # fmt: skip


@pytest.mark.parametrize("flags", WRONG)
def test_what_a_library_would_refuse_later_is_refused_now(flags: str) -> None:
    recipe, args, _ = read_recipe(["--use_cpu", "True", "--bf16", "False", *flags.split()])
    with pytest.raises(UsageError) as caught:
        rehearse(recipe, args)
    assert WRONG[flags] in str(caught.value)


def test_nothing_follows_the_error_of_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python cannot raise, such as an error in a destructor, it prints below ours."""
    printed: list[str] = []
    monkeypatch.setattr("transformers.integrations.integration_utils.is_mlflow_available", lambda: False)
    monkeypatch.setattr("sys.unraisablehook", lambda failure: printed.append(repr(failure.object)))
    recipe, args, _ = read_recipe(["--use_cpu", "True", "--bf16", "False", "--report_to", "mlflow"])
    with pytest.raises(UsageError, match="mlflow"):
        rehearse(recipe, args)
    gc.collect()
    assert printed == []


@pytest.mark.parametrize("flags", RIGHT)
def test_what_works_is_let_through(flags: str) -> None:
    recipe, args, _ = read_recipe(["--use_cpu", "True", "--bf16", "False", *flags.split()])
    rehearse(recipe, args)


def test_packages_that_TrainingArguments_looks_for_itself() -> None:
    with pytest.raises(UsageError, match="deepspeed"):
        read_recipe(["--deepspeed", '{"train_batch_size": 8}'])
    with pytest.raises(UsageError, match="No such file"):
        read_recipe(["--accelerator_config", "nowhere.json"])


def test_each_stage_is_rehearsed() -> None:
    recipe, args, _ = read_recipe(["--use_cpu", "True", "--bf16", "False"])
    recipe.stages = [{"name": "a"}, {"name": "b", "optim": "adamw_bnb_8bit"}]
    with pytest.raises(UsageError, match="bitsandbytes"):
        rehearse(recipe, args)
