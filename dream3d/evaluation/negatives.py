"""Images that show no object of the world, so that the evaluator can say so.

They stand for what failed optimisations look like: fog, formless blobs, the untouched initial cloud of splats, noise.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

RGBA = Float[Tensor, "N H W 4"]


def smooth_noise(
    n: int, channels: int, cells: int, size: int, generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Random fields in [0, 1], `cells` features across."""
    coarse = torch.rand(n, channels, cells, cells, generator=generator)
    return torch.nn.functional.interpolate(
        coarse, (size, size), mode="bicubic", align_corners=False
    ).clamp(0.0, 1.0)


def _rgba(color: Tensor, alpha: Tensor) -> RGBA:
    """Channels-first colour and coverage to premultiplied channels-last RGBA."""
    return torch.cat([color * alpha, alpha], dim=1).permute(0, 2, 3, 1)


def _radius(size: int) -> Tensor:
    """Distance of each pixel from the image's centre; 1 at the middle of an edge."""
    axis = (torch.arange(size) + 0.5) / (0.5 * size) - 1.0
    return (axis[:, None] ** 2 + axis**2).sqrt()


def empty(n: int, size: int, generator: torch.Generator) -> RGBA:
    """Nothing at all: only the background will show."""
    return torch.zeros(n, size, size, 4)


def pixel_noise(n: int, size: int, generator: torch.Generator) -> RGBA:
    """Opaque noise from single pixels to large patches."""
    cells = int(torch.randint(3, size + 1, (), generator=generator))
    return _rgba(smooth_noise(n, 3, cells, size, generator), torch.ones(n, 1, size, size))


def fog(n: int, size: int, generator: torch.Generator) -> RGBA:
    """A soft round cloud of one colour that never gets dense."""
    density = torch.rand(n, 1, 1, 1, generator=generator) * 0.5 + 0.05
    width = torch.rand(n, 1, 1, 1, generator=generator) * 0.5 + 0.3
    alpha = density * torch.exp(-0.5 * (_radius(size) / width) ** 2)
    color = torch.rand(n, 3, 1, 1, generator=generator)
    grain = smooth_noise(n, 3, 6, size, generator) - 0.5
    return _rgba((color + 0.3 * grain).clamp(0.0, 1.0), alpha.expand(n, 1, size, size))


def blob(n: int, size: int, generator: torch.Generator) -> RGBA:
    """A formless outline filled with large patches of random colours."""
    field = smooth_noise(n, 1, 5, size, generator)
    reach = 0.35 + 0.8 * field
    alpha = ((reach - _radius(size)) * 20.0).sigmoid()
    cells = int(torch.randint(3, 9, (), generator=generator))
    return _rgba(smooth_noise(n, 3, cells, size, generator), alpha)


def splat_cloud(n: int, size: int, generator: torch.Generator) -> RGBA:
    """A ball of soft dots of many colours, as splats look before they are optimised."""
    images = torch.zeros(n, size, size, 4)
    axis = torch.arange(size) + 0.5
    for image in images:
        count = int(torch.randint(60, 300, (), generator=generator))
        radius = (0.25 + 0.5 * torch.rand((), generator=generator).item()) * 0.5 * size
        spread = torch.randn(count, 3, generator=generator)
        direction = spread / spread.norm(dim=1, keepdim=True)
        place = direction * torch.rand(count, 1, generator=generator) ** (1 / 3) * radius
        centre = place[:, :2] + 0.5 * size
        sigma = size * (0.015 + 0.05 * torch.rand((), generator=generator).item())
        level = 0.1 + 0.8 * torch.rand((), generator=generator).item()
        variety = 0.3 + 0.7 * torch.rand((), generator=generator).item()
        base = torch.rand(3, generator=generator)
        color = base + variety * (torch.rand(count, 3, generator=generator) - base)
        dx = torch.exp(-0.5 * ((axis - centre[:, :1]) / sigma) ** 2)
        dy = torch.exp(-0.5 * ((axis - centre[:, 1:]) / sigma) ** 2)
        cover = -torch.log1p(-0.95 * level * dy[:, :, None] * dx[:, None, :])  # optical depth
        total = cover.sum(0)
        alpha = 1.0 - torch.exp(-total)
        mixed = torch.einsum("khw,kc->hwc", cover, color) / total.clamp_min(1e-6)[..., None]
        image[..., :3], image[..., 3] = mixed * alpha[..., None], alpha
    return images


def ball(n: int, size: int, generator: torch.Generator) -> RGBA:
    """A small disc of one colour with a little grain: a dense cloud of splats before the first step.

    True objects fill the frame, a true sphere 86 % of its width; this fills at most 64 %.
    """
    reach = 0.25 + 0.39 * torch.rand(n, 1, 1, 1, generator=generator)
    sharpness = 4.0 + 36.0 * torch.rand(n, 1, 1, 1, generator=generator)
    alpha = ((reach - _radius(size)) * sharpness).sigmoid()
    color = torch.rand(n, 3, 1, 1, generator=generator)
    grain = 0.15 * torch.rand(n, 1, 1, 1, generator=generator)
    patches = smooth_noise(n, 3, size // 3, size, generator) - 0.5
    return _rgba((color + grain * patches).clamp(0.0, 1.0), alpha)


def tiles(n: int, size: int, generator: torch.Generator) -> RGBA:
    """Patches of noise with hard edges, as a diverged optimisation leaves them."""
    cells = int(torch.randint(4, 17, (), generator=generator))
    coarse = torch.rand(n, 4, cells, cells, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="nearest")
    alpha = ((fine[:, 3:] > 0.3) & (_radius(size) < 0.8)).float()
    return _rgba(fine[:, :3], alpha)


KINDS: tuple[Callable[[int, int, torch.Generator], RGBA], ...] = (
    empty,
    pixel_noise,
    fog,
    blob,
    splat_cloud,
    ball,
    tiles,
)


def negatives(n: int, size: int, generator: torch.Generator) -> RGBA:
    """N premultiplied RGBA images that show no object, a mixture of every kind in this file."""
    share = math.ceil(n / len(KINDS))
    images = torch.cat([kind(share, size, generator) for kind in KINDS])
    return images[torch.randperm(len(images), generator=generator)[:n]]
