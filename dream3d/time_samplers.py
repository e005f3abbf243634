"""At which noise level the prior is asked, as a pure function of the stage's progress and a generator.

Time is a fraction: 0 clean, 1 noise. A system that wants coarse shape first and detail later lowers it over the stage.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from dream3d.registry import Registry
from dream3d.schedules import Ramp, constant


class TimeSampler(ABC):
    """Draws noise levels. Subclasses are frozen dataclasses; calling one is pure apart from the generator."""

    @abstractmethod
    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        """One time in [0, 1] for each of `count` independent samples."""


TIME_SAMPLERS: Registry[TimeSampler] = Registry("time", "dream3d.time_samplers")


def _check_level(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}; noise levels lie in [0, 1] (0 clean, 1 noise)")


@TIME_SAMPLERS.register("uniform")
@dataclass(frozen=True)
class UniformTime(TimeSampler):
    """Uniform in a window that may shrink: [0.02, 0.98] is DreamFusion's, a ramped `max` MVDream's.

    Attributes:
        min, max: ends of the window; ramps over the stage.
        stratified: one draw from each of `count` equal slices of the window (in random order) instead of independent
            draws; the same mean, less variance of a step's gradient.
    """

    min: Ramp = field(default_factory=lambda: constant(0.02))
    max: Ramp = field(default_factory=lambda: constant(0.98))
    stratified: bool = False

    def __post_init__(self) -> None:
        for name in ("min", "max"):
            ramp: Ramp = getattr(self, name)
            _check_level(f"time.{name}.initial", ramp.initial)
            _check_level(f"time.{name}.final", ramp.final)
        corners = sorted({0.0, self.min.start, self.min.end, self.max.start, self.max.end, 1.0})
        for at in corners:
            if self.min(at) > self.max(at):
                raise ConfigError(
                    f"time.min ({self.min(at):g}) exceeds time.max ({self.max(at):g}) when {at:.0%} of the stage is "
                    "done; lower time.min or raise time.max there"
                )

    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        low, high = self.min(progress), self.max(progress)
        share = torch.rand(count, generator=generator)
        if self.stratified:
            share = (torch.randperm(count, generator=generator) + share) / count
        return low + (high - low) * share


@TIME_SAMPLERS.register("annealed")
@dataclass(frozen=True)
class AnnealedTime(TimeSampler):
    """From `initial` down to `final` along a fixed curve, the same for every view of a step, plus jitter.

    Attributes:
        initial, final: time at the start and at the end of the stage.
        law: "sqrt" falls fast at first (HiFA, t = initial - (initial - final) sqrt(progress)); "linear" evenly.
        jitter: half-width of a uniform deviation, drawn per sample; the result is kept inside [0.001, 0.999].
            With `jitter: 0` the sequence is monotone, as the fixed-noise flow (CFD) requires.
    """

    initial: float = 0.98
    final: float = 0.30
    law: Literal["sqrt", "linear"] = "sqrt"
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _check_level("time.initial", self.initial)
        _check_level("time.final", self.final)
        if not 0.0 <= self.jitter <= 1.0:
            raise ConfigError(f"time.jitter is {self.jitter}; choose a half-width in [0, 1]")
        if self.law not in ("sqrt", "linear"):
            raise ConfigError(f"time.law is '{self.law}'; choose 'sqrt' or 'linear'")

    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        share = math.sqrt(progress) if self.law == "sqrt" else progress
        centre = self.initial + (self.final - self.initial) * share
        if self.jitter == 0.0:
            return torch.full((count,), centre)
        deviation = self.jitter * (2.0 * torch.rand(count, generator=generator) - 1.0)
        return (centre + deviation).clamp(0.001, 0.999)
