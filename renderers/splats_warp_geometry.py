"""The geometry of projected splats, for Warp's kernels: float64, and free of cancellation, also for needles.

With J the projection's Jacobian, W the camera's and R the splat's rotation and S its scales, the sharp screen
covariance is A A^T with A = J W R S. Its determinant is the squared length of the cross product of A's rows, and that
product is cof(S) R^T W^T (j1 x j2), in which nothing is subtracted. With the low-pass l the determinant grows by
l trace(A A^T) + l^2, and the Cholesky factor of the inverse is made of these sums alone.
"""

# Warp reads kernel annotations as values.
# pyright: reportInvalidTypeForm=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

import warp as wp

from renderers import splats_data

f64 = wp.float64
LOW_PASS = wp.constant(f64(splats_data.LOW_PASS))
MARGIN = wp.constant(f64(splats_data.FRUSTUM_MARGIN))
LOG_MIN = wp.constant(f64(splats_data.LOG_SCALE_MIN))
LOG_MAX = wp.constant(f64(splats_data.LOG_SCALE_MAX))
LEAST_SHARE = wp.constant(f64(1e-12))
"""Of the sharp determinant in the blurred one, as in the reference."""
LEAST_LENGTH = wp.constant(f64(1e-12))
"""A quaternion is divided by no less, as in the reference."""
ZERO, ONE, TWO = (wp.constant(f64(x)) for x in (0.0, 1.0, 2.0))


@wp.struct
class Footprint:
    """What forward and backward both need of one splat in one view."""

    point: wp.vec3d
    """The centre in the camera's coordinates."""
    slope: wp.vec3d
    """(x/z, y/z, 1) where the projection is taken to be affine: within the frustum and its margin."""
    ray_x: wp.vec3d
    ray_y: wp.vec3d
    """W^T j1 and W^T j2."""
    normal: wp.vec3d
    """W^T (j1 x j2)."""
    axes_x: wp.vec3d
    axes_y: wp.vec3d
    """R^T of these rays; `first` and `second` are they times the scales."""
    axes_normal: wp.vec3d
    scales: wp.vec3d
    areas: wp.vec3d
    """The cofactors of the scales: products of the other two."""
    xx: wp.float64
    xy: wp.float64
    yy: wp.float64
    """The blurred covariance."""
    sharp: wp.float64
    blurred: wp.float64
    """Determinants."""


@wp.func
def triple(rows: wp.array2d(dtype=float), n: int):
    """Row `n` as a vector."""
    return wp.vec3d(f64(rows[n, 0]), f64(rows[n, 1]), f64(rows[n, 2]))


@wp.func
def rotation_of(w2c: wp.array3d(dtype=wp.float64), b: int):
    """A camera's rotation."""
    return wp.mat33d(
        w2c[b, 0, 0], w2c[b, 0, 1], w2c[b, 0, 2],
        w2c[b, 1, 0], w2c[b, 1, 1], w2c[b, 1, 2],
        w2c[b, 2, 0], w2c[b, 2, 1], w2c[b, 2, 2],
    )  # fmt: skip


@wp.func
def unit_quaternion(quaternions: wp.array2d(dtype=float), n: int):
    """w, x, y, z of length one (or zero), and the length it had."""
    q = wp.vec4d(
        f64(quaternions[n, 0]),
        f64(quaternions[n, 1]),
        f64(quaternions[n, 2]),
        f64(quaternions[n, 3]),
    )
    length = wp.max(wp.length(q), LEAST_LENGTH)
    return q / length, length


@wp.func
def matrix_of(q: wp.vec4d):
    """`renderers.splats_torch.rotation_matrices`."""
    w, x, y, z = q[0], q[1], q[2], q[3]
    return wp.mat33d(
        ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y),
        TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x),
        TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y),
    )  # fmt: skip


@wp.func
def grad_of_quaternion(q: wp.vec4d, length: wp.float64, g: wp.mat33d):
    """From the gradient by the matrix to that by the quaternion before it was normalised."""
    w, x, y, z = q[0], q[1], q[2], q[3]
    by_w = x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1])
    by_x = y * (g[0, 1] + g[1, 0]) + z * (g[0, 2] + g[2, 0]) + w * (g[2, 1] - g[1, 2])
    by_y = x * (g[0, 1] + g[1, 0]) + z * (g[1, 2] + g[2, 1]) + w * (g[0, 2] - g[2, 0])
    by_z = x * (g[0, 2] + g[2, 0]) + y * (g[1, 2] + g[2, 1]) + w * (g[1, 0] - g[0, 1])
    by_x = by_x - TWO * x * (g[1, 1] + g[2, 2])
    by_y = by_y - TWO * y * (g[0, 0] + g[2, 2])
    by_z = by_z - TWO * z * (g[0, 0] + g[1, 1])
    grad = TWO * wp.vec4d(by_w, by_x, by_y, by_z)
    return (grad - wp.dot(grad, q) * q) / length


@wp.func
def slope_limits(K: wp.array3d(dtype=wp.float64), b: int, axis: int, size: int):
    """How far from the optical axis the affine approximation follows a splat."""
    margin = MARGIN * f64(size)
    low = (-K[b, axis, 2] - margin) / K[b, axis, axis]
    return low, (f64(size) - K[b, axis, 2] + margin) / K[b, axis, axis]


@wp.func
def footprint_of(
    point: wp.vec3d,
    view: wp.mat33d,
    turn: wp.mat33d,
    scales: wp.vec3d,
    K: wp.array3d(dtype=wp.float64),
    b: int,
    width: int,
    height: int,
):
    """A splat's screen covariance and what it is made of."""
    f = Footprint()
    f.point = point
    f.scales = scales
    z = point[2]
    fx, fy = K[b, 0, 0] / z, K[b, 1, 1] / z
    left, right = slope_limits(K, b, 0, width)
    top, bottom = slope_limits(K, b, 1, height)
    f.slope = wp.vec3d(
        wp.clamp(point[0] / z, left, right), wp.clamp(point[1] / z, top, bottom), ONE
    )
    to_world = wp.transpose(view)
    to_axes = wp.transpose(turn)
    f.ray_x = to_world * wp.vec3d(fx, ZERO, -fx * f.slope[0])
    f.ray_y = to_world * wp.vec3d(ZERO, fy, -fy * f.slope[1])
    f.normal = to_world * (fx * fy * f.slope)
    f.axes_x = to_axes * f.ray_x
    f.axes_y = to_axes * f.ray_y
    f.axes_normal = to_axes * f.normal
    f.areas = wp.vec3d(scales[1] * scales[2], scales[0] * scales[2], scales[0] * scales[1])
    first = wp.cw_mul(scales, f.axes_x)
    second = wp.cw_mul(scales, f.axes_y)
    cross = wp.cw_mul(f.areas, f.axes_normal)
    x, y = wp.dot(first, first), wp.dot(second, second)
    f.xx = x + LOW_PASS
    f.xy = wp.dot(first, second)
    f.yy = y + LOW_PASS
    f.sharp = wp.dot(cross, cross)
    f.blurred = f.sharp + LOW_PASS * (x + y) + LOW_PASS * LOW_PASS
    return f


@wp.func
def scales_of(log_scales: wp.array2d(dtype=float), n: int):
    """Standard deviations along the own axes, clamped."""
    logs = triple(log_scales, n)
    return wp.vec3d(
        wp.exp(wp.clamp(logs[0], LOG_MIN, LOG_MAX)),
        wp.exp(wp.clamp(logs[1], LOG_MIN, LOG_MAX)),
        wp.exp(wp.clamp(logs[2], LOG_MIN, LOG_MAX)),
    )


@wp.func
def point_of(means: wp.array2d(dtype=float), n: int, w2c: wp.array3d(dtype=wp.float64), b: int):
    """A splat's centre in a camera's coordinates."""
    shift = wp.vec3d(w2c[b, 0, 3], w2c[b, 1, 3], w2c[b, 2, 3])
    return rotation_of(w2c, b) * triple(means, n) + shift
