"""Two more priors in closed form: a finite set of pictures, and a thing that looks different from every side.

`particles` is the score of an empirical distribution, what a network that had learnt its training pictures by heart
would say: x0 = sum_i w_i x_i with w_i proportional to exp(-||z_t - alpha x_i||^2 / (2 sigma^2)). `sides` is the
smallest world with a Janus problem: a prompt has one picture a side, the front is seen most often, and a prior that is
not told the side prefers the front.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import (
    CosineSchedule,
    NoiseSchedule,
    Prediction,
    RectifiedFlowSchedule,
)
from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import PRIORS, Condition, PriorConfig
from dream3d.priors.gaussian import ClosedFormPrior, prompt_picture

SIDES = ("front", "left", "back", "right")
"""In steps of 90 degrees from the front, as azimuth counts."""


def mixture_noise(
    z_t: Float[Tensor, "B C h w"],
    means: Float[Tensor, "B K C h w"],
    log_weight: Float[Tensor, "B K"],
    std: float | Float[Tensor, ""],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """The exact noise prediction of sum_k w_k N(means_k, std^2) at z_t; std may be 0."""
    variance = alpha**2 * std**2 + sigma**2
    residual = z_t[:, None] - alpha[:, None] * means
    energy = log_weight - 0.5 * residual.square().flatten(2).sum(2) / variance.flatten(1)
    share = torch.softmax(energy, dim=1)
    mixed = torch.einsum("bk,bkchw->bchw", share, residual)
    return sigma * mixed / variance


class ParticlesPrior(ClosedFormPrior):
    """Pictures and nothing between them.

    Args:
        pictures: in [-1, 1], the same for every prompt; None makes `components` of them from each prompt.
        size: side of the latent grid.
        components: pictures a prompt stands for; of the empty prompt too.
        schedule: noise levels.
    """

    def __init__(
        self,
        pictures: Float[Tensor, "N C H W"] | None,
        size: int = 32,
        components: int = 16,
        schedule: NoiseSchedule | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size, 0.0, None, components, schedule, device)
        self.pictures = pictures

    def means(self, prompt: str) -> Float[Tensor, "K C H W"]:
        """The prompt's pictures; the empty prompt's are as many, of no prompt in particular."""
        if self.pictures is not None:
            return self.pictures
        return super().means(prompt or "nothing in particular")

    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        with torch.no_grad():
            alpha, sigma = self.schedule.levels(t, z_t)
            means = condition.tokens.to(z_t.dtype).unflatten(2, z_t.shape[1:])
            even = means.new_zeros(means.shape[:2])
            eps = mixture_noise(z_t, means, even, 0.0, alpha, sigma)
            return Prediction(eps, "eps", z_t, alpha, sigma)


class SidesPrior(ClosedFormPrior):
    """One picture a side. Tokens are [B, 4, C*H*W + 1]: the sides' means, and the logarithm of how often each is seen.

    Args:
        size: side of the latent grid.
        std: spread around each side's picture.
        front_share: how often the front is seen by a prior that is not told the side; the others share the rest.
        word_trust: probability of the side that a view word names; 1 makes view words exact.
        schedule: noise levels.
    """

    def __init__(
        self,
        size: int = 32,
        std: float = 0.2,
        front_share: float = 0.7,
        word_trust: float = 0.9,
        schedule: NoiseSchedule | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size, std, None, len(SIDES), schedule, device)
        self.front_share = front_share
        self.word_trust = word_trust

    def means(self, prompt: str) -> Float[Tensor, "K C H W"]:
        """A picture a side; view words do not change what there is to see."""
        body, comma, view = prompt.rpartition(", ")
        subject = body if comma and view.endswith(" view") else prompt
        return torch.stack([prompt_picture(subject, k, self.image_size) for k in range(len(SIDES))])

    def shares(self, prompt: str) -> Float[Tensor, " K"]:
        """How often each side is seen, given the words."""
        _, comma, view = prompt.rpartition(", ")
        named = [side in view.split() for side in SIDES] if comma and view.endswith(" view") else []
        other = len(SIDES) - 1
        if any(named):
            # "front left" lies between two sides.
            told = torch.tensor(named, dtype=torch.float32) / sum(named)
            return self.word_trust * told + (1.0 - self.word_trust) / len(SIDES)
        return torch.tensor([self.front_share, *[(1.0 - self.front_share) / other] * other])

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        rows = [
            torch.cat([self.means(p).flatten(1), self.shares(p).clamp_min(1e-12).log()[:, None]], 1)
            for p in prompts
        ]
        return torch.stack(rows).to(self.device)

    def moved(
        self,
        z_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
        shift: Float[Tensor, "C h w"],
        widening: Float[Tensor, ""],
    ) -> Prediction:
        """As the parent's, under the sides' own tokens; what `predict` and the companion ask."""
        alpha, sigma = self.schedule.levels(t, z_t)
        tokens = condition.tokens.to(z_t.dtype)
        means = tokens[:, :, :-1].unflatten(2, z_t.shape[1:]) + shift.to(z_t.dtype)
        log_weight = tokens[:, :, -1]
        if condition.cameras is not None:
            log_weight = _seen(condition.cameras.azimuth_deg).to(tokens)
        std = self.std * widening.to(z_t.dtype)
        eps = mixture_noise(z_t, means, log_weight, std, alpha, sigma)
        return Prediction(eps, "eps", z_t, alpha, sigma)


def _seen(azimuth_deg: Float[Tensor, " B"]) -> Float[Tensor, "B K"]:
    """Log share of each side for a camera: all on the nearest, half each on the diagonal, linear between."""
    centres = torch.arange(len(SIDES), device=azimuth_deg.device) * 90.0
    away = (azimuth_deg[:, None] - centres + 180.0).remainder(360.0) - 180.0
    return (1.0 - away.abs() / 90.0).clamp_min(1e-12).log()


@dataclass(frozen=True)
class _PictureConfig(PriorConfig):
    """Settings both share.

    Attributes:
        size: side of the latent grid in pixels.
        schedule: "cosine" (variance preserving) or "flow" (straight paths).
    """

    size: int = 32
    schedule: Literal["cosine", "flow"] = "cosine"

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"prior.size is {self.size}; it must be at least 2")
        if self.schedule not in ("cosine", "flow"):
            raise ConfigError(f"prior.schedule is '{self.schedule}'; choose 'cosine' or 'flow'")

    def noise_levels(self) -> NoiseSchedule:
        """The schedule of that name."""
        return CosineSchedule() if self.schedule == "cosine" else RectifiedFlowSchedule()


@PRIORS.register("particles")
@dataclass(frozen=True)
class ParticlesConfig(_PictureConfig):
    """A finite set of pictures, from a directory or from the prompt: what memorising looks like.

    Attributes:
        components: pictures a prompt stands for, when there is no directory.
        images: a directory of PNG or JPEG files that are the pictures of every prompt.
    """

    components: int = 16
    images: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 1:
            raise ConfigError(f"prior.components is {self.components}; it must be at least 1")

    def load(self, device: torch.device) -> ParticlesPrior:
        pictures = read_pictures(Path(self.images), self.size) if self.images else None
        return ParticlesPrior(pictures, self.size, self.components, self.noise_levels(), device)


@PRIORS.register("sides")
@dataclass(frozen=True)
class SidesConfig(_PictureConfig):
    """A thing with four different sides, seen mostly from the front: the smallest Janus problem.

    Attributes:
        std: spread around each side's picture.
        front_share: how often the front is seen by a prior that is not told the side.
        word_trust: probability of the side that a view word names.
    """

    std: float = 0.2
    front_share: float = 0.7
    word_trust: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std <= 0.0:
            raise ConfigError(f"prior.std is {self.std}; it must be positive")
        for name in ("front_share", "word_trust"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"prior.{name} is {getattr(self, name)}; choose from 0 to 1")

    def load(self, device: torch.device) -> SidesPrior:
        return SidesPrior(
            self.size, self.std, self.front_share, self.word_trust, self.noise_levels(), device
        )


def read_pictures(directory: Path, size: int) -> Float[Tensor, "N 3 size size"]:
    """Every PNG and JPEG of a directory, resampled to a square, in [-1, 1].

    Raises:
        ModelError: there is none, or one cannot be read.
    """
    import numpy as np
    from PIL import Image

    files = [
        p for p in sorted(directory.glob("*")) if p.suffix.lower() in (".png", ".jpg", ".jpeg")
    ]
    if not files:
        raise ModelError(
            f"{directory} has no PNG or JPEG files; prior.images takes a directory of pictures"
        )
    pictures = []
    for path in files:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BOX))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} is not a readable picture ({error}); remove it") from error
        pictures.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1.0)
    return torch.stack(pictures)
