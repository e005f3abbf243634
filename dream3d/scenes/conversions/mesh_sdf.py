"""Mesh -> signed distance on a grid: exact near the surface, sound in sign for meshes with small holes."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import prange
from scipy import ndimage

from dream3d.errors import AssetError, ConfigError
from dream3d.kernels import kernel, kernel_threads

LEAST = 1e-3
"""Distances in cells are kept off zero by this: a surface exactly through a corner makes triangles without area."""
BAND = 3.0
"""Cells around the surface in which the distance is exact; beyond, it is that of the nearest corner across."""
FINEST = 512
# A ray through an edge would count twice: rays pass beside the grid's lines, by odd shares of a cell.
_ASIDE = (1.370e-4, 2.113e-4)


def mesh_to_sdf(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    resolution: int,
    extent: float = 1.0,
) -> Float[np.ndarray, "S S S"]:
    """Signed distance at the (R + 1)^3 corners of the cells of [-extent, extent]^3, x slowest, negative inside.

    What is inside is asked along all three axes by counting crossings, and the majority decides: a closed mesh is met
    exactly, one with small holes nearly.

    Args:
        vertices: positions.
        faces: triangles; their orientation does not matter.
        resolution: cells per side, 2 to 512.
        extent: half-side of the cube.

    Raises:
        AssetError: no faces, or positions that are not finite.
        ConfigError: absurd resolution.
    """
    if not 2 <= resolution <= FINEST:
        raise ConfigError(f"SDF resolution is {resolution}; choose a value from 2 to {FINEST}")
    if len(faces) == 0:
        raise AssetError("the mesh is empty, so there is no inside; give one with faces")
    corners = np.ascontiguousarray(vertices[faces], np.float64)
    if not np.isfinite(corners).all():
        raise AssetError("the mesh has vertices that are not finite; repair it first")
    cell = 2.0 * extent / resolution
    local = (corners + extent) / cell  # in cells
    inside = _inside(local, resolution + 1)
    distance = np.full((resolution + 1,) * 3, np.inf)
    with kernel_threads():
        _near(local, BAND, distance)
    distance = np.sqrt(distance)
    far_in, far_out = (ndimage.distance_transform_edt(part) for part in (inside, ~inside))
    across = np.asarray(far_in) + np.asarray(far_out)  # one of the two is 0 everywhere
    distance = np.where(np.isfinite(distance), distance, np.maximum(across, BAND))
    distance = np.maximum(distance, LEAST)
    return (np.where(inside, -distance, distance) * cell).astype(np.float32)


def _inside(local: Float[np.ndarray, "F 3 3"], side: int) -> Bool[np.ndarray, "S S S"]:
    """Which corners an odd number of faces lies below of, by majority over the three axes."""
    votes = np.zeros((side,) * 3, np.uint8)
    for axis in range(3):
        order = [axis, (axis + 1) % 3, (axis + 2) % 3]
        flips = np.zeros((side + 1, side, side), np.uint8)
        _crossings(np.ascontiguousarray(local[..., order]), _ASIDE[0], _ASIDE[1], flips)
        odd = np.bitwise_xor.accumulate(flips[:-1], axis=0)
        votes += odd.transpose([order.index(0), order.index(1), order.index(2)])
    return votes >= 2


@kernel()
def _crossings(triangles, aside_y, aside_z, flips):
    """Toggle flips[i, j, k] where i is the first corner of line (j, k) beyond a triangle."""
    side = flips.shape[1]
    for f in range(len(triangles)):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        area = (b[1] - a[1]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[1] - a[1])
        if area == 0.0:
            continue
        low_j = max(int(np.ceil(min(a[1], b[1], c[1]) - aside_y)), 0)
        high_j = min(int(np.floor(max(a[1], b[1], c[1]) - aside_y)), side - 1)
        low_k = max(int(np.ceil(min(a[2], b[2], c[2]) - aside_z)), 0)
        high_k = min(int(np.floor(max(a[2], b[2], c[2]) - aside_z)), side - 1)
        for j in range(low_j, high_j + 1):
            for k in range(low_k, high_k + 1):
                y, z = j + aside_y, k + aside_z
                u = ((b[1] - y) * (c[2] - z) - (b[2] - z) * (c[1] - y)) / area
                v = ((c[1] - y) * (a[2] - z) - (c[2] - z) * (a[1] - y)) / area
                w = 1.0 - u - v
                if u < 0.0 or v < 0.0 or w < 0.0:
                    continue
                x = u * a[0] + v * b[0] + w * c[0]
                i = min(max(int(np.floor(x)) + 1, 0), side)
                flips[i, j, k] ^= 1


@kernel(parallel=True)
def _near(triangles, band, distance):
    """Squared distance in cells to the nearest triangle, at corners within `band` of one; workers share the x axis."""
    side = distance.shape[0]
    for i in prange(side):
        for f in range(len(triangles)):
            a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
            if i < min(a[0], b[0], c[0]) - band or i > max(a[0], b[0], c[0]) + band:
                continue
            low_j = max(int(np.ceil(min(a[1], b[1], c[1]) - band)), 0)
            high_j = min(int(np.floor(max(a[1], b[1], c[1]) + band)), side - 1)
            low_k = max(int(np.ceil(min(a[2], b[2], c[2]) - band)), 0)
            high_k = min(int(np.floor(max(a[2], b[2], c[2]) + band)), side - 1)
            for j in range(low_j, high_j + 1):
                for k in range(low_k, high_k + 1):
                    found = _to_triangle(float(i), float(j), float(k), a, b, c)
                    if found <= band * band and found < distance[i, j, k]:
                        distance[i, j, k] = found


@kernel()
def _to_triangle(x, y, z, a, b, c):
    """Squared distance of a point to a triangle (Ericson 2005, section 5.1.5)."""
    abx, aby, abz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    acx, acy, acz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    px, py, pz = x - a[0], y - a[1], z - a[2]
    d1 = abx * px + aby * py + abz * pz
    d2 = acx * px + acy * py + acz * pz
    bpx, bpy, bpz = x - b[0], y - b[1], z - b[2]
    d3 = abx * bpx + aby * bpy + abz * bpz
    d4 = acx * bpx + acy * bpy + acz * bpz
    cpx, cpy, cpz = x - c[0], y - c[1], z - c[2]
    d5 = abx * cpx + aby * cpy + abz * cpz
    d6 = acx * cpx + acy * cpy + acz * cpz
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0.0 and d2 <= 0.0:
        v, w = 0.0, 0.0
    elif d3 >= 0.0 and d4 <= d3:
        v, w = 1.0, 0.0
    elif d6 >= 0.0 and d5 <= d6:
        v, w = 0.0, 1.0
    elif vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        v, w = d1 / (d1 - d3), 0.0
    elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        v, w = 0.0, d2 / (d2 - d6)
    elif va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
        w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        v = 1.0 - w
    else:
        total = va + vb + vc
        v, w = (vb / total, vc / total) if total > 0.0 else (0.0, 0.0)
    qx, qy, qz = px - v * abx - w * acx, py - v * aby - w * acy, pz - v * abz - w * acz
    return qx * qx + qy * qy + qz * qz
