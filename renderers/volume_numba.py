"""The fast CPU backend: marching and compositing in numba. float32, the same for any number of threads.

Backward, in one pass from the far end of each ray. With tau_i = density_i length_i, T_i the transmittance before
interval i, w_i = T_i (1 - exp(-tau_i)) and v_i = <feature_i, dL/dimage> + dL/dalpha,
    dL/dtau_i = T_{i+1} v_i - R_i,   R_i = sum over j > i of w_j v_j.
Nothing is divided out, so opaque intervals need no special care. The forward pass keeps T, so no exponential is taken
twice. Features are indexed flat, with unsigned integers, four channels at a time in scalars: with signed indices or
sums held in arrays the same loops take three times as long.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.kernels import kernel, kernel_threads
from renderers.volume_data import NEAR as _NEAR
from renderers.volume_data import RaySamples
from renderers.volume_torch import FLATTEST as _FLATTEST

FAST = {"reassoc", "contract", "nsz"}
"""Sums over samples in vector lanes, fused multiply-adds: fixed when the code is compiled, so results do not vary."""

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


# Taylor's series is within 1e-8 of exp(r) for |r| <= log(2) / 2, up to the seventh power.
LOG2_E, LOG2_HIGH, LOG2_LOW = F(1.4426950408889634), F(0.693359375), F(-2.12194440e-4)
STEP = np.uint64(1)
E2, E3, E4, E5, E6, E7 = (F(1.0 / factor) for factor in (2, 6, 24, 120, 720, 5040))
DARKEST = F(-87.0)
"""exp of less is 0 in float32, but for subnormal numbers."""


@njit(inline="always", fastmath=FAST, error_model="numpy")
def _exp(x):
    """exp on (-inf, 0], in a form that the compiler turns into vector code; NaN stays NaN."""
    x = DARKEST if x < DARKEST else x
    n = np.int32(x * LOG2_E - HALF)
    r = (x - F(n) * LOG2_HIGH) - F(n) * LOG2_LOW
    p = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * (E6 + r * E7))))))
    return p * np.int32((n + 127) << 23).view(np.float32)


@kernel(fastmath=FAST)
def _shine_through(density, length, begin, end, past):
    """exp(-density length) of each interval."""
    for n in range(np.uint64(begin), np.uint64(end)):
        past[n] = _exp(-density[n] * length[n])


@kernel()
def _four(c, channels):
    """Channels c to c + 3 as unsigned columns; beyond the last one, the last one again."""
    last = channels - 1
    return (
        np.uint64(c),
        np.uint64(min(c + 1, last)),
        np.uint64(min(c + 2, last)),
        np.uint64(min(c + 3, last)),
    )


@kernel(fastmath=FAST)
def _weigh(features, begin, end, width, columns, past, image):
    """Four channels of one ray: sums of weights times features."""
    c0, c1, c2, c3 = columns
    a0, a1, a2, a3, ahead = ZERO, ZERO, ZERO, ZERO, ONE
    for n in range(begin, end):
        behind, k = past[n], n * width
        weight = ahead - behind
        a0 += weight * features[k + c0]
        a1 += weight * features[k + c1]
        a2 += weight * features[k + c2]
        a3 += weight * features[k + c3]
        ahead = behind
    image[c0], image[c1], image[c2], image[c3] = a0, a1, a2, a3


@kernel(parallel=True, fastmath=FAST)
def _composite(density, features, length, start, workers, image, alpha, past):
    """`features` are flat; `past` is filled with the transmittance behind each interval."""
    rays, channels = image.shape
    for worker in prange(workers):
        first, last = worker * rays // workers, (worker + 1) * rays // workers
        _shine_through(density, length, start[first], start[last], past)
        for r in range(first, last):
            begin, end, through = np.uint64(start[r]), np.uint64(start[r + 1]), ONE
            for n in range(begin, end):
                through *= past[n]
                past[n] = through
            alpha[r] = ONE - through
            for c in range(0, channels, 4):
                _weigh(
                    features, begin, end, np.uint64(channels), _four(c, channels), past, image[r]
                )


@kernel(fastmath=FAST)
def _weigh_backward(features, begin, end, width, columns, past, grad, value, grad_features):
    """Four channels of one ray: gradients of the features, and <feature_i, dL/dimage> added to `value`."""
    c0, c1, c2, c3 = columns
    g0, g1, g2, g3 = grad[c0], grad[c1], grad[c2], grad[c3]
    # A column that only repeats the last channel counts once.
    h1, h2, h3 = g1 if c1 > c0 else ZERO, g2 if c2 > c1 else ZERO, g3 if c3 > c2 else ZERO
    ahead = ONE
    for n in range(begin, end):
        behind, k = past[n], n * width
        weight = ahead - behind
        value[n] += (
            g0 * features[k + c0]
            + h1 * features[k + c1]
            + h2 * features[k + c2]
            + h3 * features[k + c3]
        )
        grad_features[k + c0] = weight * g0
        grad_features[k + c1] = weight * g1
        grad_features[k + c2] = weight * g2
        grad_features[k + c3] = weight * g3
        ahead = behind


@kernel(parallel=True, fastmath=FAST)
def _composite_backward(
    features, length, start, past, grad_image, grad_alpha, workers, grad_density, grad_features
):
    """`features` and `grad_features` are flat."""
    rays, channels = grad_image.shape
    for worker in prange(workers):
        for r in range(worker * rays // workers, (worker + 1) * rays // workers):
            begin, end = np.uint64(start[r]), np.uint64(start[r + 1])
            for n in range(begin, end):
                grad_density[n] = grad_alpha[r]  # v_i, for now
            for c in range(0, channels, 4):
                _weigh_backward(
                    features, begin, end, np.uint64(channels), _four(c, channels), past,
                    grad_image[r], grad_density, grad_features,
                )  # fmt: skip
            rest = ZERO
            for back in range(end - begin):
                n = end - STEP - back
                ahead = past[n - STEP] if n > begin else ONE
                value = grad_density[n]
                grad_density[n] = length[n] * (past[n] * value - rest)
                rest += (ahead - past[n]) * value


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, features, length, start):
        arrays = [
            value.detach().contiguous().numpy() for value in (density, features, length, start)
        ]
        rays = len(start) - 1
        image = np.empty((rays, features.shape[1]), np.float32)
        alpha = np.empty(rays, np.float32)
        past = np.empty(len(density), np.float32)
        with kernel_threads() as workers:
            arrays[1] = arrays[1].reshape(-1)
            _composite(*arrays, workers, image, alpha, past)
        ctx.save_for_backward(features, length, start, torch.from_numpy(past))
        return torch.from_numpy(image), torch.from_numpy(alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha):  # pyright: ignore[reportIncompatibleMethodOverride]
        features, *saved = (value.detach().contiguous().numpy() for value in ctx.saved_tensors)
        cotangents = grad_image.contiguous().numpy(), grad_alpha.contiguous().numpy()
        grad_density, grad_features = np.empty_like(saved[0]), np.empty_like(features)
        with kernel_threads() as workers:
            _composite_backward(
                features.reshape(-1), *saved, *cotangents, workers,
                grad_density, grad_features.reshape(-1),
            )  # fmt: skip
        return torch.from_numpy(grad_density), torch.from_numpy(grad_features), None, None


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """Features and coverage of every ray; see `renderers.volume.composite`."""
    return _Composite.apply(density, features, length, start)
