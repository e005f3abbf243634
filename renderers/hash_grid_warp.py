"""The hash grid in Warp, for CUDA without a compiler on the user's machine. Checked on its CPU device and an H100.

One thread a point and level. The gradient of the table is summed by atomic additions, in whatever order threads come:
on a GPU the last bits of a step may differ from run to run, unlike with the other backends.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: UP018

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.hash_grid import PRIMES, HashGridLayout
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

PRIME_Y = wp.constant(wp.uint32(PRIMES[1]))
PRIME_Z = wp.constant(wp.uint32(PRIMES[2]))


@wp.func
def scaled(x: float, resolution: int) -> float:
    """[-1, 1] to [0, resolution], clamped."""
    return (wp.clamp(x, -1.0, 1.0) * 0.5 + 0.5) * float(resolution)


@wp.func
def cell_of(x: float, resolution: int) -> int:
    """The cell a scaled coordinate lies in."""
    return wp.clamp(int(wp.floor(x)), 0, resolution - 1)


@wp.func
def row_of(x: int, y: int, z: int, resolution: int, rows: int) -> int:
    """The row, within its level, of a vertex; see `renderers.hash_grid.vertex_rows`."""
    side = wp.int64(resolution + 1)
    if side * side * side <= wp.int64(rows):
        return x + (resolution + 1) * (y + (resolution + 1) * z)
    mixed = wp.uint32(x) ^ (wp.uint32(y) * PRIME_Y) ^ (wp.uint32(z) * PRIME_Z)
    return int(mixed & wp.uint32(rows - 1))


@wp.func
def side_of(share: float, bit: int) -> float:
    """The linear weight of the near (0) or far (1) vertex."""
    if bit == 1:
        return share
    return 1.0 - share


@wp.kernel
def encode_forward(
    points: wp.array2d(dtype=float),
    table: wp.array2d(dtype=float),
    resolutions: wp.array(dtype=int),
    offsets: wp.array(dtype=int),
    out: wp.array2d(dtype=float),
):
    """`out` is zero on entry."""
    n, level = wp.tid()
    resolution = resolutions[level]
    rows = offsets[level + 1] - offsets[level]
    features = table.shape[1]
    px, py, pz = (
        scaled(points[n, 0], resolution),
        scaled(points[n, 1], resolution),
        scaled(points[n, 2], resolution),
    )
    x, y, z = cell_of(px, resolution), cell_of(py, resolution), cell_of(pz, resolution)
    u, v, w = px - float(x), py - float(y), pz - float(z)
    for corner in range(8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = side_of(u, i) * side_of(v, j) * side_of(w, k)
        row = offsets[level] + row_of(x + i, y + j, z + k, resolution, rows)
        for f in range(features):
            column = level * features + f
            out[n, column] = out[n, column] + weight * table[row, f]


@wp.kernel
def encode_backward_table(
    points: wp.array2d(dtype=float),
    resolutions: wp.array(dtype=int),
    offsets: wp.array(dtype=int),
    grad_out: wp.array2d(dtype=float),
    grad_table: wp.array2d(dtype=float),
):
    """`grad_table` is zero on entry."""
    n, level = wp.tid()
    resolution = resolutions[level]
    rows = offsets[level + 1] - offsets[level]
    features = grad_table.shape[1]
    px, py, pz = (
        scaled(points[n, 0], resolution),
        scaled(points[n, 1], resolution),
        scaled(points[n, 2], resolution),
    )
    x, y, z = cell_of(px, resolution), cell_of(py, resolution), cell_of(pz, resolution)
    u, v, w = px - float(x), py - float(y), pz - float(z)
    for corner in range(8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = side_of(u, i) * side_of(v, j) * side_of(w, k)
        row = offsets[level] + row_of(x + i, y + j, z + k, resolution, rows)
        for f in range(features):
            wp.atomic_add(grad_table, row, f, weight * grad_out[n, level * features + f])


@wp.kernel
def encode_backward_points(
    points: wp.array2d(dtype=float),
    table: wp.array2d(dtype=float),
    resolutions: wp.array(dtype=int),
    offsets: wp.array(dtype=int),
    grad_out: wp.array2d(dtype=float),
    grad_points: wp.array2d(dtype=float),
):
    """One thread a point, over all levels, so that nothing is added by two threads; zero on entry."""
    n = wp.tid()
    features = table.shape[1]
    for level in range(resolutions.shape[0]):
        resolution = resolutions[level]
        rows = offsets[level + 1] - offsets[level]
        scale = 0.5 * float(resolution)
        px, py, pz = (
            scaled(points[n, 0], resolution),
            scaled(points[n, 1], resolution),
            scaled(points[n, 2], resolution),
        )
        x, y, z = cell_of(px, resolution), cell_of(py, resolution), cell_of(pz, resolution)
        u, v, w = px - float(x), py - float(y), pz - float(z)
        for corner in range(8):
            i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
            a, b, c = side_of(u, i), side_of(v, j), side_of(w, k)
            row = offsets[level] + row_of(x + i, y + j, z + k, resolution, rows)
            total = float(0.0)
            for f in range(features):
                total = total + grad_out[n, level * features + f] * table[row, f]
            # The weights' slopes are +1 at the far vertex and -1 at the near one; the clamp holds a point still.
            if wp.abs(points[n, 0]) <= 1.0:
                grad_points[n, 0] = grad_points[n, 0] + scale * float(2 * i - 1) * b * c * total
            if wp.abs(points[n, 1]) <= 1.0:
                grad_points[n, 1] = grad_points[n, 1] + scale * float(2 * j - 1) * a * c * total
            if wp.abs(points[n, 2]) <= 1.0:
                grad_points[n, 2] = grad_points[n, 2] + scale * float(2 * k - 1) * a * b * total


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, table, layout):
        def whole(values):
            return torch.tensor(values, dtype=torch.int32, device=points.device)

        ctx.shape = whole(layout.resolutions), whole(layout.offsets)
        ctx.save_for_backward(points, table)
        out = points.new_zeros(len(points), layout.width)
        size = (len(points), len(layout.resolutions))
        launch(encode_forward, size, [points, table, *ctx.shape, out])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):  # pyright: ignore[reportIncompatibleMethodOverride]
        points, table = ctx.saved_tensors
        grad_points = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_points = torch.zeros_like(points)
            arguments = [points, table, *ctx.shape, grad_out, grad_points]
            launch(encode_backward_points, len(points), arguments)
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            size = (len(points), len(ctx.shape[0]))
            launch(encode_backward_table, size, [points, *ctx.shape, grad_out, grad_table])
        return grad_points, grad_table, None


def encode(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "T F"], layout: HashGridLayout
) -> Float[Tensor, "N LF"]:
    """See `renderers.hash_grid.encode`."""
    return _Encode.apply(points, table, layout)
