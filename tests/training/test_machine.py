"""What is chosen from the machine: it fits, it repeats, it is said, and a flag beats it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from bonaface.errors import UsageError
from bonaface.models.load import load_model
from bonaface.training import machine
from bonaface.training.machine import be_polite, compile_pays, machine_defaults, speed_line, training_flops
from bonaface.training.recipe import changed_keys, read_recipe

ROOT = Path(__file__).resolve().parents[2]
LONG, SHORT, SHAPE = 10**9, 100, (224, 224)  # images, images, pixels


def arguments(*flags: str) -> tuple[object, object]:
    recipe, args, _ = read_recipe(["--output_dir", "unused", *flags])
    return recipe, args


def test_workers_share_the_cores_among_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine_defaults()["dataloader_num_workers"] == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine_defaults()["dataloader_num_workers"] == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert machine_defaults()["dataloader_num_workers"] == 1


@pytest.mark.parametrize(
    ("facts", "native"),
    [
        ({"avx512_f": True, "avx512_bw": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_that_would_only_emulate_bf16_trains_in_float32(
    facts: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert machine_defaults()["bf16"] is (native or torch.cuda.is_available())


@pytest.mark.parametrize("native", [False, True])
def test_an_older_torch_is_asked_in_its_own_way(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert machine.has_native_bf16() is native


def test_a_torch_without_onednn_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not machine.has_native_bf16()


def test_a_compiler_that_is_only_named_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    assert not machine.has_compiler(cpu=True)
    monkeypatch.setenv("CXX", f"{sys.executable} -x")  # with arguments
    assert machine.has_compiler(cpu=True)


def test_a_flag_beats_what_the_machine_suggests() -> None:
    _, args = arguments("--bf16", "False", "--dataloader_num_workers", "0", "--optim", "adamw_torch")
    assert not args.bf16
    assert args.dataloader_num_workers == 0
    assert args.optim.value == "adamw_torch"


def test_a_gpus_defaults_do_not_enter_what_a_run_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """They change neither data nor weights, and a run that is continued elsewhere must not be refused for them."""
    gpu = {**machine_defaults(), "use_cpu": False}
    monkeypatch.setattr("bonaface.training.recipe.machine_defaults", lambda: gpu)
    _, args, said = read_recipe(["--output_dir", "unused", "--bf16", "False"])
    assert args.accelerator_config.non_blocking
    assert not args.logging_nan_inf_filter
    assert not {"accelerator_config", "logging_nan_inf_filter", "dataloader_num_workers"} & said.keys()
    assert yaml.safe_load(yaml.safe_dump(said)) == said


def test_what_changes_the_batches_is_stored() -> None:
    """`split_batches` and its like decide which images share a step: another value is another run."""
    _, args, said = read_recipe(["--output_dir", "unused", "--accelerator_config", '{"split_batches": true}'])
    assert yaml.safe_load(yaml.safe_dump(said))["accelerator_config"]["split_batches"]
    _, _, usual = read_recipe(["--output_dir", "unused"])
    assert [line for line in changed_keys(usual, said, args) if line.startswith("accelerator_config")]


def test_the_usual_prepare_size_is_no_change() -> None:
    assert arguments("--prepare_size", "128", "160")[0].prepare_size is None
    assert arguments("--prepare_size", "224", "288")[0].prepare_size == [224, 288]


def test_evaluation_takes_twice_the_batch_unless_told() -> None:
    assert arguments("--per_device_train_batch_size", "24")[1].per_device_eval_batch_size == 48
    assert arguments("--per_device_eval_batch_size", "7")[1].per_device_eval_batch_size == 7


@pytest.mark.parametrize(("name", "pays"), [("convnext", True), ("resnet", False), ("vit", False)])
def test_on_a_cpu_compiling_pays_for_long_runs_of_convnexts(
    name: str, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_compiler", lambda cpu: True)
    model, _ = load_model(name, ["fake", "real"], image_size=64)
    _, args = arguments("--use_cpu", "True")
    assert compile_pays(model, args, LONG, (64, 64)) == pays
    assert not compile_pays(model, args, SHORT, (64, 64))
    medium = 3 * machine.PATIENCE * machine.CPU_RATE / training_flops(model, (64, 64))
    for cores in (1, 2, 64):  # a run that is continued with other cores goes on as it began
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert compile_pays(model, args, int(medium), (64, 64)) == pays


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_compiler", lambda cpu: False)
    model, _ = load_model("convnext", ["fake", "real"])
    assert not compile_pays(model, arguments("--use_cpu", "True")[1], LONG, SHAPE)


def test_compiling_without_a_compiler_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonaface.training.conflicts.has_compiler", lambda cpu: False)
    with pytest.raises(UsageError, match="C\\+\\+ compiler") as error:
        arguments("--use_cpu", "True", "--compile", "True")
    assert "g++" in error.value.hint


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prepare_size", "300"], "two numbers"),
        (["--prepare_size", "300", "200"], "300 to 200 is not a range"),
        (["--prepare_size", "200", "300", "--prepare", "False"], "has no effect"),
    ],
)
def test_a_prepare_size_that_cannot_be_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arguments(*flags)


@pytest.mark.parametrize(
    ("name", "gmacs"), [("timm/resnet18.a1_in1k", 1.81), ("timm/convnextv2_atto.fcmae", 0.55)]
)  # at 224 px, as timm and the papers give them
def test_operations_are_those_of_the_papers(name: str, gmacs: float) -> None:
    model, _ = load_model(name, ["fake", "real"], from_scratch=True)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert training_flops(model, SHAPE) == pytest.approx(3 * 2 * gmacs * 1e9, rel=0.03)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_preset_is_judged_at_the_size_that_it_is_trained_at() -> None:
    """Its configuration names none: a quarter of the pixels is a quarter of the work."""
    model, _ = load_model("resnet", ["fake", "real"], image_size=112)
    whole, quarter = (training_flops(model, (side, side)) for side in (224, 112))
    assert whole == pytest.approx(4 * quarter, rel=0.1)  # borders count


def test_one_line_says_what_was_chosen() -> None:
    _, args = arguments("--use_cpu", "True", "--bf16", "True", "--dataloader_num_workers", "1")
    line = speed_line(args, channels_last=True, compiled=False)
    assert "\n" not in line
    for said in ("bf16 on cpu", "channels_last", "not compiled", "1 loading worker each", "adamw_torch_fused"):
        assert said in line


def test_threads_that_wait_sleep_but_a_user_can_say_otherwise() -> None:
    """It must be said before torch is loaded, so the main job imports it first of all."""
    tree = ast.parse((ROOT / "bonaface" / "cli" / "train.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports[:2]] == [
        "from __future__ import annotations",
        "import bonaface.training.openmp",
    ]
    code = "import bonaface.training.openmp, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    unset = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=unset | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [expected, "False"]


def test_loading_workers_step_back_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(os, "nice", steps.append)
    be_polite(0)
    assert steps == [10]
