"""A closed, coloured mesh from splats.

Optimised splats are a shell: their opacity says where a surface is, not what lies inside. So the solid is found the way
a viewer would: from many sides, everything that is seen to be empty is carved away, and what nobody can see into is
inside. The result has no inner walls, and its silhouettes are the rendered ones.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import AssetError
from renderers.carving import carve, observe_colors, silhouettes
from renderers.splats import SplatData, render_splats

EXTENT = 1.1
"""Half-side of the cube that is searched for the object, in world units."""
RINGS = ((-10.0, 16), (15.0, 16), (40.0, 12), (65.0, 6), (90.0, 1))
"""(elevation in degrees, cameras): the views an object is optimised from; what lies under it stays closed."""
OFFSETS = (0.0, 0.0125, 0.025, 0.0375, 0.05, 0.0625, 0.075, 0.1)
"""Splats are seen before their depth says so, by an amount that depends on how soft they are. These (world units) are
tried, and the smallest whose silhouettes are as good as the best one's is kept."""
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


def to_mesh(
    splats: SplatData,
    resolution: int = 128,
    max_faces: int = 20_000,
    image_size: int = 192,
    antialias: bool = True,
    depth_at: float = 1.25,
    backend: str = "auto",
) -> ColoredMesh:
    """Extract a closed mesh with vertex colours.

    Args:
        splats: 3-channel splats, the object within the unit sphere.
        resolution: grid cells per side.
        max_faces: the mesh is simplified to about this many.
        image_size: side in pixels of the views it is carved from.
        antialias: as the splats were optimised, see `render_splats`.
        depth_at: likewise.
        backend: splat renderer backend.

    Raises:
        AssetError: nothing opaque is visible.
    """
    cameras = mesh_cameras(image_size)
    images = _render(splats, cameras, antialias, depth_at, backend)
    hull, front = carve(cameras, images[..., 3], images[..., 4], resolution, EXTENT)
    cell = 2.0 * EXTENT / resolution
    offset = best_offset(hull, front, cameras, images[..., 3])
    mesh = _surface(np.maximum(hull, front - offset), cell, max_faces)
    return ColoredMesh(
        np.asarray(mesh.vertices, np.float32),
        np.asarray(mesh.faces, np.int32),
        _colors(mesh, cameras, images, cell),
    )


def _render(
    splats: SplatData, cameras: CameraBatch, antialias: bool, depth_at: float, backend: str
) -> Float[np.ndarray, "B H W 5"]:
    """Premultiplied colour, alpha and depth of all views."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(cameras), VIEW_BATCH):
            some = cameras[start : start + VIEW_BATCH]
            output = render_splats(
                splats.detach(), some, backend, antialias=antialias, depth_at=depth_at
            )
            parts.append(torch.cat([output.rgb, output.alpha, output.depth], dim=-1).cpu())
    return torch.cat(parts).numpy()


def best_offset(
    hull: Float[np.ndarray, "R R R"],
    front: Float[np.ndarray, "R R R"],
    cameras: CameraBatch,
    alpha: Float[np.ndarray, "B H W"],
) -> float:
    """How far in front of the rendered depth the surface lies, so that the solid's silhouettes are the rendered ones.

    An offset that is too small carves the solid thinner than its own silhouettes; one that is too large does them no
    harm but fills hollows. So the smallest good one is right. Tried on every second cell and every fourth view.
    """
    views = slice(0, None, 4)
    hull, front = hull[::2, ::2, ::2], front[::2, ::2, ::2]
    cell = 2.0 * EXTENT / (2 * hull.shape[0])
    scores = []
    for offset in OFFSETS:
        field = np.pad(np.maximum(hull, front - offset), 1, constant_values=cell)
        if field.min() >= 0.0:
            scores.append(0.0)
            continue
        vertices, faces, _, _ = marching_cubes(field, 0.0)
        vertices = (2.0 * (vertices - 1.0) + 0.5) * cell - EXTENT
        shadow = silhouettes(cameras[views], vertices, faces)
        scores.append(
            float(np.minimum(shadow, alpha[views]).sum() / np.maximum(shadow, alpha[views]).sum())
        )
    good = max(scores) - 0.005
    return next(offset for offset, score in zip(OFFSETS, scores, strict=True) if score >= good)


def _solid_parts(inside: np.ndarray) -> np.ndarray:
    """`inside` without enclosed holes and without small separate pieces.

    Raises:
        AssetError: nothing is inside.
    """
    if not inside.any():
        raise AssetError(
            "the splats show no opaque surface, so there is no mesh to extract; optimise for more steps or lower "
            "scene.weight_opacity"
        )
    labels = np.empty(inside.shape, np.int32)
    ndimage.label(inside, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the outside
    keep = np.flatnonzero(sizes >= SMALLEST_PART * sizes.max())
    return np.asarray(ndimage.binary_fill_holes(np.isin(labels, keep)))


def _surface(field: Float[np.ndarray, "R R R"], cell: float, max_faces: int) -> trimesh.Trimesh:
    """The zero level of `field` as a smooth closed mesh, at most about `max_faces` faces."""
    field = ndimage.gaussian_filter(field, 0.6)
    solid = _solid_parts(field < 0.0)
    field = np.where(solid, np.minimum(field, -0.05 * cell), np.maximum(field, 0.05 * cell))
    field = np.pad(field, 1, constant_values=cell)
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="descent")
    mesh = trimesh.Trimesh((vertices - 0.5) * cell - EXTENT, faces, process=True)
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=10)
    if len(mesh.faces) > max_faces:
        reduced = fast_simplification.simplify(
            np.asarray(mesh.vertices), np.asarray(mesh.faces), target_count=max_faces
        )
        simple = trimesh.Trimesh(reduced[0], reduced[1], process=True)
        # Edge collapses may pinch a thin part shut; a closed mesh matters more than a small one.
        mesh = simple if simple.is_watertight else mesh
    return mesh


def _colors(
    mesh: trimesh.Trimesh,
    cameras: CameraBatch,
    images: Float[np.ndarray, "B H W 5"],
    cell: float,
) -> Float[np.ndarray, "V 3"]:
    """Vertex colours as the renders show them, frontal views first; unseen vertices copy their nearest neighbour."""
    vertices = np.asarray(mesh.vertices, np.float64)
    normals = np.asarray(mesh.vertex_normals, np.float64)
    colors, weight = observe_colors(cameras, images, vertices, normals, 2.0 * cell)
    seen = weight > 1e-6
    if not seen.any():
        return np.full((len(vertices), 3), 0.5, np.float32)
    colors[seen] /= weight[seen, None]
    nearest = KDTree(vertices[seen]).query(vertices[~seen])[1] if (~seen).any() else []
    colors[~seen] = colors[seen][nearest]
    return np.clip(colors, 0.0, 1.0).astype(np.float32)
