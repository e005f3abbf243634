"""The readable reference: triangles on pixels in plain torch, for any float type and device.

A ray r from the camera meets the plane of the triangle a, a + d1, a + d2 (camera axes) where t r = a + u d1 + v d2:
    u = r . (d2 x a) / (r . n),   v = r . (a x d1) / (r . n),   t = a . n / (r . n),   n = d1 x d2
(Moeller and Trumbore 1997, with the cross products turned so that each is constant per triangle). Nothing is divided
by a vertex's depth, so triangles that reach behind the camera need no clipping.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.mesh_data import NEAR, Fragments

PAIRS_AT_ONCE = 2**21
"""Candidates (triangle, pixel) that are looked at together, which bounds memory."""


def tolerance(dtype: torch.dtype) -> float:
    """How far outside a triangle (as a barycentric weight) still counts as on it, so that shared edges have no gaps."""
    return 1e-9 if dtype == torch.float64 else 1e-6


def to_camera(vertices: Float[Tensor, "V 3"], cameras: CameraBatch) -> Float[Tensor, "B V 3"]:
    """Vertices in every camera's axes."""
    w2c = cameras.w2c
    return vertices @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]


def pixel_rays(
    cameras: CameraBatch, view: Int[Tensor, " N"], x: Float[Tensor, " N"], y: Float[Tensor, " N"]
) -> Float[Tensor, "N 3"]:
    """Rays through image points (pixels, centres at +0.5) in camera axes, with z = 1."""
    K = cameras.K[view]
    return torch.stack(
        [(x - K[:, 0, 2]) / K[:, 0, 0], (y - K[:, 1, 2]) / K[:, 1, 1], torch.ones_like(x)], dim=1
    )


def triangle_planes(corners: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 4 3"]:
    """What a triangle's intersections need: d2 x a, a x d1, n, and a itself, whose product with n is t's numerator."""
    a = corners[..., 0, :]
    d1, d2 = corners[..., 1, :] - a, corners[..., 2, :] - a
    cross = torch.linalg.cross
    return torch.stack([cross(d2, a), cross(a, d1), cross(d1, d2), a], dim=-2)


def intersect(
    planes: Float[Tensor, "N 4 3"], rays: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, " N"]]:
    """Barycentric weights and z-depth at which rays (z = 1) meet the planes of triangles, both in camera axes."""
    for_u, for_v, n, a = planes.unbind(dim=1)
    facing = (rays * n).sum(-1)
    # A triangle seen edge-on covers nothing; the caller drops it.
    facing = torch.where(facing == 0, torch.full_like(facing, torch.finfo(a.dtype).tiny), facing)
    u, v = (rays * for_u).sum(-1) / facing, (rays * for_v).sum(-1) / facing
    return torch.stack([1 - u - v, u, v], dim=-1), (a * n).sum(-1) / facing


def covers(weights: Float[Tensor, "N 3"], depth: Float[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Whether the point belongs to the triangle and lies in front of the camera."""
    inside = (weights >= -tolerance(weights.dtype)).all(dim=-1)
    return inside & (depth > NEAR) & torch.isfinite(depth)


def boxes(
    points: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch, view: int
) -> Int[Tensor, "F 4"]:
    """First and last column and row (exclusive) a triangle may touch; all of them if it reaches behind the camera."""
    K, (height, width) = cameras.K[view], (cameras.height, cameras.width)
    z = points[:, 2].clamp_min(NEAR)
    x = (points[:, 0] / z * K[0, 0] + K[0, 2])[faces]
    y = (points[:, 1] / z * K[1, 1] + K[1, 2])[faces]
    near = points[:, 2][faces] < NEAR
    bounds = []
    for value, size in ((x, width), (y, height)):
        low, high = value.amin(1), value.amax(1)
        some, every = near.any(1), near.all(1)
        low = torch.where(some, torch.zeros_like(low), low)
        high = torch.where(some, torch.full_like(high, size), high)
        high = torch.where(every, low - 1, high)
        # A pixel's centre lies at +0.5; a hair more is looked at, for centres on an edge.
        bounds.append((low - 0.501).ceil().clamp(0, size))
        bounds.append(((high - 0.499).floor() + 1).clamp(0, size))
    box = torch.stack(bounds, dim=1).long()
    box[:, 1] = torch.maximum(box[:, 1], box[:, 0])
    box[:, 3] = torch.maximum(box[:, 3], box[:, 2])
    return box


def _nearest_faces(
    points: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch, view: int
) -> Int[Tensor, " P"]:
    """The nearest triangle at every pixel of one view, -1 where there is none."""
    box, planes = boxes(points, faces, cameras, view), triangle_planes(points[faces])
    across, down = box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]
    counts = across * down
    pixels = cameras.height * cameras.width
    nearest = points.new_full((pixels,), torch.inf)
    found = torch.full((pixels,), len(faces), device=faces.device)
    # Runs of triangles that together have about PAIRS_AT_ONCE candidates.
    ends = counts.cumsum(0)
    run = (ends - counts) // PAIRS_AT_ONCE
    for chunk in torch.unique_consecutive(run).tolist():
        member = (run == chunk).nonzero()[:, 0]
        face = member.repeat_interleave(counts[member])
        first = (ends - counts)[member[:1]]
        within = torch.arange(len(face), device=face.device) + first - (ends - counts)[face]
        column = box[face, 0] + within % across[face]
        row = box[face, 2] + within // across[face]
        rays = pixel_rays(
            cameras, torch.full_like(face, view), column.to(points) + 0.5, row.to(points) + 0.5
        )
        weights, depth = intersect(planes[face], rays)
        hit = covers(weights, depth)
        pixel, depth, face = (row * cameras.width + column)[hit], depth[hit], face[hit]
        before = nearest.clone()
        nearest = nearest.scatter_reduce(0, pixel, depth, "amin")
        found = torch.where(nearest < before, len(faces), found)
        front = depth == nearest[pixel]
        found = found.scatter_reduce(0, pixel[front], face[front], "amin")
    return torch.where(found == len(faces), -1, found)


def face_ids(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Int[Tensor, "B H W"]:
    """The nearest triangle at every pixel's centre, -1 where there is none."""
    points = to_camera(vertices.detach(), cameras)
    views = [_nearest_faces(points[b], faces, cameras, b) for b in range(len(cameras))]
    return torch.stack(views).reshape(len(cameras), cameras.height, cameras.width)


def fragments_of(
    face: Int[Tensor, "B H W"],
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    cameras: CameraBatch,
) -> Fragments:
    """Barycentric weights and depth, differentiable in the vertices, where it is known which triangle a pixel shows."""
    view, row, column = (face >= 0).nonzero().unbind(dim=1)
    points = to_camera(vertices, cameras)
    planes = triangle_planes(points[:, faces])[view, face[view, row, column]]
    rays = pixel_rays(cameras, view, column.to(vertices) + 0.5, row.to(vertices) + 0.5)
    weights, depth = intersect(planes, rays)
    barycentric = vertices.new_zeros(*face.shape, 3).index_put((view, row, column), weights)
    depths = vertices.new_zeros(*face.shape, 1).index_put((view, row, column), depth[:, None])
    return Fragments(face, barycentric, depths)


def rasterize(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Fragments:
    """What every pixel's centre shows."""
    return fragments_of(face_ids(vertices, faces, cameras), vertices, faces, cameras)


def interpolate(
    values: Float[Tensor, "V C"],
    corners: Int[Tensor, "F 3"],
    face: Int[Tensor, " N"],
    weights: Float[Tensor, "N 3"],
) -> Float[Tensor, "N C"]:
    """Weighted means of the values at triangles' corners; 0 where `face` is -1."""
    mixed = (values[corners[face.clamp_min(0)]] * weights[:, :, None]).sum(dim=1)
    return torch.where((face >= 0)[:, None], mixed, torch.zeros_like(mixed))
