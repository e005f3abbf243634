"""Ways to mix the predictions under the prompt and the empty prompt: plain guidance and its published repairs.

    cfg                empty + scale (text - empty)                                        (Ho & Salimans 2022)
    apg                the same, the difference shortened to a norm and its part along text weighted   (2410.02416)
    zero-star          empty replaced by its multiple nearest to text                                  (2503.18886)
    tangential         empty replaced by its part along the first singular vector of the pair          (2503.18137)
    magnitude-aware    the excess over scale 1 damped by exp(-alpha |text - empty| / |empty|)

Each equals diffusers' guider of the same kind on the same two tensors (tests/test_guidance_combine.py), without its
state: momentum and step counters are left out, so that a guidance stays a pure function. They act on whatever the
network predicts, as in diffusers; norms run over all entries of one sample.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError

GuiderName = Literal["cfg", "apg", "zero-star", "tangential", "magnitude-aware"]
GUIDERS: tuple[GuiderName, ...] = ("cfg", "apg", "zero-star", "tangential", "magnitude-aware")


@dataclass(frozen=True)
class Guider:
    """How two predictions become one; used by every rule whose formula says eps_cfg.

    Attributes:
        name: "cfg" is plain classifier-free guidance; "apg" shortens the difference of the two and weights its part
            along the prompt's; "zero-star" and "tangential" repair the empty prompt's; "magnitude-aware" damps all.
        eta: apg: weight of the difference's part along the prompt's prediction, in [0, 1] (the paper: 0).
        norm: apg: largest norm of the difference; 0 is no bound.
        alpha: magnitude-aware: strength of the damping, at least 0.
        rescale: share in [0, 1] by which the result's standard deviation is brought back to the prompt's prediction's,
            sample by sample (Lin et al. 2023; diffusers' `guidance_rescale`). See `guidance.combine.guided` for the
            form on x0, jointly over views.
    """

    name: GuiderName = "cfg"
    eta: float = 1.0
    norm: float = 15.0
    alpha: float = 8.0
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in GUIDERS:
            raise ConfigError(f"guider.name is '{self.name}'; choose one of {', '.join(GUIDERS)}")
        for key, most in (("eta", 1.0), ("norm", math.inf), ("alpha", math.inf), ("rescale", 1.0)):
            value = getattr(self, key)
            if not (math.isfinite(value) and 0.0 <= value <= most):
                raise ConfigError(
                    f"guider.{key} is {value}; choose a finite number in [0, {most:g}]"
                )

    def __call__(
        self, empty: Float[Tensor, "B C H W"], text: Float[Tensor, "B C H W"], scale: float
    ) -> Float[Tensor, "B C H W"]:
        """The mixture.

        Args:
            empty: the network's output under the empty (or negative) prompt.
            text: that under the prompt.
            scale: classifier-free guidance scale in diffusers' sense.
        """
        mixed = self._mix(empty, text, scale)
        return rescaled(mixed, text, self.rescale) if self.rescale > 0.0 else mixed

    def _mix(self, empty: Tensor, text: Tensor, scale: float) -> Tensor:
        match self.name:
            case "cfg":
                return empty + scale * (text - empty)
            case "apg":
                return empty + scale * self._projected(text - empty, text)
            case "zero-star":
                nearest = _dot(text, empty) / (_dot(empty, empty) + 1e-8)
                return nearest * empty + scale * (text - nearest * empty)
            case "tangential":
                along = first_direction(text, empty)
                aligned = _dot(empty, along) * along
                return aligned + scale * (text - aligned)
            case "magnitude-aware":
                ratio = (_dot(text - empty, text - empty) / _dot(empty, empty)).sqrt()
                strength = 1.0 + (scale - 1.0) * torch.exp(-self.alpha * ratio)
                return empty + strength * (text - empty)

    def _projected(self, difference: Tensor, text: Tensor) -> Tensor:
        if self.norm > 0.0:
            length = _dot(difference, difference).sqrt()
            difference = difference * (self.norm / length).clamp(max=1.0)
        if self.eta == 1.0:
            return difference
        unit = text / _dot(text, text).sqrt().clamp(min=1e-12)
        return difference + (self.eta - 1.0) * _dot(difference, unit) * unit


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product over all entries of a sample, broadcastable."""
    return (a * b).flatten(1).sum(1).reshape(-1, *([1] * (a.ndim - 1)))


def first_direction(
    a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """The unit vector along which a and b together are longest: the first right singular vector of the pair.

    In closed form from the two-by-two matrix of inner products, where a library would decompose [2, C H W].
    """
    aa, ab, bb = _dot(a, a), _dot(a, b), _dot(b, b)
    angle = 0.5 * torch.atan2(2.0 * ab, aa - bb)
    longest = angle.cos() * a + angle.sin() * b
    return longest / _dot(longest, longest).sqrt().clamp(min=torch.finfo(a.dtype).tiny)


def rescaled(
    mixed: Float[Tensor, "B C H W"], text: Float[Tensor, "B C H W"], share: float
) -> Float[Tensor, "B C H W"]:
    """`mixed` with its standard deviation moved toward that of `text`, sample by sample."""
    ratio = text.flatten(1).std(1) / mixed.flatten(1).std(1)
    return mixed * (share * ratio.reshape(-1, 1, 1, 1) + (1.0 - share))


PLAIN = Guider()
