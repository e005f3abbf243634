"""The readable reference: marching and compositing in plain torch, by autograd, for any float type and device."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from renderers.volume_data import NEAR, RaySamples

FLATTEST = 1e-9
"""A smaller component of a direction counts as this much, so that no ray is exactly parallel to a face."""


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupied: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, " R"],
) -> RaySamples:
    """Samples where rays cross occupied cells; see `renderers.volume.march`."""
    slope = torch.where(directions.abs() < FLATTEST, FLATTEST, directions)
    one, other = (-1.0 - origins) / slope, (1.0 - origins) / slope
    enter = torch.minimum(one, other).amax(dim=-1).clamp_min(NEAR)
    leave = torch.maximum(one, other).amin(dim=-1)
    count = ((leave - enter) / step).ceil().clamp_min(0).long()

    index = torch.arange(int(count.max()) if len(count) else 0, device=origins.device)
    begin = enter[:, None] + index.to(origins) * step  # [R, S]
    length = (leave[:, None] - begin).clamp_max(step)
    t = begin + jitter[:, None] * length
    points = origins[:, None] + t[..., None] * directions[:, None]
    grid = occupied.shape[0]
    cell = ((points + 1.0) * (0.5 * grid)).long().clamp(0, grid - 1)
    kept = (index < count[:, None]) & (length > 0) & occupied[tuple(cell.unbind(dim=-1))]

    start = torch.zeros(len(origins) + 1, dtype=torch.long, device=origins.device)
    start[1:] = kept.sum(dim=1).cumsum(dim=0)
    return RaySamples(points[kept], t[kept], length[kept], kept.nonzero()[:, 0], start)


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """Features and coverage of every ray; see `renderers.volume.composite`."""
    count = start[1:] - start[:-1]
    rays = len(count)
    ray = torch.repeat_interleave(torch.arange(rays, device=start.device), count)
    slot = torch.arange(len(density), device=start.device) - start[ray]
    table = density.new_zeros(rays, int(count.max()) if rays else 0)
    depth = table.index_put((ray, slot), density * length)  # optical depth of each interval
    before = (
        torch.nn.functional.pad(depth[:, :-1].cumsum(dim=1), (1, 0)) if depth.numel() else depth
    )
    ahead = torch.exp(-before)
    weight = (ahead * -torch.expm1(-depth))[ray, slot]
    image = density.new_zeros(rays, features.shape[1])
    image = image.index_add(0, ray, weight[:, None] * features)
    return image, density.new_zeros(rays).index_add(0, ray, weight)
