"""Numba: where the visible outline of a mesh cuts rows and columns of pixel centres; see `mesh_data.Crossings`."""

import numpy as np
from numba import prange

from dream3d.kernels import kernel
from renderers.mesh_data import NEAR, NUDGE
from renderers.mesh_numba_kernels import BAND, D0, TOLERANCE, U0, V0, C, cross

HIDDEN = -2


@kernel()
def _outline(p, camera, i, j, opposite):
    """Whether all faces of edge i-j lie on one side of it: its sign (0: no), and the plane through the camera."""
    m = cross(p[i], p[j])
    if p[i, 2] < NEAR or p[j, 2] < NEAR:
        return 0.0, m
    side = 0.0
    for w in opposite:
        s = m[0] * p[w, 0] + m[1] * p[w, 1] + m[2] * p[w, 2]
        if s * side < 0.0:
            return 0.0, m
        if s != 0.0:
            side = s
    return side, m


@kernel()
def _span(p, camera, i, j, sizes):
    """The axis an edge is scanned on and the lines it crosses there, first and last (exclusive)."""
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    xi, yi = p[i, 0] / p[i, 2] * fx + cx, p[i, 1] / p[i, 2] * fy + cy
    xj, yj = p[j, 0] / p[j, 2] * fx + cx, p[j, 1] / p[j, 2] * fy + cy
    axis = 0 if abs(yj - yi) >= abs(xj - xi) else 1
    low, high = (min(yi, yj), max(yi, yj)) if axis == 0 else (min(xi, xj), max(xi, xj))
    size = float(sizes[axis])
    first = int(np.ceil(min(max(low - 0.5, 0.0), size)))
    last = int(np.ceil(min(max(high - 0.5, 0.0), size)))
    return axis, first, last


@kernel()
def _crossing(p, camera, i, j, axis, line):
    """Coordinate along the line and depth at which an edge crosses it."""
    other = 1 - axis
    slope = (line + 0.5 - camera[14 + other]) / camera[12 + other]
    gi, gj = p[i, other] - slope * p[i, 2], p[j, other] - slope * p[j, 2]
    t = gi / (gi - gj)
    z = p[i, 2] + t * (p[j, 2] - p[i, 2])
    a = p[i, axis] + t * (p[j, axis] - p[i, axis])
    return a / z * camera[12 + axis] + camera[14 + axis], z


@kernel()
def count(points, cameras, ends, start, opposite, sizes, counts):
    """How many lines every edge [B, E] crosses as an outline; `sizes` are the numbers of rows and columns."""
    for b in range(len(points)):
        for e in range(len(ends)):
            i, j = ends[e]
            side, _ = _outline(points[b], cameras[b], i, j, opposite[start[e] : start[e + 1]])
            counts[b, e] = 0
            if side == 0.0:
                continue
            axis, first, last = _span(points[b], cameras[b], i, j, sizes)
            for line in range(first, last):
                place, _ = _crossing(points[b], cameras[b], i, j, axis, line)
                counts[b, e] += 0.0 <= place < sizes[1 - axis]


@kernel()
def fill(points, cameras, ends, start, opposite, sizes, offsets, out, place, depth):
    """The crossings counted before: `out` [K, 5] is view, axis, line, edge, high."""
    for b in range(len(points)):
        for e in range(len(ends)):
            k = offsets[b * len(ends) + e]
            if k == offsets[b * len(ends) + e + 1]:
                continue
            i, j = ends[e]
            p, cam = points[b], cameras[b]
            side, m = _outline(p, cam, i, j, opposite[start[e] : start[e + 1]])
            axis, first, last = _span(p, cam, i, j, sizes)
            for line in range(first, last):
                s, z = _crossing(p, cam, i, j, axis, line)
                if 0.0 <= s < sizes[1 - axis]:
                    out[k, 0], out[k, 1], out[k, 2], out[k, 3] = b, axis, line, e
                    out[k, 4] = (m[0] if axis == 0 else m[1]) * side > 0.0
                    place[k], depth[k] = s, z
                    k += 1


@kernel(parallel=True)
def hide(planes, box, faces, ends, out, place, depth, line_start, sizes, workers, outside):
    """For crossings sorted by view, axis and line: the face beyond the edge (-1 none), HIDDEN if one is before it."""
    lines = max(sizes[0], sizes[1])
    bands = (lines + BAND - 1) // BAND
    for worker in prange(workers):
        for task in range(worker, len(planes) * 2 * bands, workers):
            b, axis, top = task // (2 * bands), task // bands % 2, task % bands * BAND
            bottom, base = min(top + BAND, lines), (2 * b + axis) * lines
            if line_start[base + top] == line_start[base + bottom]:
                continue
            beyond = np.full(line_start[base + bottom] - line_start[base + top], np.inf)
            for f in range(len(faces)):
                first, last = box[b, f, 2 - 2 * axis], box[b, f, 3 - 2 * axis]
                low, high = box[b, f, 2 * axis] - 1.0, box[b, f, 2 * axis + 1] + 1.0
                for line in range(max(top, first), min(bottom, last)):
                    for k in range(line_start[base + line], line_start[base + line + 1]):
                        s = place[k]
                        if s < low or s > high or outside[k] == HIDDEN:
                            continue
                        i, j = ends[out[k, 3]]
                        e = 0
                        for corner in range(3):
                            e += faces[f, corner] == i or faces[f, corner] == j
                        if e == 2:
                            continue
                        x, y = (s, line + 0.5) if axis == 0 else (line + 0.5, s)
                        q = planes[b, f]
                        d = q[D0] * x + q[D0 + 1] * y + q[D0 + 2]
                        u = q[U0] * x + q[U0 + 1] * y + q[U0 + 2]
                        v = q[V0] * x + q[V0 + 1] * y + q[V0 + 2]
                        if not (d > 0.0 and min(u, v, d - u - v) >= -TOLERANCE * d):
                            continue
                        t, slot = q[C] / d, k - line_start[base + top]
                        if NEAR < t < depth[k]:
                            outside[k] = HIDDEN
                        elif depth[k] <= t < beyond[slot]:
                            beyond[slot], outside[k] = t, f


@kernel()
def nearest_side(planes, start, edge_face, out, place, inside):
    """Of the faces around each crossing's edge, the nearest one just inside the outline."""
    for k in range(len(out)):
        b, axis, line, e = out[k, 0], out[k, 1], out[k, 2], out[k, 3]
        s = place[k] + (NUDGE if out[k, 4] else -NUDGE)
        x, y = (s, line + 0.5) if axis == 0 else (line + 0.5, s)
        best = np.inf
        inside[k] = edge_face[start[e]]
        for f in edge_face[start[e] : start[e + 1]]:
            q = planes[b, f]
            d = q[D0] * x + q[D0 + 1] * y + q[D0 + 2]
            if d > 0.0 and q[C] / d < best:
                best, inside[k] = q[C] / d, f
