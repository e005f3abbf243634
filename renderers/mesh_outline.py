"""Smooth outlines: what a pixel shows is an average over the outlines that cut it, and so follows them differentiably.

On every row (and column) of pixel centres a pixel is an interval of length one, cut where visible outlines cross. The
piece around the centre shows what the centre shows; each further piece shows what lies on its side of the crossing.
Moving a crossing lengthens one piece and shortens the next: over all crossings of an outline this is the boundary
integral of a render's derivative, jump times speed times length (Reynolds' transport theorem; Li et al. 2018), sampled
once a pixel. Outlines are found from the edges themselves. Looking for them from pairs of pixels, as nvdiffrast's
antialiasing does (Laine et al. 2020), loses those whose triangle no pixel's centre shows: on fine meshes nearly all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.mesh_data import Crossings
from renderers.mesh_torch import intersect, pixel_rays, to_camera, triangle_planes
from renderers.mesh_torch_outline import cross_line


@dataclass(frozen=True)
class Outline:
    """The pieces of pixels that outlines cut off: M crossings, sorted so that those of one piece follow each other.

    Attributes:
        view: which camera sees it.
        pixel: which pixel of all views it changes, in [0, B H W).
        face: what lies on the far side of the crossing; -1 is nothing.
        barycentric: where on that face.
        width: distance from the crossing to the pixel's border, in pixels.
        first: whether it is the crossing nearest to the pixel's centre on its side.
    """

    view: Int[Tensor, " M"]
    pixel: Int[Tensor, " M"]
    face: Int[Tensor, " M"]
    barycentric: Float[Tensor, "M 3"]
    width: Float[Tensor, " M"]
    first: Tensor


def _far_side(
    crossings: Crossings,
    inner: Tensor,
    place: Float[Tensor, " K"],
    along: Float[Tensor, " K"],
    points: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    cameras: CameraBatch,
) -> tuple[Int[Tensor, " K"], Float[Tensor, "K 3"]]:
    """The face beyond each crossing as seen from the pixel's centre, and the point on it."""
    c = crossings
    face = torch.where(inner, c.inside, c.outside)
    weights = place.new_zeros(len(place), 3)
    # On the edge's own face: a point of the edge.
    own = inner.nonzero()[:, 0]
    corners, t = faces[face[own]], along[own, None]
    on_edge = (corners == c.ends[own, :1]) * (1 - t) + (corners == c.ends[own, 1:]) * t
    weights = weights.index_put((own,), on_edge)
    # On a face behind it: where the ray through the crossing meets it.
    other = (~inner & (face >= 0)).nonzero()[:, 0]
    line = c.line[other].to(place) + 0.5
    rows = c.axis[other] == 0
    x, y = torch.where(rows, place[other], line), torch.where(rows, line, place[other])
    planes = triangle_planes(points[c.view[other, None], faces[face[other]]])
    behind, _ = intersect(planes, pixel_rays(cameras, c.view[other], x, y))
    return face, weights.index_put((other,), behind)


def outline_pieces(
    crossings: Crossings,
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    cameras: CameraBatch,
) -> Outline:
    """What the crossings cut off from the pixels they lie in, differentiable in the vertices."""
    c = crossings
    points = to_camera(vertices, cameras)
    K = cameras.K[c.view]
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=1)
    center = torch.stack([K[:, 0, 2], K[:, 1, 2]], dim=1)
    ends = points[c.view[:, None], c.ends]
    place, _, along = cross_line(ends[:, 0], ends[:, 1], c.axis, c.line, focal, center)
    cell = c.place.floor()
    offset = place - cell - 0.5
    beyond = (c.place - cell) >= 0.5
    face, weights = _far_side(c, c.high == beyond, place, along, points, faces, cameras)
    rows, cell = c.axis == 0, cell.long()
    row, column = torch.where(rows, c.line, cell), torch.where(rows, cell, c.line)
    pixel = (c.view * cameras.height + row) * cameras.width + column
    # By piece (pixel, axis, side of the centre), nearest to the centre first.
    side = torch.where(beyond, offset, -offset)
    order = side.detach().argsort(stable=True)
    piece = (pixel * 2 + c.axis) * 2 + beyond.long()
    order = order[piece[order].argsort(stable=True)]
    piece = piece[order]
    first = torch.ones_like(piece, dtype=torch.bool)
    first[1:] = piece[1:] != piece[:-1]
    return Outline(
        c.view[order], pixel[order], face[order], weights[order], 0.5 - side[order], first
    )


def blend(
    image: Float[Tensor, "P C"], outline: Outline, beyond: Float[Tensor, "M C"]
) -> Float[Tensor, "P C"]:
    """Pixels with the pieces beyond outlines averaged in.

    Args:
        image: what the centres show, all pixels of all views.
        outline: what is cut off.
        beyond: what lies beyond each crossing.
    """
    before = torch.where(outline.first[:, None], image[outline.pixel], beyond.roll(1, dims=0))
    cut = torch.where(outline.first, outline.width, torch.zeros_like(outline.width))
    total = cut.new_zeros(len(image)).index_add(0, outline.pixel, cut)[outline.pixel]
    # Rows and columns each see a part of what is cut off; both together never take more than the pixel.
    share = outline.width / total.clamp_min(1.0)
    return image.index_add(0, outline.pixel, share[:, None] * (beyond - before))
