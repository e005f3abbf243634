"""What a configuration can choose from, described from the code: name, one line, settings with type and default."""

import dataclasses
import inspect
import itertools
import typing
from typing import Any

from dream3d.config import load_config, preset_names, preset_summary
from dream3d.config.build import COMPONENTS, type_name
from dream3d.config.layers import system_names
from dream3d.errors import ConfigError
from dream3d.export.formats.base import FORMATS
from dream3d.schedules import Ramp, constant
from dream3d.setting_docs import bounds, help_texts, own_first, usual_settings
from guidance.base import Guidance
from renderers.backends import BACKENDS, Backend

_REGISTRIES = {
    "priors": "prior",
    "scenes": "scene",
    "guidance": "guidance",
    "time": "time",
    "noise": "noise",
    "cameras": "cameras",
    "background": "background",
}


def entries(kind: str) -> list[dict[str, Any]]:
    """All that goes by `kind`, sorted by name; every entry has `name` and `summary`.

    Raises:
        ConfigError: no such kind.
    """
    if kind == "presets":
        return [_preset(name) for name in preset_names()]
    if kind == "renderers":
        return sorted(map(_backend, BACKENDS), key=lambda entry: entry["name"])
    if kind == "systems":
        return [_preset(name) for name in system_names()]
    if kind == "formats":
        return [_format(name) for name in FORMATS.names()]
    if kind in _REGISTRIES:
        registry = COMPONENTS[_REGISTRIES[kind]]
        return [_component(name, registry[name]) for name in registry.names()]
    known = ["presets", *_REGISTRIES, "renderers", "systems", "formats"]
    raise ConfigError(f"cannot list '{kind}'; choose one of {', '.join(known)}")


def _component(name: str, cls: type) -> dict[str, Any]:
    entry = {"name": name, "summary": _first_line(cls), "settings": _settings(cls)}
    return {**entry, **_origin(cls)} if issubclass(cls, Guidance) else entry


def _origin(cls: type[Guidance]) -> dict[str, Any]:
    """Where a guidance comes from and what one step costs with its default settings."""
    cases = itertools.product((0.02, 0.5, 0.98), (0.0, 1.0), (False, True))
    costs = [cls().evaluations(*case) for case in cases]
    return {
        "paper": cls.paper,
        "formula": cls.formula,
        "experimental": cls.experimental,
        "evaluations": {"least": min(costs), "most": max(costs)},
    }


def _preset(name: str) -> dict[str, Any]:
    config = load_config(name)
    return {
        "name": name,
        "summary": preset_summary(name),
        "prior": type(config.prior).registered_name,  # type: ignore[attr-defined]
        "device": config.device,
        "steps": [stage.steps for stage in config.stages],
    }


def _backend(backend: Backend) -> dict[str, Any]:
    state = f"missing: {', '.join(backend.missing)}" if backend.missing else "installed"
    return {
        "name": f"{backend.renderer}/{backend.name}",
        "summary": f"on {', '.join(backend.devices)}; {state}",
        "devices": list(backend.devices),
        "available": backend.available,
        "missing": backend.missing,
    }


def _format(name: str) -> dict[str, Any]:
    cls = FORMATS[name]
    told = ("holds", "file_name", "media_type", "opens_in", "frame", "color")
    remedy = cls.missing()
    entry = {"name": name, "summary": _first_line(cls), **{key: getattr(cls, key) for key in told}}
    return {**entry, "available": remedy is None, "remedy": remedy}


def _first_line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]


def _settings(cls: type) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(cls)
    texts = help_texts(cls)
    usual = usual_settings(cls)
    return [
        {
            "name": field.name,
            "type": type_name(hints[field.name]),
            "default": _default(field),
            "allowed": bounds(usual, field.name).text() if usual is not None else "",
            "help": texts.get(field.name, ""),
        }
        for field in own_first(cls)
    ]


def _default(field: dataclasses.Field) -> Any:
    """The default as JSON data; null where the setting must be given."""
    value: Any = None
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    return _as_json(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, Ramp):
        return value.initial if value == constant(value.initial) else dataclasses.asdict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = getattr(type(value), "registered_name", None)
        return {**({"name": name} if name else {}), **dataclasses.asdict(value)}
    return value
