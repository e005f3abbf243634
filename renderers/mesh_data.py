"""Triangle meshes as data: what mesh renderers read, which surfaces share an edge, and the limits of both."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.errors import ConfigError, NumericsError

LARGEST_TEXTURE = 8192
"""Texels a side a texture may have."""
NEAR = 0.05
"""Surface nearer to the camera plane than this (world units) is not drawn."""
NUDGE = 1e-3
"""How far inside an outline (pixels) one looks which of its faces is the visible one."""


@dataclass(frozen=True)
class MeshData:
    """A triangle mesh with whatever its surface carries.

    Corners that coincide should be one vertex: an edge with a face on one side only is an outline. Seams of a texture
    need no double vertices, because texture coordinates have faces of their own.

    Attributes:
        vertices: positions in the world.
        faces: vertex indices, counter-clockwise from outside where there is an outside; both sides are drawn.
        features: any C channels per vertex.
        uvs: texture coordinates. (0, 0) is the outer corner of the texture's first row and column, v grows with the
            rows (glTF's convention), so that texel (row i, column j) of R rows, S columns lies at ((j + .5) / S,
            (i + .5) / R).
        uv_faces: rows of `uvs` at the corners of every face; None: those of `faces`.
        texture: C channels; colours are sRGB-encoded in [0, 1].
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    features: Float[Tensor, "V C"] | None = None
    uvs: Float[Tensor, "T 2"] | None = None
    uv_faces: Int[Tensor, "F 3"] | None = None
    texture: Float[Tensor, "R S D"] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def detach(self) -> "MeshData":
        """The same values without gradient history."""
        return MeshData(**{name: value.detach() for name, value in self.tensors().items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "MeshData":
        """The same mesh on another device (and with another float type)."""
        return MeshData(
            **{
                name: value.to(device, dtype if value.is_floating_point() else None)
                for name, value in self.tensors().items()
            }
        )


@dataclass(frozen=True)
class Fragments:
    """What every pixel's centre shows of a mesh.

    Attributes:
        face: which triangle; -1 is none.
        barycentric: weights of its three corners, corrected for perspective; 0 where there is none.
        depth: z-depth; 0 where there is none.
    """

    face: Int[Tensor, "B H W"]
    barycentric: Float[Tensor, "B H W 3"]
    depth: Float[Tensor, "B H W 1"]


@dataclass(frozen=True)
class MeshEdges:
    """The E edges of a mesh, and the faces around each.

    Attributes:
        ends: vertices of every edge, the smaller index first.
        start: edge e owns the entries start[e] to start[e + 1] of the other two.
        face: faces that share the edge: one at a border, two inside, more where surfaces fork.
        opposite: the corner of that face that is not on the edge.
    """

    ends: Int[Tensor, "E 2"]
    start: Int[Tensor, " E1"]
    face: Int[Tensor, " M"]
    opposite: Int[Tensor, " M"]

    @property
    def face_counts(self) -> Int[Tensor, " E"]:
        """How many faces share each edge."""
        return self.start.diff()


def mesh_edges(faces: Int[Tensor, "F 3"]) -> MeshEdges:
    """The edges of a mesh; changes only when the faces do."""
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    opposite = torch.cat([faces[:, 2], faces[:, 0], faces[:, 1]])
    face = torch.arange(len(faces), device=faces.device).repeat(3)
    real = ends[:, 0] != ends[:, 1]
    ends, opposite, face = ends[real], opposite[real], face[real]
    rows = int(faces.max()) + 1 if faces.numel() else 1
    key, order = (ends[:, 0] * rows + ends[:, 1]).sort(stable=True)
    unique, counts = torch.unique_consecutive(key, return_counts=True)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    both = torch.stack([unique // rows, unique % rows], dim=1)
    return MeshEdges(both, start, face[order], opposite[order])


def check_manifold(edges: MeshEdges, what: str) -> None:
    """Refuse a surface that forks: more than two faces around an edge.

    Args:
        edges: of the mesh.
        what: needs a manifold, for the message.

    Raises:
        ConfigError: it forks.
    """
    forked = int((edges.face_counts > 2).sum())
    if forked:
        raise ConfigError(
            f"{what} needs a surface with at most two faces at an edge; {forked} of {len(edges.ends)} edges have "
            "more. Repair the mesh (remove inner walls and doubled faces)"
        )


def face_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Outward normals as long as twice the faces' areas."""
    a, b, c = vertices[faces].unbind(dim=1)
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "V 3"]:
    """Unit normals: the mean of the adjoining faces', weighted by area; 0 for a vertex no face gives a direction."""
    normals = face_normals(vertices, faces)
    total = torch.zeros_like(vertices)
    total = total.index_add(0, faces.reshape(-1), normals.repeat_interleave(3, dim=0))
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-20)


def _check_shapes(mesh: MeshData) -> None:
    expected = {"vertices": "[V, 3]", "faces": "[F, 3]", "features": "[V, C]", "uvs": "[T, 2]"}
    expected |= {"uv_faces": "[F, 3]", "texture": "[R, S, C]"}
    v, f = len(mesh.vertices), len(mesh.faces)
    fits = {
        "vertices": lambda s: len(s) == 2 and s[1] == 3,
        "faces": lambda s: len(s) == 2 and s[1] == 3,
        "features": lambda s: len(s) == 2 and s[0] == v,
        "uvs": lambda s: len(s) == 2 and s[1] == 2,
        "uv_faces": lambda s: tuple(s) == (f, 3),
        "texture": lambda s: len(s) == 3 and 0 < s[0] <= LARGEST_TEXTURE >= s[1] > 0,
    }
    for name, value in mesh.tensors().items():
        if not fits[name](value.shape):
            more = f" of at most {LARGEST_TEXTURE} rows and columns" if name == "texture" else ""
            raise ConfigError(
                f"mesh {name} has shape {list(value.shape)}; expected {expected[name]}{more} with V = {v} "
                f"vertices and F = {f} faces"
            )
        integer = name.endswith("faces")
        if value.device != mesh.vertices.device or (
            value.dtype != (torch.int64 if integer else mesh.vertices.dtype)
        ):
            wanted = torch.int64 if integer else mesh.vertices.dtype
            raise ConfigError(
                f"mesh {name} is {value.dtype} on {value.device}; with vertices that are {mesh.vertices.dtype} on "
                f"{mesh.vertices.device} it must be {wanted} there"
            )


def check_mesh(mesh: MeshData) -> None:
    """Refuse a mesh that cannot be drawn.

    Raises:
        ConfigError: wrong shapes, types or devices; nothing to draw; a face names a vertex that does not exist;
            incomplete texture data.
        NumericsError: NaN or infinity.
    """
    if not mesh.vertices.is_floating_point():
        raise ConfigError(f"mesh vertices are {mesh.vertices.dtype}; convert them to float32")
    _check_shapes(mesh)
    if len(mesh.faces) == 0:
        raise ConfigError(
            f"the mesh has {len(mesh.vertices)} vertices and no faces, so there is nothing to draw; check the file "
            "or the level at which the surface was extracted"
        )
    if mesh.texture is not None and mesh.uvs is None:
        raise ConfigError("the mesh has a texture and no uvs; give uvs (and uv_faces) as well")
    if mesh.uv_faces is not None and mesh.uvs is None:
        raise ConfigError("the mesh has uv_faces and no uvs; give uvs as well")
    if mesh.uvs is not None and mesh.uv_faces is None and len(mesh.uvs) != len(mesh.vertices):
        raise ConfigError(
            f"the mesh has {len(mesh.uvs)} uvs for {len(mesh.vertices)} vertices; give uv_faces, which say which "
            "corner has which uv"
        )
    for name, rows in (("faces", mesh.vertices), ("uv_faces", mesh.uvs)):
        index = getattr(mesh, name)
        if index is None or rows is None:
            continue
        low, high = torch.aminmax(index)
        if low < 0 or high >= len(rows):
            worst = int(low) if low < 0 else int(high)
            raise ConfigError(f"mesh {name} name row {worst}; there are rows 0 to {len(rows) - 1}")
    for name, value in mesh.tensors().items():
        # NaN and infinity survive a sum. An overflowing sum is looked at again.
        if not value.is_floating_point() or torch.isfinite(value.detach().sum()):
            continue
        broken = ~torch.isfinite(value.detach().reshape(len(value), -1)).all(dim=1)
        if broken.any():
            raise NumericsError(
                f"{int(broken.sum())} of {len(value)} rows of mesh {name} are not finite; lower the learning rates "
                "or go back to a checkpoint"
            )


@dataclass(frozen=True)
class Crossings:
    """Where outlines cut the lines through pixel centres: K visible points, nothing differentiable.

    An edge is an outline where all its faces lie on one side of it. It is looked for on rows where it is steep and on
    columns where it is flat, and kept where no other surface hides it.

    Attributes:
        view: which camera.
        axis: 0 on a row, 1 on a column.
        line: which row or column.
        ends: vertices of the edge.
        place: image coordinate along the line (pixel i covers i to i + 1).
        high: whether the surface of the edge lies toward larger coordinates.
        inside: the nearest face of the edge.
        outside: the face seen just beyond the edge; -1 is none.
    """

    view: Int[Tensor, " K"]
    axis: Int[Tensor, " K"]
    line: Int[Tensor, " K"]
    ends: Int[Tensor, "K 2"]
    place: Float[Tensor, " K"]
    high: Bool[Tensor, " K"]
    inside: Int[Tensor, " K"]
    outside: Int[Tensor, " K"]
