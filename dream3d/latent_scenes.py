"""Optimising a scene's latents directly: what the loop does in place of encoding pictures."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dream3d.priors.base import Prior
from dream3d.scenes.base import Scene
from dream3d.scenes.latent_colors import LatentColors

PICTURES = 16
RIDGE = 1e-3
"""Share of the mean variance added to each: latents of smooth pictures vary in few directions."""


def latents_of(images: Float[Tensor, "B H W C"], prior: Prior) -> Float[Tensor, "B C h w"]:
    """Rendered latents in the prior's layout and size; the prior is not asked."""
    z, size = images.permute(0, 3, 1, 2), prior.latent_shape[1:]
    if z.shape[2:] == size:
        return z
    return interpolate(z, size, mode="bilinear", antialias=True)


def fit_latent_colors(prior: Prior) -> LatentColors:
    """The least-squares affine maps between a prior's latents and colours, over smooth random pictures.

    Encodes once, when a run begins. The pictures are always the same, so that a resumed run has the same maps.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(PICTURES, 3, 4, 4, generator=generator)
    size = (prior.image_size, prior.image_size)
    images = interpolate(coarse, size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    with torch.no_grad():
        z = prior.encode(images.permute(0, 2, 3, 1).to(prior.device)).double().cpu()
    small = interpolate(images.double(), z.shape[2:], mode="area")
    rgb, latents = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (small, z))
    device = prior.device
    return LatentColors(
        _affine(latents, rgb).float().to(device), _affine(rgb, latents).float().to(device)
    )


def with_latent_colors(scene: Scene, prior: Prior) -> Scene:
    """The scene; if it is made of latents, it now knows how this prior's are seen."""
    if scene.latent_colors is not None:
        scene.latent_colors = fit_latent_colors(prior)
    return scene


def _affine(x: Float[Tensor, "N A"], y: Float[Tensor, "N B"]) -> Float[Tensor, "A1 B"]:
    """The matrix M, offset in its last row, for which [x, 1] M is closest to y."""
    middle, target = x.mean(dim=0), y.mean(dim=0)
    x, y = x - middle, y - target
    square = x.T @ x
    square += RIDGE * square.diagonal().mean() * torch.eye(len(square)).to(square)
    matrix = torch.linalg.solve(square, x.T @ y)
    return torch.cat([matrix, (target - middle @ matrix)[None]])
