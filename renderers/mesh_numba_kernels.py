"""Numba: triangles on pixels. The formulas are those of `mesh_torch`; arithmetic is float64 inside.

Work is cut into bands of rows (or a fixed number of parts where sums are scattered), never by the number of threads:
results do not depend on it.
"""

import numpy as np
from numba import prange

from dream3d.kernels import kernel
from renderers.mesh_data import NEAR

BAND = 16
"""Rows of a band."""
PARTS = 4
"""Sums that many pixels add to are made in this many parts, which are then added in order."""
TOLERANCE = 1e-9
U0, V0, D0, C = 0, 3, 6, 9
"""Columns of a prepared triangle: u, v and the denominator as linear functions of the pixel, t's numerator."""
PREPARED = 10


@kernel()
def cross(a, b):
    """Cross product of two triples."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel()
def _linear(plane, vector, camera, sign):
    """vector . ray as a function of image coordinates."""
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    plane[0] = sign * vector[0] / fx
    plane[1] = sign * vector[1] / fy
    plane[2] = sign * (vector[2] - vector[0] * cx / fx - vector[1] * cy / fy)


@kernel()
def _bounds(p, q, r, zp, zq, zr, size):
    """First and last (exclusive) pixel between three image coordinates; all of them if a corner is too near."""
    if zp < NEAR and zq < NEAR and zr < NEAR:
        return 0, 0
    if zp < NEAR or zq < NEAR or zr < NEAR:
        return 0, size
    low, high = min(p, q, r), max(p, q, r)
    if low > size + 1.0 or high < -1.0:
        return 0, 0
    first = max(0, int(np.ceil(max(low, -1.0) - 0.501)))
    last = min(size, int(np.floor(min(high, size + 1.0) - 0.499)) + 1)
    return first, max(last, first)


@kernel(parallel=True)
def prepare(points, faces, cameras, height, width, workers, planes, box):
    """Every triangle's linear functions [B, F, 10] and pixel bounds [B, F, 4] from camera-space points [B, V, 3]."""
    views = len(points)
    for worker in prange(workers):
        d1, d2 = np.empty(3), np.empty(3)
        for index in range(worker, views * len(faces), workers):
            b, f = index // len(faces), index % len(faces)
            p, cam = points[b], cameras[b]
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            for axis in range(3):
                d1[axis] = p[j, axis] - p[i, axis]
                d2[axis] = p[k, axis] - p[i, axis]
            n = cross(d1, d2)
            c = p[i, 0] * n[0] + p[i, 1] * n[1] + p[i, 2] * n[2]
            sign = 1.0 if c >= 0.0 else -1.0
            _linear(planes[b, f, U0:], cross(d2, p[i]), cam, sign)
            _linear(planes[b, f, V0:], cross(p[i], d1), cam, sign)
            _linear(planes[b, f, D0:], n, cam, sign)
            planes[b, f, C] = sign * c
            zi, zj, zk = p[i, 2], p[j, 2], p[k, 2]
            wi, wj, wk = 1.0 / max(zi, NEAR), 1.0 / max(zj, NEAR), 1.0 / max(zk, NEAR)
            for axis, size in ((0, width), (1, height)):
                focal, center = cam[12 + axis], cam[14 + axis]
                low, high = _bounds(
                    p[i, axis] * wi * focal + center, p[j, axis] * wj * focal + center,
                    p[k, axis] * wk * focal + center, zi, zj, zk, size,
                )  # fmt: skip
                box[b, f, 2 * axis], box[b, f, 2 * axis + 1] = low, high


@kernel()
def _draw(plane, f, left, right, y, near_row, face_row):
    """One row of one triangle into the depth buffer."""
    u = plane[U0] * (left + 0.5) + plane[U0 + 1] * y + plane[U0 + 2]
    v = plane[V0] * (left + 0.5) + plane[V0 + 1] * y + plane[V0 + 2]
    d = plane[D0] * (left + 0.5) + plane[D0 + 1] * y + plane[D0 + 2]
    c, du, dv, dd = plane[C], plane[U0], plane[V0], plane[D0]
    for x in range(left, right):
        least = -TOLERANCE * d
        # c / d is the depth; d > 0 because the sign was chosen so that c >= 0.
        if d > 0.0 and u >= least and v >= least and d - u - v >= least:
            depth = c / d
            if depth > NEAR and depth < near_row[x]:
                near_row[x], face_row[x] = depth, f
        u += du
        v += dv
        d += dd


@kernel(parallel=True)
def nearest_faces(planes, box, workers, face, barycentric, depth):
    """The nearest triangle of every pixel, its weights and depth: [B, H, W], [B, H, W, 3], [B, H, W]."""
    views, height, width = face.shape
    bands = (height + BAND - 1) // BAND
    for worker in prange(workers):
        near = np.empty((BAND, width))
        for index in range(worker, views * bands, workers):
            b, top = index // bands, (index % bands) * BAND
            bottom = min(top + BAND, height)
            near[:] = np.inf
            ids = face[b]
            ids[top:bottom] = -1
            for f in range(box.shape[1]):
                if box[b, f, 2] >= bottom or box[b, f, 3] <= top or box[b, f, 0] >= box[b, f, 1]:
                    continue
                for y in range(max(top, box[b, f, 2]), min(bottom, box[b, f, 3])):
                    _draw(
                        planes[b, f], f, box[b, f, 0], box[b, f, 1], y + 0.5, near[y - top], ids[y]
                    )
            for y in range(top, bottom):
                for x in range(width):
                    f = ids[y, x]
                    if f < 0:
                        barycentric[b, y, x, :] = 0.0
                        depth[b, y, x] = 0.0
                        continue
                    s, px, py = planes[b, f], x + 0.5, y + 0.5
                    inverse = 1.0 / (s[D0] * px + s[D0 + 1] * py + s[D0 + 2])
                    u = (s[U0] * px + s[U0 + 1] * py + s[U0 + 2]) * inverse
                    v = (s[V0] * px + s[V0 + 1] * py + s[V0 + 2]) * inverse
                    barycentric[b, y, x, 0] = 1.0 - u - v
                    barycentric[b, y, x, 1] = u
                    barycentric[b, y, x, 2] = v
                    depth[b, y, x] = s[C] * inverse


@kernel(parallel=True)
def nearest_faces_backward(points, faces, cameras, face, grad_weights, grad_depth, total):
    """Gradient of weights and depth by the vertices (world), added to `total` [PARTS, V, 3].

    A displacement q of the material point under the ray changes u by q . (r x d2) / (r . n), v by -q . (r x d1) /
    (r . n) and the depth by q . n / (r . n).
    """
    views, height, width = face.shape
    for part in prange(PARTS):
        r, a, d1, d2, g = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        r[2] = 1.0
        for row in range(part, views * height, PARTS):
            b, y = row // height, row % height
            p, cam = points[b], cameras[b]
            r[1] = (y + 0.5 - cam[15]) / cam[13]
            for x in range(width):
                f = face[b, y, x]
                if f < 0:
                    continue
                r[0] = (x + 0.5 - cam[14]) / cam[12]
                gw = grad_weights[b, y, x]
                gu, gv, gt = gw[1] - gw[0], gw[2] - gw[0], grad_depth[b, y, x]
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                for axis in range(3):
                    a[axis] = p[i, axis]
                    d1[axis] = p[j, axis] - a[axis]
                    d2[axis] = p[k, axis] - a[axis]
                n = cross(d1, d2)
                inverse = 1.0 / (r[0] * n[0] + r[1] * n[1] + n[2])
                e1, e2 = cross(r, d1), cross(r, d2)
                q1, q2 = cross(a, d1), cross(d2, a)
                u = (r[0] * q2[0] + r[1] * q2[1] + q2[2]) * inverse
                v = (r[0] * q1[0] + r[1] * q1[1] + q1[2]) * inverse
                for axis in range(3):
                    g[axis] = (gu * e2[axis] - gv * e1[axis] + gt * n[axis]) * inverse
                for axis in range(3):
                    world = cam[axis] * g[0] + cam[3 + axis] * g[1] + cam[6 + axis] * g[2]
                    total[part, i, axis] += (1.0 - u - v) * world
                    total[part, j, axis] += u * world
                    total[part, k, axis] += v * world


@kernel(parallel=True)
def interpolate(values, corners, face, weights, out):
    """Weighted means of corner values: [V, C], [F, 3], [N], [N, 3] -> [N, C]; 0 where there is no face."""
    for n in prange(len(face)):
        f = face[n]
        for c in range(values.shape[1]):
            if f < 0:
                out[n, c] = 0.0
            else:
                out[n, c] = (
                    weights[n, 0] * values[corners[f, 0], c]
                    + weights[n, 1] * values[corners[f, 1], c]
                    + weights[n, 2] * values[corners[f, 2], c]
                )


@kernel(parallel=True)
def interpolate_backward(values, corners, face, weights, grad, grad_values, grad_weights):
    """The transpose: `grad_values` [PARTS, V, C] (zero on entry), `grad_weights` [N, 3]."""
    for part in prange(PARTS):
        first, last = part * len(face) // PARTS, (part + 1) * len(face) // PARTS
        for n in range(first, last):
            f = face[n]
            if f < 0:
                grad_weights[n, :] = 0.0
                continue
            for corner in range(3):
                v, w = corners[f, corner], weights[n, corner]
                total = 0.0
                for c in range(values.shape[1]):
                    total += grad[n, c] * values[v, c]
                    grad_values[part, v, c] += grad[n, c] * w
                grad_weights[n, corner] = total
