"""Mesh clean-up and decimation, by trimesh and fast-simplification."""

import fast_simplification
import numpy as np
import trimesh
from scipy.spatial import KDTree

from dream3d.errors import AssetError, ConfigError
from dream3d.scenes.surface import SMALLEST_PART, ColoredMesh


def clean_mesh(mesh: ColoredMesh, smallest_part: float = SMALLEST_PART) -> ColoredMesh:
    """The same surface in good order.

    Vertices at one place become one (their colours' mean), faces without area and repeated faces go, small holes are
    closed, parts smaller than a share of the largest are dropped, and what is closed is turned outward.

    Args:
        mesh: any triangles.
        smallest_part: of the largest part's area; 0 keeps all.

    Raises:
        AssetError: positions that are not finite, or nothing is left.
    """
    if not np.isfinite(mesh.vertices).all():
        raise AssetError("the mesh has vertices that are not finite; it cannot be cleaned")
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    made.merge_vertices()
    made.update_faces(made.nondegenerate_faces(height=1e-9) & made.unique_faces())
    made.remove_unreferenced_vertices()
    if len(made.faces):
        made.fill_holes()
        parts = made.split(only_watertight=False)
        largest = max(part.area for part in parts)
        kept = [part for part in parts if part.area >= smallest_part * largest]
        for part in kept:
            trimesh.repair.fix_normals(part)
        joined = trimesh.util.concatenate(kept)
        assert isinstance(joined, trimesh.Trimesh)
        made = joined
    if len(made.faces) == 0:
        raise AssetError("nothing is left of the mesh: it has no face with an area")
    return recolored(made, mesh)


def decimated(mesh: ColoredMesh, max_faces: int) -> ColoredMesh:
    """The mesh with about `max_faces` faces, by collapsing edges (Garland and Heckbert 1997); as it is if it has fewer.

    A closed mesh that the collapse would tear open is returned as it is: closed matters more than small.

    Raises:
        ConfigError: fewer than four faces asked for.
    """
    if max_faces < 4:
        raise ConfigError(f"max_faces is {max_faces}; a closed mesh has at least 4")
    if len(mesh.faces) <= max_faces:
        return mesh
    reduced = fast_simplification.simplify(
        np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces), target_count=max_faces
    )
    simple = trimesh.Trimesh(reduced[0], reduced[1], process=True)
    closed = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).is_watertight
    if closed and not simple.is_watertight:
        return mesh
    return recolored(simple, mesh)


def recolored(made: trimesh.Trimesh, source: ColoredMesh) -> ColoredMesh:
    """`made` with the colours of the nearest vertices of `source`, weighted by their nearness."""
    near = min(3, len(source.vertices))
    distance, index = KDTree(source.vertices).query(made.vertices, k=near)
    weight = 1.0 / np.maximum(np.asarray(distance).reshape(len(made.vertices), near), 1e-6)
    index = np.asarray(index).reshape(len(made.vertices), near)
    weight /= weight.sum(axis=1, keepdims=True)
    return ColoredMesh(
        np.asarray(made.vertices, np.float32),
        np.asarray(made.faces, np.int32),
        (weight[..., None] * source.colors[index]).sum(axis=1).astype(np.float32),
    )
