"""Values that change over a stage, written in fractions of it, never in steps."""

from dataclasses import dataclass

from dream3d.errors import ConfigError


@dataclass(frozen=True)
class Ramp:
    """`initial` until `start`, `final` from `end`, linear between; start = end is a step.

    In a configuration a plain number stands for a constant: `cfg_scale: 7.5`, or in full
    `{initial: 0.98, final: 0.5, start: 0.0, end: 0.5}`.

    Raises:
        ConfigError: not 0 <= start <= end <= 1.
    """

    initial: float = 0.0
    final: float = 0.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ConfigError(
                f"a schedule needs 0 <= start <= end <= 1 (fractions of the stage), "
                f"got start {self.start} and end {self.end}"
            )

    def __call__(self, progress: float) -> float:
        """The value when the fraction `progress` in [0, 1] of the stage is done."""
        if progress >= self.end:
            return self.final
        if progress <= self.start:
            return self.initial
        share = (progress - self.start) / (self.end - self.start)
        return self.initial + share * (self.final - self.initial)


def constant(value: float) -> Ramp:
    """A schedule that never changes."""
    return Ramp(value, value)
