"""Which noise carries a render to its noisy point.

Fresh noise gives score distillation (SDS). Noise that stays the same while the time falls monotonically follows the
prior's probability-flow ODE instead, so that the result is a sample rather than a mode: `noise: {name: fixed}` with
`time: {name: annealed, jitter: 0}` and the guidance `cfd` is consistent flow distillation with screen-space noise.
`refreshed` is its stochastic form: noise that drifts slowly into other noise.
"""

import hashlib
import math
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


DEPTH = 16  # halvings of the stage that tell two moments apart: 65536 moments


@NOISE_SOURCES.register("refreshed")
@dataclass(frozen=True)
class RefreshedNoise(NoiseSource):
    """One noise image that drifts: between progress p and q its correlation is exp(-rate |p - q|).

    CFD's stochastic form renews a share gamma in every of N steps, noise <- sqrt(1 - gamma) noise + sqrt(gamma) new.
    This is the same stationary process with rate = -N/2 log(1 - gamma), whatever the number of steps: gamma 1e-4 over
    10000 steps is rate 0.5. It is read off at any progress without the steps before (midpoints are filled in by
    halving the stage, each from its own seed), so that a resumed run needs no state. gamma itself does not change
    over the stage here; the authors lower it.

    Attributes:
        rate: at least 0; 0 is `fixed`, beyond some 1000 nearly `fresh`.
        per_view: whether the i-th view of every step has its own image (else all views share one).
    """

    rate: float = 0.5
    per_view: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate < math.inf:
            raise ConfigError(f"noise.rate is {self.rate}; choose a finite number of at least 0")

    def __call__(
        self,
        shape: tuple[int, int, int, int],
        progress: float,
        seed: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        size = (shape[0] if self.per_view else 1, *shape[1:])

        def draw(place: int) -> Tensor:
            # Seeds of neighbouring places and runs share nothing: the two are hashed together.
            digest = hashlib.blake2b(f"{seed} {place}".encode(), digest_size=7).digest()
            own = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
            return torch.randn(size, generator=own)

        # The process at both ends of the stage, then at midpoints of ever shorter parts until `place` is met.
        low, high = 0, 1 << DEPTH
        place = round(min(max(progress, 0.0), 1.0) * high)
        kept = math.exp(-self.rate)
        left = draw(low)
        right = kept * left + math.sqrt(1.0 - kept**2) * draw(high)
        while low < place < high:
            middle = (low + high) // 2
            kept = math.exp(-self.rate * (middle - low) / (1 << DEPTH))
            mean = kept / (1.0 + kept**2) * (left + right)
            at = mean + math.sqrt((1.0 - kept**2) / (1.0 + kept**2)) * draw(middle)
            low, left, high, right = (
                (middle, at, high, right) if place >= middle else (low, left, middle, at)
            )
        return (left if place == low else right).expand(shape)
