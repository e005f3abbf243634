"""A user's mesh (OBJ, GLB, PLY, STL) as arrays: welded, centred and scaled into the world's cube."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, Int

from dream3d.errors import ConfigError
from dream3d.scenes.conversions.baked_texture import unwrap
from dream3d.scenes.surface import ColoredMesh

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
MOST_FACES = 500_000
RADIUS = 0.95
"""Radius of the ball a mesh is scaled into: every usual camera sees all of it, from every side."""
CHART_SIZE = 1024
"""Texels a side for which charts are packed."""


@dataclass(frozen=True)
class SurfaceMesh:
    """A triangle mesh, perhaps with texture coordinates; conventions of `renderers.mesh_data.MeshData`.

    Attributes:
        vertices: positions in the world.
        faces: vertex indices.
        uvs: texture coordinates in [0, 1], (0, 0) the corner of the texture's first row and column; None: none.
        uv_faces: rows of `uvs` at the corners of every face.
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    uvs: Float[np.ndarray, "T 2"] | None = None
    uv_faces: Int[np.ndarray, "F 3"] | None = None


def load_mesh(path: Path) -> SurfaceMesh:
    """Read a mesh. Texture coordinates that leave [0, 1] (repeating pictures) are not used.

    Raises:
        ConfigError: no such file, not a mesh, no triangles, numbers that are not finite, too large; the message says
            what to do.
    """
    solid = _read(path)
    vertices = np.asarray(solid.vertices, np.float64)
    corners = np.asarray(solid.faces, np.int64)
    if len(corners) == 0 or len(vertices) == 0:
        raise ConfigError(
            f"{path} holds no triangles; export the object as a mesh (not points, curves or splats)"
        )
    if len(corners) > MOST_FACES:
        raise ConfigError(
            f"{path} has {len(corners)} triangles; use at most {MOST_FACES} (decimate the mesh first)"
        )
    if not np.isfinite(vertices).all():
        broken = int((~np.isfinite(vertices)).any(axis=1).sum())
        raise ConfigError(
            f"{broken} of {len(vertices)} vertices of {path} are not finite; repair the file"
        )
    # Files double vertices at seams; a double edge would be an outline in the middle of the surface.
    unique, member = np.unique(vertices.astype(np.float32), axis=0, return_inverse=True)
    faces = member.reshape(-1)[corners]
    real = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    if not real.any():
        raise ConfigError(f"every triangle of {path} has no area; export the object again")
    faces = faces[real]
    placed = normalised(unique.astype(np.float64), str(path))
    uvs = _own_uvs(solid)
    if uvs is not None:
        return SurfaceMesh(placed, faces, uvs, corners[real])
    return SurfaceMesh(placed, faces)


def _read(path: Path) -> trimesh.Trimesh:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"scene.mesh is '{path}'; it must be a file that ends in {', '.join(SUFFIXES)}, or sphere"
        )
    if not path.is_file():
        raise ConfigError(f"scene.mesh is '{path}'; there is no such file")
    try:
        loaded = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # trimesh's readers raise whatever a broken file makes them raise
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"{path} cannot be read as {path.suffix[1:].upper()}: {detail}; export it again"
        ) from error
    if not isinstance(loaded, trimesh.Trimesh):
        raise ConfigError(
            f"{path} holds no triangles; export the object as a mesh (not points, curves or splats)"
        )
    return loaded


def _own_uvs(solid: trimesh.Trimesh) -> Float[np.ndarray, "T 2"] | None:
    """The file's texture coordinates; None where there are none that can hold a texture."""
    uv = getattr(solid.visual, "uv", None)
    if uv is None or len(uv) != len(solid.vertices):
        return None
    uv = np.asarray(uv, np.float64)[:, :2]
    inside = np.isfinite(uv).all() and uv.min() >= -1e-4 and uv.max() <= 1 + 1e-4
    if not inside or np.ptp(uv, axis=0).min() < 1e-6:
        return None  # repeating or collapsed coordinates: two places of the surface would share a texel
    # trimesh counts v upward.
    return np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1).clip(0.0, 1.0)


def normalised(vertices: Float[np.ndarray, "V 3"], what: str) -> Float[np.ndarray, "V 3"]:
    """Centred on the middle of the bounding box, and scaled into a ball of `RADIUS`.

    Raises:
        ConfigError: the mesh has no extent.
    """
    middle = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    reach = float(np.linalg.norm(vertices - middle, axis=1).max())
    if reach < 1e-12:
        raise ConfigError(f"{what} has no extent: all vertices lie in one point")
    return (vertices - middle) * (RADIUS / reach)


def charts(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Float[np.ndarray, "T 2"], Int[np.ndarray, "F 3"]]:
    """Texture coordinates by xatlas, and which are at every face's corners."""
    uvs, uv_faces = unwrap(ColoredMesh(vertices, faces, np.zeros_like(vertices)), CHART_SIZE)
    return uvs.astype(np.float64), uv_faces.astype(np.int64)


def sphere(subdivisions: int, radius: float) -> SurfaceMesh:
    """A ball of 20 * 4^subdivisions faces."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces, np.int64)
    return SurfaceMesh(vertices, faces)
