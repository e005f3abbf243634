"""The layers of a configuration: a preset (and what it extends), then the user's `key=value` overrides.

A document is plain data. Keys of a stage may be written at the top level, where they hold for every stage; the first
step is to write them into the stages, after which overrides are applied one key at a time.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dream3d
import systems.base
from dream3d.config.build import (
    COMPONENTS,
    STAGE_COMPONENTS,
    STAGE_KEYS,
    check_keys,
    default_name,
)
from dream3d.config.plain_yaml import parse_value, read_mapping_file
from dream3d.errors import ConfigError
from dream3d.registry import suggestion

RUN_KEYS = ("prior", "seed", "device", "reference", "second", "debiasing")
TEXT_KEYS = {
    "prompt": 'it is the argument of the command: dream3d generate "a red mug"',
    "negative_prompt": "it has an option of its own: --negative",
}

Document = dict[str, Any]


def preset_directory() -> Path:
    """Where the presets lie: inside the installed package, or beside it in a checkout."""
    package = Path(dream3d.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """All presets, sorted."""
    return sorted(path.stem for path in preset_directory().glob("*.yaml"))


def system_names() -> list[str]:
    """All published systems, sorted: presets after a paper, in `systems/`."""
    return sorted(path.stem for path in Path(systems.base.__file__).parent.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset or system.

    Raises:
        ConfigError: there is none of that name.
    """
    presets, published = preset_names(), system_names()
    if name in presets:
        return preset_directory() / f"{name}.yaml"
    if name in published:
        return Path(systems.base.__file__).parent / f"{name}.yaml"
    raise ConfigError(
        f"preset is '{name}'; choose one of {', '.join(presets)}, or a published system: "
        f"{', '.join(published)}.{suggestion(name, [*presets, *published])}"
    )


def preset_summary(name: str) -> str:
    """The comment in the first line of a preset or system."""
    text = preset_path(name).read_text(encoding="utf-8")
    return text.splitlines()[0].lstrip("# ").strip()


def merge(base: Any, over: Any) -> Any:
    """`over` on top of `base`, mapping by mapping. Another `name` starts from nothing: its settings are its own."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return copy.deepcopy(over)
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return copy.deepcopy(over)
    merged = dict(base)
    for key, value in over.items():
        merged[key] = merge(base[key], value) if key in base else copy.deepcopy(value)
    return merged


def read_preset(name: str, seen: tuple[str, ...] = ()) -> Document:
    """A preset's data with everything it extends already merged under it.

    Raises:
        ConfigError: no such preset; presets that extend each other in a circle.
    """
    path = preset_path(name)
    if name in seen:
        raise ConfigError(f"presets extend each other in a circle: {' -> '.join([*seen, name])}")
    return extended(read_mapping_file(path), (*seen, name))


def extended(document: Document, seen: tuple[str, ...] = ()) -> Document:
    """`document` on top of the preset its `extends` names, if any."""
    document = normalised_components(document)
    base = document.pop("extends", None)
    if base is None:
        return document
    return merge(read_preset(str(base), seen), document)


def normalised_components(document: Document) -> Document:
    """The short form `guidance: sds` written out as `guidance: {name: sds}`, at the top level and in the stages."""
    written = {
        key: {"name": value} if key in COMPONENTS and isinstance(value, str) else value
        for key, value in document.items()
    }
    if isinstance(written.get("reference"), str):
        written["reference"] = {"image": written["reference"]}
    if isinstance(written.get("second"), dict):
        written["second"] = normalised_components(written["second"])
    stages = written.get("stages")
    if isinstance(stages, list):
        written["stages"] = [
            normalised_components(stage) if isinstance(stage, dict) else stage for stage in stages
        ]
    return written


def spread_over_stages(document: Document) -> Document:
    """The same document with every stage written out in full and nothing of a stage left at the top level.

    A scene at the top level belongs to the first stage only: a later stage goes on with it, and creating it anew would
    throw the result away.

    Raises:
        ConfigError: unknown keys, or `stages` is not a list of mappings.
    """
    known = [*TEXT_KEYS, *RUN_KEYS, "stages", "format_version", *STAGE_KEYS]
    check_keys(document, known, "", "a run")
    stages = document.get("stages", [{}])
    if not isinstance(stages, list) or not stages or not all(isinstance(s, dict) for s in stages):
        raise ConfigError("stages must be a list with one mapping per stage: `- {steps: 400}`")
    shared = {key: document[key] for key in STAGE_KEYS if key in document}
    later = {key: value for key, value in shared.items() if key != "scene"}
    full = [merge(shared if index == 0 else later, stage) for index, stage in enumerate(stages)]
    for stage in full:
        for key in STAGE_COMPONENTS:
            if isinstance(stage.get(key), dict) and "name" not in stage[key]:
                name = default_name(key)
                stage[key] = {**({"name": name} if name else {}), **stage[key]}
    rest = {key: value for key, value in document.items() if key not in STAGE_KEYS}
    return {**rest, "stages": full}


def split_override(text: str) -> tuple[str, Any]:
    """`key=value` as a pair; the value by YAML's scalar rules, `${...}` being text.

    Raises:
        ConfigError: there is no `=`, or the key is empty.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"'{text}' is not an override; write key=value, e.g. steps=200")
    return key.strip(), parse_value(value, key.strip())


def apply_overrides(document: Document, overrides: Iterable[tuple[str, Any]]) -> Document:
    """Set keys by their dotted path; a stage's key without `stages.N` is set in every stage.

    Names of components are set first, whatever the order they were written in, because another name resets the settings
    of its component.
    """
    document = copy.deepcopy(document)
    for key, value in sorted(overrides, key=lambda pair: not _names_component(*pair)):
        _apply_one(document, key, value)
    return document


def _names_component(key: str, value: Any) -> bool:
    last = key.split(".")[-1]
    return last == "name" or (last in COMPONENTS and isinstance(value, str | dict))


def _apply_one(document: Document, key: str, value: Any) -> None:
    parts = key.split(".")
    head = parts[0]
    if head in TEXT_KEYS:
        raise ConfigError(f"{head} cannot be set by an override; {TEXT_KEYS[head]}")
    if head in RUN_KEYS:
        _set(document, parts, value, key)
    elif head == "stages":
        stages = document["stages"]
        if len(parts) < 3 or not parts[1].isdecimal() or int(parts[1]) >= len(stages):
            raise ConfigError(
                f"{key} does not name a stage's setting; write stages.N.key with N from 0 to {len(stages) - 1}"
            )
        _set(stages[int(parts[1])], parts[2:], value, key)
    elif head in STAGE_KEYS:
        for index, stage in enumerate(document["stages"]):
            if head != "scene" or index == 0 or stage.get("scene") is not None:
                _set(stage, parts, value, key)
    else:
        check_keys({head: value}, [*RUN_KEYS, "stages", *STAGE_KEYS], "", "a run")


def _set(container: dict[str, Any], parts: list[str], value: Any, key: str) -> None:
    """Set `value` at a path below `container`, creating mappings on the way."""
    head, rest = parts[0], parts[1:]
    kind = head if head in COMPONENTS else None
    if not rest:
        value = {"name": value} if kind and isinstance(value, str) else value
        container[head] = merge(container.get(head), value)
        return
    inner = container.get(head)
    if kind and (inner is None or "name" not in inner):
        name = default_name(head)
        inner = {**({"name": name} if name else {}), **(inner or {})}
    if kind and rest == ["name"]:
        container[head] = merge(inner, {"name": value})
        return
    if isinstance(inner, int | float) and not isinstance(inner, bool):
        # A constant about to become a schedule: `guidance.cfg_scale.final=3` keeps the constant elsewhere.
        inner = {"initial": inner, "final": inner}
    if inner is None:
        inner = {}
    if head == "reference" and isinstance(inner, str):
        inner = {"image": inner}
    if head == "guider" and isinstance(inner, str):
        inner = {"name": inner}
    if not isinstance(inner, dict):
        raise ConfigError(f"{key}: {head} is {inner!r}, which has no settings; set it as a whole")
    container[head] = dict(inner)
    _set(container[head], rest, value, key)
