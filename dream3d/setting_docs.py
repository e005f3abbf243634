"""What a setting means and which values it takes, read from the dataclass that has it: never written down twice.

The help is the setting's line under `Attributes:` in the docstring of its class (or of a parent). The bounds are found
by asking: the class refuses bad values itself, so values are tried until the edges of what it accepts are known.
"""

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from dream3d.errors import ConfigError
from dream3d.schedules import Ramp, constant

_ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*)$")
# How far out to look for a refusal; its exact place is then found by halving.
_OUTWARD = (1e-6, 1e-3, 0.1, 1.0, 10.0, 100.0, 1000.0, 1e4, 1e6, 1e8, 1e9)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The values a number may take while the other settings keep theirs.

    Attributes:
        low, high: where refusal begins; None where nothing up to a billion is refused.
        low_open, high_open: whether that number itself is refused.
    """

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def text(self) -> str:
        """As a person would say it; empty when anything goes."""
        low, high = _number(self.low), _number(self.high)
        if self.low is not None and self.high is not None and not (self.low_open or self.high_open):
            return f"{low} to {high}"
        words = []
        if self.low is not None:
            words.append(f"{'above' if self.low_open else 'at least'} {low}")
        if self.high is not None:
            words.append(f"{'below' if self.high_open else 'at most'} {high}")
        return ", ".join(words)


def _number(value: float | None) -> str:
    return "" if value is None else f"{int(value):,}" if value == int(value) else f"{value:g}"


def own_first(cls: type) -> list[dataclasses.Field]:
    """A settings class's fields in its constructor's order: what it shares with others is keyword-only and last."""
    return sorted(dataclasses.fields(cls), key=lambda field: field.kw_only is True)


@functools.cache
def help_texts(cls: type) -> dict[str, str]:
    """The text under `Attributes:` for every documented field of `cls` and its parents."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if "__doc__" in vars(parent) and dataclasses.is_dataclass(parent):
            found.update(_attributes(inspect.cleandoc(parent.__doc__ or "")))
    return found


def _attributes(doc: str) -> dict[str, str]:
    lines = doc.splitlines()
    if "Attributes:" not in lines:
        return {}
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in lines[lines.index("Attributes:") + 1 :]:
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.match(line.removeprefix("    "))
        if entry:
            names = entry.group(1).split(", ")
            texts.update(dict.fromkeys(names, entry.group(2)))
        elif line.strip():
            texts.update({name: f"{texts[name]} {line.strip()}" for name in names})
    return texts


def usual_settings(cls: type) -> Any:
    """Settings of a part at their defaults; None where it cannot do without being told something."""
    try:
        return cls()
    except (TypeError, ConfigError):
        return None


def bounds(instance: Any, name: str) -> Bounds:
    """Between which numbers field `name` of a settings dataclass may lie, the other fields as they are.

    Args:
        instance: valid settings.
        name: of a field that holds an int, a float or a constant schedule; for others there are no bounds.
    """
    kind = typing.get_type_hints(type(instance))[name]
    if kind not in (int, float, Ramp):
        return Bounds()
    value = getattr(instance, name)
    if kind is Ramp and value.initial != value.final:
        return Bounds()  # two numbers that move against each other have no bounds of their own
    here = float(value.initial if kind is Ramp else value)

    def accepts(number: float) -> bool:
        written: Any = constant(number) if kind is Ramp else kind(number)
        try:
            dataclasses.replace(instance, **{name: written})
        except ConfigError:
            return False
        return True

    low, low_open = _edge(here, -1, kind is int, accepts)
    high, high_open = _edge(here, 1, kind is int, accepts)
    return Bounds(low, high, low_open, high_open)


def _edge(
    here: float, sign: int, whole: bool, accepts: Callable[[float], bool]
) -> tuple[float | None, bool]:
    """Where refusal begins in one direction, and whether that number is itself refused."""
    good = here
    for step in _OUTWARD:
        bad = here + sign * step
        if whole and step < 1.0:
            continue
        if not accepts(bad):
            break
        good = bad
    else:
        return None, False
    while abs(bad - good) > (1.0 if whole else 1e-12 * max(1.0, abs(good))):
        middle = (good + bad) / 2
        middle = float(round(middle)) if whole else middle
        if middle in (good, bad):
            break
        good, bad = (middle, bad) if accepts(middle) else (good, middle)
    if whole:
        return good, False
    edge = round(float(f"{good:.9g}"), 9) + 0.0
    return edge, not accepts(edge)
