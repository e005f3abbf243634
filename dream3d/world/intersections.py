"""One ray and one part, in the part's own frame: where it enters and leaves, and which way the surface faces.

Every part but the torus is convex, so a ray meets it in one interval that has a closed form; rounded parts and tori are
refined by marching along their exact distance inside that interval. An absent interval is (FAR, -FAR).
"""

import math

from dream3d.kernels import kernel
from dream3d.world.solid import BOX, CAPSULE, ELLIPSOID, FRUSTUM, PRISM, TORUS

FAR = 1e9
FAST = {"contract", "arcp", "nsz"}
_MARCH_STEPS = 48
_HIT = 1e-4  # a marched surface is reached when the distance falls below this
_GRAZE = 1e-3  # a ray that runs out of steps this close has hit

_compiled = kernel(nogil=True, fastmath=FAST)


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
def interval(kind, size, o, d):
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
def crossings(kind, size, core, rounding, o, d, exits, limit):
    """The (up to two) intervals of a ray inside a part; an absent one is (FAR, -FAR).

    Where an interval ends is worked out only when `exits` asks for it; without, one that starts beyond `limit` may be
    left out.
    """
    t0, t1 = interval(kind, size, o, d)
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
def local_normal(kind, size, core, rounding, x, y, z):
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
