"""From a function of space to a closed, coloured triangle mesh."""

from dataclasses import dataclass

import fast_simplification
import numpy as np
import trimesh
from jaxtyping import Float, Int
from scipy import ndimage
from skimage.measure import marching_cubes

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import AssetError

RINGS = ((-10.0, 16), (15.0, 16), (40.0, 12), (65.0, 6), (90.0, 1))
"""(elevation in degrees, cameras): the views an object is optimised from; what lies under it stays closed."""
SMALLEST_PART = 0.02
"""A separate piece smaller than this share of the largest is a floater and is dropped."""
VIEW_BATCH = 8


@dataclass(frozen=True)
class ColoredMesh:
    """A triangle mesh in the world frame.

    Attributes:
        vertices: positions.
        faces: vertex indices, counter-clockwise from outside.
        colors: sRGB in [0, 1] per vertex.
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    colors: Float[np.ndarray, "V 3"]


def mesh_cameras(size: int) -> CameraBatch:
    """The views the mesh is carved from."""
    azimuth = [360.0 * (i + 0.5 * (k % 2)) / n for k, (_, n) in enumerate(RINGS) for i in range(n)]
    elevation = [e for e, n in RINGS for _ in range(n)]
    return orbit_cameras(azimuth, elevation, size=size)


def _solid_parts(inside: np.ndarray, hollow: str) -> np.ndarray:
    """`inside` without enclosed holes and without small separate pieces.

    Raises:
        AssetError: nothing is inside.
    """
    if not inside.any():
        raise AssetError(hollow)
    labels = np.empty(inside.shape, np.int32)
    ndimage.label(inside, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the outside
    keep = np.flatnonzero(sizes >= SMALLEST_PART * sizes.max())
    return np.asarray(ndimage.binary_fill_holes(np.isin(labels, keep)))


def closed_surface(
    field: Float[np.ndarray, "R R R"], extent: float, max_faces: int, hollow: str
) -> trimesh.Trimesh:
    """The zero level of a function of space as a smooth closed mesh, without inner walls or floaters.

    Args:
        field: at the centres of R^3 cells [x, y, z], negative inside, about a distance in world units near zero.
        extent: half-side of the cube the cells fill.
        max_faces: the mesh is simplified to about this many.
        hollow: what to say when nothing is inside.

    Raises:
        AssetError: nothing is inside.
    """
    cell = 2.0 * extent / len(field)
    field = ndimage.gaussian_filter(field, 0.6)
    solid = _solid_parts(field < 0.0, hollow)
    field = np.where(solid, np.minimum(field, -0.05 * cell), np.maximum(field, 0.05 * cell))
    field = np.pad(field, 1, constant_values=cell)
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="descent")
    mesh = trimesh.Trimesh((vertices - 0.5) * cell - extent, faces, process=True)
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=10)
    if len(mesh.faces) > max_faces:
        reduced = fast_simplification.simplify(
            np.asarray(mesh.vertices), np.asarray(mesh.faces), target_count=max_faces
        )
        simple = trimesh.Trimesh(reduced[0], reduced[1], process=True)
        # Edge collapses may pinch a thin part shut; a closed mesh matters more than a small one.
        mesh = simple if simple.is_watertight else mesh
    return mesh
