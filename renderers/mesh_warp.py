"""Meshes in Warp, for CUDA without a compiler on the user's machine. Checked on its CPU device and an H100.

The triangle at every pixel is found by one thread a pixel, which goes through its tile's list: nothing is written
twice, so that the picture does not depend on the schedule. Arithmetic is float64 inside, as in `mesh_numba_kernels`,
whose notation this follows, so that shared edges have no gaps. Weights, depth and outlines are the reference's, in
float64 too. Gradients of interpolated values are summed by atomic additions: on a GPU their last bits may differ from
run to run.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: UP018

import dataclasses

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from renderers import mesh_data, mesh_torch
from renderers import mesh_torch_outline as outline
from renderers.mesh_data import Crossings, Fragments, MeshEdges
from renderers.mesh_torch import boxes, fragments_of, to_camera, triangle_planes
from renderers.tiles_warp import THREADS, pixel_of, tile_lists
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

NEAR = wp.constant(wp.float64(mesh_data.NEAR))
TOLERANCE = wp.constant(wp.float64(mesh_torch.tolerance(torch.float64)))
HALF = wp.constant(wp.float64(0.5))
ZERO = wp.constant(wp.float64(0.0))


@wp.kernel
def nearest_faces(
    planes: wp.array2d(dtype=wp.float64),
    start: wp.array(dtype=int),
    entry: wp.array(dtype=int),
    lenses: wp.array2d(dtype=wp.float64),
    width: int,
    height: int,
    faces: int,
    face: wp.array(dtype=wp.int64),
):
    """The nearest triangle of one pixel, the first of those equally near; -1 where there is none.

    Shapes:
        planes: [B F, 10] of every triangle in every view: u, v and the denominator by the ray, the depth's numerator.
        start, entry: from `tile_lists`.
        lenses: [B, 4] fx, fy, cx, cy of every view.
    """
    tile, view, line, column = pixel_of(wp.tid(), width, height)  # pyright: ignore[reportArgumentType]
    if line < 0:
        return
    x = (wp.float64(column) + HALF - lenses[view, 2]) / lenses[view, 0]
    y = (wp.float64(line) + HALF - lenses[view, 3]) / lenses[view, 1]
    near = wp.float64(wp.INF)
    found = int(-1)  # noqa: RUF046
    for e in range(start[tile], start[tile + 1]):
        row = entry[e]
        d = planes[row, 6] * x + planes[row, 7] * y + planes[row, 8]
        if d > ZERO:
            u = planes[row, 0] * x + planes[row, 1] * y + planes[row, 2]
            v = planes[row, 3] * x + planes[row, 4] * y + planes[row, 5]
            least = -TOLERANCE * d
            if u >= least and v >= least and d - u - v >= least:
                depth = planes[row, 9] / d
                if depth > NEAR and depth < near:
                    near = depth
                    found = row - view * faces
    face[(view * height + line) * width + column] = wp.int64(found)


@wp.kernel
def interpolate_forward(
    values: wp.array2d(dtype=float),
    corners: wp.array2d(dtype=wp.int64),
    face: wp.array(dtype=wp.int64),
    weights: wp.array2d(dtype=float),
    out: wp.array2d(dtype=float),
):
    """One channel of one point; 0 where there is no face."""
    n, c = wp.tid()
    total = float(0.0)
    f = int(face[n])
    if f >= 0:
        for corner in range(3):
            total = total + weights[n, corner] * values[int(corners[f, corner]), c]
    out[n, c] = total


@wp.kernel
def interpolate_backward(
    values: wp.array2d(dtype=float),
    corners: wp.array2d(dtype=wp.int64),
    face: wp.array(dtype=wp.int64),
    weights: wp.array2d(dtype=float),
    grad: wp.array2d(dtype=float),
    grad_values: wp.array2d(dtype=float),
    grad_weights: wp.array2d(dtype=float),
):
    """The transpose, one thread a point; both are zero on entry."""
    n = wp.tid()
    f = int(face[n])
    if f < 0:
        return
    for corner in range(3):
        row = int(corners[f, corner])
        total = float(0.0)
        for c in range(values.shape[1]):
            total = total + grad[n, c] * values[row, c]
            wp.atomic_add(grad_values, row, c, grad[n, c] * weights[n, corner])
        grad_weights[n, corner] = total


def face_ids(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Int[Tensor, "B H W"]:
    """The nearest triangle at every pixel's centre, -1 where there is none."""
    views, K = len(cameras), cameras.K.double()
    points = to_camera(vertices.detach().double(), cameras.to(vertices.device, torch.float64))
    planes = triangle_planes(points[:, faces])  # [B, F, 4, 3]
    numerator = (planes[:, :, 2] * planes[:, :, 3]).sum(dim=-1, keepdim=True)
    rows = torch.cat([planes[:, :, :3].flatten(2), numerator], dim=-1)
    rows = torch.where(numerator < 0, -rows, rows).reshape(-1, 10)
    box = torch.cat([boxes(points[b], faces, cameras, b) for b in range(views)])
    view = torch.arange(views, device=faces.device).repeat_interleave(len(faces))
    lists = tile_lists(box, view, cameras)
    lenses = torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], dim=1)
    found = faces.new_empty(views, cameras.height, cameras.width)
    size = cameras.width, cameras.height, len(faces)
    launch(
        nearest_faces, (len(lists[0]) - 1) * THREADS, [rows, *lists, lenses, *size, found.view(-1)]
    )
    return found


def rasterize(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Fragments:
    """What every pixel's centre shows."""
    face = face_ids(vertices, faces, cameras)
    exact = cameras.to(vertices.device, torch.float64)
    found = fragments_of(face, vertices.double(), faces, exact)
    return Fragments(face, found.barycentric.float(), found.depth.float())


def crossings(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edges: MeshEdges,
    cameras: CameraBatch,
) -> Crossings:
    """Where visible outlines cut rows and columns of pixel centres."""
    exact = cameras.to(vertices.device, torch.float64)
    found = outline.crossings(vertices.double(), faces, edges, exact)
    return dataclasses.replace(found, place=found.place.to(vertices))


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, corners, face, weights):
        ctx.save_for_backward(values, corners, face, weights)
        out = values.new_empty(len(face), values.shape[1])
        launch(interpolate_forward, tuple(out.shape), [values, corners, face, weights, out])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        values, corners, face, weights = ctx.saved_tensors
        grad_values, grad_weights = torch.zeros_like(values), torch.zeros_like(weights)
        arguments = [values, corners, face, weights, grad, grad_values, grad_weights]
        launch(interpolate_backward, len(face), arguments)
        return grad_values, None, None, grad_weights


def interpolate(
    values: Float[Tensor, "V C"],
    corners: Int[Tensor, "F 3"],
    face: Int[Tensor, " N"],
    weights: Float[Tensor, "N 3"],
) -> Float[Tensor, "N C"]:
    """Weighted means of the values at triangles' corners; 0 where `face` is -1."""
    return _Interpolate.apply(values, corners, face, weights)
