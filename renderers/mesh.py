"""Render triangle meshes: the nearest surface at every pixel, with smooth and differentiable outlines.

A readable torch reference (any device, any float type) and a numba backend (CPU, float32) share one definition. On an
NVIDIA GPU, nvdiffrast, Warp or PyTorch3D find the triangle at every pixel, Warp also interpolates; the rest is torch's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from dream3d.rendering import RenderOutput
from renderers.backends import choose_backend
from renderers.mesh_data import (
    Fragments,
    MeshData,
    MeshEdges,
    check_mesh,
    face_normals,
    mesh_edges,
    vertex_normals,
)
from renderers.mesh_outline import Outline, blend, outline_pieces
from renderers.volume_data import check_views

__all__ = [
    "MeshData",
    "MeshRenderOutput",
    "SurfacePoints",
    "interpolate",
    "rasterize",
    "render_mesh",
]

FASTEST = ("numba", "nvdiffrast", "warp", "pytorch3d", "torch")

Normals = Literal["none", "smooth", "face"]
"""Whether and how normals are rendered: interpolated between vertices, or one a face."""


def mesh_backend(name: str, like: Tensor) -> str:
    """The backend for data such as `like`.

    Raises:
        ConfigError: it does not exist, is not installed, or does not run on this device or dtype.
    """
    single = like.dtype == torch.float32
    wanted = "torch" if name == "auto" and not single else name
    chosen = choose_backend("mesh", wanted, like.device.type, FASTEST)
    if chosen != "torch" and not single:
        raise ConfigError(
            f"mesh backend '{chosen}' needs float32, got {like.dtype}; use backend 'torch'"
        )
    return chosen


@dataclass(frozen=True)
class MeshRenderOutput(RenderOutput):
    """A render, and which triangle every pixel's centre shows.

    Attributes:
        face: triangle indices, -1 where there is none.
    """

    face: Int[Tensor, "B H W"] | None = None


@dataclass(frozen=True)
class SurfacePoints:
    """N points of the surface that pixels show. What one asks for is computed, differentiable in the mesh.

    Attributes:
        mesh: the surface.
        cameras: that look at it.
        view: which camera sees the point.
        face, barycentric: where it lies.
        backend: that interpolates: "numba", "warp" or "torch".
    """

    mesh: MeshData
    cameras: CameraBatch
    view: Int[Tensor, " N"]
    face: Int[Tensor, " N"]
    barycentric: Float[Tensor, "N 3"]
    backend: str = "torch"

    def __len__(self) -> int:
        return len(self.face)

    def mix(self, values: Float[Tensor, "V C"]) -> Float[Tensor, "N C"]:
        """Values of the mesh's vertices at the points."""
        return interpolate(values, self.mesh.faces, self.face, self.barycentric, self.backend)

    @cached_property
    def position(self) -> Float[Tensor, "N 3"]:
        """In the world."""
        return self.mix(self.mesh.vertices)

    @cached_property
    def depth(self) -> Float[Tensor, "N 1"]:
        """Along the camera's forward axis."""
        forward = self.cameras.c2w[self.view, :3, 2]
        away = self.position - self.cameras.position[self.view]
        return (away * forward).sum(dim=-1, keepdim=True)

    @cached_property
    def to_camera(self) -> Float[Tensor, "N 3"]:
        """Unit directions to the camera."""
        away = self.cameras.position[self.view] - self.position
        return torch.nn.functional.normalize(away, dim=-1)

    @cached_property
    def face_normal(self) -> Float[Tensor, "N 3"]:
        """Unit normals of the triangles, turned to the camera."""
        normal = face_normals(self.mesh.vertices, self.mesh.faces)[self.face]
        normal = torch.nn.functional.normalize(normal, dim=-1, eps=1e-20)
        return self.visible_side(normal)

    @cached_property
    def outward_normal(self) -> Float[Tensor, "N 3"]:
        """Unit normals, smooth over the vertices, on the triangle's outer side."""
        mixed = self.mix(vertex_normals(self.mesh.vertices, self.mesh.faces))
        return torch.nn.functional.normalize(mixed, dim=-1, eps=1e-20)

    @cached_property
    def normal(self) -> Float[Tensor, "N 3"]:
        """Unit normals, smooth over the vertices, on the triangle's visible side."""
        return self.visible_side(self.outward_normal)

    def visible_side(self, outward: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Outward normals turned about where the camera sees the triangle's inner side."""
        return torch.where(self._from_behind[:, None], -outward, outward)

    @cached_property
    def _from_behind(self) -> Tensor:
        """Whether the camera sees the triangle's inner side."""
        with torch.no_grad():
            corners = self.mesh.vertices[self.mesh.faces[self.face]]
            n = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            return ((self.cameras.position[self.view] - corners[:, 0]) * n).sum(-1) < 0

    @cached_property
    def uv(self) -> Float[Tensor, "N 2"]:
        """Texture coordinates.

        Raises:
            ConfigError: the mesh has none.
        """
        if self.mesh.uvs is None:
            raise ConfigError("the mesh has no uvs; unwrap it, or colour its vertices instead")
        corners = self.mesh.faces if self.mesh.uv_faces is None else self.mesh.uv_faces
        return interpolate(self.mesh.uvs, corners, self.face, self.barycentric, self.backend)


Shade = Callable[[SurfacePoints], Tensor]
"""From surface points to their [N, C] channels."""


def sample_texture(
    texture: Float[Tensor, "R S C"], uv: Float[Tensor, "N 2"]
) -> Float[Tensor, "N C"]:
    """Bilinear texels; beyond the border the border's. See `MeshData.uvs` for where (0, 0) is."""
    grid = (2.0 * uv - 1.0)[None, None]
    image = texture.permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(
        image, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


def own_color(points: SurfacePoints) -> Float[Tensor, "N C"]:
    """What the mesh carries: its texture, or else its vertices' features.

    Raises:
        ConfigError: it carries neither.
    """
    if points.mesh.texture is not None:
        return sample_texture(points.mesh.texture, points.uv)
    if points.mesh.features is None:
        raise ConfigError("the mesh has neither texture nor features; add one, or pass `shade`")
    return points.mix(points.mesh.features)


def rasterize(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    cameras: CameraBatch,
    backend: str = "auto",
) -> Fragments:
    """Which triangle every pixel's centre shows, and where on it. Gradients of weights and depth reach the vertices.

    Args:
        vertices: in the world.
        faces: vertex indices; both sides are drawn.
        cameras: B views.
        backend: "auto", "numba" (CPU, float32), "torch", or "nvdiffrast", "warp", "pytorch3d" (NVIDIA).

    Raises:
        ConfigError, NumericsError: see `check_mesh`; also views too large and backends that cannot run.
    """
    check_mesh(MeshData(vertices, faces))
    check_views(cameras)
    return _rasterize(vertices, faces, cameras, mesh_backend(backend, vertices))


def _rasterize(vertices: Tensor, faces: Tensor, cameras: CameraBatch, name: str) -> Fragments:
    cameras = cameras.to(vertices.device, vertices.dtype)
    if name == "numba":
        from renderers.mesh_numba import rasterize as run
    elif name == "warp":
        from renderers.mesh_warp import rasterize as run
    elif name == "nvdiffrast":
        from renderers.mesh_nvdiffrast import rasterize as run
    elif name == "pytorch3d":
        from renderers.mesh_pytorch3d import rasterize as run
    else:
        from renderers.mesh_torch import rasterize as run
    return run(vertices, faces, cameras)


def interpolate(
    values: Float[Tensor, "V C"],
    corners: Int[Tensor, "F 3"],
    face: Int[Tensor, "*N"],
    barycentric: Float[Tensor, "*N 3"],
    backend: str = "auto",
) -> Float[Tensor, "*N C"]:
    """Values of triangles' corners at points on them; 0 where `face` is -1. Gradients reach values and weights.

    Args:
        values: one row per vertex (or per texture coordinate).
        corners: rows of `values` at the corners of every triangle.
        face: which triangle.
        barycentric: where on it.
        backend: see `rasterize`.
    """
    name = mesh_backend(backend, values)
    if name == "numba":
        from renderers.mesh_numba import interpolate as run
    elif name == "warp":
        from renderers.mesh_warp import interpolate as run
    else:
        from renderers.mesh_torch import interpolate as run
    mixed = run(values, corners, face.reshape(-1), barycentric.reshape(-1, 3))
    return mixed.reshape(*face.shape, values.shape[1])


def _outline(mesh: MeshData, edges: MeshEdges | None, cameras: CameraBatch, name: str) -> Outline:
    if name == "numba":
        from renderers.mesh_numba import crossings
    elif name == "warp":
        from renderers.mesh_warp import crossings
    else:
        from renderers.mesh_torch_outline import crossings
    edges = mesh_edges(mesh.faces) if edges is None else edges
    found = crossings(mesh.vertices, mesh.faces, edges, cameras)
    return outline_pieces(found, mesh.vertices, mesh.faces, cameras)


def render_mesh(
    mesh: MeshData,
    cameras: CameraBatch,
    shade: Shade | None = None,
    normals: Normals = "none",
    antialias: bool = True,
    backend: str = "auto",
    edges: MeshEdges | None = None,
) -> MeshRenderOutput:
    """Differentiable images of `mesh` from every camera.

    Args:
        mesh: gradients reach its vertices, features, texture coordinates and texture (cameras get none).
        cameras: B views.
        shade: colours surface points, e.g. by a network or a light; None: see `own_color`.
        normals: also render world-space normals.
        antialias: average over the outlines that cut a pixel. Without, outlines have no gradient.
        backend: see `rasterize`.
        edges: `mesh_edges(mesh.faces)`, where it is known already.

    Returns:
        Premultiplied colour, alpha, alpha-normalised z-depth, optional normals, the triangle at every pixel's centre.

    Raises:
        ConfigError: shapes, dtypes, devices or sizes that cannot be drawn, or a backend that cannot run.
        NumericsError: NaN or infinity in the mesh.
    """
    check_mesh(mesh)
    check_views(cameras)
    name = mesh_backend(backend, mesh.vertices)
    cameras = cameras.to(mesh.vertices.device, mesh.vertices.dtype)
    fragments = _rasterize(mesh.vertices, mesh.faces, cameras, name)
    pixels = (fragments.face.reshape(-1) >= 0).nonzero()[:, 0]
    view = pixels // (cameras.height * cameras.width)
    face = fragments.face.reshape(-1)[pixels]
    weights = fragments.barycentric.reshape(-1, 3)[pixels]
    outline = _outline(mesh, edges, cameras, name) if antialias else None
    shown = pixels[:0]
    if outline is not None:
        shown = (outline.face >= 0).nonzero()[:, 0]
        view = torch.cat([view, outline.view[shown]])
        face = torch.cat([face, outline.face[shown]])
        weights = torch.cat([weights, outline.barycentric[shown]])
    mixing = name if name in ("numba", "warp") else "torch"
    points = SurfacePoints(mesh, cameras, view, face, weights, mixing)
    channels = [(own_color if shade is None else shade)(points)]
    if normals != "none":
        channels.append(points.normal if normals == "smooth" else points.face_normal)
    channels += [points.depth, torch.ones_like(points.depth)]
    found = torch.cat(channels, dim=1)
    image = found.new_zeros(fragments.face.numel(), found.shape[1])
    image = image.index_put((pixels,), found[: len(pixels)])
    if outline is not None:
        beyond = found.new_zeros(len(outline.face), found.shape[1])
        image = blend(image, outline, beyond.index_put((shown,), found[len(pixels) :]))
    return _output(image.reshape(*fragments.face.shape, -1), normals != "none", fragments.face)


def _output(
    image: Float[Tensor, "B H W C"], normals: bool, face: Int[Tensor, "B H W"]
) -> MeshRenderOutput:
    alpha = image[..., -1:]
    # Less coverage than this is rounding.
    covered = alpha > 1e-6
    depth = torch.where(covered, image[..., -2:-1] / torch.where(covered, alpha, 1.0), 0.0)
    channels = image.shape[-1] - (5 if normals else 2)
    normal = None
    if normals:
        normal = torch.nn.functional.normalize(image[..., channels:-2], dim=-1, eps=1e-6)
    return MeshRenderOutput(image[..., :channels], alpha, depth, normal, face)
