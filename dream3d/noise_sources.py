"""Which noise carries a render to its noisy point.

Fresh noise gives score distillation (SDS). Noise that stays the same while the time falls monotonically follows the
prior's probability-flow ODE instead, so that the result is a sample rather than a mode: `noise: {name: fixed}` with
`time: {name: annealed, jitter: 0}` and the guidance `cfd` is consistent flow distillation with screen-space noise.
`refreshed` is its stochastic form: noise that drifts slowly into other noise. `surface` puts the noise on the object.
"""

import hashlib
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
from dream3d.surface_noise import Seen, drifting, gather_noise, hashed_normals, surface_cells


class NoiseSource(ABC):
    """Draws unit Gaussian noise. Subclasses are frozen dataclasses without state, so a resumed run needs nothing."""

    @abstractmethod
    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
        seen: Seen | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Noise for the B views of one step.

        Args:
            shape: (B, C, H, W) of the latents.
            progress: fraction of the stage that is done.
            seed: the run's seed, from which everything that must not change during the run is drawn.
            generator: for everything that must.
            seen: what the views show, for noise that lies on the object.
        """


NOISE_SOURCES: Registry[NoiseSource] = Registry("noise", "dream3d.noise_sources")


@NOISE_SOURCES.register("fresh")
@dataclass(frozen=True)
class FreshNoise(NoiseSource):
    """New noise for every view of every step."""

    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
        seen: Seen | None = None,
    ) -> Float[Tensor, "B C H W"]:
        return torch.randn(shape, generator=generator)


@NOISE_SOURCES.register("fixed")
@dataclass(frozen=True)
class FixedNoise(NoiseSource):
    """The same noise image for the whole run, optionally blended with fresh noise.

    Attributes:
        share: beta of sqrt(1 - beta^2) fresh + beta fixed (CFD's `sqrt_beta`); 1 is the flow, 0 plain SDS.
        per_view: whether the i-th view of every step has its own image (else all views share one, as in Consistent3D).
    """

    share: Ramp = field(default_factory=lambda: constant(1.0))
    per_view: bool = False

    def __post_init__(self) -> None:
        for value in (self.share.initial, self.share.final):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"noise.share is {value}; choose a share in [0, 1]")

    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
        seen: Seen | None = None,
    ) -> Float[Tensor, "B C H W"]:
        own = torch.Generator().manual_seed(seed ^ 0x5EED)
        images = shape[0] if self.per_view else 1
        fixed = torch.randn((images, *shape[1:]), generator=own).expand(shape)
        share = self.share(progress)
        if share == 1.0:
            return fixed
        return share * fixed + (1.0 - share**2) ** 0.5 * torch.randn(shape, generator=generator)


class _Drifting(NoiseSource):
    """What noise that drifts has in common."""

    rate: Ramp

    def __post_init__(self) -> None:
        for value in (self.rate.initial, self.rate.final):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"noise.rate is {value}; choose a finite number of at least 0")

    def spent(self, progress: float) -> float:
        """The rate's integral from the start of the stage."""
        ramp = self.rate
        before, inside = min(progress, ramp.start), min(max(progress, ramp.start), ramp.end)
        middle = 0.5 * (ramp.initial + ramp(inside))
        after = max(progress - ramp.end, 0.0)
        return ramp.initial * before + middle * (inside - ramp.start) + ramp.final * after


def _own_generator(seed: int, place: int) -> torch.Generator:
    """Seeds of neighbouring places and runs share nothing: the two are hashed together."""
    digest = hashlib.blake2b(f"{seed} {place}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


@NOISE_SOURCES.register("refreshed")
@dataclass(frozen=True)
class RefreshedNoise(_Drifting):
    """One noise image that drifts: between progress p and q its correlation is exp(-rate |p - q|).

    CFD's stochastic form renews a share gamma in every of N steps, noise <- sqrt(1 - gamma) noise + sqrt(gamma) new.
    This is the same process with rate = -N/2 log(1 - gamma), whatever the number of steps: gamma 1e-4 over 10000
    steps is rate 0.5. It is read off at any progress without the steps before, so that a resumed run needs no state.

    Attributes:
        rate: at least 0; 0 is `fixed`, beyond some 1000 nearly `fresh`. A ramp over the stage: the authors lower gamma
            from 1e-2 to 1e-4, which over 10000 steps is {initial: 50, final: 0.5}.
        per_view: whether the i-th view of every step has its own image (else all views share one).
    """

    rate: Ramp = field(default_factory=lambda: constant(0.5))
    per_view: bool = False

    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
        seen: Seen | None = None,
    ) -> Float[Tensor, "B C H W"]:
        size = (shape[0] if self.per_view else 1, *shape[1:])

        def draw(place: int) -> Tensor:
            return torch.randn(size, generator=_own_generator(seed, place))

        return drifting(draw, self.spent, progress).expand(shape)


@NOISE_SOURCES.register("surface")
@dataclass(frozen=True)
class SurfaceNoise(_Drifting):
    """Noise that lies on the object's surface and is seen alike from everywhere (CFD's integral noise).

    See `dream3d.surface_noise`. Pixels that show no surface have noise that stays on the screen.

    Attributes:
        samples: surface samples per side of a latent pixel; the work grows with its square.
        cells_per_sample: cells of space along the side of a latent pixel, over `samples`, for a picture of width 2:
            0.25 leaves each cell some samples from every side. Views much nearer than that starve and show the
            screen's noise instead.
        rate: drift of the noise over the stage, as in `refreshed`; 0 (the flow) keeps it.
        background: "fixed" on the screen, or "fresh" in every step.
    """

    samples: int = 8
    cells_per_sample: float = 0.25
    rate: Ramp = field(default_factory=lambda: constant(0.0))
    background: Literal["fixed", "fresh"] = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.samples <= 64:
            raise ConfigError(f"noise.samples is {self.samples}; choose 1 to 64")
        if not 0.0 < self.cells_per_sample <= 1.0:
            raise ConfigError(
                f"noise.cells_per_sample is {self.cells_per_sample}; choose a share in (0, 1]"
            )
        if self.background not in ("fixed", "fresh"):
            raise ConfigError(f"noise.background is '{self.background}'; choose fixed or fresh")

    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
        seen: Seen | None = None,
    ) -> Float[Tensor, "B C H W"]:
        own = generator if self.background == "fresh" else _own_generator(seed, -1)
        background = torch.randn(shape, generator=own)
        if seen is None:
            return background
        resolution = 0.5 * shape[2] * self.samples * self.cells_per_sample
        cells = surface_cells(seen, shape[2], shape[3], self.samples, resolution)

        def draw(place: int) -> Tensor:
            return hashed_normals(cells.key, seed, place, shape[1])

        still = self.spent(1.0) == 0.0
        values = draw(0) if still else drifting(draw, self.spent, progress)
        return gather_noise(cells, values, background.to(values.device))
