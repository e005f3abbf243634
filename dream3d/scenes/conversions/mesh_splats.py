"""Mesh -> splats: thin discs spread over the surface, as wide as their spacing."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import AssetError, ConfigError
from dream3d.scenes.surface import ColoredMesh
from renderers.splats import SplatData
from renderers.splats_sh import rgb_to_sh

THICKNESS = 0.15
"""Of a disc, relative to its radius."""
RADIUS = 0.75
"""Standard deviation of a disc relative to the mean spacing: neighbours overlap without holes between them."""


def mesh_to_splats(
    mesh: ColoredMesh, count: int, generator: torch.Generator, opacity: float = 0.9
) -> SplatData:
    """`count` splats at random on the surface, the same number per area everywhere, coloured as it is.

    Args:
        mesh: faces with colours at their corners.
        count: splats, at least 1.
        generator: places them.
        opacity: of each, in (0, 1).

    Raises:
        ConfigError: no splats, or an opacity that is not one.
        AssetError: the mesh has no surface.
    """
    if count < 1 or not 0.0 < opacity < 1.0:
        raise ConfigError(
            f"count is {count} and opacity {opacity}; choose at least 1 splat and an opacity in (0, 1)"
        )
    means, normals, colors, area = surface_samples(mesh, count, generator)
    radius = RADIUS * math.sqrt(area / count)
    scales = torch.tensor([radius, radius, THICKNESS * radius]).log().expand(count, 3).clone()
    logits = torch.full((count,), math.log(opacity / (1.0 - opacity)))
    sh = rgb_to_sh(colors.clamp(0.0, 1.0))[:, None]
    return SplatData(means, scales, facing(normals), logits, sh=sh)


def surface_samples(
    mesh: ColoredMesh, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"], Float[Tensor, "N 3"], float]:
    """Points drawn evenly from the surface, with unit normals and colours, and the whole area.

    Raises:
        AssetError: the mesh has no surface.
    """
    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))
    colors = torch.from_numpy(np.asarray(mesh.colors, np.float32))
    faces = torch.from_numpy(np.asarray(mesh.faces, np.int64))
    corners = vertices[faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * cross.norm(dim=-1)
    total = area.sum().item()
    if not 0.0 < total < math.inf:
        raise AssetError(f"the mesh has a surface of {total:g}, from which nothing can be drawn")
    # By inverting the cumulated area: torch.multinomial takes at most 2^24 faces.
    place = torch.rand(count, generator=generator, dtype=torch.float64) * total
    face = torch.searchsorted(area.double().cumsum(0), place).clamp(max=len(faces) - 1)
    u, v = torch.rand(2, count, 1, generator=generator)
    root = u.sqrt()
    weights = torch.stack([1.0 - root, root * (1.0 - v), root * v], dim=1)
    points = (weights * corners[face]).sum(dim=1)
    normals = torch.nn.functional.normalize(cross[face], dim=-1)
    return points, normals, (weights * colors[faces[face]]).sum(dim=1), total


def facing(normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4"]:
    """Unit quaternions (wxyz) that turn +Z onto each unit normal by the shortest way."""
    x, y, z = normals.unbind(-1)
    # Half-way rotation between +Z and n: (1 + n_z, -n_y, n_x, 0); straight down has no shortest way.
    down = z < -0.9999
    w = torch.where(down, torch.zeros_like(z), 1.0 + z)
    i = torch.where(down, torch.ones_like(z), -y)
    j = torch.where(down, torch.zeros_like(z), x)
    return torch.nn.functional.normalize(torch.stack([w, i, j, torch.zeros_like(w)], -1), dim=-1)
