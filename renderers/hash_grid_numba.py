"""The fast CPU backend of the hash grid. float32, the same for any number of threads.

Forward, threads share the points; a block of points goes through all levels, so that its output stays in cache.
Backward, threads share the levels: each level's rows are its own slice of the table, so nothing is written by two
threads and the order of every sum is fixed.

Points go through a level in blocks: first where they lie and with which weights, which the compiler turns into vector
code, then the reads and writes of the table, which it cannot. All arrays are flat and indexed with unsigned integers.
"""

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.kernels import kernel, kernel_threads
from renderers.hash_grid import PRIMES, HashGridLayout

FAST = {"contract", "nsz"}
"""Fused multiply-adds: fixed when the code is compiled, so results do not vary."""

F = np.float32
ZERO, HALF, ONE = F(0.0), F(0.5), F(1.0)
PRIME_Y, PRIME_Z = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
BLOCK = 512
"""Points that go through a level together: their rows and weights stay in the first cache."""
PLANE = np.uint64(BLOCK)
"""Where the next corner's entries begin in the arrays of a block."""
THREE = np.uint64(3)


@njit(inline="always", fastmath=FAST, error_model="numpy")
def _scaled(x, resolution):
    """[-1, 1] to [0, resolution], clamped; NaN stays NaN. Selects, not branches: they become vector code."""
    x = ONE if x > ONE else x
    x = -ONE if x < -ONE else x
    return (x * HALF + HALF) * resolution


@njit(inline="always", error_model="numpy")
def _cell(x, last):
    """The cell a scaled coordinate lies in."""
    i = np.int32(x)
    i = i if i < last else last
    return i if i > np.int32(0) else np.int32(0)


@kernel(fastmath=FAST)
def _place(points, begin, count, resolution, cell, share):
    """Cells and positions inside them of `count` points from `begin` on, x then y then z in planes of a block."""
    scale, last = F(resolution), np.int32(resolution - 1)
    for axis in range(3):
        plane, offset = np.uint64(axis) * PLANE, np.uint64(axis)
        for i in range(np.uint64(count)):
            x = _scaled(points[(np.uint64(begin) + i) * THREE + offset], scale)
            c = _cell(x, last)
            cell[plane + i] = np.uint32(c)
            share[plane + i] = x - F(c)


@kernel()
def _rows(cell, count, resolution, rows, row):
    """The eight table rows of a level around each point, corner by corner, x fastest."""
    side = np.uint32(resolution + 1)
    dense, mask = (resolution + 1) ** 3 <= rows, np.uint32(rows - 1)
    for corner in range(8):
        dx, dy, dz = np.uint32(corner & 1), np.uint32(corner >> 1 & 1), np.uint32(corner >> 2)
        plane = np.uint64(corner) * PLANE
        for i in range(np.uint64(count)):
            x = np.uint32(cell[i] + dx)
            y = np.uint32(cell[PLANE + i] + dy)
            z = np.uint32(cell[PLANE + PLANE + i] + dz)
            straight = x + side * np.uint32(y + side * z)
            hashed = (x ^ np.uint32(y * PRIME_Y) ^ np.uint32(z * PRIME_Z)) & mask
            row[plane + i] = np.uint32(straight if dense else hashed)


@kernel(fastmath=FAST)
def _weights(share, count, weight):
    """The trilinear weights of the corners, in the order of `_rows`."""
    for i in range(np.uint64(count)):
        u, v, w = share[i], share[PLANE + i], share[PLANE + PLANE + i]
        a, b = (ONE - v) * (ONE - w), v * (ONE - w)
        c, d = (ONE - v) * w, v * w
        s = ONE - u
        weight[i], weight[PLANE + i] = s * a, u * a
        weight[np.uint64(2) * PLANE + i], weight[np.uint64(3) * PLANE + i] = s * b, u * b
        weight[np.uint64(4) * PLANE + i], weight[np.uint64(5) * PLANE + i] = s * c, u * c
        weight[np.uint64(6) * PLANE + i], weight[np.uint64(7) * PLANE + i] = s * d, u * d


@kernel()
def _scratch():
    """Arrays of a block: cells, positions in them, rows, weights."""
    return (
        np.empty(3 * BLOCK, np.uint32),
        np.empty(3 * BLOCK, np.float32),
        np.empty(8 * BLOCK, np.uint32),
        np.empty(8 * BLOCK, np.float32),
    )


@kernel()
def _pair(f, features):
    """Features f and f + 1 as unsigned columns, and whether the second is not just the last one again."""
    second = f + 1 < features
    return np.uint64(f), np.uint64(f + 1 if second else f), ONE if second else ZERO


@kernel(fastmath=FAST)
def _gather(table, first, features, row, weight, begin, count, out, width, column):
    """out[point, column + f] = sum over the corners of weight times table row, two features at a time."""
    start, stride, across = np.uint64(first), np.uint64(features), np.uint64(width)
    for f in range(0, features, 2):
        f0, f1, _ = _pair(f, features)
        for i in range(np.uint64(count)):
            a, b = ZERO, ZERO
            for corner in range(8):
                place = np.uint64(corner) * PLANE + i
                k = (start + np.uint64(row[place])) * stride
                a += weight[place] * table[k + f0]
                b += weight[place] * table[k + f1]
            target = (np.uint64(begin) + i) * across + np.uint64(column)
            out[target + f0], out[target + f1] = a, b


@kernel(fastmath=FAST)
def _scatter(grad_out, width, column, begin, count, row, weight, first, features, grad_table):
    """The transpose of `_gather`, added to `grad_table`."""
    start, stride, across = np.uint64(first), np.uint64(features), np.uint64(width)
    for f in range(0, features, 2):
        f0, f1, once = _pair(f, features)
        for i in range(np.uint64(count)):
            source = (np.uint64(begin) + i) * across + np.uint64(column)
            a, b = grad_out[source + f0], once * grad_out[source + f1]
            for corner in range(8):
                place = np.uint64(corner) * PLANE + i
                k = (start + np.uint64(row[place])) * stride
                grad_table[k + f0] += weight[place] * a
                grad_table[k + f1] += weight[place] * b


@kernel(parallel=True)
def _encode(points, table, features, resolutions, offsets, workers, out):
    """Points, table and out are flat."""
    count, width = len(points) // 3, len(resolutions) * features
    for worker in prange(workers):
        cell, share, row, weight = _scratch()
        begin, end = worker * count // workers, (worker + 1) * count // workers
        for block in range(begin, end, BLOCK):
            size = min(BLOCK, end - block)
            for level in range(len(resolutions)):
                _place(points, block, size, resolutions[level], cell, share)
                _rows(cell, size, resolutions[level], offsets[level + 1] - offsets[level], row)
                _weights(share, size, weight)
                _gather(
                    table, offsets[level], features, row, weight, block, size,
                    out, width, level * features,
                )  # fmt: skip


@kernel(parallel=True)
def _encode_backward_table(points, features, resolutions, offsets, grad_out, workers, grad_table):
    count, width = len(points) // 3, len(resolutions) * features
    for worker in prange(workers):
        cell, share, row, weight = _scratch()
        for level in range(worker, len(resolutions), workers):
            for block in range(0, count, BLOCK):
                size = min(BLOCK, count - block)
                _place(points, block, size, resolutions[level], cell, share)
                _rows(cell, size, resolutions[level], offsets[level + 1] - offsets[level], row)
                _weights(share, size, weight)
                _scatter(
                    grad_out, width, level * features, block, size, row, weight, offsets[level],
                    features, grad_table,
                )  # fmt: skip


@kernel(fastmath=FAST)
def _slope(table, first, features, row, share, begin, count, grad_out, width, column, scale, grad):
    """Adds one level's gradient to `grad` [points, 3], flat: differences of opposite faces of the cell."""
    start, stride, value = np.uint64(first), np.uint64(features), np.empty(8, np.float32)
    for i in range(np.uint64(count)):
        n = np.uint64(begin) + i
        source = n * np.uint64(width) + np.uint64(column)
        for corner in range(8):
            k = (start + np.uint64(row[np.uint64(corner) * PLANE + i])) * stride
            total = ZERO
            for f in range(stride):
                total += grad_out[source + f] * table[k + f]
            value[corner] = total
        u, v, w = share[i], share[PLANE + i], share[PLANE + PLANE + i]
        # The difference across the cell along one axis, interpolated over the face the axis leaves.
        a, b = value[1] - value[0], value[3] - value[2]
        c, d = value[5] - value[4], value[7] - value[6]
        x = (ONE - w) * ((ONE - v) * a + v * b) + w * ((ONE - v) * c + v * d)
        a, b = value[2] - value[0], value[3] - value[1]
        c, d = value[6] - value[4], value[7] - value[5]
        y = (ONE - w) * ((ONE - u) * a + u * b) + w * ((ONE - u) * c + u * d)
        a, b = value[4] - value[0], value[5] - value[1]
        c, d = value[6] - value[2], value[7] - value[3]
        z = (ONE - v) * ((ONE - u) * a + u * b) + v * ((ONE - u) * c + u * d)
        grad[n * THREE] += scale * x
        grad[n * THREE + np.uint64(1)] += scale * y
        grad[n * THREE + np.uint64(2)] += scale * z


@kernel(parallel=True)
def _encode_backward_points(
    points, table, features, resolutions, offsets, grad_out, workers, grad_points
):
    count, width = len(points) // 3, len(resolutions) * features
    for worker in prange(workers):
        cell, share, row, _ = _scratch()
        begin, end = worker * count // workers, (worker + 1) * count // workers
        for block in range(begin, end, BLOCK):
            size = min(BLOCK, end - block)
            for level in range(len(resolutions)):
                _place(points, block, size, resolutions[level], cell, share)
                _rows(cell, size, resolutions[level], offsets[level + 1] - offsets[level], row)
                _slope(
                    table, offsets[level], features, row, share, block, size,
                    grad_out, width, level * features, HALF * F(resolutions[level]), grad_points,
                )  # fmt: skip
        for k in range(3 * begin, 3 * end):
            # Beyond the cube the clamp holds a point still.
            grad_points[k] = grad_points[k] if abs(points[k]) <= ONE else ZERO


def _flat(value: Tensor) -> np.ndarray:
    return value.detach().contiguous().numpy().reshape(-1)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, table, layout):
        shape = np.asarray(layout.resolutions, np.int64), np.asarray(layout.offsets, np.int64)
        out = np.empty((len(points), layout.width), np.float32)
        with kernel_threads() as workers:
            _encode(_flat(points), _flat(table), layout.features, *shape, workers, out.reshape(-1))
        ctx.shape = layout.features, *shape
        ctx.save_for_backward(points, table)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):  # pyright: ignore[reportIncompatibleMethodOverride]
        points, table = ctx.saved_tensors
        flat, cotangent = (_flat(points), _flat(table)), _flat(grad_out)
        grad_points = grad_table = None
        with kernel_threads() as workers:
            if ctx.needs_input_grad[0]:
                grad_points = torch.zeros_like(points)
                into = grad_points.numpy().reshape(-1)
                _encode_backward_points(*flat, *ctx.shape, cotangent, workers, into)
            if ctx.needs_input_grad[1]:
                grad_table = torch.zeros_like(table)
                into = grad_table.numpy().reshape(-1)
                _encode_backward_table(flat[0], *ctx.shape, cotangent, workers, into)
        return grad_points, grad_table, None


def encode(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "T F"], layout: HashGridLayout
) -> Float[Tensor, "N LF"]:
    """See `renderers.hash_grid.encode`."""
    return _Encode.apply(points, table, layout)
