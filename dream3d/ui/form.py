"""The form's fields, made from the dataclasses that are the configuration, and their way back into overrides.

Nothing about a setting is written here: name, type, default, bounds and help come from its class.
"""

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dream3d.config import load_config
from dream3d.errors import ConfigError
from dream3d.schedules import Ramp
from dream3d.setting_docs import Bounds, bounds, help_texts, own_first
from guidance.base import Guidance
from systems.base import RunConfig, Stage

Kind = Literal["switch", "whole", "number", "choice", "ramp", "list", "text"]
PARTS = ("scene", "guidance", "time", "noise", "cameras", "background")
"""What of a stage the form lets one choose."""

GROUPS = (
    *("guidance", "guider", "scene", "time", "noise", "cameras", "background"),
    *("prior", "debiasing", "stage"),
)
_OF_RUN = ("prior", "debiasing")
# These have a place of their own in the form.
ELSEWHERE = frozenset({"stage.steps"})
RAMP_HELP = "A number, or `10 -> 3` over the stage, or `10 -> 3 @ 0.2..0.8` over a part of it."

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RAMP = re.compile(
    rf"\s*({_NUMBER})\s*(?:(?:->|→|to)\s*({_NUMBER})\s*(?:@\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*)?)?"
)


@dataclass(frozen=True)
class Field:
    """One setting in the form.

    Attributes:
        path: dotted key of the override, e.g. "guidance.cfg_scale".
        name: the setting's own name.
        kind: which sort of control it wants.
        value: what the control shows at first.
        help: one or two sentences.
        allowed: the numbers it takes.
        choices: for "choice".
    """

    path: str
    name: str
    kind: Kind
    value: Any
    help: str
    allowed: Bounds
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ").capitalize()

    @property
    def info(self) -> str:
        """Help and bounds for below the label."""
        text = self.help[:1].upper() + self.help[1:]
        parts = [text.rstrip(".") + "." if text else ""]
        if self.allowed.text():
            parts.append(f"Allowed: {self.allowed.text()}.")
        return " ".join(part for part in parts if part)

    def as_data(self) -> dict[str, Any]:
        """For the page, in JSON types."""
        return {
            "path": self.path,
            "label": self.label,
            "kind": self.kind,
            "value": self.value,
            "help": f"{self.info} {RAMP_HELP}" if self.kind == "ramp" else self.info,
            "choices": list(self.choices),
            "low": self.allowed.low,
            "high": self.allowed.high,
        }


def chosen_config(preset: str, parts: Mapping[str, str | None] | None = None) -> RunConfig:
    """A preset with other parts in it, each at its own defaults.

    Args:
        preset: its name.
        parts: names by kind, of `PARTS`; None keeps the preset's.

    Raises:
        ConfigError: there is no such preset or part, or the parts do not go together.
    """
    base = load_config(preset)
    overrides = other_parts(base, parts or {})
    return load_config(preset, overrides) if overrides else base


def other_parts(base: RunConfig, parts: Mapping[str, str | None]) -> dict[str, Any]:
    """Those of `parts` that are not `base`'s own already, as overrides."""
    stage = base.stages[0]
    return {
        kind: name
        for kind, name in parts.items()
        if name and name != part_name(getattr(stage, kind))
    }


def part_name(part: Any) -> str:
    """The registered name of a component."""
    return type(part).registered_name


def form_fields(config: RunConfig) -> dict[str, list[Field]]:
    """All settings of the first stage, the prior and the prompts, by group."""
    stage = config.stages[0]
    groups: dict[str, list[Field]] = {}
    for group in GROUPS:
        if group == "stage":
            names = [f.name for f in dataclasses.fields(Stage) if f.name not in GROUPS + PARTS]
            groups[group] = [_field(stage, name, name) for name in names]
            continue
        part: Any = getattr(config if group in _OF_RUN else stage, group)
        if part is not None:
            groups[group] = fields_of(part, f"{group}.")
    return {
        group: kept
        for group, fields in groups.items()
        if (kept := [f for f in fields if f"{group}.{f.name}" not in ELSEWHERE])
    }


def fields_of(part: Any, prefix: str = "") -> list[Field]:
    """All settings of a dataclass.

    Args:
        part: an instance; its values are what the controls show.
        prefix: of the paths.
    """
    names = [field.name for field in own_first(type(part)) if field.init]
    return [_field(part, name, f"{prefix}{name}") for name in names]


def _field(part: Any, name: str, path: str) -> Field:
    hint = typing.get_type_hints(type(part))[name]
    kind, choices = _kind(hint)
    return Field(
        path=path,
        name=name,
        kind=kind,
        value=shown(getattr(part, name)),
        help=help_texts(type(part)).get(name, ""),
        allowed=bounds(part, name),
        choices=choices,
    )


def _kind(hint: Any) -> tuple[Kind, tuple[str, ...]]:
    if typing.get_origin(hint) is Literal:
        return "choice", tuple(str(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "list", ()
    kinds: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number", Ramp: "ramp"}
    return kinds.get(hint, "text"), ()


def shown(value: Any) -> Any:
    """What a control shows of a setting's value."""
    if isinstance(value, Ramp):
        return ramp_text(value)
    if isinstance(value, tuple | list):
        return ", ".join(_shown_item(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return "" if value is None else value
    return str(value)


def _shown_item(item: Any) -> str:
    if isinstance(item, Ramp):
        return ramp_text(item)
    if isinstance(item, Guidance) and item == type(item)():
        return part_name(item)
    return f"{item:g}" if isinstance(item, float) else str(item)


def ramp_text(ramp: Ramp) -> str:
    """A schedule as one writes it in the form."""
    if ramp.initial == ramp.final:
        return f"{ramp.initial:g}"
    text = f"{ramp.initial:g} -> {ramp.final:g}"
    return (
        text if (ramp.start, ramp.end) == (0.0, 1.0) else f"{text} @ {ramp.start:g}..{ramp.end:g}"
    )


def read_ramp(text: str, path: str) -> float | dict[str, float]:
    """The inverse of `ramp_text`, as the configuration wants it.

    Raises:
        ConfigError: it is neither a number nor a schedule.
    """
    match = _RAMP.fullmatch(text.replace(",", "."))
    if match is None:
        raise ConfigError(f"{path} is '{text}'; write a number, or 10 -> 3, or 10 -> 3 @ 0.2..0.8")
    initial, final, start, end = match.groups()
    if final is None:
        return float(initial)
    ramp = {"initial": float(initial), "final": float(final)}
    if start is not None:
        ramp |= {"start": float(start), "end": float(end)}
    return ramp


def changed_settings(fields: Iterable[Field], written: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides for what was written in the form and is not what it showed at first.

    Args:
        fields: of the form.
        written: text, a number or a switch by the setting's path.

    Raises:
        ConfigError: there is no such setting, or a value cannot be read; the message has the setting's path.
    """
    known = {field.path: field for field in fields}
    changed: dict[str, Any] = {}
    for path, value in written.items():
        if path not in known:
            raise ConfigError(
                f"{path} is not a setting of what is chosen; it has {', '.join(sorted(known))}"
            )
        read = _read(known[path], value)
        if read != _read(known[path], known[path].value):
            changed[path] = read
    return changed


def _read(field: Field, value: Any) -> Any:
    if field.kind == "switch":
        if not isinstance(value, bool):
            raise ConfigError(f"{field.path} is {value!r}; it is a switch: true or false")
        return value
    text = str(value).strip()
    if field.kind == "text":
        return text
    if field.kind == "list" and not text:
        return []  # where a list must not be empty its class says so
    if value is None or not text:
        raise ConfigError(f"{field.path} is empty; give a value, e.g. {field.value}")
    if field.kind == "ramp":
        return read_ramp(text, field.path)
    if field.kind == "list":
        return _read_list(text, field.path)
    if field.kind in ("whole", "number"):
        return _read_number(field, text)
    return text


def _read_number(field: Field, text: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        raise ConfigError(f"{field.path} is '{text}'; it must be a number") from None
    if field.kind == "number":
        return number
    if not number.is_integer():
        raise ConfigError(f"{field.path} is {text}; it must be a whole number")
    return int(number)


def _read_list(text: str, path: str) -> list[Any]:
    items: list[Any] = []
    for part in text.split(","):
        if _RAMP.fullmatch(part):
            items.append(read_ramp(part, path))
        else:
            if not re.fullmatch(r"[\w.+-]+", part.strip()):
                raise ConfigError(f"{path} is '{text}'; write values with commas between")
            items.append(part.strip())
    return items
