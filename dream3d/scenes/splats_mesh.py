"""A closed, coloured mesh from splats.

Optimised splats are a shell: their opacity says where a surface is, not what lies inside. So the solid is found the way
a viewer would: from many sides, everything that is seen to be empty is carved away, and what nobody can see into is
inside. The result has no inner walls, and its silhouettes are the rendered ones.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

from dream3d.cameras import CameraBatch
from dream3d.scenes.surface import VIEW_BATCH, ColoredMesh, closed_surface, mesh_cameras
from renderers.carving import carve, observe_colors, silhouettes
from renderers.splats import SplatData, render_splats

EXTENT = 1.1
"""Half-side of the cube that is searched for the object, in world units."""
HOLLOW = (
    "the splats show no opaque surface, so there is no mesh to extract; optimise for more steps or lower "
    "scene.weight_opacity"
)
OFFSETS = (0.0, 0.0125, 0.025, 0.0375, 0.05, 0.0625, 0.075, 0.1)
"""Splats are seen before their depth says so, by an amount that depends on how soft they are. These (world units) are
tried, and the smallest whose silhouettes are as good as the best one's is kept."""


def to_mesh(
    splats: SplatData,
    resolution: int = 128,
    max_faces: int = 20_000,
    image_size: int = 192,
    antialias: bool = True,
    depth_at: float = 2.75,
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
    images = render_images(splats, cameras, antialias, depth_at, backend)
    hull, front = carve(cameras, images[..., 3], images[..., 4], resolution, EXTENT)
    cell = 2.0 * EXTENT / resolution
    offset = best_offset(hull, front, cameras, images[..., 3])
    mesh = closed_surface(np.maximum(hull, front - offset), EXTENT, max_faces, HOLLOW)
    return ColoredMesh(
        np.asarray(mesh.vertices, np.float32),
        np.asarray(mesh.faces, np.int32),
        surface_colors(
            np.array(mesh.vertices, np.float64),
            np.array(mesh.vertex_normals, np.float64),
            cameras,
            images,
            2.0 * cell,
        ),
    )


def render_images(
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


def surface_colors(
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    cameras: CameraBatch,
    images: Float[np.ndarray, "B H W 5"],
    tolerance: float,
) -> Float[np.ndarray, "N 3"]:
    """Colours of surface points as the renders show them, frontal views first; unseen ones copy the nearest seen one.

    Args:
        points: on the surface.
        normals: unit, outward.
        cameras: of the renders.
        images: premultiplied colour, alpha and depth.
        tolerance: how far behind the rendered depth a point still counts as seen, in world units.
    """
    if len(points) == 0:
        return np.zeros((0, 3), np.float32)
    colors, weight = observe_colors(cameras, images, points, normals, tolerance)
    seen = weight > 1e-6
    if not seen.any():
        return np.full((len(points), 3), 0.5, np.float32)
    colors[seen] /= weight[seen, None]
    nearest = KDTree(points[seen]).query(points[~seen])[1] if (~seen).any() else []
    colors[~seen] = colors[seen][nearest]
    return np.clip(colors, 0.0, 1.0).astype(np.float32)
