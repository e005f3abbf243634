"""Splats projected by Warp: every splat in every view at once, by one kernel forward and one backward.

The formulas are those of `renderers.splats_warp_geometry`.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false
# ruff: noqa: UP018

from typing import NamedTuple

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from renderers import splats_data
from renderers.splats_data import RasterSettings, SplatData
from renderers.splats_warp_geometry import (
    LEAST_SHARE,
    LOG_MAX,
    LOG_MIN,
    LOW_PASS,
    ONE,
    TWO,
    ZERO,
    f64,
    footprint_of,
    grad_of_quaternion,
    matrix_of,
    point_of,
    rotation_of,
    scales_of,
    unit_quaternion,
)
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

ALPHA_CUT = wp.constant(f64(splats_data.ALPHA_CUT))
HALF = wp.constant(f64(0.5))
WIDER, SLACK = wp.constant(f64(1.001)), wp.constant(f64(1e-3))


@wp.func
def pixels_between(center: wp.float64, extent: wp.float64, size: int):
    """The pixels (from, to) within the image whose centres lie in reach; slack, for alpha decides what is drawn."""
    reach = extent * WIDER + SLACK
    low = wp.clamp(wp.ceil(center - reach - HALF), ZERO, f64(size))
    high = wp.clamp(wp.floor(center + reach + HALF), ZERO, f64(size))
    return int(low), int(high)


@wp.kernel
def project_forward(
    means: wp.array2d(dtype=float),
    log_scales: wp.array2d(dtype=float),
    quaternions: wp.array2d(dtype=float),
    opacity_logits: wp.array(dtype=float),
    offset: wp.array3d(dtype=float),
    w2c: wp.array3d(dtype=wp.float64),
    K: wp.array3d(dtype=wp.float64),
    width: int,
    height: int,
    near: wp.float64,
    antialias: int,
    screen: wp.array3d(dtype=float),
    depth: wp.array2d(dtype=float),
    box: wp.array3d(dtype=int),
    radii: wp.array2d(dtype=float),
):
    """One splat in one view; what cannot be seen gets an empty box and the radius 0, and is then read by nobody.

    `offset` has no views where there is none. Columns of `screen`: see `renderers.splats_warp.footprint`.
    """
    b, n = wp.tid()
    for k in range(6):
        screen[b, n, k] = float(0.0)
    for k in range(4):
        box[b, n, k] = 0
    radii[b, n] = float(0.0)
    point = point_of(means, n, w2c, b)
    depth[b, n] = float(point[2])
    opacity = ONE / (ONE + wp.exp(-f64(opacity_logits[n])))
    if point[2] <= near or opacity <= ALPHA_CUT:
        return
    q, _ = unit_quaternion(quaternions, n)
    f = footprint_of(
        point, rotation_of(w2c, b), matrix_of(q), scales_of(log_scales, n), K, b, width, height
    )
    if antialias != 0:
        opacity = opacity * wp.sqrt(wp.max(f.sharp / f.blurred, LEAST_SHARE))
        if opacity <= ALPHA_CUT:
            return
    x = point[0] / point[2] * K[b, 0, 0] + K[b, 0, 2]
    y = point[1] / point[2] * K[b, 1, 1] + K[b, 1, 2]
    if offset.shape[0] > 0:
        x = x + f64(offset[b, n, 0])
        y = y + f64(offset[b, n, 1])
    root = wp.sqrt(f.yy) * wp.sqrt(f.blurred)
    screen[b, n, 0] = float(x)
    screen[b, n, 1] = float(y)
    screen[b, n, 2] = float(f.yy / root)
    screen[b, n, 3] = float(-f.xy / root)
    screen[b, n, 4] = float(ONE / wp.sqrt(f.yy))
    screen[b, n, 5] = float(opacity)
    # alpha >= 1/255 is an ellipse; its box follows from the covariance's diagonal.
    reach = TWO * wp.log(opacity / ALPHA_CUT)
    wide, high = wp.sqrt(reach * f.xx), wp.sqrt(reach * f.yy)
    x0, x1 = pixels_between(x, wide, width)
    y0, y1 = pixels_between(y, high, height)
    box[b, n, 0] = x0
    box[b, n, 1] = x1
    box[b, n, 2] = y0
    box[b, n, 3] = y1
    radii[b, n] = float(wp.max(wide, high))


@wp.kernel
def project_backward(
    means: wp.array2d(dtype=float),
    log_scales: wp.array2d(dtype=float),
    quaternions: wp.array2d(dtype=float),
    opacity_logits: wp.array(dtype=float),
    w2c: wp.array3d(dtype=wp.float64),
    K: wp.array3d(dtype=wp.float64),
    width: int,
    height: int,
    antialias: int,
    box: wp.array3d(dtype=int),
    grad_screen: wp.array3d(dtype=float),
    grad_depth: wp.array2d(dtype=float),
    grad_means: wp.array2d(dtype=float),
    grad_log_scales: wp.array2d(dtype=float),
    grad_quaternions: wp.array2d(dtype=float),
    grad_opacity_logits: wp.array(dtype=float),
):
    """One splat, over the views in which it has a box: the sums need no atomic additions."""
    n = wp.tid()
    q, length = unit_quaternion(quaternions, n)
    turn = matrix_of(q)
    scales = scales_of(log_scales, n)
    sigmoid = ONE / (ONE + wp.exp(-f64(opacity_logits[n])))
    by_mean = wp.vec3d(ZERO, ZERO, ZERO)
    by_scales = wp.vec3d(ZERO, ZERO, ZERO)
    by_turn = wp.mat33d()
    by_opacity = f64(0.0)
    for b in range(w2c.shape[0]):
        if box[b, n, 1] > box[b, n, 0] and box[b, n, 3] > box[b, n, 2]:
            view = rotation_of(w2c, b)
            f = footprint_of(point_of(means, n, w2c, b), view, turn, scales, K, b, width, height)

            # From the Cholesky factor (along, shear, across) to the covariance's entries and determinants.
            root = wp.sqrt(f.yy) * wp.sqrt(f.blurred)
            by_along = f64(grad_screen[b, n, 2])
            by_shear = f64(grad_screen[b, n, 3])
            by_across = f64(grad_screen[b, n, 4])
            by_yy = (by_along * f.yy + by_shear * f.xy) / root - by_across / wp.sqrt(f.yy)
            by_yy = HALF * by_yy / f.yy
            by_xy = -by_shear / root
            both = (by_along * f.yy - by_shear * f.xy) / root
            by_blurred = -HALF * both / f.blurred
            by_sharp = f64(0.0)
            share = ONE
            if antialias != 0:
                share = wp.sqrt(wp.max(f.sharp / f.blurred, LEAST_SHARE))
                if f.sharp > LEAST_SHARE * f.blurred:
                    slope = HALF * f64(grad_screen[b, n, 5]) * sigmoid / (share * f.blurred)
                    by_sharp = slope
                    by_blurred = by_blurred - slope * share * share
            by_opacity = by_opacity + f64(grad_screen[b, n, 5]) * share
            by_sharp = by_sharp + by_blurred
            by_yy = by_yy + LOW_PASS * by_blurred
            by_xx = LOW_PASS * by_blurred

            # To the rows of A and their cross product, then to scales and to what the rotation was applied to.
            first = wp.cw_mul(scales, f.axes_x)
            second = wp.cw_mul(scales, f.axes_y)
            by_first = TWO * by_xx * first + by_xy * second
            by_second = TWO * by_yy * second + by_xy * first
            by_cross = TWO * by_sharp * wp.cw_mul(f.areas, f.axes_normal)
            by_areas = wp.cw_mul(by_cross, f.axes_normal)
            by_scales = by_scales + wp.cw_mul(by_first, f.axes_x) + wp.cw_mul(by_second, f.axes_y)
            by_scales = by_scales + wp.vec3d(
                by_areas[1] * scales[2] + by_areas[2] * scales[1],
                by_areas[0] * scales[2] + by_areas[2] * scales[0],
                by_areas[0] * scales[1] + by_areas[1] * scales[0],
            )
            by_axes_x = wp.cw_mul(scales, by_first)
            by_axes_y = wp.cw_mul(scales, by_second)
            by_axes_normal = wp.cw_mul(f.areas, by_cross)
            by_turn = by_turn + wp.outer(f.ray_x, by_axes_x) + wp.outer(f.ray_y, by_axes_y)
            by_turn = by_turn + wp.outer(f.normal, by_axes_normal)

            # To the Jacobian's rows, its slopes, and the centre.
            z = f.point[2]
            fx, fy = K[b, 0, 0] / z, K[b, 1, 1] / z
            by_j1 = view * (turn * by_axes_x)
            by_j2 = view * (turn * by_axes_y)
            by_j3 = view * (turn * by_axes_normal)
            by_slope_x = fx * (fy * by_j3[0] - by_j1[2])
            by_slope_y = fy * (fx * by_j3[1] - by_j2[2])
            by_z = fx * (f.slope[0] * by_j1[2] - by_j1[0]) + fy * (f.slope[1] * by_j2[2] - by_j2[1])
            by_z = (by_z - TWO * fx * fy * wp.dot(by_j3, f.slope)) / z + f64(grad_depth[b, n])
            by_x = fx * f64(grad_screen[b, n, 0])
            by_y = fy * f64(grad_screen[b, n, 1])
            by_z = by_z - (by_x * f.point[0] + by_y * f.point[1]) / z
            if f.slope[0] == f.point[0] / z:
                by_x = by_x + by_slope_x / z
                by_z = by_z - by_slope_x * f.slope[0] / z
            if f.slope[1] == f.point[1] / z:
                by_y = by_y + by_slope_y / z
                by_z = by_z - by_slope_y * f.slope[1] / z
            by_mean = by_mean + wp.transpose(view) * wp.vec3d(by_x, by_y, by_z)
    by_quaternion = grad_of_quaternion(q, length, by_turn)
    for k in range(3):
        grad_means[n, k] = float(by_mean[k])
        log = f64(log_scales[n, k])
        grad_log_scales[n, k] = float(0.0)
        if log >= LOG_MIN and log <= LOG_MAX:
            grad_log_scales[n, k] = float(by_scales[k] * scales[k])
    for k in range(4):
        grad_quaternions[n, k] = float(by_quaternion[k])
    grad_opacity_logits[n] = float(by_opacity * sigmoid * (ONE - sigmoid))


class Projected(NamedTuple):
    """All splats in all views.

    Attributes:
        screen: centre, inverse covariance (Cholesky: along, shear, across), opacity; zeros where not seen.
        depth: the centre's z-depth.
        box: pixels from x0 to x1 and y0 to y1 (exclusive) in the image that it can reach; empty where not seen.
        radii: half-size in pixels of the region in which alpha >= 1/255; 0 where not seen.
    """

    screen: Float[Tensor, "B N 6"]
    depth: Float[Tensor, "B N"]
    box: Int[Tensor, "B N 4"]
    radii: Float[Tensor, "B N"]


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, log_scales, quaternions, opacity_logits, offset, cameras, settings):
        device, shape = means.device, (len(cameras), len(means))
        size = cameras.width, cameras.height
        inputs = [means, log_scales, quaternions, opacity_logits]
        exact = cameras.to(device, torch.float64)
        lenses = [exact.w2c, exact.K]
        screen, depth = means.new_empty(*shape, 6), means.new_empty(shape)
        box, radii = (
            torch.empty(*shape, 4, dtype=torch.int32, device=device),
            means.new_empty(shape),
        )
        moved = means.new_empty(0, len(means), 2) if offset is None else offset
        how = [*size, float(settings.near), int(settings.antialias)]
        launch(project_forward, shape, [*inputs, moved, *lenses, *how, screen, depth, box, radii])
        ctx.save_for_backward(*inputs, *lenses, box)
        ctx.how = [*size, int(settings.antialias)]
        ctx.mark_non_differentiable(box, radii)
        return screen, depth, box, radii

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_screen, grad_depth, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, box = ctx.saved_tensors
        grads = [torch.empty_like(value) for value in inputs[:4]]
        arguments = [*inputs, *ctx.how, box, grad_screen, grad_depth, *grads]
        launch(project_backward, len(inputs[0]), arguments)
        by_offset = grad_screen[..., :2] if ctx.needs_input_grad[4] else None
        return *grads, by_offset, None, None


def project(
    splats: SplatData,
    cameras: CameraBatch,
    settings: RasterSettings,
    screen_offset: Float[Tensor, "B N 2"] | None,
) -> Projected:
    """Every splat in every view; gradients of `screen` and `depth` reach all parameters and the offset."""
    parameters = splats.means, splats.log_scales, splats.quaternions, splats.opacity_logits
    return Projected(*_Project.apply(*parameters, screen_offset, cameras, settings))
