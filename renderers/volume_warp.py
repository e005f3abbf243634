"""Marching and compositing in Warp, for CUDA without a compiler on the user's machine.

Checked on its CPU device and an H100. Warp can differentiate kernels by itself, but not loops that change their state:
the backward kernel is written by hand, as in `renderers.volume_numba`, whose notation this follows. One thread a ray,
so results do not depend on the schedule.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: UP018

import torch
import warp as wp
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers import volume_data, volume_torch
from renderers.volume_data import RaySamples
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

NEAR = wp.constant(float(volume_data.NEAR))
FLATTEST = wp.constant(float(volume_torch.FLATTEST))


@wp.func
def ray_of(origins: wp.array2d(dtype=float), directions: wp.array2d(dtype=float), r: int):
    """A ray's origin and direction."""
    origin = wp.vec3(origins[r, 0], origins[r, 1], origins[r, 2])
    return origin, wp.vec3(directions[r, 0], directions[r, 1], directions[r, 2])


@wp.func
def span(origin: wp.vec3, direction: wp.vec3):
    """Where a ray enters and leaves the cube."""
    enter = float(NEAR)
    leave = float(wp.INF)
    for axis in range(3):
        slope = float(direction[axis])
        if wp.abs(slope) < FLATTEST:
            slope = FLATTEST
        one, other = (-1.0 - origin[axis]) / slope, (1.0 - origin[axis]) / slope
        enter = wp.max(enter, wp.min(one, other))
        leave = wp.min(leave, wp.max(one, other))
    return enter, leave


@wp.func
def cell_of(x: float, cells: int) -> int:
    """The cell of the occupancy grid that a coordinate in [-1, 1] lies in."""
    return wp.clamp(int((x + 1.0) * (0.5 * float(cells))), 0, cells - 1)


@wp.func
def sample(
    origin: wp.vec3,
    direction: wp.vec3,
    occupied: wp.array3d(dtype=wp.bool),
    jitter: float,
    step: float,
    begin: float,
    leave: float,
):
    """A ray's interval from `begin` on: its sample's distance and place, and its length, 0 where it is left out."""
    length = wp.min(leave - begin, step)
    t = begin + jitter * length
    p = origin + t * direction
    cells = occupied.shape[0]
    if (
        length <= 0.0
        or not occupied[cell_of(p[0], cells), cell_of(p[1], cells), cell_of(p[2], cells)]
    ):
        length = 0.0
    return t, p, length


@wp.kernel
def march_count(
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    occupied: wp.array3d(dtype=wp.bool),
    jitter: wp.array(dtype=float),
    step: float,
    count: wp.array(dtype=wp.int64),
):
    """How many samples each ray keeps."""
    r = wp.tid()
    origin, direction = ray_of(origins, directions, r)  # pyright: ignore[reportArgumentType]
    enter, leave = span(origin, direction)
    found = wp.int64(0)
    for index in range(int(wp.ceil(wp.max(leave - enter, 0.0) / step))):
        begin = enter + float(index) * step
        _t, _p, length = sample(origin, direction, occupied, jitter[r], step, begin, leave)
        if length > 0.0:
            found = found + wp.int64(1)
    count[r] = found


@wp.kernel
def march_fill(
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    occupied: wp.array3d(dtype=wp.bool),
    jitter: wp.array(dtype=float),
    step: float,
    start: wp.array(dtype=wp.int64),
    points: wp.array2d(dtype=float),
    distance: wp.array(dtype=float),
    lengths: wp.array(dtype=float),
):
    """The samples that `march_count` counted."""
    r = wp.tid()
    origin, direction = ray_of(origins, directions, r)  # pyright: ignore[reportArgumentType]
    enter, leave = span(origin, direction)
    n = int(start[r])
    for index in range(int(wp.ceil(wp.max(leave - enter, 0.0) / step))):
        begin = enter + float(index) * step
        t, p, length = sample(origin, direction, occupied, jitter[r], step, begin, leave)
        if length > 0.0:
            for axis in range(3):
                points[n, axis] = p[axis]
            distance[n] = t
            lengths[n] = length
            n = n + 1


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupied: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, " R"],
) -> RaySamples:
    """Samples where rays cross occupied cells; see `renderers.volume.march`."""
    rays, inputs = len(origins), [origins, directions, occupied, jitter, step]
    start = torch.zeros(rays + 1, dtype=torch.int64, device=origins.device)
    count = torch.empty_like(start[1:])
    launch(march_count, rays, [*inputs, count])
    torch.cumsum(count, dim=0, out=start[1:])
    n = int(start[-1])
    points, t, length = origins.new_empty(n, 3), origins.new_empty(n), origins.new_empty(n)
    launch(march_fill, rays, [*inputs, start, points, t, length])
    ray = torch.arange(rays, device=origins.device).repeat_interleave(count, output_size=n)
    return RaySamples(points, t, length, ray, start)


@wp.kernel
def composite_forward(
    density: wp.array(dtype=float),
    features: wp.array2d(dtype=float),
    length: wp.array(dtype=float),
    start: wp.array(dtype=wp.int64),
    image: wp.array2d(dtype=float),
    alpha: wp.array(dtype=float),
    past: wp.array(dtype=float),
):
    """`image` is zero on entry; `past` is filled with the transmittance behind each interval."""
    r = wp.tid()
    through = float(1.0)
    for n in range(int(start[r]), int(start[r + 1])):
        behind = through * wp.exp(-density[n] * length[n])
        for c in range(image.shape[1]):
            image[r, c] = image[r, c] + (through - behind) * features[n, c]
        past[n] = behind
        through = behind
    alpha[r] = 1.0 - through


@wp.kernel
def composite_backward(
    features: wp.array2d(dtype=float),
    length: wp.array(dtype=float),
    start: wp.array(dtype=wp.int64),
    past: wp.array(dtype=float),
    grad_image: wp.array2d(dtype=float),
    grad_alpha: wp.array(dtype=float),
    grad_density: wp.array(dtype=float),
    grad_features: wp.array2d(dtype=float),
):
    """dL/dtau_i = T_{i+1} v_i - R_i, from the far end of the ray."""
    r = wp.tid()
    rest = float(0.0)
    first = int(start[r])
    count = int(start[r + 1]) - first
    for back in range(count):
        n = first + count - 1 - back
        ahead = float(1.0)
        if n > first:
            ahead = past[n - 1]
        weight = ahead - past[n]
        value = grad_alpha[r]
        for c in range(grad_image.shape[1]):
            value = value + grad_image[r, c] * features[n, c]
            grad_features[n, c] = weight * grad_image[r, c]
        grad_density[n] = length[n] * (past[n] * value - rest)
        rest = rest + weight * value


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, features, length, start):
        rays = len(start) - 1
        image = features.new_zeros(rays, features.shape[1])
        alpha, past = density.new_empty(rays), torch.empty_like(density)
        launch(composite_forward, rays, [density, features, length, start, image, alpha, past])
        ctx.save_for_backward(features, length, start, past)
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha):  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = list(ctx.saved_tensors)
        grad_features, grad_density = torch.empty_like(saved[0]), torch.empty_like(saved[1])
        arguments = [*saved, grad_image, grad_alpha, grad_density, grad_features]
        launch(composite_backward, len(saved[2]) - 1, arguments)
        return grad_density, grad_features, None, None


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """See `renderers.volume.composite`."""
    return _Composite.apply(density, features, length, start)
