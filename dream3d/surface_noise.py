"""Noise that lies on the object: the same surface point carries the same noise into every view.

Space is divided into small cells, each of which carries fixed unit Gaussian noise W (a hash of its place and the seed,
so that nothing is stored). A pixel's noise is

    eps_p = sum of W over the cells it owns / sqrt(their number)              (integral noise, Yan et al. 2025)

The surface under a pixel is sampled on a grid finer than the cells, from the rendered depth; a cell seen by several
pixels of a view belongs to the first. The sets are therefore disjoint: within a view the noise is exactly white and of
unit variance (averaging, or looking a texture up, would not be), and between two views pixels correlate by
|A and B| / sqrt(|A| |B|), the overlap of the cells they own. All that is needed is depth and coverage, so any scene
will do. Nothing here waits for a GPU: all shapes are fixed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from dream3d.cameras import CameraBatch

AXIS_BITS = 20
OPAQUE = 0.5
"""Coverage above which a sample lies on the surface."""


@dataclass(frozen=True)
class Seen:
    """What B views show of the object.

    Attributes:
        depth: z-depth where there is coverage.
        alpha: coverage.
        cameras: of the views, at the size of the images.
    """

    depth: Float[Tensor, "B H W 1"]
    alpha: Float[Tensor, "B H W 1"]
    cameras: CameraBatch


@dataclass(frozen=True)
class Cells:
    """Which cell of space each sample of each pixel lies in, sorted by cell within a view.

    Attributes:
        key: names of the cells.
        pixel: index in the latent grid of the pixel a sample belongs to.
        owned: whether this sample makes its pixel the owner of the cell: once per view and cell.
    """

    key: Int[Tensor, "B N"]
    pixel: Int[Tensor, "B N"]
    owned: Bool[Tensor, "B N"]


def surface_cells(seen: Seen, height: int, width: int, samples: int, resolution: float) -> Cells:
    """Divide the visible surface among the pixels of a latent grid.

    Args:
        seen: the views.
        height: of the latent grid.
        width: of the latent grid.
        samples: per side of a latent pixel.
        resolution: cells per unit of the world.
    """
    views, fine = len(seen.cameras), (height * samples, width * samples)
    both = torch.cat([seen.depth * seen.alpha, seen.alpha], dim=-1).permute(0, 3, 1, 2)
    depth, alpha = interpolate(both.float(), fine, mode="bilinear", align_corners=False).unbind(1)
    cameras = seen.cameras.resized(*fine).to(depth.device, torch.float32)
    v, u = torch.meshgrid(
        torch.arange(fine[0], device=depth.device) + 0.5,
        torch.arange(fine[1], device=depth.device) + 0.5,
        indexing="ij",
    )
    z = depth / alpha.clamp(min=1e-6)
    fx, fy, cx, cy = (
        cameras.K[:, i, j].reshape(-1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))
    )
    local = torch.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], dim=-1)
    world = torch.einsum("bij,bhwj->bhwi", cameras.c2w[:, :3, :3], local)
    world = world + cameras.position[:, None, None]
    limit = 1 << AXIS_BITS
    place = (world * resolution).floor().long() + limit // 2
    place = place.clamp(0, limit - 1)
    key = place[..., 0] + (place[..., 1] << AXIS_BITS) + (place[..., 2] << 2 * AXIS_BITS)

    def by_pixel(x: Tensor) -> Tensor:
        blocks = x.reshape(views, height, samples, width, samples).transpose(2, 3)
        return blocks.reshape(views, height * width * samples**2)

    visible = by_pixel(alpha > OPAQUE)
    # What is no surface is sorted behind everything else.
    key = by_pixel(key).masked_fill(~visible, torch.iinfo(torch.int64).max)
    key, order = key.sort(dim=1, stable=True)
    first = torch.ones_like(visible)
    first[:, 1:] = key[:, 1:] != key[:, :-1]
    return Cells(key, order // samples**2, first & visible.gather(1, order))


def gather_noise(
    cells: Cells, values: Float[Tensor, "B C N"], background: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """The sum of the cells every pixel owns over the root of their number; `background` where it owns none.

    Args:
        cells: who owns what.
        values: noise of every sample's cell.
        background: unit Gaussian noise.
    """
    owned = cells.owned.to(values)
    count = torch.zeros_like(background[:, 0]).flatten(1).scatter_add(1, cells.pixel, owned)
    place = cells.pixel[:, None].expand_as(values)
    total = torch.zeros_like(background).flatten(2).scatter_add(2, place, values * owned[:, None])
    noise = total / count.clamp(min=1.0).sqrt()[:, None]
    covered = (count > 0.0)[:, None].reshape(len(background), 1, *background.shape[2:])
    return torch.where(covered, noise.reshape(background.shape), background)


def _shifted(x: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical shift to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


def mixed(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """64 bits that depend on all bits of x (the finaliser of splitmix64, Steele et al. 2014)."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def hashed_normals(
    key: Int[Tensor, "B N"], seed: int, place: int, channels: int
) -> Float[Tensor, "B C N"]:
    """Unit Gaussian noise as a function of (key, seed, place, channel): Box and Muller's pairs from hashed bits.

    Args:
        key: names of cells.
        seed: of the run.
        place: a moment; other places have independent noise.
        channels: C.
    """
    salt = mixed(mixed(torch.tensor(seed)) + place)
    start = mixed(key ^ salt.to(key.device))
    parts = []
    for pair in range((channels + 1) // 2):
        bits = mixed(start + _signed((0x9E3779B97F4A7C15 * (pair + 1)) % (1 << 64)))
        one = (_shifted(bits, 40).float() + 0.5) * 2.0**-24
        two = ((bits & 0xFFFFFF).float() + 0.5) * 2.0**-24
        radius, angle = (-2.0 * one.log()).sqrt(), 2.0 * math.pi * two
        parts += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(parts[:channels], dim=1)


DEPTH = 16  # halvings of the stage that tell two moments apart: 65536 moments


def drifting(
    draw: Callable[[int], Tensor], spent: Callable[[float], float], progress: float
) -> Tensor:
    """A stationary Gaussian process read off at one moment, without the moments before it.

    Between progress p and q its correlation is exp(-(spent(q) - spent(p))). The process is drawn at both ends of the
    stage, then at midpoints of ever shorter parts, each given its two neighbours, until the moment is met.

    Args:
        draw: unit Gaussian noise of a moment named by a whole number, always the same for the same number.
        spent: how much drift lies between the start of the stage and a progress in [0, 1]; does not fall.
        progress: the moment.
    """
    low, high = 0, 1 << DEPTH
    place = round(min(max(progress, 0.0), 1.0) * high)

    def kept(a: int, b: int) -> float:
        return math.exp(spent(a / (1 << DEPTH)) - spent(b / (1 << DEPTH)))

    left = draw(low)
    whole = kept(low, high)
    right = whole * left + math.sqrt(1.0 - whole**2) * draw(high)
    while low < place < high:
        middle = (low + high) // 2
        a, b = kept(low, middle), kept(middle, high)
        rest = 1.0 - (a * b) ** 2
        if rest <= 0.0:
            at = left  # nothing drifts in between
        else:
            mean = (a * (1.0 - b**2) * left + b * (1.0 - a**2) * right) / rest
            at = mean + math.sqrt((1.0 - a**2) * (1.0 - b**2) / rest) * draw(middle)
        low, left, high, right = (
            (middle, at, high, right) if place >= middle else (low, left, middle, at)
        )
    return left if place == low else right
