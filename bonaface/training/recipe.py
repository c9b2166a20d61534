"""The settings of a training run: a recipe file and command line flags -> typed, checked arguments.

The command line overrides the recipe, which overrides the defaults. A recipe is YAML whose keys are the fields of
:class:`Recipe` and of transformers' `TrainingArguments`; both kinds are flags of ``train_hf.py`` too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from bonaface.data.alignment import SIZE_RANGE
from bonaface.errors import UsageError
from bonaface.training.arguments import better_is_greater
from bonaface.training.conflicts import check_recipe
from bonaface.training.flags import (
    FIELDS,
    FlagParser,
    flag_parser,
    given_flags,
    normalized,
    refuse_unknown,
    refuse_unknown_word,
)
from bonaface.training.machine import machine_defaults
from bonaface.training.options import (
    DEFAULTS,
    HARMLESS,
    SCHEDULES,
    STAGE_KEYS,
    YAML_ONLY,
    Recipe,
    Stage,
)
from bonaface.training.rules import blame

# Two names of one field of `TrainingArguments`, of which the second one counts where both are set.
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}

PATHS = {"data", "splits", "model", "calibrate_on"}


def read_recipe(argv: Sequence[str]) -> tuple[Recipe, TrainingArguments, dict[str, Any]]:
    """``[RECIPE.yaml] [--flag value …]`` -> recipe, training arguments, and all settings, with our defaults.

    The third is what a run stores as its ``recipe.yaml``: given to ``train_hf.py`` again it means the same run.

    Raises:
        UsageError: no such file, an unknown key or flag (with the nearest valid name), a value of the wrong type.
    """
    argv = normalized(argv)
    path = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    parser, flags = flag_parser(), given_flags(argv).keys()
    values = _read_recipe_file(path, {*FIELDS, *YAML_ONLY}) if path else {}
    source = f"{path}: " if path else ""
    structured = {key: values.pop(key) for key in YAML_ONLY if values.get(key) is not None}
    defaults = {**DEFAULTS, **machine_defaults(), "output_dir": f"runs/{path.stem if path else 'sample'}", **values}
    _check_types(parser, values, source)
    for old in flags & RENAMED.keys():
        defaults.pop(RENAMED[old], None)
    recipe, args = _parse(parser, _as_flags(defaults) + argv, source)
    _derive(recipe, args, {*values, *flags})
    # Two names of one thing: the one on the command line also overrides the other one in a recipe.
    beaten = flags | ({"schedule", "lr_scheduler_type"} if flags & {"schedule", "lr_scheduler_type"} else set())
    if "lr_scheduler_type" in flags and "schedule" not in flags:
        recipe.schedule = None
    recipe.families = _check_families(structured.get("families"), source)
    recipe.search_space = structured.get("search_space")
    recipe.stages = _read_stages(structured.get("stages"), beaten, parser, source)
    check_recipe(recipe, args)
    for number, stage in enumerate(stages_of(recipe, args), start=1):
        if recipe.stages:
            blame(f"{source}stage {number} ({stage.name}): ", partial(check_recipe, stage.recipe, stage.args))
    said = ({*defaults, *flags} & FIELDS) - HARMLESS
    if "use_cpu" not in {*values, *flags}:
        said -= {"use_cpu"}  # this machine has no GPU; the next one, which is given this recipe, may have one
    effective = {**asdict(recipe), **{key: _plain(getattr(args, key)) for key in said if hasattr(args, key)}}
    return recipe, args, {key: value for key, value in effective.items() if value is not None and key not in HARMLESS}


def _parse(parser: FlagParser, words: list[str], source: str) -> tuple[Recipe, TrainingArguments]:
    try:
        recipe, args, unknown = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except UsageError:
        raise
    except Exception as error:  # anything that TrainingArguments and its libraries refuse: packages, files, odd pairs
        raise UsageError(
            f"{source}{' '.join(str(error).split())}", "change one of these settings, or install what is missing"
        ) from error
    for word in unknown:
        if word.endswith((".yaml", ".yml")):
            raise UsageError(
                f"the recipe {word} must come first", "write `python train_hf.py RECIPE.yaml --flag value …`"
            )
        refuse_unknown_word(word)
    return recipe, args


def _derive(recipe: Recipe, args: TrainingArguments, given: set[str]) -> None:
    """Set what follows from other settings and was not given."""
    if args.dataloader_num_workers == 0:
        args.dataloader_persistent_workers = False
    if "accelerator_config" not in given:
        assert isinstance(args.accelerator_config, AcceleratorConfig)  # made of whatever form was given
        args.accelerator_config.non_blocking = not args.use_cpu  # a batch is copied while the GPU computes
    if "greater_is_better" not in given and better_is_greater(args.metric_for_best_model) is not None:
        args.greater_is_better = better_is_greater(args.metric_for_best_model)
    if recipe.prepare_size == list(SIZE_RANGE):
        recipe.prepare_size = None
    if "per_device_eval_batch_size" not in given:
        args.per_device_eval_batch_size = 2 * args.per_device_train_batch_size  # no gradients take room there


def stages_of(recipe: Recipe, args: TrainingArguments) -> list[Stage]:
    """The stages of a run in their order; a recipe without any is one stage."""
    if not recipe.stages:
        return [with_keys(recipe, args, {"name": "train"})]
    return [with_keys(recipe, args, {"name": f"stage{i}", **given}) for i, given in enumerate(recipe.stages, start=1)]


def with_keys(recipe: Recipe, args: TrainingArguments, given: dict[str, Any]) -> Stage:
    """A stage from its name and the keys of the recipe and the arguments that it changes.

    Raises:
        UsageError: a value of the wrong type.
    """
    own = {key: value for key, value in given.items() if key != "name"}
    parsed = flag_parser().parse_known_args(_as_flags(own))[0]
    typed = {key: getattr(parsed, key) for key in own}
    ours = {key: value for key, value in typed.items() if hasattr(recipe, key)}
    theirs = {key: value for key, value in typed.items() if key not in ours}
    changed = replace(recipe, **ours)
    if changed.schedule in SCHEDULES and "lr_scheduler_type" not in own:
        theirs["lr_scheduler_type"] = SCHEDULES[changed.schedule]
    elif "lr_scheduler_type" in own:
        changed.schedule = None
    return Stage(str(given["name"]), changed, replace(args, **theirs) if theirs else args)


def _read_stages(stages: Any, beaten: set[str], parser: FlagParser, source: str) -> list[dict[str, Any]] | None:
    """Stages as YAML gives them, checked; without the keys that a flag of the command line overrides."""
    if stages is None:
        return None
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise UsageError(
            f"{source}stages is not a list of stages", "write, for example, `stages: [{name: head, freeze: backbone}]`"
        )
    names = [str(stage.get("name", f"stage{number}")) for number, stage in enumerate(stages, start=1)]
    read = []
    for number, (name, stage) in enumerate(zip(names, stages, strict=True), start=1):
        where = f"{source}stage {number} ({name}): "
        if names.count(name) > 1 or not name.replace("-", "_").isidentifier():
            raise UsageError(
                f"{where}needs a unique name of letters, digits, - and _", "write, for example, `name: head`"
            )
        for key in stage:
            refuse_unknown(str(key), STAGE_KEYS, "key", where)
        stage = {key: _mapping_as_list(value) if key == "mix" else value for key, value in stage.items()}
        _check_types(parser, {key: value for key, value in stage.items() if key != "name"}, where)
        read.append({key: value for key, value in stage.items() if key not in beaten})
    return read


def _check_families(families: Any, source: str) -> dict[str, list[str]] | None:
    if families is None:
        return None
    if not isinstance(families, dict) or not all(isinstance(names, list) for names in families.values()):
        raise UsageError(
            f"{source}families is not a mapping of lists", "write, for example, `families: {sheets: [sdxl, flux1_dev]}`"
        )
    return {str(family): [str(name) for name in names] for family, names in families.items()}


def _check_types(parser: FlagParser, values: dict[str, Any], source: str) -> None:
    """Refuse values that the flag of their name would refuse."""
    for key, value in values.items():
        if isinstance(value, list) and not parser.takes_list(key):
            raise UsageError(
                f"{source}{key} takes one value, not a list", f"write, for example, `{key}: {value[0] if value else 1}`"
            )
        if not all(map(_is_text, _as_flags({key: value}))):
            raise UsageError(
                f"{source}{key} has a character that no path or name can have", "remove the NUL or half character"
            )
    blame(source, lambda: parser.parse_known_args(_as_flags(values)))


def _is_text(word: str) -> bool:
    """Whether it could be a path: without NUL, or half of a UTF-16 pair, both of which YAML can write as escapes."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def _mapping_as_list(value: Any) -> Any:
    """``{name: value}`` as the words ``name=value`` of a flag."""
    return [f"{name}={each}" for name, each in value.items()] if isinstance(value, dict) else value


def changed_keys(
    stored: dict[str, Any], now: dict[str, Any], args: TrainingArguments, ignored: Collection[str] = ()
) -> list[str]:
    """Keys by which a stored run differs from this one in what it would compute: ``key: old -> new``."""
    defaults = {**asdict(Recipe()), **TrainingArguments(output_dir="unused", use_cpu=True).to_dict()}
    without = {"data_fingerprint", *HARMLESS, *ignored}
    if not args.load_best_model_at_end:  # else only what was saved can be the best
        without |= {"save_strategy", "save_steps"}
    differences = []
    for key in sorted((stored.keys() | now.keys()) - without):
        old, new = stored.get(key, defaults.get(key)), now.get(key, defaults.get(key))
        if _plain(old) != _plain(new) and not (key in PATHS and _same_places(old, new)):
            differences.append(f"{key}: {old} -> {new}")
    return differences


def _same_places(old: Any, new: Any) -> bool:
    """Whether two values, or lists of ``name=value``, name the same files or folders."""
    places = []
    for value in (old, new):
        pairs = [str(item).rpartition("=") for item in (value if isinstance(value, list) else [value])]
        places.append([(name, os.path.realpath(place) if Path(place).exists() else place) for name, _, place in pairs])
    return places[0] == places[1]


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file. Raises UsageError for a file without any, or that is not YAML."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"no recipe at {path}", "give a .yaml file; see recipes/") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not YAML: {' '.join(str(error).split())}", "write one `key: value` per line"
        ) from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} contains no keys", "write one `key: value` per line")
    return values


def _read_recipe_file(path: Path, known: set[str]) -> dict[str, Any]:
    values = read_yaml(path)
    for key in values:
        refuse_unknown(str(key), known, "key", f"{path}: ")
    for key in ("data", "mix"):
        if key in values:
            values[key] = _mapping_as_list(values[key])
    return values


def _as_flags(values: dict[str, Any]) -> list[str]:
    flags: list[str] = []
    for key, value in values.items():
        if isinstance(value, list):
            flags += [f"--{key}", *map(str, value)]
        elif value is not None:
            flags.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
    return flags


def _plain(value: Any) -> Any:
    """Enumerations and tuples, and lists of them, in a form that YAML has."""
    value = value.to_dict() if isinstance(value, AcceleratorConfig) else getattr(value, "value", value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
