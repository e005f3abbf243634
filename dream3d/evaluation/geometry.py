"""How close two solids are: overlap of volumes and silhouettes, distance of surfaces.

Everything is measured in the world's own frame, where an object fills the unit sphere.
"""

import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras

F_SCORE_DISTANCE = 0.05
"""How far (in object radii) a surface point may lie from the other surface and still count as found."""
CARVING_TOLERANCE = 0.03
"""How far in front of a rendered surface a point may lie and still count as inside: less than a grid cell."""


def grid_points(resolution: int, extent: float = 1.1) -> Float[Tensor, "N 3"]:
    """Centres of resolution^3 cells that fill [-extent, extent]^3, x slowest."""
    step = 2.0 * extent / resolution
    axis = torch.arange(resolution) * step + (0.5 * step - extent)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)


def overlap(a: Bool[Tensor, "*S"], b: Bool[Tensor, "*S"]) -> float:
    """Intersection over union of two sets in [0, 1]; 1 when both are empty."""
    union = (a | b).sum().item()
    return (a & b).sum().item() / union if union else 1.0


def silhouette_iou(a: Float[Tensor, "B H W 1"], b: Float[Tensor, "B H W 1"]) -> float:
    """Mean over views of the overlap of what is more than half covered, in [0, 1]."""
    return sum(overlap(x > 0.5, y > 0.5) for x, y in zip(a, b, strict=True)) / len(a)


def carving_cameras(size: int = 96) -> CameraBatch:
    """25 cameras over the views the world shows: rings at -10, 20 and 50 degrees, and straight overhead."""
    azimuth = [45.0 * i for i in range(8)]
    between = [a + 22.5 for a in azimuth]
    return orbit_cameras(
        [*azimuth, *between, *azimuth, 0.0],
        [-10.0] * 8 + [20.0] * 8 + [50.0] * 8 + [90.0],
        size=size,
    )


def project(
    points: Float[Tensor, "N 3"], cameras: CameraBatch
) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N"]]:
    """Pixel coordinates (u right, v down) and z-depth of points in every view."""
    w2c = cameras.w2c
    local = torch.einsum("bij,nj->bni", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
    image = torch.einsum("bij,bnj->bni", cameras.K, local)
    depth = local[..., 2]
    return image[..., :2] / depth.clamp_min(1e-6)[..., None], depth


def carve(
    depth: Float[Tensor, "B H W 1"],
    alpha: Float[Tensor, "B H W 1"],
    cameras: CameraBatch,
    points: Float[Tensor, "N 3"],
    tolerance: float = CARVING_TOLERANCE,
) -> Bool[Tensor, " N"]:
    """Which points are inside the solid the views show.

    A point is outside as soon as one view sees through it: its pixel is less than half covered, or the surface there
    lies more than `tolerance` behind it. This reads hollow shells and filled solids alike, so splats, fields and
    meshes are measured by the same rule. What no view shows counts as inside.

    Args:
        depth: z-depth of the visible surface.
        alpha: coverage in [0, 1].
        cameras: the poses of the views.
        points: where to ask, in the world.
        tolerance: in world units.
    """
    inside = torch.ones(len(points), dtype=torch.bool)
    for view in range(len(cameras)):
        camera = cameras[view : view + 1]
        pixel, z = project(points, camera)
        column, row = pixel[0].floor().long().unbind(-1)
        framed = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        column, row = column.clamp(0, camera.width - 1), row.clamp(0, camera.height - 1)
        covered = alpha[view, row, column, 0] > 0.5
        behind = z[0] >= depth[view, row, column, 0] - tolerance
        inside &= framed & covered & behind
    return inside


def surface_points(
    depth: Float[Tensor, "B H W 1"], alpha: Float[Tensor, "B H W 1"], cameras: CameraBatch
) -> Float[Tensor, "N 3"]:
    """The visible surface as points in the world: every pixel more than half covered, at its depth."""
    origins, directions = cameras.rays()
    forward = cameras.c2w[:, :3, 2]
    along = torch.einsum("bhwi,bi->bhw", directions, forward)[..., None]  # cos of ray and axis
    points = origins + directions * (depth / along)
    return points[alpha[..., 0] > 0.5]


def nearest_distances(
    a: Float[Tensor, "N 3"], b: Float[Tensor, "M 3"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Distance from each point of one set to the other set, both ways."""
    to_b, _ = KDTree(b.numpy()).query(a.numpy())
    to_a, _ = KDTree(a.numpy()).query(b.numpy())
    return torch.from_numpy(to_b).float(), torch.from_numpy(to_a).float()


def chamfer(a: Float[Tensor, "N 3"], b: Float[Tensor, "M 3"]) -> float:
    """Half the sum of the two mean nearest distances, in object radii; 0 is perfect, inf when a set is empty."""
    if not len(a) or not len(b):
        return float("inf")
    to_b, to_a = nearest_distances(a, b)
    return 0.5 * (to_b.mean() + to_a.mean()).item()


def f_score(
    a: Float[Tensor, "N 3"], b: Float[Tensor, "M 3"], distance: float = F_SCORE_DISTANCE
) -> float:
    """Harmonic mean of precision and recall of surface points within `distance`, in [0, 1] (Knapitsch et al. 2017)."""
    if not len(a) or not len(b):
        return 0.0
    to_b, to_a = nearest_distances(a, b)
    precision = (to_b <= distance).float().mean().item()
    recall = (to_a <= distance).float().mean().item()
    return 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0
