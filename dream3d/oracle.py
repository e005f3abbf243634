"""The perfect prior for one object of the procedural world: it knows the truth and sees through the noise.

It answers like a camera-conditioned diffusion model whose training left nothing to wish for, without weights and in
milliseconds, so that scenes, guidance and schedules can be judged apart from what a real network gets wrong. What an
optimisation fails to reach under it is the optimisation's own fault.

Given a camera, an image is N(true object over its background, std^2). The background differs from view to view and is
not told: it is taken to vary linearly across the image and is estimated from the noisy pixels outside the object.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.cameras import CameraBatch
from dream3d.diffusion import CosineSchedule, NoiseSchedule, Prediction, per_sample
from dream3d.priors.base import Condition, Prior
from dream3d.world.objects import WorldObject
from dream3d.world.render import render_object

BACKGROUND_STD = 0.5
"""Spread of backgrounds around mid-grey in latent units ([-1, 1]), against which noisy pixels are weighed."""


class OraclePrior(Prior):
    """Exact for one object; needs cameras, and takes any prompt for that object's.

    The empty prompt stands for "some picture": the background alone with a wide spread, so that classifier-free
    guidance pushes in the direction of the object.

    Args:
        truth: the object.
        size: side of the latent grid, which is the image itself from -1 to 1.
        std: how far images are thought to stray from the truth.
        empty_std: the same for the empty prompt.
        schedule: noise levels.
    """

    accepts_cameras = True

    def __init__(
        self,
        truth: WorldObject,
        size: int = 64,
        std: float = 0.1,
        empty_std: float = 0.5,
        schedule: NoiseSchedule | None = None,
    ) -> None:
        self.schedule = CosineSchedule() if schedule is None else schedule
        self.latent_shape = (3, size, size)
        self.image_size = size
        self.truth = truth
        self.std = std
        self.empty_std = empty_std

    def check_prompt(self, prompt: str) -> None:
        """Any text means the object it was made for."""

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        return torch.tensor([[[float(bool(prompt))]] for prompt in prompts], device=self.device)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        pixels = 2.0 * images.permute(0, 3, 1, 2) - 1.0
        size = self.latent_shape[1:]
        if pixels.shape[2:] == size:
            return pixels
        return functional.interpolate(pixels, size, mode="bilinear", antialias=True)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        return (0.5 + 0.5 * latents).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        if condition.cameras is None:
            raise ValueError("the oracle needs cameras; choose conditioning camera or multiview")
        with torch.no_grad():
            alpha, sigma = self.schedule.levels(t, z_t)
            rgb, coverage = self._seen(condition.cameras)
            named = per_sample(condition.tokens.flatten(), z_t)
            std = self.empty_std + (self.std - self.empty_std) * named
            background = linear_background(z_t / alpha, sigma / alpha, 1.0 - named * coverage)
            mean = named * rgb + (1.0 - named * coverage) * background
            eps = sigma * (z_t - alpha * mean) / (alpha**2 * std**2 + sigma**2)
            return Prediction(eps, "eps", z_t, alpha, sigma)

    def _seen(
        self, cameras: CameraBatch
    ) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B 1 h w"]]:
        """The object in latent units, premultiplied, and its coverage."""
        size = self.image_size
        output = render_object(self.truth, cameras.to("cpu").resized(size, size))
        rgb = (2.0 * output.rgb - output.alpha).permute(0, 3, 1, 2)
        return rgb.to(self.device), output.alpha.permute(0, 3, 1, 2).to(self.device)


def linear_background(
    y: Float[Tensor, "B 3 H W"], level: Float[Tensor, "B 1 1 1"], weight: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """The most likely background that varies linearly across the image, given noisy pixels of it.

    Args:
        y: z_t / alpha, the image plus noise of standard deviation `level`.
        level: sigma / alpha.
        weight: how much of each pixel is background.
    """
    height, width = y.shape[2:]
    rows, columns = (torch.linspace(-1.0, 1.0, n, dtype=y.dtype) for n in (height, width))
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    basis = torch.stack([torch.ones_like(u), u, v]).flatten(1).to(y.device)  # [3, HW]
    weighted = basis * weight.flatten(1)[:, None]  # [B, 3, HW]
    # Ridge regression: the prior on the coefficients counts as level^2 / BACKGROUND_STD^2 pixels.
    strength = (level.flatten() / BACKGROUND_STD) ** 2 + 1e-4
    normal = weighted @ basis.T + strength[:, None, None] * torch.eye(3, dtype=y.dtype)
    moments = weighted @ y.flatten(2).transpose(1, 2)  # [B, 3 coefficients, 3 channels]
    coefficients = torch.linalg.solve(normal, moments)
    return (coefficients.transpose(1, 2) @ basis).unflatten(2, (height, width))
