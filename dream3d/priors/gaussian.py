"""Priors in closed form: images that are Gaussian around pictures made from the prompt.

They need no weights, take any prompt, and every algorithm's outcome under them can be computed by hand. The latent
space is the image itself on a small grid, from -1 (black) to 1 (white). A prompt's picture is a soft coloured blob
whose colours and places follow from a hash of the text; the empty prompt's is plain grey.

With z_t = alpha x + sigma eps and x ~ N(m, s^2), the exact prediction is eps = sigma (z_t - alpha m) / V with
V = alpha^2 s^2 + sigma^2; a mixture weighs its components by their responsibilities for z_t.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.companion import Companion
from dream3d.diffusion import (
    CosineSchedule,
    NoiseSchedule,
    Prediction,
    RectifiedFlowSchedule,
    per_sample,
)
from dream3d.errors import ConfigError
from dream3d.priors.base import PRIORS, Condition, Prior, PriorConfig


def prompt_picture(prompt: str, variant: int, size: int) -> Float[Tensor, "3 size size"]:
    """The mean picture of a prompt, in [-1, 1]: three overlapping soft discs on grey. Empty is plain grey.

    Args:
        prompt: any text, hashed as it stands. A view suffix makes another picture; priors strip it before.
        variant: 0, 1, ... for the components of a mixture.
        size: side in pixels.
    """
    picture = torch.zeros(3, size, size)
    if not prompt:
        return picture
    digest = hashlib.sha256(f"{variant}:{prompt}".encode("utf-8", "surrogatepass")).digest()
    numbers = torch.tensor(list(digest[:12]), dtype=torch.float32).reshape(3, 4) / 255.0
    axis = torch.linspace(-1.0, 1.0, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    # From the largest disc to the smallest, so that all three show.
    for reach, (hue, right, down, light) in zip((0.7, 0.5, 0.3), numbers.tolist(), strict=True):
        phases = 2.0 * math.pi * (hue + torch.tensor([0.0, 1.0 / 3.0, 2.0 / 3.0]))
        color = 0.6 * phases.cos() + 0.5 * (light - 0.5)
        distance = ((x - 0.5 * (right - 0.5)) ** 2 + (y - 0.5 * (down - 0.5)) ** 2).sqrt()
        share = torch.sigmoid((reach - distance) * 16.0)
        picture = torch.lerp(picture, color[:, None, None].expand_as(picture), share)
    return picture


class ClosedFormPrior(Prior):
    """N(m(prompt), std^2), or an even mixture of such. Tokens are the flattened means: [B, components, C*H*W].

    Args:
        size: side of the latent grid.
        std: standard deviation of every component.
        empty_std: that of the empty prompt's; equal to `std` unless given.
        components: number of pictures a prompt stands for.
        schedule: noise levels.
    """

    accepts_cameras = True

    def __init__(
        self,
        size: int = 32,
        std: float = 0.2,
        empty_std: float | None = None,
        components: int = 1,
        schedule: NoiseSchedule | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.schedule = CosineSchedule() if schedule is None else schedule
        self.latent_shape = (3, size, size)
        self.image_size = size
        self.std = std
        self.empty_std = std if empty_std is None else empty_std
        self.components = components
        self.device = torch.device(device)

    def check_prompt(self, prompt: str) -> None:
        """Any text will do."""

    def means(self, prompt: str) -> Float[Tensor, "K C H W"]:
        """The pictures `prompt` stands for. View words name a side of the same thing, so they do not change it."""
        body, comma, view = prompt.rpartition(", ")
        subject = body if comma and view.endswith(" view") else prompt
        size = self.image_size
        return torch.stack([prompt_picture(subject, k, size) for k in range(self.components)])

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        rows = torch.stack([self.means(prompt).flatten(1) for prompt in prompts])
        return rows.to(self.device)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        pixels = 2.0 * images.permute(0, 3, 1, 2) - 1.0
        size = self.latent_shape[1:]
        if pixels.shape[2:] == size:
            return pixels
        if pixels.shape[2] % size[0] == 0 and pixels.shape[3] % size[1] == 0:
            return functional.interpolate(pixels, size, mode="area")
        return functional.interpolate(pixels, size, mode="bilinear", antialias=True)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        return (0.5 + 0.5 * latents).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    @torch.no_grad()
    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        return self.moved(
            z_t, t, condition, torch.zeros_like(z_t[0]), torch.ones_like(z_t[0, 0, 0, 0])
        )

    def moved(
        self,
        z_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
        shift: Float[Tensor, "C h w"],
        widening: Float[Tensor, ""],
    ) -> Prediction:
        """The exact prediction if every picture were moved by `shift` and every spread multiplied by `widening`.

        With gradient to both.
        """
        alpha, sigma = self.schedule.levels(t, z_t)
        means = condition.tokens.to(z_t.dtype).unflatten(2, z_t.shape[1:])  # [B, K, C, h, w]
        # The empty prompt's picture is exactly grey, which no other prompt's is.
        empty = (condition.tokens == 0.0).flatten(1).all(dim=1).to(z_t.dtype)
        std = (self.std + (self.empty_std - self.std) * empty) * widening.to(z_t.dtype)
        variance = alpha**2 * per_sample(std, z_t) ** 2 + sigma**2
        residual = z_t[:, None] - alpha[:, None] * (means + shift.to(z_t.dtype))
        energy = -0.5 * (residual**2).flatten(2).sum(2) / variance.flatten(1)
        weight = per_sample(torch.softmax(energy, dim=1).flatten(), residual.flatten(0, 1))
        mixed = (weight.view(*residual.shape[:2], 1, 1, 1) * residual).sum(1)
        return Prediction(sigma * mixed / variance, "eps", z_t, alpha, sigma)

    def companion(self, rank: int, seed: int, name: str = "companion") -> Companion:
        """The prior with its pictures moved and widened; the arguments are not needed."""
        return MovedPrior(self)


class MovedPrior(Companion):
    """A closed-form prior's twin: one picture added to all of its, one factor on their spread, both learnt.

    Args:
        prior: what it is without training, under every prompt.
    """

    def __init__(self, prior: ClosedFormPrior) -> None:
        self.prior = prior
        self.shift = torch.zeros(prior.latent_shape, device=prior.device, requires_grad=True)
        self.log_widening = torch.zeros((), device=prior.device, requires_grad=True)

    def parameters(self) -> dict[str, Tensor]:
        return {"shift": self.shift, "log_widening": self.log_widening}

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        return self.prior.moved(z_t, t, condition, self.shift, self.log_widening.exp())


@dataclass(frozen=True)
class _ClosedFormConfig(PriorConfig):
    """Settings the closed-form priors share.

    Attributes:
        size: side of the latent grid in pixels.
        std: spread of the pictures around their mean.
        schedule: "cosine" (variance preserving) or "flow" (straight paths).
    """

    size: int = 32
    std: float = 0.2
    schedule: Literal["cosine", "flow"] = "cosine"

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"prior.size is {self.size}; it must be at least 2")
        if self.std <= 0.0:
            raise ConfigError(f"prior.std is {self.std}; it must be positive")
        if self.schedule not in ("cosine", "flow"):
            raise ConfigError(f"prior.schedule is '{self.schedule}'; choose 'cosine' or 'flow'")

    def _prior(self, components: int, device: torch.device) -> ClosedFormPrior:
        schedule = CosineSchedule() if self.schedule == "cosine" else RectifiedFlowSchedule()
        return ClosedFormPrior(self.size, self.std, None, components, schedule, device)


@PRIORS.register("gaussian")
@dataclass(frozen=True)
class GaussianConfig(_ClosedFormConfig):
    """One Gaussian around a picture made from the prompt: any prompt runs, every outcome is known."""

    def load(self, device: torch.device) -> ClosedFormPrior:
        return self._prior(1, device)


@PRIORS.register("mixture")
@dataclass(frozen=True)
class MixtureConfig(_ClosedFormConfig):
    """An even mixture of Gaussians, to see which algorithms pick one mode and which keep all.

    Attributes:
        components: pictures a prompt stands for.
    """

    components: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 1:
            raise ConfigError(f"prior.components is {self.components}; it must be at least 1")

    def load(self, device: torch.device) -> ClosedFormPrior:
        return self._prior(self.components, device)
