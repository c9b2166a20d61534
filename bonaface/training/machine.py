"""Hardware settings of a training: precision, workers, memory format, compilation.

All of them are chosen here from what the machine has, printed in one line (:func:`speed_line`), and overridden by a
flag each: ``--bf16``, ``--dataloader_num_workers``, ``--channels_last``, ``--compile``, ``--optim``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, TrainingArguments
from transformers.training_args import OptimizerNames

from bonaface.models.parts import is_convolutional

PATIENCE = 600.0  # seconds that a run must take uncompiled before a minute of compiling is worth it
# What a step really achieves, in FLOP/s: two cores in bf16, and a data-centre GPU. Only the order of magnitude counts.
CPU_RATE, GPU_RATE = 1e11, 5e13


def machine_defaults() -> dict[str, Any]:
    """Values of `TrainingArguments` that fit this machine; recipes and flags override them.

    bf16 where the device has it; a loading worker for each core that this process may use; and no look at the loss
    after each step, for which a GPU would have to finish first.
    """
    gpu = torch.cuda.is_available()
    bf16 = torch.cuda.is_bf16_supported() if gpu else has_native_bf16()
    cpu = not gpu and not torch.backends.mps.is_available()
    return {
        "bf16": bool(bf16),
        "use_cpu": cpu,
        "dataloader_num_workers": min(16 if gpu else 8, _cores()),
        "logging_nan_inf_filter": False,
        "disable_tqdm": not sys.stderr.isatty(),  # else it would follow transformers' log level
    }


def has_native_bf16() -> bool:
    """Whether this CPU multiplies in bf16 itself, and torch has oneDNN to tell it to.

    oneDNN also takes bf16 where there is plain AVX-512, and emulates it: slower than float32 by half and more.
    """
    if not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):  # as on Apple's
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        facts = torch.cpu.get_capabilities()
        native = any(facts.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
    else:  # older torch
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cores() -> int:
    """Cores for each training process of this machine, at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def be_polite(worker: int) -> None:
    """Run in a loading worker on a CPU: the training step takes precedence over it."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)


def compile_pays(model: PreTrainedModel, args: TrainingArguments, n_images: int, shape: tuple[int, int]) -> bool:
    """Whether `torch.compile` gives more than it takes on a run that draws `n_images` images of `shape` in all.

    It takes about a minute. It pays on a GPU; on a CPU for networks that spend their time between the products, as
    ConvNeXts do (1.4 times as fast; ResNet 0.85, ViT 0.9: docs/scale.md). The answer depends on the recipe, the kind of
    device, and whether there is a compiler, never on a measured time or the number of cores: a resumed run must compute
    the same bits.
    """
    if args.torch_compile or args.n_gpu > 1 or not has_compiler(args.use_cpu):
        return False
    if args.use_cpu:
        batch_norms = any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        if not is_convolutional(model) or batch_norms:
            return False
    elif args.device.type != "cuda":
        return False
    rate = CPU_RATE if args.use_cpu else GPU_RATE
    return n_images * training_flops(model, shape) / rate / args.world_size > PATIENCE


def training_flops(model: PreTrainedModel, shape: tuple[int, int]) -> float:
    """Floating-point operations of both passes for one image of height and width `shape`; a multiply-add counts as two.

    The backward pass is taken as twice the forward, as is usual (Kaplan et al. 2020, section 2.1).
    """
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(pixel_values=torch.zeros(1, 3, *shape, device=parameter.device, dtype=parameter.dtype))
    model.train(was_training)
    return 3.0 * counter.get_total_flops()


def has_compiler(cpu: bool) -> bool:
    """Inductor compiles C++ for a CPU; for a GPU, Triton does, whose launchers are C."""
    told = os.environ.get("CXX" if cpu else "CC")
    names = [shlex.split(told)[0]] if told else ["g++" if cpu else "gcc", "clang"]
    return any(map(shutil.which, names)) and (cpu or torch.utils._triton.has_triton())


def speed_line(args: TrainingArguments, *, channels_last: bool, compiled: bool) -> str:
    """The chosen settings, in one line for a person."""
    precision = "bf16" if args.bf16 else "float16" if args.fp16 else "float32"
    threads = f", {torch.get_num_threads()} threads" if args.use_cpu else ""
    processes = f"{args.world_size} processes" if args.world_size > 1 else "1 process"
    workers = args.dataloader_num_workers
    batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    compiled = compiled or args.torch_compile
    return (
        f"speed: {precision} on {args.device}{threads}, {processes}, "
        f"{'channels_last' if channels_last else 'channels_first'}, {'compiled' if compiled else 'not compiled'}, "
        f"{workers} loading worker{'s' * (workers != 1)} each, batch {batch}, "
        f"{OptimizerNames(args.optim).value}"
    )
