"""What keeps a surface that pictures alone determine smooth: terms on its mesh and on the distances it comes from."""

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.mesh_data import MeshEdges

NEAR_CELLS = 2.0
"""Distances are asked to be distances this many cells around the surface; further away they decide nothing."""


def normal_consistency(vertices: Float[Tensor, "V 3"], edges: MeshEdges) -> Float[Tensor, ""]:
    """Mean of 1 - cos of the angle between the two triangles at an edge; 0 where all is flat.

    Args:
        vertices: positions.
        edges: of the mesh; edges with other than two triangles do not count.
    """
    pair = edges.face_counts == 2
    first = edges.start[:-1][pair]
    a, b = vertices[edges.ends[pair]].unbind(1)
    along = b - a
    left, right = vertices[edges.opposite[first]] - a, vertices[edges.opposite[first + 1]] - a
    # Both normals by the same edge: on a flat surface the opposite corners lie on opposite sides.
    n_left, n_right = torch.linalg.cross(along, left), torch.linalg.cross(right, along)
    dot = (n_left * n_right).sum(-1)
    length = n_left.square().sum(-1) * n_right.square().sum(-1)
    # Slivers have no direction: with a floor under their area they count little and their gradient stays bounded.
    return (1.0 - dot / (length + 1e-20).sqrt()).mean() if len(dot) else dot.sum()


def laplacian(vertices: Float[Tensor, "V 3"], edges: MeshEdges) -> Float[Tensor, ""]:
    """Mean squared distance of a vertex to the mean of its neighbours (the uniform Laplacian)."""
    a, b = edges.ends.unbind(1)
    both = torch.cat([a, b])
    total = torch.zeros_like(vertices).index_add(0, both, vertices[torch.cat([b, a])])
    count = torch.bincount(both, minlength=len(vertices)).clamp_min(1)
    return (total / count[:, None] - vertices).square().sum(-1).mean()


def eikonal(sdf: Float[Tensor, "S S S"], cell: float) -> Float[Tensor, ""]:
    """Mean of (|gradient| - 1)^2 over the cells near the surface (Gropp et al. 2020, eq. 2, by differences)."""
    base = sdf[:-1, :-1, :-1]
    near = base.detach().abs() < NEAR_CELLS * cell
    # The border is held outside by force; its distances are not what was learned.
    near[[0, -1]] = near[:, [0, -1]] = near[:, :, [0, -1]] = False
    steps = (sdf[1:, :-1, :-1], sdf[:-1, 1:, :-1], sdf[:-1, :-1, 1:])
    squared = sum(((step[near] - base[near]) / cell).square() for step in steps)
    if not isinstance(squared, Tensor) or not near.any():
        return sdf.sum() * 0.0
    return ((squared + 1e-12).sqrt() - 1.0).square().mean()
