"""At which noise level the prior is asked, as a pure function of the stage's progress and a generator.

Time is a fraction: 0 clean, 1 noise. A system that wants coarse shape first and detail later lowers it over the stage.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
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

    @property
    def falls(self) -> bool:
        """Whether the times are the same for all samples, draw nothing, and never rise over the stage."""
        return False

    def lower(self, progress: float) -> float | None:
        """The level s below all drawn ones, for rules that compare two points of a path; None: theirs to choose."""
        return None


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


@TIME_SAMPLERS.register("two-stage")
@dataclass(frozen=True)
class TwoStageTime(UniformTime):
    """Uniform in [0.02, 0.98], after a fifth of the stage in [0.02, 0.5] (ProlificDreamer: 5000 of 25000 steps)."""

    max: Ramp = field(default_factory=lambda: Ramp(0.98, 0.5, 0.2, 0.2))


@TIME_SAMPLERS.register("shrinking-window")
@dataclass(frozen=True)
class ShrinkingWindow(UniformTime):
    """Uniform in a window that opens downward from 0.98 to [0.02, 0.5] (MVDream: over 8000 of 10000 steps)."""

    min: Ramp = field(default_factory=lambda: Ramp(0.98, 0.02, 0.0, 0.8))
    max: Ramp = field(default_factory=lambda: Ramp(0.98, 0.5, 0.0, 0.8))


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
        if self.initial < self.final:
            raise ConfigError(
                f"time.initial ({self.initial:g}) lies below time.final ({self.final:g}); the time falls over the "
                "stage, so exchange the two"
            )
        if not 0.0 <= self.jitter <= 1.0:
            raise ConfigError(f"time.jitter is {self.jitter}; choose a half-width in [0, 1]")
        if self.law not in ("sqrt", "linear"):
            raise ConfigError(f"time.law is '{self.law}'; choose 'sqrt' or 'linear'")

    @property
    def falls(self) -> bool:
        return self.jitter == 0.0

    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        share = math.sqrt(progress) if self.law == "sqrt" else progress
        centre = self.initial + (self.final - self.initial) * share
        if self.jitter == 0.0:
            return torch.full((count,), centre)
        deviation = self.jitter * (2.0 * torch.rand(count, generator=generator) - 1.0)
        return (centre + deviation).clamp(0.001, 0.999)


@TIME_SAMPLERS.register("pair")
@dataclass(frozen=True)
class PairTime(TimeSampler):
    """A level s that falls by the square root of progress, and times drawn above it (Consistent3D, Wu et al. 2024).

    s = initial - (initial - final) sqrt(progress), t ~ s + U[nearest, farthest]. `ode-consistency` goes from t down to
    this s; other rules hear of t alone.

    Attributes:
        initial, final: s at the start and at the end of the stage (the authors' later stages: 0.3 and 0.5 to 0.02).
        nearest, farthest: ends of t - s; t is kept at most 0.999.
    """

    initial: float = 0.7
    final: float = 0.1
    nearest: float = 0.1
    farthest: float = 0.3

    def __post_init__(self) -> None:
        for name in ("initial", "final", "nearest", "farthest"):
            _check_level(f"time.{name}", getattr(self, name))
        if self.initial < self.final:
            raise ConfigError(
                f"time.initial ({self.initial:g}) lies below time.final ({self.final:g}); exchange the two"
            )
        if not 0.0 < self.nearest <= self.farthest:
            raise ConfigError(
                f"time.nearest is {self.nearest:g} and time.farthest {self.farthest:g}; choose 0 < nearest <= farthest"
            )
        if self.initial > 0.99:
            raise ConfigError(
                f"time.initial is {self.initial:g}, which leaves no room above; choose at most 0.99"
            )

    def lower(self, progress: float) -> float:
        return self.initial + (self.final - self.initial) * math.sqrt(progress)

    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        above = torch.rand(count, generator=generator)
        above = self.nearest + (self.farthest - self.nearest) * above
        return (self.lower(progress) + above).clamp(max=0.999)


@TIME_SAMPLERS.register("flow")
@dataclass(frozen=True)
class FlowTime(TimeSampler):
    """Down a line with bends, the same for every view: t = initial - (initial - final) p (CFD, Yan et al. 2025).

    Attributes:
        initial, final: time at p = 0 and at p = 1.
        reach: p at evenly spaced moments of the stage, the first at its start and the last at its end; linear between.
            The authors' multi-view stage is [0, 0.4, 0.7], their later stages [0.6, 0.8] and [0.6, 0.75].
    """

    initial: float = 0.98
    final: float = 0.02
    reach: tuple[float, ...] = (0.0, 0.4, 0.7)

    def __post_init__(self) -> None:
        _check_level("time.initial", self.initial)
        _check_level("time.final", self.final)
        if self.initial < self.final:
            raise ConfigError(
                f"time.initial ({self.initial:g}) lies below time.final ({self.final:g}); exchange the two"
            )
        rises = all(a <= b for a, b in pairwise(self.reach))
        if len(self.reach) < 2 or not rises or not 0.0 <= self.reach[0] <= self.reach[-1] <= 1.0:
            raise ConfigError(
                f"time.reach is {list(self.reach)}; choose two or more shares in [0, 1] that do not fall"
            )

    @property
    def falls(self) -> bool:
        return True

    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        place = progress * (len(self.reach) - 1)
        before = min(int(place), len(self.reach) - 2)
        low, high = self.reach[before : before + 2]
        p = low + (high - low) * (place - before)
        return torch.full((count,), self.initial - (self.initial - self.final) * p)


@TIME_SAMPLERS.register("dreamtime")
@dataclass(frozen=True)
class DreamTime(TimeSampler):
    """From `max` down to `min`, dwelling where a weight is large (DreamTime, Huang et al. 2023).

    At progress p the time is where the share p of the integral of W over [min, max] lies above it; W = 1 on
    [low, high], exp(-(t - high)^2 / 2 high_width^2) above and exp(-(t - low)^2 / 2 low_width^2) below. With W = 1
    everywhere it falls evenly.

    Attributes:
        min, max: ends of the range.
        high, high_width, low, low_width: m1, s1, m2, s2 of the paper over 1000 (800, 300, 500, 100).
    """

    min: float = 0.02
    max: float = 0.98
    high: float = 0.8
    high_width: float = 0.3
    low: float = 0.5
    low_width: float = 0.1

    def __post_init__(self) -> None:
        for name in ("min", "max", "low", "high"):
            _check_level(f"time.{name}", getattr(self, name))
        for lower, upper in (("min", "max"), ("low", "high")):
            if getattr(self, lower) > getattr(self, upper):
                raise ConfigError(
                    f"time.{lower} ({getattr(self, lower):g}) exceeds time.{upper} ({getattr(self, upper):g}); "
                    "exchange the two"
                )
        for name in ("low_width", "high_width"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"time.{name} is {getattr(self, name)}; choose a positive number")

    @property
    def falls(self) -> bool:
        return True

    def above(self, t: float) -> float:
        """The integral of W from t to `max`."""

        def primitive(x: float) -> float:
            inside = min(max(x, self.low), self.high)
            over, under = max(x - self.high, 0.0), min(x - self.low, 0.0)
            tails = sum(
                width * math.sqrt(0.5 * math.pi) * math.erf(tail / (width * math.sqrt(2.0)))
                for tail, width in ((over, self.high_width), (under, self.low_width))
            )
            return inside + tails

        return primitive(self.max) - primitive(t)

    def __call__(
        self, count: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        wanted = progress * self.above(self.min)
        low, high = self.min, self.max
        for _ in range(40):
            middle = 0.5 * (low + high)
            # More than wanted lies above: the time is higher up.
            low, high = (middle, high) if self.above(middle) > wanted else (low, middle)
        return torch.full((count,), 0.5 * (low + high))
