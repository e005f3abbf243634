"""Numba: project splats to the screen, and carry screen-space gradients back to the raw parameters.

Arithmetic is float64 inside (a few hundred operations per splat), float32 outside: elongated splats make the
determinant of the screen covariance a difference of nearly equal numbers.
"""

import math

import numpy as np
from numba import prange

from dream3d.kernels import kernel
from renderers.splats_data import ALPHA_CUT, LOG_SCALE_MAX, LOG_SCALE_MIN, LOW_PASS

CX, CY, ALONG, SHEAR, ACROSS, OPACITY, DEPTH = range(7)
"""Columns of a projected splat: centre [px], inverse covariance (Cholesky), opacity, depth of the centre.

The exponent at offset (dx, dy) is -(u^2 + v^2) / 2 with u = ALONG dx + SHEAR dy, v = ACROSS dy: never positive and, for
needles, free of the cancellation that a dx^2 + 2 b dx dy + c dy^2 suffers in float32.
"""
SCREEN = 8
"""Numbers per projected splat: the columns above and one spare, for two splats to share a line of the cache."""
CAMERA = 20
"""Numbers per packed camera: rotation (9), translation (3), fx, fy, cx, cy, slope limits x low/high, y low/high."""
BLOCK = 64
"""Splats a worker takes at a time: so many that two workers seldom write to one line of the cache."""
SCREEN_GRADIENTS = 6
"""Leading columns of a pair's gradient: sums over pixels of q, q dx, q dy, q dx^2, q dx dy, q dy^2 (see raster)."""


@kernel()
def _unit(q):
    """A wxyz quaternion scaled to length 1 (zero stays zero), and its former length."""
    length = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    inverse = 1.0 / max(length, 1e-12)
    return q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse, inverse


@kernel()
def _rotation(w, x, y, z):
    """Row-major rotation of a unit quaternion."""
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@kernel()
def _scale(log_scale):
    """exp within the representable range."""
    return math.exp(min(max(np.float64(log_scale), LOG_SCALE_MIN), LOG_SCALE_MAX))


@kernel()
def _covariance(r, s0, s1, s2):
    """World covariance R diag(s^2) R^T as (xx, xy, xz, yy, yz, zz)."""
    a0, a1, a2 = r[0] * s0, r[1] * s1, r[2] * s2
    b0, b1, b2 = r[3] * s0, r[4] * s1, r[5] * s2
    c0, c1, c2 = r[6] * s0, r[7] * s1, r[8] * s2
    return (
        a0 * a0 + a1 * a1 + a2 * a2, a0 * b0 + a1 * b1 + a2 * b2, a0 * c0 + a1 * c1 + a2 * c2,
        b0 * b0 + b1 * b1 + b2 * b2, b0 * c0 + b1 * c1 + b2 * c2, c0 * c0 + c1 * c1 + c2 * c2,
    )  # fmt: skip


@kernel()
def _to_camera(cam, mean):
    """A world point in camera coordinates."""
    x = cam[0] * mean[0] + cam[1] * mean[1] + cam[2] * mean[2] + cam[9]
    y = cam[3] * mean[0] + cam[4] * mean[1] + cam[5] * mean[2] + cam[10]
    z = cam[6] * mean[0] + cam[7] * mean[1] + cam[8] * mean[2] + cam[11]
    return x, y, z


@kernel()
def _affine(cam, x, y, z):
    """Rows of J W (screen from world, to first order), and the two slopes it was taken at."""
    u = min(max(x / z, cam[16]), cam[17])
    v = min(max(y / z, cam[18]), cam[19])
    gx, gy = cam[12] / z, cam[13] / z
    return (
        gx * (cam[0] - u * cam[6]), gx * (cam[1] - u * cam[7]), gx * (cam[2] - u * cam[8]),
        gy * (cam[3] - v * cam[6]), gy * (cam[4] - v * cam[7]), gy * (cam[5] - v * cam[8]),
        u, v,
    )  # fmt: skip


@kernel()
def _times(c, a, b, d):
    """A symmetric matrix (xx, xy, xz, yy, yz, zz) times a vector."""
    return (
        c[0] * a + c[1] * b + c[2] * d,
        c[1] * a + c[3] * b + c[4] * d,
        c[2] * a + c[4] * b + c[5] * d,
    )


@kernel()
def _screen_covariance(t, cov):
    """(xx, xy, yy) of T cov T^T, before the low-pass."""
    p = _times(cov, t[0], t[1], t[2])
    q = _times(cov, t[3], t[4], t[5])
    xx = t[0] * p[0] + t[1] * p[1] + t[2] * p[2]
    xy = t[0] * q[0] + t[1] * q[1] + t[2] * q[2]
    yy = t[3] * q[0] + t[4] * q[1] + t[5] * q[2]
    return xx, xy, yy


@kernel()
def _pixel_range(center, extent, size):
    """First and one past the last pixel whose centre lies within `extent` of `center`, within the image."""
    # A little slack: rounding must not decide which pixels are looked at; the alpha cut-off does.
    reach = extent * 1.001 + 1e-3
    first = math.ceil(min(max(center - reach - 0.5, 0.0), np.float64(size)))
    last = math.floor(min(max(center + reach - 0.5, -1.0), size - 1.0))
    return int(first), int(last) + 1


@kernel(parallel=True)
def project(
    cameras,
    means,
    log_scales,
    quaternions,
    logits,
    offset,
    near,
    antialias,
    height,
    width,
    workers,
    screen,
    box,
    radii,
):
    """Fill `screen` [B, N, 8], pixel boxes `box` [B, N, 4] (x0, x1, y0, y1; empty where not seen), `radii` [B, N].

    Shapes:
        cameras: [B, 20] float64, packed.
        offset: [B, N, 2], or [0, 0, 2] for none.
        near, antialias: see `RasterSettings`.
        workers: among whom blocks of splats are dealt in turn.
    """
    n = means.shape[0]
    for worker in prange(workers):
        for block in range(worker, (n + BLOCK - 1) // BLOCK, workers):
            for g in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
                opacity = 1.0 / (1.0 + math.exp(-np.float64(logits[g])))
                qw, qx, qy, qz, _ = _unit(quaternions[g])
                s = log_scales[g]
                cov = _covariance(
                    _rotation(qw, qx, qy, qz), _scale(s[0]), _scale(s[1]), _scale(s[2])
                )
                for b in range(cameras.shape[0]):
                    cam, out = cameras[b], screen[b, g]
                    box[b, g, :] = 0
                    radii[b, g] = 0.0
                    x, y, z = _to_camera(cam, means[g])
                    if not (z > near and opacity > ALPHA_CUT):
                        continue
                    xx, xy, yy = _screen_covariance(_affine(cam, x, y, z), cov)
                    sharp = xx * yy - xy * xy
                    xx, yy = xx + LOW_PASS, yy + LOW_PASS
                    det = xx * yy - xy * xy
                    seen = opacity * math.sqrt(max(sharp / det, 1e-12)) if antialias else opacity
                    if not seen > ALPHA_CUT:
                        continue
                    cx, cy = cam[12] * x / z + cam[14], cam[13] * y / z + cam[15]
                    if offset.shape[0] > 0:
                        cx += offset[b, g, 0]
                        cy += offset[b, g, 1]
                    reach = 2.0 * math.log(seen / ALPHA_CUT)
                    ex, ey = math.sqrt(reach * xx), math.sqrt(reach * yy)
                    x0, x1 = _pixel_range(cx, ex, width)
                    y0, y1 = _pixel_range(cy, ey, height)
                    out[CX], out[CY], out[OPACITY], out[DEPTH] = cx, cy, seen, z
                    out[ALONG], out[SHEAR] = math.sqrt(yy / det), -xy / math.sqrt(yy * det)
                    out[ACROSS] = 1.0 / math.sqrt(yy)
                    radii[b, g] = max(ex, ey)
                    if x0 < x1 and y0 < y1:
                        box[b, g, 0], box[b, g, 1], box[b, g, 2], box[b, g, 3] = x0, x1, y0, y1


@kernel()
def _screen_backward(cam, mean, cov, antialias, grad, grad_depth, grad_cov, grad_mean):
    """One splat in one camera: add to the gradients of its world covariance [6] and mean [3]; returns d/d centre."""
    x, y, z = _to_camera(cam, mean)
    t = _affine(cam, x, y, z)
    xx, xy, yy = _screen_covariance(t, cov)
    sharp, sharp_xx, sharp_yy = xx * yy - xy * xy, xx, yy
    xx, yy = xx + LOW_PASS, yy + LOW_PASS
    det = xx * yy - xy * xy
    a, b, c = yy / det, -xy / det, xx / det
    gx, gy = a * grad[1] + b * grad[2], b * grad[1] + c * grad[2]
    # d/d conic (as a symmetric matrix), then d/d screen covariance = -conic G conic.
    haa, hab, hcc = -0.5 * grad[3], -0.5 * grad[4], -0.5 * grad[5]
    k00, k01 = a * haa + b * hab, a * hab + b * hcc
    k10, k11 = b * haa + c * hab, b * hab + c * hcc
    vxx, vxy, vyy = -(k00 * a + k01 * b), -(k00 * b + k01 * c), -(k10 * b + k11 * c)
    if antialias and sharp > 1e-12 * det:
        # The opacity's factor is (det sharp / det)^(1/2); the gradient of log det is the inverse.
        vxx += 0.5 * grad[0] * (sharp_yy / sharp - a)
        vxy += 0.5 * grad[0] * (-xy / sharp - b)
        vyy += 0.5 * grad[0] * (sharp_xx / sharp - c)
    for i in range(3):
        for j in range(i, 3):
            value = (
                vxx * t[i] * t[j]
                + vxy * (t[i] * t[3 + j] + t[3 + i] * t[j])
                + vyy * t[3 + i] * t[3 + j]
            )
            # Row i of the upper triangle starts at 0, 3, 5; off-diagonal entries stay those of the full matrix.
            grad_cov[(0, 3, 5)[i] + j - i] += value
    p = _times(cov, t[0], t[1], t[2])
    q = _times(cov, t[3], t[4], t[5])
    # v_T = 2 V T cov, then v_J = v_T W^T; J has only the entries below.
    r0 = (
        2 * (vxx * p[0] + vxy * q[0]),
        2 * (vxx * p[1] + vxy * q[1]),
        2 * (vxx * p[2] + vxy * q[2]),
    )
    r1 = (
        2 * (vxy * p[0] + vyy * q[0]),
        2 * (vxy * p[1] + vyy * q[1]),
        2 * (vxy * p[2] + vyy * q[2]),
    )
    j00 = r0[0] * cam[0] + r0[1] * cam[1] + r0[2] * cam[2]
    j02 = r0[0] * cam[6] + r0[1] * cam[7] + r0[2] * cam[8]
    j11 = r1[0] * cam[3] + r1[1] * cam[4] + r1[2] * cam[5]
    j12 = r1[0] * cam[6] + r1[1] * cam[7] + r1[2] * cam[8]
    fx, fy, iz = cam[12], cam[13], 1.0 / z
    u, v = t[6], t[7]
    dx, dy = gx * fx * iz, gy * fy * iz
    dz = grad_depth - (gx * fx * x + gy * fy * y) * iz * iz
    dz += (-j00 * fx + j02 * fx * u - j11 * fy + j12 * fy * v) * iz * iz
    if cam[16] < x * iz < cam[17]:
        dx -= j02 * fx * iz * iz
        dz += j02 * fx * u * iz * iz
    if cam[18] < y * iz < cam[19]:
        dy -= j12 * fy * iz * iz
        dz += j12 * fy * v * iz * iz
    for i in range(3):
        grad_mean[i] += dx * cam[i] + dy * cam[3 + i] + dz * cam[6 + i]
    return gx, gy


@kernel()
def _shape_backward(quaternion, log_scale, cov, out_scale, out_quaternion):
    """From d/d covariance [6] to the raw log-scales [3] and quaternion [4] of one splat."""
    w, x, y, z, inverse = _unit(quaternion)
    r = _rotation(w, x, y, z)
    rows = (
        _times(cov, r[0], r[3], r[6]),
        _times(cov, r[1], r[4], r[7]),
        _times(cov, r[2], r[5], r[8]),
    )
    v = np.empty(9)
    for k in range(3):
        s = _scale(log_scale[k])
        along = r[k] * rows[k][0] + r[3 + k] * rows[k][1] + r[6 + k] * rows[k][2]
        inside = LOG_SCALE_MIN <= log_scale[k] <= LOG_SCALE_MAX
        out_scale[k] = 2.0 * s * s * along if inside else 0.0
        for i in range(3):
            v[3 * i + k] = 2.0 * s * s * rows[k][i]
    gw = 2 * (x * (v[7] - v[5]) + y * (v[2] - v[6]) + z * (v[3] - v[1]))
    gx = 2 * (y * (v[1] + v[3]) + z * (v[2] + v[6]) + w * (v[7] - v[5]) - 2 * x * (v[4] + v[8]))
    gy = 2 * (x * (v[1] + v[3]) + z * (v[5] + v[7]) + w * (v[2] - v[6]) - 2 * y * (v[0] + v[8]))
    gz = 2 * (x * (v[2] + v[6]) + y * (v[5] + v[7]) + w * (v[3] - v[1]) - 2 * z * (v[0] + v[4]))
    radial = gw * w + gx * x + gy * y + gz * z
    out_quaternion[0] = (gw - radial * w) * inverse
    out_quaternion[1] = (gx - radial * x) * inverse
    out_quaternion[2] = (gy - radial * y) * inverse
    out_quaternion[3] = (gz - radial * z) * inverse


@kernel(parallel=True)
def project_backward(
    cameras, antialias, means, log_scales, quaternions, logits, pair_start, pair_grad, workers,
    grad_means, grad_scales, grad_quaternions, grad_logits, grad_features, grad_offset,
):  # fmt: skip
    """Sum every splat's pair gradients in a fixed order and carry them to its parameters.

    Shapes:
        pair_start: [B * N + 1]; splat g of camera b owns pairs pair_start[b N + g] up to the next entry.
        pair_grad: [P, >= 6 + C + 1]; column 6 + C is d/d depth.
        grad_features: [V, N, C] with V = 1 or B.
    """
    n, views, columns = means.shape[0], cameras.shape[0], pair_grad.shape[1]
    channels = grad_features.shape[2]
    shared = grad_features.shape[0] == 1
    for worker in prange(workers):
        total, grad_cov, grad_mean = np.empty(columns), np.empty(6), np.empty(3)
        for block in range(worker, (n + BLOCK - 1) // BLOCK, workers):
            for g in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
                grad_cov[:] = 0.0
                grad_mean[:] = 0.0
                grad_logits[g] = 0.0
                grad_features[:, g] = 0.0
                opacity = 1.0 / (1.0 + math.exp(-np.float64(logits[g])))
                qw, qx, qy, qz, _ = _unit(quaternions[g])
                s = log_scales[g]
                cov = _covariance(
                    _rotation(qw, qx, qy, qz), _scale(s[0]), _scale(s[1]), _scale(s[2])
                )
                for b in range(views):
                    first, last = pair_start[b * n + g], pair_start[b * n + g + 1]
                    if first == last:
                        if grad_offset.shape[0] > 0:
                            grad_offset[b, g, :] = 0.0
                        continue
                    total[:] = 0.0
                    for pair in range(first, last):
                        for k in range(columns):
                            total[k] += pair_grad[pair, k]
                    target = 0 if shared else b
                    for c in range(channels):
                        grad_features[target, g, c] += total[SCREEN_GRADIENTS + c]
                    grad_logits[g] += total[0] * (1.0 - opacity)
                    gx, gy = _screen_backward(
                        cameras[b],
                        means[g],
                        cov,
                        antialias,
                        total,
                        total[SCREEN_GRADIENTS + channels],
                        grad_cov,
                        grad_mean,
                    )
                    if grad_offset.shape[0] > 0:
                        grad_offset[b, g, 0], grad_offset[b, g, 1] = gx, gy
                for i in range(3):
                    grad_means[g, i] = grad_mean[i]
                _shape_backward(quaternions[g], s, grad_cov, grad_scales[g], grad_quaternions[g])
