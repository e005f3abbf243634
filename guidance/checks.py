"""Refusing settings outside of their range, in the same words for every algorithm."""

import math
from collections.abc import Sequence

from dream3d.errors import ConfigError
from dream3d.schedules import Ramp
from guidance.weights import WEIGHTS


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of `choices`.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    if value not in choices:
        raise ConfigError(f"guidance.{key} is '{value}'; choose one of {', '.join(choices)}")


def check_guidance(weight: str, rescale: float = 0.0, clamp_x0: float = 0.0) -> None:
    """Refuse settings outside their range.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    check_choice("weight", weight, WEIGHTS)
    if not 0.0 <= rescale <= 1.0:
        raise ConfigError(f"guidance.rescale is {rescale}; choose a share in [0, 1]")
    if not 0.0 <= clamp_x0 < math.inf:
        raise ConfigError(f"guidance.clamp_x0 is {clamp_x0}; choose 0 (off) or a positive bound")


def check_number(
    key: str, value: float | int, least: float | int = 0.0, most: float = math.inf
) -> None:
    """Refuse a setting that is not a finite number in [least, most].

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    if not (math.isfinite(value) and least <= value <= most):
        allowed = f"in [{least:g}, {most:g}]" if most < math.inf else f"of at least {least:g}"
        raise ConfigError(f"guidance.{key} is {value}; choose a finite number {allowed}")


def check_ramp(key: str, ramp: Ramp, least: float | int = 0.0, most: float = math.inf) -> None:
    """`check_number` for both ends of a schedule. Classifier-free guidance scales are at least 0."""
    for value in (ramp.initial, ramp.final):
        check_number(key, value, least, most)
