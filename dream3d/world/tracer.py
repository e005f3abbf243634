"""Ray tracing of one solid on the CPU, compiled by Numba.

The visible surface of the ordered union and its cuts follows from the intervals in which a ray meets each part, with
no marching through empty space. Ray directions have unit depth, so the ray parameter is the z-depth. Edges are
supersampled where neighbouring pixels disagree. The kernel holds no state and releases the GIL.
"""

import math

import numpy as np
from jaxtyping import Float

from dream3d.kernels import kernel
from dream3d.world.intersections import FAR, FAST, crossings, interval, local_normal
from dream3d.world.solid import Solid

_EDGE_COSINE = 0.8  # neighbours whose normals differ more than this are an edge
_EDGE_DEPTH = 0.08  # neighbours of one part whose depths differ more than this are an edge

# Columns of the table of parts; from TO_EYE on they depend on the camera.
KIND, SIZE, CORE, ROUNDING, CARVE, ROTATION, CENTER, BOUND, COLOR = 0, 1, 4, 8, 9, 10, 19, 22, 23
TO_EYE, CLEARANCE, LOCAL_EYE, COLUMNS = 26, 29, 30, 33

_compiled = kernel(nogil=True, fastmath=FAST)


def part_table(solid: Solid) -> Float[np.ndarray, "P 33"]:
    """A solid as one array, a part a row; the camera's columns are zero."""
    table = np.zeros((len(solid), COLUMNS))
    table[:, KIND] = solid.kind
    table[:, SIZE : SIZE + 3] = solid.size
    table[:, CORE : CORE + 4] = solid.core
    table[:, ROUNDING] = solid.rounding
    table[:, CARVE] = solid.carve
    table[:, ROTATION : ROTATION + 9] = solid.rotation.reshape(-1, 9)
    table[:, CENTER : CENTER + 3] = solid.translation
    table[:, BOUND] = solid.bound
    table[:, COLOR : COLOR + 3] = solid.color
    return table


@_compiled
def _within(spans, i, t):
    return spans[i, 0] <= t <= spans[i, 1] or spans[i, 2] <= t <= spans[i, 3]


@_compiled
def _first_surface(parts, spans, active, count):
    """The nearest visible crossing of the ordered union and its cuts: (t, part)."""
    best, winner = FAR, -1
    for a in range(count):
        i = active[a]
        carving = parts[i, CARVE] > 0.0
        for which in range(2):
            # A uniting part shows where the ray enters it, a carving one where the ray leaves it.
            start, stop = spans[i, 2 * which], spans[i, 2 * which + 1]
            t = stop if carving else start
            if start >= FAR or t >= best or t <= 0.0:
                continue
            solid = not carving
            if carving:
                for b in range(a):
                    if _within(spans, active[b], t):
                        solid = parts[active[b], CARVE] == 0.0
            for b in range(a + 1, count):
                if parts[active[b], CARVE] > 0.0 and _within(spans, active[b], t):
                    solid = False
            if solid:
                best, winner = t, i
    return best, winner


@_compiled
def _rotated_ray(parts, i, ray):
    """A world direction in the frame of part i: the transposed rotation times the ray."""
    x, y, z = ray
    return (
        parts[i, ROTATION] * x + parts[i, ROTATION + 3] * y + parts[i, ROTATION + 6] * z,
        parts[i, ROTATION + 1] * x + parts[i, ROTATION + 4] * y + parts[i, ROTATION + 7] * z,
        parts[i, ROTATION + 2] * x + parts[i, ROTATION + 5] * y + parts[i, ROTATION + 8] * z,
    )


@_compiled
def _size(parts, i):
    return parts[i, SIZE], parts[i, SIZE + 1], parts[i, SIZE + 2]


@_compiled
def _core(parts, i):
    return parts[i, CORE], parts[i, CORE + 1], parts[i, CORE + 2], parts[i, CORE + 3]


@_compiled
def _prepare(parts, c2w, b):
    """Fills the columns that depend on the centre of camera b."""
    for i in range(len(parts)):
        x = c2w[b, 0, 3] - parts[i, CENTER]
        y = c2w[b, 1, 3] - parts[i, CENTER + 1]
        z = c2w[b, 2, 3] - parts[i, CENTER + 2]
        parts[i, TO_EYE], parts[i, TO_EYE + 1], parts[i, TO_EYE + 2] = x, y, z
        parts[i, CLEARANCE] = x * x + y * y + z * z - parts[i, BOUND] ** 2
        x, y, z = _rotated_ray(parts, i, (x, y, z))
        parts[i, LOCAL_EYE], parts[i, LOCAL_EYE + 1], parts[i, LOCAL_EYE + 2] = x, y, z


@_compiled
def _may_meet(parts, i, ray, length):
    """Whether a ray passes through a part's bounding sphere and toward it; `length` is the ray's squared."""
    along = (
        parts[i, TO_EYE] * ray[0] + parts[i, TO_EYE + 1] * ray[1] + parts[i, TO_EYE + 2] * ray[2]
    )
    clearance = parts[i, CLEARANCE]
    return along * along >= clearance * length and (along <= 0.0 or clearance <= 0.0)


@_compiled
def _meets_cut(parts, ray, length):
    """Whether a ray passes through any carving part (its sharp form, which holds the rounded one)."""
    for i in range(len(parts)):
        if parts[i, CARVE] > 0.0 and _may_meet(parts, i, ray, length):
            eye = (parts[i, LOCAL_EYE], parts[i, LOCAL_EYE + 1], parts[i, LOCAL_EYE + 2])
            t0, t1 = interval(
                int(parts[i, KIND]), _size(parts, i), eye, _rotated_ray(parts, i, ray)
            )
            if t0 <= t1:
                return True
    return False


@_compiled
def _nearest(parts, has_carve, ray, spans, active):
    """(t, part) of the first surface along one ray of the camera that `parts` is prepared for."""
    length = ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]
    cut = has_carve and _meets_cut(parts, ray, length)
    best, winner, count = FAR, -1, 0
    for i in range(len(parts)):
        if not _may_meet(parts, i, ray, length) or (parts[i, CARVE] > 0.0 and not cut):
            continue
        eye = (parts[i, LOCAL_EYE], parts[i, LOCAL_EYE + 1], parts[i, LOCAL_EYE + 2])
        kind, rounding = int(parts[i, KIND]), parts[i, ROUNDING]
        ray_local = _rotated_ray(parts, i, ray)
        t0, t1, t2, t3 = crossings(
            kind, _size(parts, i), _core(parts, i), rounding, eye, ray_local, cut, best
        )
        if t0 >= FAR:
            continue
        if cut:
            spans[i, 0], spans[i, 1], spans[i, 2], spans[i, 3] = t0, t1, t2, t3
            active[count] = i
            count += 1
        elif 0.0 < t0 < best:
            best, winner = t0, i
    if cut:
        return _first_surface(parts, spans, active, count)
    return best, winner


@_compiled
def _world_normal(parts, ray, t, i):
    """Unit outward normal in the object's frame at depth t on part i."""
    d = _rotated_ray(parts, i, ray)
    x, y, z = local_normal(
        int(parts[i, KIND]),
        _size(parts, i),
        _core(parts, i),
        parts[i, ROUNDING],
        parts[i, LOCAL_EYE] + t * d[0],
        parts[i, LOCAL_EYE + 1] + t * d[1],
        parts[i, LOCAL_EYE + 2] + t * d[2],
    )
    scale = 1.0 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
    if parts[i, CARVE] > 0.0:
        scale = -scale
    x, y, z, r = scale * x, scale * y, scale * z, ROTATION
    return (
        parts[i, r] * x + parts[i, r + 1] * y + parts[i, r + 2] * z,
        parts[i, r + 3] * x + parts[i, r + 4] * y + parts[i, r + 5] * z,
        parts[i, r + 6] * x + parts[i, r + 7] * y + parts[i, r + 8] * z,
    )


@_compiled
def _shade(parts, light, ray, t, i, out):
    """Adds one sample to out = (r, g, b, hits, depth, nx, ny, nz)."""
    nx, ny, nz = _world_normal(parts, ray, t, i)
    facing = 0.5 * (1.0 + nx * light[0] + ny * light[1] + nz * light[2])
    shade = light[3] + light[4] * facing
    out[0] += shade * parts[i, COLOR]
    out[1] += shade * parts[i, COLOR + 1]
    out[2] += shade * parts[i, COLOR + 2]
    out[3] += 1.0
    out[4] += t
    out[5] += nx
    out[6] += ny
    out[7] += nz


@_compiled
def _ray(c2w, K, b, u, v):
    """The world direction of unit depth through pixel coordinates (u, v) of camera b."""
    x, y = (u - K[b, 0, 2]) / K[b, 0, 0], (v - K[b, 1, 2]) / K[b, 1, 1]
    return (
        c2w[b, 0, 0] * x + c2w[b, 0, 1] * y + c2w[b, 0, 2],
        c2w[b, 1, 0] * x + c2w[b, 1, 1] * y + c2w[b, 1, 2],
        c2w[b, 2, 0] * x + c2w[b, 2, 1] * y + c2w[b, 2, 2],
    )


@_compiled
def _differ(part, depth, normal, b, row, column, other_row, other_column):
    """Whether an edge runs between two pixels of the first pass."""
    if part[b, row, column] != part[b, other_row, other_column]:
        return True
    if part[b, row, column] < 0:
        return False
    if abs(depth[b, row, column, 0] - depth[b, other_row, other_column, 0]) > _EDGE_DEPTH:
        return True
    cosine = 0.0
    for k in range(3):
        cosine += normal[b, row, column, k] * normal[b, other_row, other_column, k]
    return cosine < _EDGE_COSINE


@_compiled
def _mark_edges(part, depth, normal, b, edges):
    height, width = edges.shape
    edges[:] = False
    for row in range(height):
        for column in range(width):
            if column + 1 < width and _differ(part, depth, normal, b, row, column, row, column + 1):
                edges[row, column] = edges[row, column + 1] = True
            if row + 1 < height and _differ(part, depth, normal, b, row, column, row + 1, column):
                edges[row, column] = edges[row + 1, column] = True


@_compiled
def _store(total, rays, rgb, alpha, depth, normal, b, row, column):
    """Averages the accumulated samples of a pixel into the images."""
    hits = total[3]
    alpha[b, row, column, 0] = hits / rays
    depth[b, row, column, 0] = total[4] / hits if hits > 0.0 else 0.0
    length = math.sqrt(total[5] ** 2 + total[6] ** 2 + total[7] ** 2)
    for k in range(3):
        rgb[b, row, column, k] = total[k] / rays
        normal[b, row, column, k] = total[5 + k] / length if length > 1e-9 else 0.0


@_compiled
def trace_images(parts, c2w, K, light, samples, rgb, alpha, depth, normal, part):
    """Renders B images of one solid into zeroed arrays.

    Arrays are passed one by one, not in tuples: unpacking a tuple for every ray costs more than the ray.

    Args:
        parts: [P, COLUMNS] float64, the solid as `part_table` lays it out; the camera's columns are overwritten.
        c2w: [B, 4, 4] float64.
        K: [B, 3, 3] float64, no skew.
        light: unit direction toward the light, then the factors ambient and key.
        samples: edge pixels get samples x samples rays; 1 for none.
        rgb: [B, H, W, 3] float32, zeros.
        alpha: [B, H, W, 1] float32, zeros.
        depth: [B, H, W, 1] float32, zeros.
        normal: [B, H, W, 3] float32, zeros.
        part: [B, H, W] int16, filled with -1.
    """
    count, height, width = len(parts), part.shape[1], part.shape[2]
    has_carve = parts[:, CARVE].any()
    spans, active = np.empty((count, 4)), np.empty(count, np.int64)
    total, edges = np.empty(8), np.empty((height, width), np.bool_)
    for b in range(len(c2w)):
        _prepare(parts, c2w, b)
        for row in range(height):
            for column in range(width):
                ray = _ray(c2w, K, b, column + 0.5, row + 0.5)
                t, i = _nearest(parts, has_carve, ray, spans, active)
                if i >= 0:
                    total[:] = 0.0
                    _shade(parts, light, ray, t, i, total)
                    _store(total, 1.0, rgb, alpha, depth, normal, b, row, column)
                    part[b, row, column] = i
        if samples <= 1:
            continue
        _mark_edges(part, depth, normal, b, edges)
        for row in range(height):
            for column in range(width):
                if not edges[row, column]:
                    continue
                total[:] = 0.0
                for k in range(samples * samples):
                    u = column + (k % samples + 0.5) / samples
                    v = row + (k // samples + 0.5) / samples
                    ray = _ray(c2w, K, b, u, v)
                    t, i = _nearest(parts, has_carve, ray, spans, active)
                    if i >= 0:
                        _shade(parts, light, ray, t, i, total)
                rays = float(samples * samples)
                _store(total, rays, rgb, alpha, depth, normal, b, row, column)
