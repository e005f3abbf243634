"""The vocabulary of diffusion: noise levels and what a network's output means.

Time runs from 0 (clean) to 1 (noise). A noisy point is z_t = alpha(t) x0 + sigma(t) eps. Two families are covered by
the same two numbers: variance preserving (alpha^2 + sigma^2 = 1) and rectified flow (alpha = 1 - t, sigma = t).
`v = alpha eps - sigma x0` (Salimans & Ho 2022) and `flow = eps - x0` (Liu et al. 2022) are different things and have
different names.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

PredictionKind = Literal["eps", "x0", "v", "flow"]


class NoiseSchedule(ABC):
    """How much signal and noise there is at time t in [0, 1]."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Signal coefficient, decreasing in t."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Noise coefficient, increasing in t."""

    def levels(
        self, t: Float[Tensor, " B"], like: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        """Both coefficients, shaped to multiply `like`: [B, 1, 1, ...]."""
        return per_sample(self.alpha(t), like), per_sample(self.sigma(t), like)


@dataclass(frozen=True)
class CosineSchedule(NoiseSchedule):
    """Variance-preserving cosine schedule, alpha = cos(pi t / 2) (Nichol & Dhariwal 2021, without the offset)."""

    def alpha(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return torch.cos(0.5 * torch.pi * t)

    def sigma(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return torch.sin(0.5 * torch.pi * t)


@dataclass(frozen=True)
class RectifiedFlowSchedule(NoiseSchedule):
    """Straight paths, alpha = 1 - t, sigma = t (SD3, FLUX)."""

    def alpha(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return 1.0 - t

    def sigma(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return t


@dataclass(frozen=True)
class TableSchedule(NoiseSchedule):
    """A trained discrete schedule (diffusers' `alphas_cumprod`); t picks the nearest of its T levels.

    t = 0 is the table's first entry and t = 1 its last, so neither end is exactly clean or exactly noise.
    """

    alphas_cumprod: Float[Tensor, " T"]

    def index(self, t: Float[Tensor, " B"]) -> Tensor:
        """The integer timestep in [0, T - 1] a network of this table is told."""
        last = len(self.alphas_cumprod) - 1
        return (t * last).round().long().clamp(0, last)

    @cached_property
    def _table(self) -> Float[Tensor, "2 T"]:
        return torch.stack([self.alphas_cumprod, 1.0 - self.alphas_cumprod]).sqrt()

    def _both(self, t: Float[Tensor, " B"]) -> Float[Tensor, "2 B"]:
        return self._table.to(t.device)[:, self.index(t)]

    def alpha(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return self._both(t)[0].to(t.dtype)

    def sigma(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return self._both(t)[1].to(t.dtype)

    def levels(
        self, t: Float[Tensor, " B"], like: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        alpha, sigma = self._both(t)
        return per_sample(alpha, like), per_sample(sigma, like)


def per_sample(coefficient: Float[Tensor, " B"], like: Tensor) -> Tensor:
    """Reshape [B] to [B, 1, 1, ...] so that it multiplies `like` of shape [B, ...]."""
    return coefficient.reshape(-1, *([1] * (like.ndim - 1))).to(like.dtype)


def add_noise(
    schedule: NoiseSchedule,
    x0: Float[Tensor, "B ..."],
    noise: Float[Tensor, "B ..."],
    t: Float[Tensor, " B"],
) -> Float[Tensor, "B ..."]:
    """z_t = alpha(t) x0 + sigma(t) noise."""
    alpha, sigma = schedule.levels(t, x0)
    return alpha * x0 + sigma * noise


@dataclass(frozen=True)
class Prediction:
    """A network's output at z_t, readable as noise, clean sample, v or flow whatever it natively is.

    Attributes:
        value: the network's raw output.
        kind: what `value` is.
        z_t: the noisy input it was made from.
        alpha, sigma: the noise level, broadcastable to z_t ([B, 1, 1, 1]); sigma > 0 to read an x0-prediction as
            noise, alpha > 0 to read a noise-prediction as x0.
    """

    value: Float[Tensor, "B ..."]
    kind: PredictionKind
    z_t: Float[Tensor, "B ..."]
    alpha: Float[Tensor, "B ..."]
    sigma: Float[Tensor, "B ..."]

    @property
    def x0(self) -> Float[Tensor, "B ..."]:
        """The clean sample this prediction implies."""
        match self.kind:
            case "x0":
                return self.value
            case "eps":
                return (self.z_t - self.sigma * self.value) / self.alpha
            case "v":
                # v = alpha eps - sigma x0 with z_t = alpha x0 + sigma eps; the norm is 1 for VP schedules.
                norm = self.alpha**2 + self.sigma**2
                return (self.alpha * self.z_t - self.sigma * self.value) / norm
            case "flow":
                return (self.z_t - self.sigma * self.value) / (self.alpha + self.sigma)

    @property
    def eps(self) -> Float[Tensor, "B ..."]:
        """The noise this prediction implies."""
        match self.kind:
            case "eps":
                return self.value
            case "x0":
                return (self.z_t - self.alpha * self.value) / self.sigma
            case "v":
                norm = self.alpha**2 + self.sigma**2
                return (self.alpha * self.value + self.sigma * self.z_t) / norm
            case "flow":
                return (self.z_t + self.alpha * self.value) / (self.alpha + self.sigma)

    @property
    def v(self) -> Float[Tensor, "B ..."]:
        """alpha eps - sigma x0."""
        return self.value if self.kind == "v" else self.alpha * self.eps - self.sigma * self.x0

    @property
    def flow(self) -> Float[Tensor, "B ..."]:
        """eps - x0."""
        return self.value if self.kind == "flow" else self.eps - self.x0
