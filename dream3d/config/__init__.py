"""Configuration: YAML presets and `key=value` overrides become one frozen `RunConfig`, and back.

Loading is pure: no directory is made, no device is touched, no weights are read. The prompt never passes through YAML
rules, interpolation or overrides on its way in.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dream3d.config.build import build_component, build_second, build_stage, fill
from dream3d.config.layers import (
    Document,
    apply_overrides,
    extended,
    preset_names,
    preset_summary,
    read_preset,
    split_override,
    spread_over_stages,
)
from dream3d.config.plain_yaml import read_mapping, read_mapping_file, to_text
from dream3d.errors import ConfigError, PromptError
from dream3d.prompt_debiasing import DebiasingSettings
from dream3d.schedules import Ramp, constant
from systems.base import FORMAT_VERSION, RunConfig
from systems.reference import ReferenceSettings

__all__ = [
    "config_to_yaml",
    "load_config",
    "load_config_file",
    "load_config_text",
    "preset_names",
    "preset_summary",
    "split_override",
]

_HEADER = "# A dream3d run, resolved; `dream3d generate --config` with this file repeats it.\n"


def load_config(
    preset: str = "default",
    overrides: Iterable[str] | Mapping[str, Any] = (),
    prompt: str = "",
    negative_prompt: str = "",
    seed: int | None = None,
) -> RunConfig:
    """A run's configuration from a preset.

    Args:
        preset: name of a file in `configs/`.
        overrides: `key=value` texts as on the command line, or a mapping from dotted keys to values.
        prompt: what to make; taken as it is.
        negative_prompt: what to avoid; taken as it is.
        seed: of all randomness; None keeps the preset's.

    Raises:
        ConfigError: unknown preset, key, name or a value of the wrong type; the message has the key's path.
        PromptError: a prompt is not text.
    """
    return _resolve(read_preset(preset), overrides, prompt, negative_prompt, seed)


def load_config_file(
    path: Path | str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    prompt: str | None = None,
    negative_prompt: str | None = None,
    seed: int | None = None,
) -> RunConfig:
    """A run's configuration from a file, e.g. the `config.yaml` of an earlier run.

    Args:
        path: the file.
        overrides: as for `load_config`.
        prompt: replaces the file's; one of the two must be there.
        negative_prompt: replaces the file's.
        seed: replaces the file's.

    Raises:
        ConfigError: as `load_config`; also an unreadable file and one written by another format version.
        PromptError: there is no prompt, or it is not text.
    """
    document = extended(read_mapping_file(Path(path)))
    document = _with_files_beside(document, Path(path).parent)
    return _resolve(document, overrides, prompt, negative_prompt, seed, str(path))


def _with_files_beside(document: Document, directory: Path) -> Document:
    """A run keeps its picture and its meshes beside its configuration, wherever that is moved."""
    document = dict(document)
    reference = document.get("reference")
    if isinstance(reference, dict) and isinstance(reference.get("image"), str):
        image = reference["image"]
        document["reference"] = {**reference, "image": str(directory / image) if image else ""}

    def found(stage: Any) -> Any:
        scene = stage.get("scene") if isinstance(stage, dict) else None
        if not isinstance(scene, dict) or not isinstance(scene.get("mesh"), str):
            return stage
        beside = directory / scene["mesh"]
        return {**stage, "scene": {**scene, "mesh": str(beside)}} if beside.is_file() else stage

    if isinstance(document.get("stages"), list):
        document["stages"] = [found(stage) for stage in document["stages"]]
    return found(document)


def load_config_text(text: str) -> RunConfig:
    """The inverse of `config_to_yaml`."""
    return _resolve(extended(read_mapping(text, "the configuration")), (), None, None, None)


def _resolve(
    document: Document,
    overrides: Iterable[str] | Mapping[str, Any],
    prompt: str | None,
    negative_prompt: str | None,
    seed: int | None,
    source: str = "the configuration",
) -> RunConfig:
    version = document.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{source} has format_version {version!r}; this dream3d reads {FORMAT_VERSION}. "
            "Use the dream3d that wrote it, or write the settings anew."
        )
    document = spread_over_stages(document)
    pairs = (
        list(overrides.items())
        if isinstance(overrides, Mapping)
        else [split_override(override) for override in overrides]
    )
    document = apply_overrides(document, pairs)
    if prompt is None:
        prompt = document.get("prompt")
    if prompt is None:
        raise PromptError(f'{source} has no prompt; give one: dream3d generate "a red mug"')
    if negative_prompt is None:
        negative_prompt = document.get("negative_prompt", "")
    chosen_seed = document.get("seed", 0) if seed is None else seed
    if not isinstance(chosen_seed, int) or isinstance(chosen_seed, bool):
        raise ConfigError(f"seed is {chosen_seed!r}; choose an integer in [0, 2^63)")
    device = document.get("device", "auto")
    if not isinstance(device, str):
        raise ConfigError(f"device is {device!r}; choose auto, cpu, cuda or cuda:1")
    reference = document.get("reference") or {}
    if isinstance(reference, str):
        reference = {"image": reference}
    if not isinstance(reference, dict):
        raise ConfigError(f"reference is {reference!r}; write {{image: FILE, ...}}")
    return RunConfig(
        prompt=_text("prompt", prompt),
        prior=build_component("prior", document.get("prior", {}), "prior"),
        stages=[
            build_stage(stage, f"stages.{index}") for index, stage in enumerate(document["stages"])
        ],
        negative_prompt=_text("negative_prompt", negative_prompt),
        seed=chosen_seed,
        device=device,
        reference=fill(ReferenceSettings, reference, "reference", "the reference"),
        second=build_second(document.get("second")),
        debiasing=fill(
            DebiasingSettings, document.get("debiasing") or {}, "debiasing", "prompt debiasing"
        ),
    )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{name} is {value!r}; it must be text (quote it in a YAML file)")
    return value


def _as_data(value: Any) -> Any:
    """Dataclasses as mappings, components with their `name` first, constant schedules as a number."""
    if isinstance(value, Ramp) and value == constant(value.initial):
        return value.initial
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = getattr(type(value), "registered_name", None)
        fields = {f.name: _as_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"name": name, **fields} if name else fields
    if isinstance(value, list | tuple):
        return [_as_data(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_data(item) for key, item in value.items()}
    return value


def config_to_yaml(config: RunConfig) -> str:
    """The configuration as YAML, every setting written out; `load_config_text` gives back an equal one."""
    data = _as_data(config)
    order = (
        "prompt",
        "negative_prompt",
        "seed",
        "device",
        "prior",
        "reference",
        "second",
        "debiasing",
        "stages",
        "format_version",
    )
    written = {key: data[key] for key in order if key != "second" or config.second is not None}
    return _HEADER + to_text(written)
