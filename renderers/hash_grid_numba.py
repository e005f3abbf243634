"""The fast CPU backend of the hash grid. float32, the same for any number of threads.

Forward, threads share the points; a block of points goes through all levels, so that its output stays in cache.
Backward, threads share the levels: each level's rows are its own slice of the table, so nothing is written by two
threads and the order of every sum is fixed.
"""

import numpy as np
import torch
from jaxtyping import Float
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.kernels import kernel, kernel_threads
from renderers.hash_grid import PRIMES, HashGridLayout

F = np.float32
ZERO, HALF, ONE = F(0.0), F(0.5), F(1.0)
PRIME_Y, PRIME_Z = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
BLOCK = 2048
"""Points that go through all levels together."""


@kernel()
def _unit(x):
    """[-1, 1] to [0, 1], clamped; NaN stays NaN."""
    return min(max(x, -ONE), ONE) * HALF + HALF if x == x else x


@kernel()
def _locate(points, n, resolution, first, rows, row, share):
    """The eight table rows around a point (x fastest) and its position inside the cell."""
    side = resolution + 1
    px, py, pz = (
        _unit(points[n, 0]) * F(resolution),
        _unit(points[n, 1]) * F(resolution),
        _unit(points[n, 2]) * F(resolution),
    )
    last = resolution - 1
    x, y, z = min(max(int(px), 0), last), min(max(int(py), 0), last), min(max(int(pz), 0), last)
    share[0], share[1], share[2] = px - F(x), py - F(y), pz - F(z)
    if side * side * side <= rows:
        base = first + x + side * (y + side * z)
        up = side * side
        row[0], row[1], row[2], row[3] = base, base + 1, base + side, base + side + 1
        base += up
        row[4], row[5], row[6], row[7] = base, base + 1, base + side, base + side + 1
        return
    mask = np.uint32(rows - 1)
    x0, x1 = np.uint32(x), np.uint32(x + 1)
    y0, z0 = np.uint32(np.uint32(y) * PRIME_Y), np.uint32(np.uint32(z) * PRIME_Z)
    y1, z1 = np.uint32(y0 + PRIME_Y), np.uint32(z0 + PRIME_Z)
    row[0] = first + np.int64((x0 ^ y0 ^ z0) & mask)
    row[1] = first + np.int64((x1 ^ y0 ^ z0) & mask)
    row[2] = first + np.int64((x0 ^ y1 ^ z0) & mask)
    row[3] = first + np.int64((x1 ^ y1 ^ z0) & mask)
    row[4] = first + np.int64((x0 ^ y0 ^ z1) & mask)
    row[5] = first + np.int64((x1 ^ y0 ^ z1) & mask)
    row[6] = first + np.int64((x0 ^ y1 ^ z1) & mask)
    row[7] = first + np.int64((x1 ^ y1 ^ z1) & mask)


@kernel()
def _weights(share, weight):
    """Trilinear weights of the eight corners, x fastest."""
    u, v, w = share[0], share[1], share[2]
    a, b, c, d = (ONE - v) * (ONE - w), v * (ONE - w), (ONE - v) * w, v * w
    weight[0], weight[1] = (ONE - u) * a, u * a
    weight[2], weight[3] = (ONE - u) * b, u * b
    weight[4], weight[5] = (ONE - u) * c, u * c
    weight[6], weight[7] = (ONE - u) * d, u * d


@kernel(parallel=True)
def _encode(points, table, resolutions, offsets, workers, out):
    count, features = len(points), table.shape[1]
    for worker in prange(workers):
        row, share, weight = np.empty(8, np.int64), np.empty(3, np.float32), np.empty(8, np.float32)
        begin, end = worker * count // workers, (worker + 1) * count // workers
        for block in range(begin, end, BLOCK):
            for level in range(len(resolutions)):
                rows = offsets[level + 1] - offsets[level]
                for n in range(block, min(block + BLOCK, end)):
                    _locate(points, n, resolutions[level], offsets[level], rows, row, share)
                    _weights(share, weight)
                    for f in range(features):
                        total = ZERO
                        for corner in range(8):
                            total += weight[corner] * table[row[corner], f]
                        out[n, level * features + f] = total


@kernel(parallel=True)
def _encode_backward_table(points, resolutions, offsets, grad_out, workers, grad_table):
    features = grad_table.shape[1]
    for worker in prange(workers):
        row, share, weight = np.empty(8, np.int64), np.empty(3, np.float32), np.empty(8, np.float32)
        for level in range(worker, len(resolutions), workers):
            rows = offsets[level + 1] - offsets[level]
            for n in range(len(points)):
                _locate(points, n, resolutions[level], offsets[level], rows, row, share)
                _weights(share, weight)
                for f in range(features):
                    grad = grad_out[n, level * features + f]
                    for corner in range(8):
                        grad_table[row[corner], f] += weight[corner] * grad


@kernel(parallel=True)
def _encode_backward_points(points, table, resolutions, offsets, grad_out, workers, grad_points):
    count, features = len(points), table.shape[1]
    for worker in prange(workers):
        row, share, value = np.empty(8, np.int64), np.empty(3, np.float32), np.empty(8, np.float32)
        for n in range(worker * count // workers, (worker + 1) * count // workers):
            gx, gy, gz = ZERO, ZERO, ZERO
            for level in range(len(resolutions)):
                rows = offsets[level + 1] - offsets[level]
                _locate(points, n, resolutions[level], offsets[level], rows, row, share)
                value[:] = ZERO
                for f in range(features):
                    grad = grad_out[n, level * features + f]
                    for corner in range(8):
                        value[corner] += grad * table[row[corner], f]
                u, v, w, scale = share[0], share[1], share[2], HALF * F(resolutions[level])
                # Differences of opposite faces of the cell, interpolated over the face.
                a, b = value[1] - value[0], value[3] - value[2]
                c, d = value[5] - value[4], value[7] - value[6]
                gx += scale * ((ONE - w) * ((ONE - v) * a + v * b) + w * ((ONE - v) * c + v * d))
                a, b = value[2] - value[0], value[3] - value[1]
                c, d = value[6] - value[4], value[7] - value[5]
                gy += scale * ((ONE - w) * ((ONE - u) * a + u * b) + w * ((ONE - u) * c + u * d))
                a, b = value[4] - value[0], value[5] - value[1]
                c, d = value[6] - value[2], value[7] - value[3]
                gz += scale * ((ONE - v) * ((ONE - u) * a + u * b) + v * ((ONE - u) * c + u * d))
            grad_points[n, 0] = gx if abs(points[n, 0]) <= ONE else ZERO
            grad_points[n, 1] = gy if abs(points[n, 1]) <= ONE else ZERO
            grad_points[n, 2] = gz if abs(points[n, 2]) <= ONE else ZERO


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, table, layout):
        arrays = [value.detach().contiguous().numpy() for value in (points, table)]
        shape = np.asarray(layout.resolutions, np.int64), np.asarray(layout.offsets, np.int64)
        out = np.empty((len(points), layout.width), np.float32)
        with kernel_threads() as workers:
            _encode(*arrays, *shape, workers, out)
        ctx.shape = shape
        ctx.save_for_backward(points, table)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):  # pyright: ignore[reportIncompatibleMethodOverride]
        points, table = (value.detach().contiguous().numpy() for value in ctx.saved_tensors)
        cotangent = grad_out.contiguous().numpy()
        grad_points = grad_table = None
        with kernel_threads() as workers:
            if ctx.needs_input_grad[0]:
                grad_points = np.empty_like(points)
                _encode_backward_points(points, table, *ctx.shape, cotangent, workers, grad_points)
            if ctx.needs_input_grad[1]:
                grad_table = np.zeros_like(table)
                _encode_backward_table(points, *ctx.shape, cotangent, workers, grad_table)
        grads = [None if g is None else torch.from_numpy(g) for g in (grad_points, grad_table)]
        return *grads, None


def encode(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "T F"], layout: HashGridLayout
) -> Float[Tensor, "N LF"]:
    """See `renderers.hash_grid.encode`."""
    return _Encode.apply(points, table, layout)
