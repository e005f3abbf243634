"""The fast CPU backend: marching and compositing in numba. float32, the same for any number of threads.

Backward, in one pass from the far end of each ray. With tau_i = density_i length_i, T_i the transmittance before
interval i, w_i = T_i (1 - exp(-tau_i)) and v_i = <feature_i, dL/dimage> + dL/dalpha,
    dL/dtau_i = T_{i+1} v_i - R_i,   R_i = sum over j > i of w_j v_j.
Nothing is divided out, so opaque intervals need no special care.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.kernels import kernel, kernel_threads
from renderers.volume_data import NEAR as _NEAR
from renderers.volume_data import RaySamples
from renderers.volume_torch import FLATTEST as _FLATTEST

F = np.float32
ZERO, HALF, ONE, NEAR, FLATTEST = F(0.0), F(0.5), F(1.0), F(_NEAR), F(_FLATTEST)


@kernel()
def _span(origin, direction):
    """Where a ray enters and leaves the cube."""
    enter, leave = NEAR, F(np.inf)
    for axis in range(3):
        slope = direction[axis] if abs(direction[axis]) >= FLATTEST else FLATTEST
        one, other = (-ONE - origin[axis]) / slope, (ONE - origin[axis]) / slope
        enter = max(enter, min(one, other))
        leave = min(leave, max(one, other))
    return enter, leave


@kernel()
def _sample(origin, direction, occupied, step, jitter, enter, leave, index):
    """Interval `index` of a ray: sample position, its distance, the interval's length, and whether it is kept."""
    begin = enter + F(index) * step
    length = min(leave - begin, step)
    t = begin + jitter * length
    x, y, z = (
        origin[0] + t * direction[0],
        origin[1] + t * direction[1],
        origin[2] + t * direction[2],
    )
    scale, last = HALF * F(len(occupied)), len(occupied) - 1
    i = min(max(int((x + ONE) * scale), 0), last)
    j = min(max(int((y + ONE) * scale), 0), last)
    k = min(max(int((z + ONE) * scale), 0), last)
    return x, y, z, t, length, length > ZERO and occupied[i, j, k]


@kernel(parallel=True)
def _count(origins, directions, occupied, step, jitter, workers, count):
    rays = len(origins)
    for worker in prange(workers):
        for r in range(worker * rays // workers, (worker + 1) * rays // workers):
            enter, leave = _span(origins[r], directions[r])
            found = 0
            for index in range(int(np.ceil(max(leave - enter, ZERO) / step))):
                _, _, _, _, _, kept = _sample(
                    origins[r], directions[r], occupied, step, jitter[r], enter, leave, index
                )
                found += kept
            count[r] = found


@kernel(parallel=True)
def _fill(origins, directions, occupied, step, jitter, start, workers, points, t, length, ray):
    rays = len(origins)
    for worker in prange(workers):
        for r in range(worker * rays // workers, (worker + 1) * rays // workers):
            n = start[r]
            if n == start[r + 1]:
                continue
            enter, leave = _span(origins[r], directions[r])
            for index in range(int(np.ceil(max(leave - enter, ZERO) / step))):
                x, y, z, distance, size, kept = _sample(
                    origins[r], directions[r], occupied, step, jitter[r], enter, leave, index
                )
                if kept:
                    points[n, 0], points[n, 1], points[n, 2] = x, y, z
                    t[n], length[n], ray[n] = distance, size, r
                    n += 1


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupied: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, " R"],
) -> RaySamples:
    """Samples where rays cross occupied cells; see `renderers.volume.march`."""
    rays = tuple(value.detach().contiguous().numpy() for value in (origins, directions))
    cells, offset = occupied.contiguous().numpy(), jitter.contiguous().numpy()
    count = np.empty(len(origins), np.int64)
    start = np.zeros(len(origins) + 1, np.int64)
    with kernel_threads() as workers:
        _count(*rays, cells, F(step), offset, workers, count)
        np.cumsum(count, out=start[1:])
        n = int(start[-1])
        points, ray = np.empty((n, 3), np.float32), np.empty(n, np.int64)
        t, length = np.empty(n, np.float32), np.empty(n, np.float32)
        _fill(*rays, cells, F(step), offset, start, workers, points, t, length, ray)
    return RaySamples(*map(torch.from_numpy, (points, t, length, ray, start)))


@kernel(parallel=True)
def _composite(density, features, length, start, workers, image, alpha):
    rays, channels = image.shape
    for worker in prange(workers):
        for r in range(worker * rays // workers, (worker + 1) * rays // workers):
            through = ONE
            image[r, :] = ZERO
            for n in range(start[r], start[r + 1]):
                past = through * F(math.exp(-density[n] * length[n]))
                weight = through - past
                for c in range(channels):
                    image[r, c] += weight * features[n, c]
                through = past
            alpha[r] = ONE - through


@kernel(parallel=True)
def _composite_backward(
    density, features, length, start, grad_image, grad_alpha, workers, grad_density, grad_features
):
    rays, channels = grad_image.shape
    for worker in prange(workers):
        for r in range(worker * rays // workers, (worker + 1) * rays // workers):
            depth = 0.0
            for n in range(start[r], start[r + 1]):
                depth += density[n] * length[n]
            rest, past = ZERO, F(math.exp(-depth))
            for n in range(start[r + 1] - 1, start[r] - 1, -1):
                depth = max(depth - density[n] * length[n], 0.0)
                ahead = F(math.exp(-depth))
                weight = ahead - past
                value = grad_alpha[r]
                for c in range(channels):
                    value += grad_image[r, c] * features[n, c]
                    grad_features[n, c] = weight * grad_image[r, c]
                grad_density[n] = length[n] * (past * value - rest)
                rest += weight * value
                past = ahead


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, features, length, start):
        arrays = [
            value.detach().contiguous().numpy() for value in (density, features, length, start)
        ]
        rays = len(start) - 1
        image = np.empty((rays, features.shape[1]), np.float32)
        alpha = np.empty(rays, np.float32)
        with kernel_threads() as workers:
            _composite(*arrays, workers, image, alpha)
        ctx.save_for_backward(density, features, length, start)
        return torch.from_numpy(image), torch.from_numpy(alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha):  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = [value.detach().contiguous().numpy() for value in ctx.saved_tensors]
        grads = np.empty_like(saved[0]), np.empty_like(saved[1])
        cotangents = grad_image.contiguous().numpy(), grad_alpha.contiguous().numpy()
        with kernel_threads() as workers:
            _composite_backward(*saved, *cotangents, workers, *grads)
        return torch.from_numpy(grads[0]), torch.from_numpy(grads[1]), None, None


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """Features and coverage of every ray; see `renderers.volume.composite`."""
    return _Composite.apply(density, features, length, start)
