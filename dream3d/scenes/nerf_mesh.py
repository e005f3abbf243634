"""A closed, coloured mesh from a radiance field: a level set of its density.

How dense "solid" is depends on how a field was optimised. So several levels are tried, and the lowest whose silhouettes
agree with the rendered ones is taken: the mesh looks like the pictures. Where nobody can look, pictures say nothing
about the density and it may be anything; what lies well behind the visible surface from every side is solid.
"""

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from dream3d.scenes.occupancy import POINTS_AT_ONCE, cell_points, sampled_density
from dream3d.scenes.surface import VIEW_BATCH, ColoredMesh, closed_surface, mesh_cameras
from renderers.carving import carve, silhouettes
from renderers.volume import render_volume
from renderers.volume_data import DEFAULT_STEP, VolumeField

LEVELS = (1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0)
"""Densities that are tried as the surface: a tenth of a unit of the first is 14 % opaque, of the last wholly."""
BAND = 2.0
"""The level set's function is clipped this many cells from zero."""
SKIN = 1.5
"""Cells this many of their sides behind what is seen are solid, whatever their density."""
SMOOTHING = 0.8
"""Blur of the level set's function in cells: pictures determine the density only as a sum along rays."""
FINEST = 512
HOLLOW = (
    "the field is nowhere dense enough for a surface, so there is no mesh to extract; optimise for more steps or "
    "lower scene.weight_sparsity"
)


def to_mesh(
    field: VolumeField,
    occupied: Bool[Tensor, "G G G"] | None = None,
    resolution: int = 128,
    max_faces: int = 20_000,
    level: float | None = None,
    image_size: int = 128,
    step: float = DEFAULT_STEP,
    backend: str = "auto",
) -> ColoredMesh:
    """Extract a closed mesh with vertex colours by marching cubes.

    Args:
        field: three features, which are colours.
        occupied: cells [x, y, z] outside of which the field is taken to be empty, as when it is rendered.
        resolution: grid cells per side, 8 to 512.
        max_faces: the mesh is simplified to about this many.
        level: density of the surface per world unit; None finds it.
        image_size: side in pixels of the views that tell inside from outside.
        step: as the field is rendered.
        backend: of the field and the renderer.

    Raises:
        ConfigError: absurd resolution.
        AssetError: nothing is dense enough.
    """
    if not 8 <= resolution <= FINEST:
        raise ConfigError(f"mesh resolution is {resolution}; choose a value from 8 to {FINEST}")
    cell = 2.0 / resolution
    cameras = mesh_cameras(image_size)
    alpha, depth = _views(field, cameras, occupied, step, backend)
    hull, front = carve(cameras, alpha, depth, resolution, 1.0)
    hidden = np.maximum(hull, front + SKIN * cell)
    density = density_grid(field, occupied, resolution, backend)
    if level is None:
        level = best_level(density, hidden, cameras[::4], alpha[::4])
    mesh = closed_surface(outwardness(density, hidden, level), 1.0, max_faces, HOLLOW)
    return colored(field, mesh, step, backend)


def colored(field: VolumeField, mesh: trimesh.Trimesh, step: float, backend: str) -> ColoredMesh:
    """The mesh with the field's colours at its vertices."""
    return ColoredMesh(
        np.asarray(mesh.vertices, np.float32),
        np.asarray(mesh.faces, np.int32),
        surface_colors(
            field,
            torch.from_numpy(np.array(mesh.vertices)),
            torch.from_numpy(np.array(mesh.vertex_normals)),
            step,
            backend,
        ).numpy(),
    )


def density_grid(
    field: VolumeField, occupied: Bool[Tensor, "G G G"] | None, resolution: int, backend: str
) -> Float[np.ndarray, "R R R"]:
    """Density at the centres of resolution^3 cells [x, y, z], zero where rays do not look."""
    points = cell_points(resolution, field.like)
    density = sampled_density(field, points, backend)
    if occupied is not None:
        cells = occupied.shape[0]
        index = ((points + 1.0) * (0.5 * cells)).long().clamp(0, cells - 1)
        density = density * occupied[tuple(index.unbind(dim=1))]
    return density.reshape(resolution, resolution, resolution).double().cpu().numpy()


def _views(
    field: VolumeField,
    cameras: CameraBatch,
    occupied: Bool[Tensor, "G G G"] | None,
    step: float,
    backend: str,
) -> tuple[Float[np.ndarray, "B H W"], Float[np.ndarray, "B H W"]]:
    """Alpha and depth of all views."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(cameras), VIEW_BATCH):
            some = cameras[start : start + VIEW_BATCH]
            output = render_volume(field, some, occupied, step, backend=backend)
            parts.append(torch.cat([output.alpha, output.depth], dim=-1).float().cpu())
    images = torch.cat(parts).numpy()
    return np.ascontiguousarray(images[..., 0]), np.ascontiguousarray(images[..., 1])


def outwardness(
    density: Float[np.ndarray, "R R R"], hidden: Float[np.ndarray, "R R R"], level: float
) -> Float[np.ndarray, "R R R"]:
    """Zero on the surface, negative inside: how far below `level` the density is, on a logarithmic scale, clipped."""
    cell = 2.0 / len(density)
    sparse = np.clip(np.log(level / np.maximum(density, 1e-6)), -BAND, BAND) * cell
    return np.minimum(ndimage.gaussian_filter(sparse, SMOOTHING), hidden)


def best_level(
    density: Float[np.ndarray, "R R R"],
    hidden: Float[np.ndarray, "R R R"],
    cameras: CameraBatch,
    alpha: Float[np.ndarray, "B H W"],
) -> float:
    """The lowest of `LEVELS` whose surface covers what the rendered alpha covers about as well as any."""
    cell = 2.0 / len(density)
    scores = []
    for level in LEVELS:
        field = np.pad(outwardness(density, hidden, level), 1, constant_values=cell)
        if field.min() >= 0.0:
            scores.append(0.0)
            continue
        vertices, faces, _, _ = marching_cubes(field, 0.0)
        shadow = silhouettes(cameras, (vertices - 0.5) * cell - 1.0, faces)
        scores.append(float(np.minimum(shadow, alpha).sum() / np.maximum(shadow, alpha).sum()))
    good = max(scores) - 0.005
    return next(level for level, score in zip(LEVELS, scores, strict=True) if score >= good)


def surface_colors(
    field: VolumeField,
    points: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    step: float,
    backend: str,
) -> Float[Tensor, "N 3"]:
    """The field's colours half a step under surface points, about where rays take theirs from."""
    inside = (points - 0.5 * step * normals).to(field.like)
    with torch.no_grad():
        parts = [field(some, backend)[1] for some in inside.split(POINTS_AT_ONCE)]
    return torch.cat(parts).clamp(0.0, 1.0).float().cpu()
