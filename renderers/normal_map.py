"""Normal maps: a picture says how far the surface's normal leans, in glTF 2.0's tangent space.

The space's x axis follows growing u, its y axis the picture's upward direction (against v, which grows with the rows),
its z axis the smooth outward normal. A slope (a, b) leans the normal as the surface z = -(a x + b y) would:

    n' = (n + a tangent + b bitangent) / sqrt(1 + a^2 + b^2)

so that no slope at all leaves n as it is, to the bit. Tangents are those of the texture coordinates, averaged around
every vertex; charts that show the picture mirrored have their own.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from renderers.mesh import interpolate
from renderers.mesh_data import MeshData


@dataclass(frozen=True)
class Tangents:
    """Directions of growing u at the texture coordinates of a mesh.

    Attributes:
        values: unit, two rows for each of the T texture coordinates: row t as faces see it that show the picture as it
            is, row T + t as mirrored faces do; 0 where the coordinates of the faces around have no area.
        corners: rows of `values` at the corners of every face.
        mirrored: whether the face shows the picture mirrored, seen from outside.
    """

    values: Float[Tensor, "T2 3"]
    corners: Int[Tensor, "F 3"]
    mirrored: Bool[Tensor, " F"]


def uv_tangents(mesh: MeshData) -> Tangents:
    """Tangents of a mesh with texture coordinates; gradients reach the vertices and the coordinates."""
    assert mesh.uvs is not None
    rows = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    u, v = (mesh.uvs[rows][:, 1:] - mesh.uvs[rows][:, :1]).unbind(-1)
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    # dp/du times the area in the picture: what is large there counts more, what has none not at all.
    along = ((b - a) * v[:, 1:] - (c - a) * v[:, :1]) * area.detach().sign()[:, None]
    # v grows downward, so a face that runs counter-clockwise on the surface runs clockwise in an upright picture.
    mirrored = area.detach() > 0
    corners = rows + len(mesh.uvs) * mirrored[:, None]
    total = mesh.vertices.new_zeros(2 * len(mesh.uvs), 3)
    total = total.index_add(0, corners.reshape(-1), along.repeat_interleave(3, dim=0))
    return Tangents(_unit_or_zero(total), corners, mirrored)


def _unit_or_zero(vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Vectors of length one; what has no length stays zero and gets no gradient."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    some = squared > 0
    return torch.where(some, vectors * torch.where(some, squared, 1.0).rsqrt(), 0.0)


def tangent_frame(
    mesh: MeshData,
    face: Int[Tensor, " N"],
    barycentric: Float[Tensor, "N 3"],
    normal: Float[Tensor, "N 3"],
    backend: str = "auto",
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Unit tangents and bitangents at surface points, at right angles to `normal`.

    Args:
        mesh: with texture coordinates.
        face: which triangles the points lie on.
        barycentric: where on them.
        normal: unit, outward.
        backend: see `renderers.mesh.interpolate`.
    """
    tangents = uv_tangents(mesh)
    mixed = interpolate(tangents.values, tangents.corners, face, barycentric, backend)
    tangent = _unit_or_zero(in_plane(mixed, normal))
    up = torch.linalg.cross(normal, tangent)
    return tangent, torch.where(tangents.mirrored[face][:, None], -up, up)


def in_plane(vectors: Float[Tensor, "N 3"], normal: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """The parts of vectors at right angles to unit normals."""
    return vectors - (vectors * normal).sum(dim=-1, keepdim=True) * normal


def leaning(normal: Float[Tensor, "N 3"], slope: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Unit normals leaning by slopes at right angles to them (1: by 45 degrees); no slope changes nothing."""
    return (normal + slope) / (1.0 + slope.square().sum(dim=-1, keepdim=True)).sqrt()


def encoded(slope: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 3"]:
    """Slopes as the linear colours of a normal map in [0, 1]: red right, green up, blue outward."""
    upright = torch.cat([slope, torch.ones_like(slope[..., :1])], dim=-1)
    return 0.5 + 0.5 * upright / upright.square().sum(dim=-1, keepdim=True).sqrt()
