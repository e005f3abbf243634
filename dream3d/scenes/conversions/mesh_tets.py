"""Mesh -> deformable tetrahedral grid: its signed distance at the corners, its colours in a texture field."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import AssetError
from dream3d.scenes.conversions.mesh_sdf import mesh_to_sdf
from dream3d.scenes.conversions.mesh_splats import surface_samples
from dream3d.scenes.surface import ColoredMesh
from dream3d.scenes.texture_field import TextureField

COLOR_STEPS = 300
COLOR_POINTS = 4096


def mesh_to_grid(mesh: ColoredMesh, resolution: int, extent: float) -> Float[Tensor, "S S S"]:
    """Signed distance at the corners of the grid.

    Raises:
        AssetError: the mesh encloses no corner: it is empty, open, or smaller than a cell.
    """
    sdf = mesh_to_sdf(
        np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces), resolution, extent
    )
    if not (sdf < 0.0).any():
        raise AssetError(
            f"the mesh encloses no corner of a grid of {resolution} cells a side; close its holes, or choose a finer "
            "grid (scene.resolution)"
        )
    return torch.from_numpy(sdf)


def fit_colors(
    field: TextureField,
    mesh: ColoredMesh,
    generator: torch.Generator,
    backend: str = "auto",
    steps: int = COLOR_STEPS,
) -> float:
    """Teach a texture field the colours on a mesh; returns the last step's mean squared error.

    Args:
        field: changed in place.
        mesh: colours at its vertices.
        generator: draws surface points.
        backend: of the field's encoding.
        steps: of Adam, on 4096 new points each.
    """
    table, net = list(field.encoding.parameters()), list(field.head.parameters())
    optimizer = torch.optim.Adam(
        [{"params": table, "lr": 0.02}, {"params": net, "lr": 0.005}], betas=(0.9, 0.99), eps=1e-15
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    error = torch.zeros(())
    with torch.enable_grad():
        for step in range(steps):
            points, _, colors, _ = surface_samples(mesh, COLOR_POINTS, generator)
            error = (field(points.to(field.like), backend) - colors.to(field.like)).square().mean()
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1.0 - 0.9 * step / steps)
            optimizer.step()
    return error.item()
