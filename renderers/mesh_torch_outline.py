"""The readable reference of `mesh_data.Crossings`: every outline against every triangle, in plain torch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.mesh_data import NEAR, NUDGE, Crossings, MeshEdges
from renderers.mesh_torch import (
    PAIRS_AT_ONCE,
    boxes,
    covers,
    intersect,
    pixel_rays,
    to_camera,
    triangle_planes,
)


def _outline_edges(points: Float[Tensor, "V 3"], edges: MeshEdges) -> tuple[Tensor, Tensor, Tensor]:
    """Edges whose faces all lie on one side: which, the side's sign, and the plane through the camera and the edge."""
    a, b = points[edges.ends[:, 0]], points[edges.ends[:, 1]]
    plane = torch.linalg.cross(a, b)
    owner = torch.arange(len(edges.ends), device=a.device).repeat_interleave(edges.face_counts)
    sign = (plane[owner] * points[edges.opposite]).sum(-1).sign()
    positive = owner.new_zeros(len(edges.ends)).index_add(0, owner, (sign > 0).long())
    negative = torch.zeros_like(positive).index_add(0, owner, (sign < 0).long())
    one_side = (positive > 0) != (negative > 0)
    one_side &= (a[:, 2] >= NEAR) & (b[:, 2] >= NEAR)
    index = one_side.nonzero()[:, 0]
    return index, (positive - negative).sign()[index].to(points), plane[index]


def _view_crossings(
    points: Float[Tensor, "V 3"], edges: MeshEdges, cameras: CameraBatch, b: int
) -> dict[str, Tensor]:
    """All crossings of one view, hidden ones included."""
    edge, side, plane = _outline_edges(points, edges)
    K = cameras.K[b]
    focal, center = torch.stack([K[0, 0], K[1, 1]]), torch.stack([K[0, 2], K[1, 2]])
    ends = points[edges.ends[edge]]  # [E, 2, 3]
    pixels = ends[..., :2] / ends[..., 2:] * focal + center
    axis = ((pixels[:, 1] - pixels[:, 0]).abs() @ torch.tensor([1.0, -1.0]).to(points) > 0).long()
    across = pixels.gather(2, (1 - axis)[:, None, None].expand(-1, 2, 1)).squeeze(-1)
    size = torch.tensor([cameras.height, cameras.width], device=points.device)
    limit = size[axis].to(points)
    first = torch.minimum((across.amin(1) - 0.5).clamp_min(0), limit).ceil().long()
    last = torch.minimum((across.amax(1) - 0.5).clamp_min(0), limit).ceil().long()
    count = last - first
    k = torch.arange(len(edge), device=points.device).repeat_interleave(count)
    line = torch.arange(len(k), device=points.device) - (count.cumsum(0) - count)[k] + first[k]
    p, q, axis = ends[k, 0], ends[k, 1], axis[k]
    place, depth, _ = cross_line(p, q, axis, line, focal[None], center[None])
    high = plane[k].gather(1, axis[:, None]).squeeze(1) * side[k] > 0
    on = (place >= 0) & (place < size[1 - axis].to(points))
    found = {"axis": axis, "line": line, "edge": edge[k], "place": place, "depth": depth}
    return {name: value[on] for name, value in {**found, "high": high}.items()}


def cross_line(
    p: Float[Tensor, "K 3"],
    q: Float[Tensor, "K 3"],
    axis: Int[Tensor, " K"],
    line: Int[Tensor, " K"],
    focal: Float[Tensor, "#K 2"],
    center: Float[Tensor, "#K 2"],
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Where edges cut lines of pixel centres: coordinate along the line, depth, and how far from p to q (0 to 1)."""
    rows = axis == 0
    other = torch.where(rows, p[:, 1], p[:, 0]), torch.where(rows, q[:, 1], q[:, 0])
    own = torch.where(rows, p[:, 0], p[:, 1]), torch.where(rows, q[:, 0], q[:, 1])
    f = torch.where(rows[:, None], focal, focal.flip(1))
    c = torch.where(rows[:, None], center, center.flip(1))
    slope = (line + 0.5 - c[:, 1]) / f[:, 1]
    at_p, at_q = other[0] - slope * p[:, 2], other[1] - slope * q[:, 2]
    t = at_p / (at_p - at_q)
    z = p[:, 2] + t * (q[:, 2] - p[:, 2])
    return (own[0] + t * (own[1] - own[0])) / z * f[:, 0] + c[:, 0], z, t


def _hide(
    found: dict[str, Tensor],
    points: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edges: MeshEdges,
    cameras: CameraBatch,
    b: int,
) -> tuple[Tensor, Tensor]:
    """Which crossings another surface hides, and the face beyond the others."""
    planes = triangle_planes(points[faces])
    x = torch.where(found["axis"] == 0, found["place"], found["line"] + 0.5)
    y = torch.where(found["axis"] == 0, found["line"] + 0.5, found["place"])
    rays = pixel_rays(cameras, torch.full_like(found["line"], b), x, y)
    box = boxes(points, faces, cameras, b)
    outside = torch.full_like(found["edge"], -1)
    hidden = torch.zeros_like(found["high"])
    for part in torch.arange(len(x), device=x.device).split(max(1, PAIRS_AT_ONCE // len(faces))):
        near = (box[:, 0] - 1 <= x[part, None]) & (x[part, None] <= box[:, 1] + 1)
        near &= (box[:, 2] - 1 <= y[part, None]) & (y[part, None] <= box[:, 3] + 1)
        k, f = near.nonzero().unbind(dim=1)
        weights, depth = intersect(planes[f], rays[part][k])
        ends = edges.ends[found["edge"][part]][k]
        own = (faces[f][:, :, None] == ends[:, None, :]).any(dim=2).sum(dim=1) == 2
        hit = covers(weights, depth) & ~own
        k, f, depth = k[hit], f[hit], depth[hit]
        behind = depth >= found["depth"][part][k]
        count = torch.zeros_like(part).index_add(0, k, (~behind).long())
        hidden[part] = count > 0
        k, f, depth = k[behind], f[behind], depth[behind]
        nearest = depth.new_full((len(part),), torch.inf).scatter_reduce(0, k, depth, "amin")
        front = depth == nearest[k]
        face = torch.full_like(part, len(faces)).scatter_reduce(0, k[front], f[front], "amin")
        outside[part] = torch.where(face == len(faces), -1, face)
    return hidden, outside


def _nearest_side(
    found: dict[str, Tensor],
    points: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edges: MeshEdges,
    cameras: CameraBatch,
    b: int,
) -> Int[Tensor, " K"]:
    """Of the faces around each crossing's edge, the nearest one just inside the outline."""
    moved = found["place"] + torch.where(found["high"], NUDGE, -NUDGE)
    x = torch.where(found["axis"] == 0, moved, found["line"] + 0.5)
    y = torch.where(found["axis"] == 0, found["line"] + 0.5, moved)
    count = edges.face_counts[found["edge"]]
    k = torch.arange(len(x), device=x.device).repeat_interleave(count)
    entry = torch.arange(len(k), device=x.device) - (count.cumsum(0) - count)[k]
    f = edges.face[edges.start[found["edge"]][k] + entry]
    rays = pixel_rays(cameras, torch.full_like(found["line"], b), x, y)[k]
    depth = intersect(triangle_planes(points[faces[f]]), rays)[1]
    depth = torch.where(depth > 0, depth, torch.full_like(depth, torch.inf))
    nearest = depth.new_full((len(x),), torch.inf).scatter_reduce(0, k, depth, "amin")
    front = depth == nearest[k]
    first = torch.full_like(found["line"], len(k)).scatter_reduce(
        0, k[front], front.nonzero()[:, 0], "amin"
    )
    return f[first]


def crossings(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edges: MeshEdges,
    cameras: CameraBatch,
) -> Crossings:
    """Where visible outlines cut rows and columns of pixel centres."""
    points = to_camera(vertices.detach(), cameras)
    views = []
    for b in range(len(cameras)):
        found = _view_crossings(points[b], edges, cameras, b)
        hidden, outside = _hide(found, points[b], faces, edges, cameras, b)
        kept = {name: value[~hidden] for name, value in found.items()}
        inside = _nearest_side(kept, points[b], faces, edges, cameras, b)
        views.append(
            Crossings(
                torch.full_like(kept["line"], b),
                kept["axis"],
                kept["line"],
                edges.ends[kept["edge"]],
                kept["place"],
                kept["high"],
                inside,
                outside[~hidden],
            )
        )
    joined = {name: torch.cat([getattr(v, name) for v in views]) for name in vars(views[0])}
    return Crossings(**joined)
