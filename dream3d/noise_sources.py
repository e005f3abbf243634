"""Which noise carries a render to its noisy point.

Fresh noise gives score distillation (SDS). Noise that stays the same while the time falls monotonically follows the
prior's probability-flow ODE instead, so that the result is a sample rather than a mode: `noise: {name: fixed}` with
`time: {name: annealed, jitter: 0}` and SDS is consistent flow distillation (CFD) with screen-space noise.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from dream3d.registry import Registry
from dream3d.schedules import Ramp, constant


class NoiseSource(ABC):
    """Draws unit Gaussian noise. Subclasses are frozen dataclasses without state, so a resumed run needs nothing."""

    @abstractmethod
    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        """Noise for the B views of one step.

        Args:
            shape: (B, C, H, W) of the latents.
            progress: fraction of the stage that is done.
            seed: the run's seed, from which everything that must not change during the run is drawn.
            generator: for everything that must.
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
    ) -> Float[Tensor, "B C H W"]:
        own = torch.Generator().manual_seed(seed ^ 0x5EED)
        images = shape[0] if self.per_view else 1
        fixed = torch.randn((images, *shape[1:]), generator=own).expand(shape)
        share = self.share(progress)
        if share == 1.0:
            return fixed
        return share * fixed + (1.0 - share**2) ** 0.5 * torch.randn(shape, generator=generator)
