"""Training a pair of companions: one on the renders, one on what the prior makes of them (DreamCraft3D)."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.companion import CompanionPair, CompanionSettings, CompanionTrainer, without_camera
from dream3d.diffusion import add_noise
from dream3d.priors.base import Condition, Prior
from guidance.inversion import denoise


@torch.no_grad()
def improved(
    prior: Prior,
    z: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    condition: Condition,
    augment: tuple[float, int],
) -> Float[Tensor, "B C h w"]:
    """Clean latents noised to a level and denoised by the prior's flow: r_t'(x) of the paper.

    Args:
        prior: asked augment[1] times.
        z: clean latents.
        noise: unit Gaussian, like z.
        condition: the prompt.
        augment: (level in (0, 1), steps).
    """
    level, steps = augment
    t = torch.full((len(z),), level, dtype=z.dtype, device=z.device)
    z_t = add_noise(prior.schedule, z, noise, t)
    return denoise(prior.schedule, partial(prior.predict, condition=condition), z_t, t, steps)


class BootstrapTrainer(CompanionTrainer):
    """As `CompanionTrainer`, for a pair.

    Args:
        prior: improves the renders.
        pair: what trains.
        settings: with `augment`.
    """

    def __init__(self, prior: Prior, pair: CompanionPair, settings: CompanionSettings) -> None:
        super().__init__(pair, prior.schedule, settings)
        self.prior, self.pair = prior, pair

    def step(
        self, z: Float[Tensor, "B C h w"], condition: Condition, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """One denoising step of either; returns the sum of both losses."""
        if self.settings.augment is None:
            raise ValueError("a pair of companions needs settings with `augment`")
        noise = torch.randn(z.shape, generator=generator).to(z)
        told = condition if self.prior.accepts_cameras else without_camera(condition)
        better = improved(self.prior, z.detach(), noise, told, self.settings.augment)
        self.optimizer.zero_grad(set_to_none=True)
        # One after the other: a network that both share is switched to either in turn, which freezes the other.
        own = self.loss(self.pair.own, z.detach(), condition, generator)
        own.backward()
        dreamt = self.loss(self.pair.dreamer, better, condition, generator)
        dreamt.backward()
        self.optimizer.step()
        return (own + dreamt).detach()
