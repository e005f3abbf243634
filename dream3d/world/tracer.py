"""Ray tracing of one solid on the CPU, compiled by Numba.

Every part but the torus is convex, so a ray meets it in one interval that has a closed form; rounded parts and tori are
refined by marching along their exact distance inside that interval. The visible surface of the ordered union and its
cuts then follows from the intervals alone, with no marching through empty space. Ray directions have unit depth, so the
ray parameter is the z-depth. Edges are supersampled where neighbouring pixels disagree.

The kernel holds no state and releases the GIL; Numba keeps the compiled code on disk. All of it is in one file because
that cache notices changes of a function's own file only.
"""

import math

import numpy as np
from jaxtyping import Float
from numba import njit

from dream3d.world.solid import BOX, CAPSULE, ELLIPSOID, FRUSTUM, PRISM, TORUS, Solid

FAR = 1e9
_MARCH_STEPS = 48
_HIT = 1e-4  # a marched surface is reached when the distance falls below this
_GRAZE = 1e-3  # a ray that runs out of steps this close has hit
_EDGE_COSINE = 0.8  # neighbours whose normals differ more than this are an edge
_EDGE_DEPTH = 0.08  # neighbours of one part whose depths differ more than this are an edge

# Columns of the table of parts; from TO_EYE on they depend on the camera.
KIND, SIZE, CORE, ROUNDING, CARVE, ROTATION, CENTER, BOUND, COLOR = 0, 1, 4, 8, 9, 10, 19, 22, 23
TO_EYE, CLEARANCE, LOCAL_EYE, COLUMNS = 26, 29, 30, 33

_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})


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
def _length(x, y):
    return math.sqrt(x * x + y * y)


@_compiled
def _slab(extent, o, d, t0, t1):
    """Cuts [t0, t1] to where |o + t d| <= extent."""
    if abs(d) < 1e-12:
        return (t0, t1) if abs(o) <= extent else (FAR, -FAR)
    a, b = (-extent - o) / d, (extent - o) / d
    return max(t0, min(a, b)), min(t1, max(a, b))


@_compiled
def _quadratic(a, b, c):
    """Where a t^2 + 2 b t + c <= 0 for a > 0."""
    root = b * b - a * c
    if root < 0.0:
        return FAR, -FAR
    root = math.sqrt(root)
    return (-b - root) / a, (-b + root) / a


@_compiled
def _half_space(o, d, t0, t1):
    """Cuts [t0, t1] to where o + t d <= 0."""
    if abs(d) < 1e-12:
        return (t0, t1) if o <= 0.0 else (FAR, -FAR)
    t = -o / d
    return (t0, min(t1, t)) if d > 0.0 else (max(t0, t), t1)


@_compiled
def _frustum_interval(bottom, half, top, o, d):
    """The part of a ray inside x^2 + z^2 <= r(y)^2, |y| <= half."""
    t0, t1 = _slab(half, o[1], d[1], -FAR, FAR)
    if t0 > t1:
        return t0, t1
    slope = (top - bottom) / (2.0 * half)
    radius, change = 0.5 * (bottom + top) + slope * o[1], slope * d[1]  # r along the ray
    a = d[0] * d[0] + d[2] * d[2] - change * change
    b = o[0] * d[0] + o[2] * d[2] - radius * change
    c = o[0] * o[0] + o[2] * o[2] - radius * radius
    if abs(a) < 1e-9:
        return _half_space(c, 2.0 * b, t0, t1)
    if a > 0.0:
        q0, q1 = _quadratic(a, b, c)
        return max(t0, q0), min(t1, q1)
    root = b * b - a * c
    if root <= 0.0:  # inside the double cone all along
        return t0, t1
    root = math.sqrt(root)
    q0, q1 = (
        (-b + root) / a,
        (-b - root) / a,
    )  # inside before q0 and after q1: two nappes, one within the caps
    if min(t1, q0) - t0 > t1 - max(t0, q1):
        return t0, min(t1, q0)
    return max(t0, q1), t1


@_compiled
def _capsule_interval(radius, half, o, d):
    """The hull of the intervals of the cylinder and the two balls."""
    plane = d[0] * d[0] + d[2] * d[2]
    along = o[0] * d[0] + o[2] * d[2]
    gap = o[0] * o[0] + o[2] * o[2] - radius * radius
    t0, t1 = FAR, -FAR
    for end in (-half, half):
        y = o[1] - end
        a, b = _quadratic(plane + d[1] * d[1], along + y * d[1], gap + y * y)
        t0, t1 = min(t0, a), max(t1, b)
    a, b = _slab(half, o[1], d[1], -FAR, FAR)
    if plane > 1e-12:
        q0, q1 = _quadratic(plane, along, gap)
        a, b = max(a, q0), min(b, q1)
    elif gap > 0.0:
        return t0, t1
    if a <= b:
        t0, t1 = min(t0, a), max(t1, b)
    return t0, t1


@_compiled
def _interval(kind, size, o, d):
    """The interval of a ray inside a part with sharp edges; for a torus, inside the cylinder that holds it."""
    x, y, z = size[0], size[1], size[2]
    if kind == ELLIPSOID:
        ox, oy, oz, dx, dy, dz = o[0] / x, o[1] / y, o[2] / z, d[0] / x, d[1] / y, d[2] / z
        return _quadratic(
            dx * dx + dy * dy + dz * dz,
            ox * dx + oy * dy + oz * dz,
            ox * ox + oy * oy + oz * oz - 1.0,
        )
    if kind == BOX:
        t0, t1 = _slab(x, o[0], d[0], -FAR, FAR)
        t0, t1 = _slab(y, o[1], d[1], t0, t1)
        return _slab(z, o[2], d[2], t0, t1)
    if kind == FRUSTUM:
        return _frustum_interval(x, y, z, o, d)
    if kind == CAPSULE:
        return _capsule_interval(x, y, o, d)
    if kind == TORUS:
        return _frustum_interval(x + y, y, x + y, o, d)
    t0, t1 = _slab(y, o[1], d[1], -FAR, FAR)
    t0, t1 = _slab(z, o[2], d[2], t0, t1)
    slope = x / (2.0 * y)  # |X| <= slope (y - Y)
    t0, t1 = _half_space(o[0] + slope * (o[1] - y), d[0] + slope * d[1], t0, t1)
    return _half_space(-o[0] + slope * (o[1] - y), -d[0] + slope * d[1], t0, t1)


@_compiled
def _profile(x, y, bottom, half, top):
    cap_x, cap_y = max(x - (bottom if y < 0.0 else top), 0.0), abs(y) - half
    edge_x, edge_y = bottom - top, -2.0 * half
    along = ((x - top) * edge_x + (y - half) * edge_y) / max(edge_x**2 + edge_y**2, 1e-24)
    along = min(max(along, 0.0), 1.0)
    side_x, side_y = x - top - along * edge_x, y - half - along * edge_y
    distance = math.sqrt(min(cap_x**2 + cap_y**2, side_x**2 + side_y**2))
    return -distance if side_x < 0.0 and cap_y < 0.0 else distance


@_compiled
def _marched_distance(kind, core, rounding, point):
    """Signed distance of the kinds that are marched: torus, and rounded box, frustum and prism."""
    x, y, z = point
    if kind == TORUS:
        return _length(_length(x, z) - core[0], y) - core[1]
    y -= core[3]
    if kind == FRUSTUM:
        return _profile(_length(x, z), y, core[0], core[1], core[2]) - rounding
    if kind == BOX:
        a, b, c = abs(x) - core[0], abs(y) - core[1], abs(z) - core[2]
        inside = min(max(a, b, c), 0.0)
        a, b, c = max(a, 0.0), max(b, 0.0), max(c, 0.0)
        return inside + math.sqrt(a * a + b * b + c * c) - rounding
    a, b = _profile(abs(x), y, core[0], core[1], 0.0), abs(z) - core[2]
    inside = min(max(a, b), 0.0)
    a, b = max(a, 0.0), max(b, 0.0)
    return inside + math.sqrt(a * a + b * b) - rounding


@_compiled
def _march(kind, core, rounding, o, d, t, end, sign):
    """First t in [t, end] where sign * distance vanishes, or FAR; runs backward when end < t."""
    direction = 1.0 if end >= t else -1.0
    pace = direction / math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    left = FAR
    for _ in range(_MARCH_STEPS):
        point = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
        left = sign * _marched_distance(kind, core, rounding, point)
        if left < _HIT:
            return t
        t += left * pace
        if (end - t) * direction < 0.0:
            return FAR
    return t if left < _GRAZE else FAR


@_compiled
def _crossings(kind, size, core, rounding, o, d, exits, limit):
    """The (up to two) intervals of a ray inside a part; an absent one is (FAR, -FAR).

    Where an interval ends is worked out only when `exits` asks for it; without, one that starts beyond `limit` may be
    left out.
    """
    t0, t1 = _interval(kind, size, o, d)
    if t0 > t1 or t1 <= 0.0 or (t0 >= limit and not exits):
        return FAR, -FAR, FAR, -FAR
    if kind != TORUS and rounding == 0.0:
        return t0, t1, FAR, -FAR
    first = _march(kind, core, rounding, o, d, t0, t1, 1.0)
    if first == FAR:
        return FAR, -FAR, FAR, -FAR
    if not exits:
        return first, t1, FAR, -FAR
    if kind != TORUS:
        last = _march(kind, core, rounding, o, d, t1, first, 1.0)
        return first, (last if last < FAR else first), FAR, -FAR
    leave = _march(kind, core, rounding, o, d, first + 4.0 * _GRAZE, t1, -1.0)
    if leave >= t1:
        return first, t1, FAR, -FAR
    again = _march(kind, core, rounding, o, d, leave + 4.0 * _GRAZE, t1, 1.0)
    return first, leave, again, (t1 if again < FAR else -FAR)


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
def _local_normal(kind, size, core, rounding, x, y, z):
    """Outward direction (any length) at a surface point, in the part's frame."""
    if kind == ELLIPSOID:
        return x / size[0] ** 2, y / size[1] ** 2, z / size[2] ** 2
    if kind == CAPSULE:
        return x, y - min(max(y, -size[1]), size[1]), z
    if kind == TORUS:
        keep = 1.0 - size[0] / max(_length(x, z), 1e-12)
        return x * keep, y, z * keep
    if rounding > 0.0:
        # Four corners of a tetrahedron give the gradient of any distance.
        h = 1e-4
        a = _marched_distance(kind, core, rounding, (x + h, y - h, z - h))
        b = _marched_distance(kind, core, rounding, (x - h, y - h, z + h))
        c = _marched_distance(kind, core, rounding, (x - h, y + h, z - h))
        d = _marched_distance(kind, core, rounding, (x + h, y + h, z + h))
        return a - b - c + d, -a - b + c + d, -a + b - c + d
    if kind == BOX:
        a, b, c = abs(x) - size[0], abs(y) - size[1], abs(z) - size[2]
        if a >= b and a >= c:
            return x, 0.0, 0.0
        return (0.0, y, 0.0) if b >= c else (0.0, 0.0, z)
    return _slanted_normal(kind, size, x, y, z)


@_compiled
def _slanted_normal(kind, size, x, y, z):
    """A sharp frustum or prism: the face whose plane (or cone) is nearest from inside."""
    radial = _length(x, z) if kind == FRUSTUM else abs(x)
    top = size[2] if kind == FRUSTUM else 0.0
    slope = (top - size[0]) / (2.0 * size[1])
    side = (radial - 0.5 * (size[0] + top) - slope * y) / math.sqrt(1.0 + slope * slope)
    cap = abs(y) - size[1]
    if kind == PRISM and abs(z) - size[2] >= max(side, cap):
        return 0.0, 0.0, z
    if cap >= side:
        return 0.0, y, 0.0
    unit = 1.0 / max(radial, 1e-12)
    return x * unit, -slope, (z * unit if kind == FRUSTUM else 0.0)


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
            t0, t1 = _interval(
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
        t0, t1, t2, t3 = _crossings(
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
    x, y, z = _local_normal(
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
