"""From plain data to the dataclasses that are the configuration's schema.

Two passes. The first reads a component's `name` and picks its class from the registry; the second merges the rest into
that class's own schema (OmegaConf does the typing). A schema cannot switch classes while merging, hence the order.
"""

import dataclasses
import math
import re
import typing
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dream3d.background_samplers import BACKGROUND_SAMPLERS
from dream3d.camera_samplers import CAMERA_SAMPLERS
from dream3d.errors import ConfigError
from dream3d.noise_sources import NOISE_SOURCES
from dream3d.priors.base import PRIORS
from dream3d.registry import Registry, suggestion
from dream3d.scenes.base import SCENES
from dream3d.schedules import Ramp
from dream3d.time_samplers import TIME_SAMPLERS
from guidance.base import GUIDANCE, Guidance
from systems.base import Stage
from systems.second import SecondPrior

STAGE_COMPONENTS: dict[str, Registry[Any]] = {
    "scene": SCENES,
    "guidance": GUIDANCE,
    "time": TIME_SAMPLERS,
    "noise": NOISE_SOURCES,
    "cameras": CAMERA_SAMPLERS,
    "background": BACKGROUND_SAMPLERS,
}
COMPONENTS: dict[str, Registry[Any]] = {"prior": PRIORS, **STAGE_COMPONENTS}
STAGE_KEYS = tuple(field.name for field in dataclasses.fields(Stage))


def check_keys(given: dict[str, Any], known: list[str], where: str, of: str) -> None:
    """Refuse keys nobody reads.

    Args:
        given: the mapping written by the user.
        known: the keys that mean something.
        where: path of the mapping, empty at the top.
        of: what the mapping configures, for the message.

    Raises:
        ConfigError: names the key, the closest known one, and all known ones.
    """
    for key in given:
        if key not in known:
            path = f"{where}.{key}" if where else key
            raise ConfigError(
                f"{path} is not a setting of {of}.{suggestion(key, known)} Known: {', '.join(known)}."
            )


def _plain(value: Any, where: str) -> Any:
    """`value` with `${` made literal for OmegaConf, and numbers that are not finite refused."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; choose a finite number")
    if isinstance(value, dict):
        return {key: _plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}.{index}") for index, item in enumerate(value)]
    return value


def type_name(annotation: Any) -> str:
    """A type as a person would say it: "a whole number", "[a number, a number]"."""
    if annotation is Ramp:
        return "a number, or {initial, final, start, end}"
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        inner = (type_name(a) if a is not Ellipsis else "..." for a in typing.get_args(annotation))
        return f"[{', '.join(inner)}]"
    if (item := _listed(annotation)) is not None:
        return "a list of guidances" if item is Guidance else "a list of schedules"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        names = {bool: "true or false", float: "a number", int: "a whole number", str: "text"}
        return names.get(annotation, annotation.__name__)
    return str(annotation).replace("typing.", "")


def _is_infinite(text: str) -> bool:
    """Whether text means a number, and no finite one."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _written_out(hint: Any, value: Any, path: str, key: str) -> Any:
    """`value` in its long form: a number as the constant schedule it means, a name as a component of that name."""
    if hint is Ramp:
        if isinstance(value, dict):
            known = [field.name for field in dataclasses.fields(Ramp)]
            check_keys(value, known, path, "a schedule")
            if all(isinstance(part, int | float) for part in value.values()):
                try:
                    Ramp(**{name: float(part) for name, part in value.items()})
                except ConfigError as error:
                    raise ConfigError(f"{path}: {error}") from error
        elif isinstance(value, str) and _is_infinite(value):
            raise ConfigError(f"{path} is {value}; choose a finite number")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            return {"initial": value, "final": value}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, str) and "name" in [f.name for f in dataclasses.fields(hint)]:
            value = {"name": value}
        if isinstance(value, dict):
            fill(hint, value, path, key)  # for its own messages
    return value


def _merged(schema: Any, values: dict[str, Any], where: str) -> Any:
    """`values` merged into a structured `schema`, and read once: text with `${` is typed only when read."""
    merged = OmegaConf.merge(
        schema,
        {key: _plain(value, f"{where}.{key}" if where else key) for key, value in values.items()},
    )
    # Text such as "nan" is a number only now.
    typed: Any = OmegaConf.to_container(merged, resolve=True)
    _plain({key: typed[key] for key in values}, where)
    return merged


def fill(cls: type, values: dict[str, Any], where: str, of: str) -> Any:
    """An instance of a dataclass from the values written by the user, the rest at its defaults.

    Raises:
        ConfigError: unknown key, wrong type, or values the class itself refuses; each message has the key's path.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    check_keys(values, list(fields), where, of)
    lists = {key: item for key in fields if (item := _listed(hints[key])) is not None}
    if lists:
        return _fill_with_lists(cls, lists, values, where, of)
    values = {
        key: _written_out(hints[key], value, f"{where}.{key}" if where else key, key)
        for key, value in values.items()
    }
    schema = OmegaConf.structured(cls)
    try:
        schema = _merged(schema, values, where)
    except (OmegaConfBaseException, TypeError, ValueError):
        # One at a time, only to find out which: merging copies the whole schema.
        for key, value in values.items():
            try:
                schema = _merged(schema, {key: value}, where)
            except (OmegaConfBaseException, TypeError, ValueError) as error:
                path = f"{where}.{key}" if where else key
                raise ConfigError(
                    f"{path} is {value!r}; it must be {type_name(hints[key])}"
                ) from error
    for key in fields:
        if OmegaConf.is_missing(schema, key):
            path = f"{where}.{key}" if where else key
            raise ConfigError(f"{path} is missing; it must be {type_name(hints[key])}")
    try:
        return OmegaConf.to_object(schema)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def _listed(annotation: Any) -> type | None:
    """What a tuple of any length holds, if that is guidances or schedules, which OmegaConf cannot type by itself."""
    inside = typing.get_args(annotation)
    if len(inside) == 2 and inside[1] is Ellipsis and inside[0] in (Guidance, Ramp):
        return inside[0]
    return None


@dataclasses.dataclass(frozen=True)
class _OneRamp:
    value: Ramp = dataclasses.field(default_factory=Ramp)


def _fill_with_lists(
    cls: type, lists: dict[str, type], values: dict[str, Any], where: str, of: str
) -> Any:
    """`fill` for a class with lists of guidances or schedules: those are built one by one, the rest as ever."""
    made: dict[str, Any] = {}
    for key in lists.keys() & values.keys():
        path, given = f"{where}.{key}", values[key]
        if not isinstance(given, list | tuple):
            raise ConfigError(f"{path} is {given!r}; write a list")
        if lists[key] is Guidance:
            items = (item if isinstance(item, dict) else {"name": item} for item in given)
            made[key] = tuple(
                build_component("guidance", item, f"{path}.{i}") for i, item in enumerate(items)
            )
        else:
            made[key] = tuple(
                fill(_OneRamp, {"value": item}, f"{path}.{i}", "a schedule").value
                for i, item in enumerate(given)
            )
    hints = typing.get_type_hints(cls)
    rest = [
        (field.name, hints[field.name], _default_of(field))
        for field in dataclasses.fields(cls)
        if field.name not in lists
    ]
    plain_class = dataclasses.make_dataclass(cls.__name__, rest, frozen=True)
    given = {key: value for key, value in values.items() if key not in lists}
    plain = fill(plain_class, given, where, of)
    try:
        return cls(**made, **{name: getattr(plain, name) for name, _, _ in rest})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def _default_of(field: dataclasses.Field) -> Any:
    """A field's default in the form `make_dataclass` takes; MISSING where it must be given."""
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return field.default if field.default is not dataclasses.MISSING else MISSING


def build_component(kind: str, data: Any, where: str) -> Any:
    """A prior, scene, guidance or sampler from `{name: ..., settings}`.

    Args:
        kind: key of COMPONENTS.
        data: the mapping written by the user.
        where: its path, for messages.
    """
    registry = COMPONENTS[kind]
    if not isinstance(data, dict):
        raise ConfigError(
            f"{where} is {data!r}; write a name ({', '.join(registry.names())}) or "
            "{name: ..., settings}"
        )
    name = data.get("name")
    if not isinstance(name, str):
        got = "missing" if name is None else repr(name)
        raise ConfigError(f"{where}.name is {got}; choose one of {', '.join(registry.names())}")
    try:
        cls = registry[name]
    except ConfigError as error:
        raise ConfigError(f"{where}.name: {error}") from error
    settings = {key: value for key, value in data.items() if key != "name"}
    return fill(cls, settings, where, f"{kind} '{name}'")


def default_name(key: str) -> str | None:
    """The name of the component a stage has when nothing is written, or None where it must be written."""
    for field in dataclasses.fields(Stage):
        if field.name == key and field.default_factory is not dataclasses.MISSING:
            return type(field.default_factory()).registered_name
    return None


def _plain_settings(cls: type, data: dict[str, Any], where: str, of: str) -> dict[str, Any]:
    """The settings of a dataclass that are not components, from what the user wrote of them, the rest at defaults."""
    hints = typing.get_type_hints(cls)
    parts = [
        (field.name, hints[field.name], _default_of(field))
        for field in dataclasses.fields(cls)
        if field.name not in COMPONENTS
    ]
    schema = dataclasses.make_dataclass(f"{cls.__name__}Settings", parts, frozen=True)
    given = {key: value for key, value in data.items() if key not in COMPONENTS}
    filled = fill(schema, given, where, of)
    return {field.name: getattr(filled, field.name) for field in dataclasses.fields(filled)}


def build_stage(data: dict[str, Any], where: str) -> Stage:
    """A stage from its mapping; components the user did not write get the stage's defaults.

    Raises:
        ConfigError: as `fill` and `build_component`; also when the guidance is missing.
    """
    check_keys(data, list(STAGE_KEYS), where, "a stage")
    components = {}
    for kind in STAGE_COMPONENTS:
        if data.get(kind) is not None:
            components[kind] = build_component(kind, data[kind], f"{where}.{kind}")
    if "guidance" not in components:
        raise ConfigError(
            f"{where}.guidance is missing; choose one of {', '.join(GUIDANCE.names())}"
        )
    plain = _plain_settings(Stage, data, where, "a stage")
    try:
        return Stage(**components, **plain)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def build_second(data: Any) -> SecondPrior | None:
    """A run's second prior from its mapping; None where nothing is written.

    Raises:
        ConfigError: as `fill` and `build_component`; also when the prior or its guidance is missing.
    """
    if data is None:
        return None
    if not isinstance(data, dict):
        raise ConfigError(f"second is {data!r}; write {{prior: NAME, guidance: NAME, weight: 1}}")
    known = [field.name for field in dataclasses.fields(SecondPrior)]
    check_keys(data, known, "second", "a second prior")
    components = {}
    for kind in ("prior", "guidance"):
        if data.get(kind) is None:
            names = ", ".join(COMPONENTS[kind].names())
            raise ConfigError(f"second.{kind} is missing; choose one of {names}")
        given = {"name": data[kind]} if isinstance(data[kind], str) else data[kind]
        components[kind] = build_component(kind, given, f"second.{kind}")
    plain = _plain_settings(SecondPrior, data, "second", "a second prior")
    try:
        return SecondPrior(**components, **plain)
    except ConfigError as error:
        raise ConfigError(f"second: {error}") from error
