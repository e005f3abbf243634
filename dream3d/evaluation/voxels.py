"""Which points of a grid lie inside a closed mesh, by counting how often a vertical line crosses it."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.kernels import kernel

# Columns are moved by a fraction of a cell no mesh is aligned to, so that no line runs through an edge or a vertex.
_OFF_GRID = (3.1e-5, 1.7e-5)


def inside_mesh(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    resolution: int,
    extent: float = 1.1,
) -> Bool[Tensor, " N"]:
    """Which of `geometry.grid_points(resolution, extent)` are inside a closed mesh (even-odd rule).

    Args:
        vertices: in the world.
        faces: any orientation; every edge shared by two faces.
        resolution: cells per side.
        extent: half-side of the grid's cube.
    """
    crossings = np.zeros((resolution,) * 3, dtype=np.uint8)
    step = 2.0 * extent / resolution
    cells = (np.asarray(vertices, dtype=np.float64) + extent) / step - 0.5
    _toggle(cells, np.asarray(faces, dtype=np.int64), crossings)
    inside = np.bitwise_xor.accumulate(crossings, axis=1).astype(bool)
    return torch.from_numpy(inside.reshape(-1))


@kernel(nogil=True)
def _toggle(cells, faces, crossings):
    """For each face and each column it covers, marks the first cell above the crossing; `cells` in grid units."""
    size = crossings.shape[0]
    for f in range(len(faces)):
        a, b, c = cells[faces[f, 0]], cells[faces[f, 1]], cells[faces[f, 2]]
        area = (b[0] - a[0]) * (c[2] - a[2]) - (c[0] - a[0]) * (b[2] - a[2])
        if area == 0.0:
            continue
        first_x = max(0, math.ceil(min(a[0], b[0], c[0]) - 1.0))
        last_x = min(size - 1, math.floor(max(a[0], b[0], c[0])))
        first_z = max(0, math.ceil(min(a[2], b[2], c[2]) - 1.0))
        last_z = min(size - 1, math.floor(max(a[2], b[2], c[2])))
        for i in range(first_x, last_x + 1):
            for k in range(first_z, last_z + 1):
                x, z = i + _OFF_GRID[0], k + _OFF_GRID[1]
                v = ((x - a[0]) * (c[2] - a[2]) - (c[0] - a[0]) * (z - a[2])) / area
                w = ((b[0] - a[0]) * (z - a[2]) - (x - a[0]) * (b[2] - a[2])) / area
                if v < 0.0 or w < 0.0 or v + w > 1.0:
                    continue
                height = a[1] + v * (b[1] - a[1]) + w * (c[1] - a[1])
                cell = max(0, math.ceil(height))
                if cell < size:
                    crossings[i, cell, k] ^= 1
