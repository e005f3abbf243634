"""Where a field may hold something: a coarse grid that lets rays skip empty space (Mueller et al. 2022, appendix C)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers.volume_data import VolumeField

POINTS_AT_ONCE = 65_536


def cell_points(
    cells: int, like: Tensor, generator: torch.Generator | None = None
) -> Float[Tensor, "G3 3"]:
    """One point in each of cells^3 cells of [-1, 1]^3, x slowest: the centres, or drawn by `generator`."""
    axis = torch.arange(cells)
    corner = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    inside = (
        torch.tensor(0.5) if generator is None else torch.rand(len(corner), 3, generator=generator)
    )
    return ((corner + inside) * (2.0 / cells) - 1.0).to(like)


@torch.no_grad()
def sampled_density(
    field: VolumeField, points: Float[Tensor, "N 3"], backend: str
) -> Float[Tensor, " N"]:
    """The field's density, a bounded number of points at a time."""
    return torch.cat([field.density(some, backend) for some in points.split(POINTS_AT_ONCE)])


def measure_occupancy(
    field: VolumeField, cells: int, backend: str, generator: torch.Generator | None = None
) -> Float[Tensor, "G G G"]:
    """Density at one point of each cell [x, y, z]."""
    points = cell_points(cells, field.like, generator)
    return sampled_density(field, points, backend).reshape(cells, cells, cells)


def occupied_cells(
    density: Float[Tensor, "G G G"], step: float, least: float
) -> Bool[Tensor, "G G G"]:
    """Cells in which one step of a ray is at least `least` opaque, and their neighbours, into which things may grow."""
    solid = 1.0 - torch.exp(-density * step) >= least
    grown = torch.nn.functional.max_pool3d(solid[None, None].float(), 3, stride=1, padding=1)
    return grown[0, 0] > 0.5
