"""Marching tetrahedra (Doi and Koide 1991; as a layer: DMTet, Shen et al. 2021, eq. 3): distances to triangles.

The cube is cut into R^3 cells and each cell into the six tetrahedra of Kuhn's subdivision, which fit their neighbours'.
Where an edge of a tetrahedron changes sign lies a vertex, at the zero of the line between its ends:

    v = (p_a s_b - p_b s_a) / (s_b - s_a)

so vertices are differentiable in distances and grid positions; which edges change sign is not. Only cells that change
sign are looked at, hence the cost grows with the surface.
"""

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.errors import ConfigError

FINEST = 512
_CORNERS = tuple(itertools.product((0, 1), repeat=3))
_EDGES = tuple(itertools.combinations(range(4), 2))


def _kuhn() -> Int[Tensor, "6 4"]:
    """Corners (positions in _CORNERS) of a cell's tetrahedra; each has a positive determinant."""
    tets = []
    for order in itertools.permutations(range(3)):
        corner, path = [0, 0, 0], [0]
        for axis in order:
            corner[axis] = 1
            path.append(_CORNERS.index((corner[0], corner[1], corner[2])))
        points = torch.tensor([_CORNERS[i] for i in path], dtype=torch.float64)
        if torch.det(points[1:] - points[0]) < 0:
            path[2], path[3] = path[3], path[2]
        tets.append(path)
    return torch.tensor(tets)


def _triangles() -> Int[Tensor, "16 2 3"]:
    """Up to two triangles for each set of inside corners (bit i: corner i), as positions in _EDGES; -1 is none.

    Found rather than listed: the triangles span the middles of the edges that change sign, counter-clockwise as seen
    from the outside corners of a tetrahedron with positive determinant.
    """
    table = torch.full((16, 2, 3), -1, dtype=torch.long)
    points = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
    for code in range(1, 15):
        inside = [i for i in range(4) if code >> i & 1]
        outside = [i for i in range(4) if i not in inside]
        # Neighbours around the cut share a corner; of four edges, a-c, a-d, b-d, b-c go around.
        if len(inside) == 2:
            (a, b), (c, d) = inside, outside
            around = [(a, c), (a, d), (b, d), (b, c)]
        else:
            around = [(a, c) for a in inside for c in outside]
        loop = [_EDGES.index((min(e), max(e))) for e in around]
        middle = torch.stack([points[list(_EDGES[e])].mean(0) for e in loop])
        normal = torch.linalg.cross(middle[1] - middle[0], middle[2] - middle[0])
        if normal @ (points[outside].mean(0) - points[inside].mean(0)) < 0:
            loop.reverse()
        for index in range(len(loop) - 2):
            table[code, index] = torch.tensor([loop[0], loop[index + 1], loop[index + 2]])
    return table


TETS = _kuhn()
TRIANGLES = _triangles()


def grid_vertices(resolution: int, extent: float = 1.0) -> Float[Tensor, "N 3"]:
    """The (R + 1)^3 corners of the cells of [-extent, extent]^3, x slowest.

    Raises:
        ConfigError: absurd resolution.
    """
    if not 2 <= resolution <= FINEST:
        raise ConfigError(f"tet resolution is {resolution}; choose a value from 2 to {FINEST}")
    axis = torch.linspace(-extent, extent, resolution + 1)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)


def close_border(sdf: Float[Tensor, "S S S"]) -> Float[Tensor, "S S S"]:
    """The same distances with the grid's border outside, so that every surface is closed."""
    border = torch.ones_like(sdf, dtype=torch.bool)
    border[1:-1, 1:-1, 1:-1] = False
    return torch.where(border, sdf.abs() + 1e-3, sdf)


def marching_tets(
    sdf: Float[Tensor, "S S S"], vertices: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    """The zero level of `sdf`, closed wherever it does not leave the grid.

    Args:
        sdf: signed distance at the grid's corners [x, y, z], negative inside. Zero counts as outside.
        vertices: positions of the same corners, x slowest; they may be moved by less than half a cell.

    Returns:
        Positions, differentiable in both arguments, and triangles, counter-clockwise from outside. Both are empty where
        nothing changes sign.

    Raises:
        ConfigError: shapes that do not belong together.
    """
    side = sdf.shape[0]
    if sdf.shape != (side,) * 3 or len(vertices) != side**3 or side < 2:
        raise ConfigError(
            f"distances {list(sdf.shape)} and vertices {list(vertices.shape)} do not belong together; expected "
            "[S, S, S] and [S^3, 3] with S of at least 2"
        )
    tets = _crossing_tets(sdf.detach() < 0.0)
    values = sdf.reshape(-1)
    bits = torch.tensor([1, 2, 4, 8], device=sdf.device)
    code = ((values.detach()[tets] < 0.0) * bits).sum(dim=1)
    local = TRIANGLES.to(sdf.device)[code]  # [T, 2, 3]
    used = local[..., 0] >= 0
    owner = torch.arange(len(tets), device=sdf.device)[:, None].expand_as(used)[used]
    edge = torch.tensor(_EDGES, device=sdf.device)[local[used]]  # [F, 3, 2]
    ends = tets[owner[:, None, None], edge].sort(dim=-1).values
    key, corner = torch.unique(ends[..., 0] * side**3 + ends[..., 1], return_inverse=True)
    a, b = key // side**3, key % side**3
    s_a, s_b = values[a, None], values[b, None]
    positions = (vertices[a] * s_b - vertices[b] * s_a) / (s_b - s_a)
    return positions, corner.reshape(-1, 3)


def _crossing_tets(inside: Tensor) -> Int[Tensor, "T 4"]:
    """Corners, as flat indices, of the tetrahedra of cells in which `inside` [S, S, S] is not everywhere the same."""
    side = inside.shape[0]
    parts = [inside[x : side - 1 + x, y : side - 1 + y, z : side - 1 + z] for x, y, z in _CORNERS]
    some, all_ = parts[0], parts[0]
    for part in parts[1:]:
        some, all_ = some | part, all_ & part
    cell = (some & ~all_).nonzero()
    # Sums, not products of matrices, which CUDA lacks for integers.
    strides = torch.tensor([side * side, side, 1], device=inside.device)
    steps = (torch.tensor(_CORNERS, device=inside.device) * strides).sum(dim=1)
    corners = (cell * strides).sum(dim=1)[:, None] + steps
    tets = corners[:, TETS.to(inside.device)].reshape(-1, 4)
    occupied = inside.reshape(-1)[tets].sum(dim=1)
    return tets[(occupied > 0) & (occupied < 4)]
