"""The true surface of a solid as a watertight coloured mesh."""

import numpy as np
import trimesh
from skimage.measure import marching_cubes
from trimesh.visual import ColorVisuals

from dream3d.world.render import HasSolid, solid_of
from dream3d.world.solid import Solid, part_distance, signed_distance, solid_bounds

_BAND = 3.0  # distances are computed within this many cells of a part's box, and not smaller farther out


def object_mesh(thing: Solid | HasSolid, resolution: int = 128) -> trimesh.Trimesh:
    """Marching cubes on the signed distance.

    Args:
        thing: an object of the world or packed parts.
        resolution: cells along the longest side of the object's box, at least 8.

    Returns:
        A closed mesh in the object's frame with outward normals and unlit sRGB vertex colours of the nearest part.
        Parts thinner than a cell may be lost.
    """
    if resolution < 8:
        raise ValueError(f"resolution is {resolution}; it must be at least 8")
    solid = solid_of(thing)
    low, high = solid_bounds(solid)
    cell = float((high - low).max()) / resolution
    # Two cells of empty margin close the mesh; the odd fraction keeps flat faces off the grid planes.
    origin = low - 2.37 * cell
    shape = tuple(int(n) for n in np.ceil((high + 2.37 * cell - origin) / cell).astype(int) + 1)
    field = _distance_grid(solid, origin, cell, shape)
    vertices, faces, _, _ = marching_cubes(
        field, 0.0, spacing=(cell,) * 3, gradient_direction="descent"
    )
    vertices = vertices + origin
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.merge_vertices()
    mesh.update_faces(mesh.nondegenerate_faces(height=0.0))
    mesh.remove_unreferenced_vertices()
    mesh = _without_crevices(mesh, (3.0 * cell) ** 3)
    _, part = signed_distance(solid, np.asarray(mesh.vertices))
    colors = np.rint(255.0 * np.append(solid.color[part], np.ones((len(part), 1)), axis=1))
    mesh.visual = ColorVisuals(mesh, vertex_colors=colors.astype(np.uint8))
    return mesh


def _without_crevices(mesh: trimesh.Trimesh, volume: float) -> trimesh.Trimesh:
    """Drops closed cavities smaller than `volume`: wedges between touching parts that the grid sealed off."""
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces))
    a, b, c = np.moveaxis(np.asarray(mesh.triangles), 1, 0)
    volumes = np.bincount(labels, weights=(np.cross(a, b) * c).sum(-1) / 6.0)
    mesh.update_faces(~((volumes <= 0.0) & (volumes > -volume))[labels])
    mesh.remove_unreferenced_vertices()
    return mesh


def _distance_grid(
    solid: Solid, origin: np.ndarray, cell: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Signed distance at grid points, clipped to the band; each part is evaluated only near itself."""
    band = _BAND * cell
    field = np.full(shape, band, dtype=np.float64)
    axes = [origin[k] + cell * np.arange(shape[k]) for k in range(3)]
    for index in range(len(solid)):
        low, high = solid_bounds(solid, only=index)
        span = tuple(
            slice(*np.searchsorted(axes[k], (low[k] - band, high[k] + band))) for k in range(3)
        )
        block = field[span]
        if block.size == 0:
            continue
        grid = np.meshgrid(*(axes[k][span[k]] for k in range(3)), indexing="ij")
        own = part_distance(solid, index, np.stack(grid, axis=-1).reshape(-1, 3))
        own = own.reshape(block.shape)
        field[span] = np.maximum(block, -own) if solid.carve[index] else np.minimum(block, own)
    # A value of exactly zero at a grid point would make triangles without area.
    return np.where(np.abs(field) < 1e-9, 1e-9, field)
