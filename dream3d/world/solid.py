"""Solids: parts packed into arrays, where they end, and their signed distance.

`pack` turns a list of parts into a `Solid`, the form that every tracer, the mesher and the distance function read. The
distance here is the readable reference: exact for every kind of part, a safe lower bound for their union and their cuts
(it never overestimates, so its gradient never exceeds one).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from dream3d.world.colors import COLORS
from dream3d.world.parts import KINDS, Part

BOX, ELLIPSOID, FRUSTUM, TORUS, CAPSULE, PRISM = range(len(KINDS))
_CAN_ROUND = (BOX, FRUSTUM, PRISM)
_ELLIPSOID_ITERATIONS = 16


@dataclass(frozen=True)
class Solid:
    """P packed parts, in order; `x_object = rotation @ x_part + translation`.

    Attributes:
        kind: index into `parts.KINDS`.
        size: as in `Part.size`.
        core: the part shrunk by its rounding (same meaning as `size`), then its shift along the part's Y axis. The
            solid is everything within `rounding` of the core.
        rotation, translation: part frame to object frame.
        color: sRGB in [0, 1].
        rounding: edge radius, already limited to what fits into the part.
        carve, marker: as in `Part`.
        owner: which object of a pair the part belongs to.
        bound: radius of a sphere around `translation` that holds the part.
    """

    kind: Int[np.ndarray, " P"]
    size: Float[np.ndarray, "P 3"]
    core: Float[np.ndarray, "P 4"]
    rotation: Float[np.ndarray, "P 3 3"]
    translation: Float[np.ndarray, "P 3"]
    color: Float[np.ndarray, "P 3"]
    rounding: Float[np.ndarray, " P"]
    carve: Bool[np.ndarray, " P"]
    marker: Bool[np.ndarray, " P"]
    owner: Int[np.ndarray, " P"]
    bound: Float[np.ndarray, " P"]

    def __len__(self) -> int:
        return len(self.kind)


def pack(parts: Sequence[Part], owners: Sequence[int] | None = None) -> Solid:
    """Parts as arrays.

    Args:
        parts: at least one, the first not a carving one.
        owners: for each part the object of a pair it belongs to; all 0 when not given.
    """
    if not parts:
        raise ValueError("a solid needs at least one part")
    kinds = [KINDS.index(part.kind) for part in parts]
    sizes = np.array([part.size for part in parts], dtype=np.float64)
    shrunk = [
        part_core(kind, size, part.rounding)
        for kind, size, part in zip(kinds, sizes, parts, strict=True)
    ]
    colors = [COLORS[part.color] if isinstance(part.color, str) else part.color for part in parts]
    return Solid(
        kind=np.array(kinds, dtype=np.int64),
        size=sizes,
        core=np.array([core for core, _ in shrunk], dtype=np.float64),
        rotation=np.array([rotation_matrix(part.rotation_deg) for part in parts]),
        translation=np.array([part.position for part in parts], dtype=np.float64),
        color=np.array(colors, dtype=np.float64),
        rounding=np.array([rounding for _, rounding in shrunk], dtype=np.float64),
        carve=np.array([part.carve for part in parts], dtype=np.bool_),
        marker=np.array([part.marker for part in parts], dtype=np.bool_),
        owner=np.array([0] * len(parts) if owners is None else owners, dtype=np.int64),
        bound=np.array([_bounding_radius(k, s) for k, s in zip(kinds, sizes, strict=True)]),
    )


def rotation_matrix(rotation_deg: tuple[float, float, float]) -> Float[np.ndarray, "3 3"]:
    """Turns about the fixed X, then Y, then Z axis, right-handed, in degrees."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_z = np.array([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    return about_z @ about_y @ about_x


def part_core(
    kind: int, size: Float[np.ndarray, "3"], rounding: float
) -> tuple[tuple[float, ...], float]:
    """The part shrunk by `rounding` on all sides (as `Solid.core`), and the rounding that fits into it."""
    x, y, z = (float(value) for value in size)
    if rounding <= 0.0 or kind not in _CAN_ROUND:
        return (x, y, z, 0.0), 0.0
    if kind == BOX:
        rounding = min(rounding, 0.98 * min(x, y, z))
        return (x - rounding, y - rounding, z - rounding, 0.0), rounding
    bottom, half, top = (x, y, z) if kind == FRUSTUM else (x, y, 0.0)
    slope = (top - bottom) / (2.0 * half)
    secant = np.sqrt(1.0 + slope * slope)
    inscribed = min(half, max(bottom, top) / (secant + abs(slope)))
    rounding = min(rounding, 0.98 * (inscribed if kind == FRUSTUM else min(inscribed, z)))

    # The profile's lateral line, moved inward by the rounding, and where it meets the moved caps or the axis.
    low, high = -half + rounding, half - rounding
    at_axis = 0.5 * (bottom + top) - rounding * secant  # moved radius at y = 0
    if at_axis + slope * high < 0.0:
        high = -at_axis / slope
    if at_axis + slope * low < 0.0:
        low = -at_axis / slope
    new_bottom, new_top = max(at_axis + slope * low, 0.0), max(at_axis + slope * high, 0.0)
    new_half, shift = 0.5 * (high - low), 0.5 * (high + low)
    if kind == FRUSTUM:
        return (new_bottom, new_half, new_top, shift), rounding
    return (new_bottom, new_half, z - rounding, shift), rounding


def _bounding_radius(kind: int, size: np.ndarray) -> float:
    x, y, z = (float(value) for value in size)
    if kind == ELLIPSOID:
        return max(x, y, z)
    if kind in (TORUS, CAPSULE):
        return x + y
    if kind == FRUSTUM:
        return float(np.hypot(max(x, z), y))
    return float(np.sqrt(x * x + y * y + z * z))


# ---------------------------------------------------------------------------------------------------------------------
# Extent: bounds, transforms and normalisation of part lists


def support_points(
    solid: Solid, directions: Float[np.ndarray, "D 3"] | Float[np.ndarray, "P D 3"]
) -> Float[np.ndarray, "P D 3"]:
    """For each part and direction the farthest point of the part that way, in the object's frame.

    Args:
        solid: the parts; carving ones are treated like any other.
        directions: unit vectors in the object's frame, the same for all parts or each part's own.
    """
    spread = np.broadcast_to(directions, (len(solid), *directions.shape[-2:]))
    local = np.einsum("pji,pdj->pdi", solid.rotation, spread)
    points = np.empty_like(local)
    for index, (kind, core, rounding) in enumerate(
        zip(solid.kind, solid.core, solid.rounding, strict=True)
    ):
        points[index] = _core_support(int(kind), core, local[index]) + rounding * local[index]
    return np.einsum("pij,pdj->pdi", solid.rotation, points) + solid.translation[:, None]


def _core_support(kind: int, core: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Farthest points of one core along unit directions `d` [D, 3], in the part's frame."""
    x, y, z, shift = core
    sign = np.where(d >= 0.0, 1.0, -1.0)
    if kind == BOX:
        return sign * core[:3]
    if kind == ELLIPSOID:
        scaled = d * core[:3]
        return core[:3] * scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)
    around = np.stack([d[:, 0], np.zeros(len(d)), d[:, 2]], axis=-1)
    around /= np.maximum(np.linalg.norm(around, axis=-1, keepdims=True), 1e-12)
    upward = np.array([0.0, 1.0, 0.0])
    if kind == TORUS:
        return x * around + y * d
    if kind == CAPSULE:
        return x * d + sign[:, 1:2] * y * upward
    if kind == FRUSTUM:
        bottom, top = x * around + (shift - y) * upward, z * around + (shift + y) * upward
    else:
        depth = z * sign[:, 2:] * np.array([0.0, 0.0, 1.0])
        bottom = x * sign[:, :1] * np.array([1.0, 0.0, 0.0]) + (shift - y) * upward + depth
        top = (shift + y) * upward + depth
    higher = (top * d).sum(-1, keepdims=True) > (bottom * d).sum(-1, keepdims=True)
    return np.where(higher, top, bottom)


def bounds(parts: Sequence[Part]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Lowest and highest corner of the tight box around the parts; carving parts do not count."""
    return solid_bounds(pack(parts))


def solid_bounds(
    solid: Solid, only: int | None = None
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """`bounds` of packed parts, or of the one part `only`, carving or not."""
    points = support_points(solid, np.concatenate([np.eye(3), -np.eye(3)]))
    points = points[~solid.carve] if only is None else points[only : only + 1]
    return points.min(axis=(0, 1)), points.max(axis=(0, 1))


def radius_about(parts: Sequence[Part], center: Float[np.ndarray, "3"]) -> float:
    """Distance from `center` to the farthest point of the parts; carving parts do not count."""
    solid = pack([part for part in parts if not part.carve])
    points = support_points(solid, _DIRECTIONS)
    farthest = np.linalg.norm(points - center, axis=-1).argmax(axis=1)
    points = points[np.arange(len(solid)), farthest][:, None]  # [P, 1, 3]
    # Climb from each part's best sampled point: the farthest point supports the direction it lies in.
    for _ in range(4):
        distances = np.linalg.norm(points - center, axis=-1, keepdims=True)
        points = support_points(solid, (points - center) / np.maximum(distances, 1e-12))
    return float(np.linalg.norm(points - center, axis=-1).max())


def _fibonacci_sphere(count: int) -> Float[np.ndarray, "D 3"]:
    index = np.arange(count) + 0.5
    y = 1.0 - 2.0 * index / count
    ring = np.sqrt(1.0 - y * y)
    angle = np.pi * (3.0 - np.sqrt(5.0)) * index
    return np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], axis=-1)


_DIRECTIONS = _fibonacci_sphere(48)


def transformed(
    parts: Sequence[Part],
    scale: float = 1.0,
    offset: tuple[float, float, float] | Float[np.ndarray, "3"] = (0.0, 0.0, 0.0),
) -> list[Part]:
    """The parts scaled about the origin, then moved by `offset`."""
    return [
        replace(
            part,
            size=tuple(float(scale * value) for value in part.size),
            position=tuple(
                float(scale * value + move)
                for value, move in zip(part.position, offset, strict=True)
            ),
            rounding=float(scale * part.rounding),
        )
        for part in parts
    ]


def normalised(parts: Sequence[Part], radius: float = 1.0) -> list[Part]:
    """The parts moved and scaled so that their box is centred and their farthest point lies at `radius`."""
    low, high = bounds(parts)
    center = 0.5 * (low + high)
    scale = radius / radius_about(parts, center)
    return transformed(parts, scale, -scale * center)


# ---------------------------------------------------------------------------------------------------------------------
# Signed distance


def signed_distance(
    solid: Solid, points: Float[np.ndarray, "M 3"]
) -> tuple[Float[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Distance to the solid's surface, negative inside, and the part that the nearest surface belongs to.

    A lower bound of the true distance in size outside, exact where the nearest surface is that of a single part.

    Args:
        solid: parts in order; each is united with, or carved from, what came before.
        points: in the object's frame.
    """
    distance = np.full(len(points), np.inf)
    part = np.zeros(len(points), dtype=np.int64)
    for index in range(len(solid)):
        own = part_distance(solid, index, points)
        if solid.carve[index]:
            wins = -own > distance
            distance = np.where(wins, -own, distance)
        else:
            wins = own < distance
            distance = np.where(wins, own, distance)
        part[wins] = index
    return distance, part


def part_distance(
    solid: Solid, index: int, points: Float[np.ndarray, "M 3"]
) -> Float[np.ndarray, " M"]:
    """Exact signed distance to one part, as if it stood alone (carving or not)."""
    local = (points - solid.translation[index]) @ solid.rotation[index]
    core = solid.core[index]
    x, y, z = local[:, 0], local[:, 1] - core[3], local[:, 2]
    kind = solid.kind[index]
    if kind == BOX:
        distance = _exterior(np.abs(local) - core[:3])
    elif kind == ELLIPSOID:
        distance = _ellipsoid(local, core[:3])
    elif kind == FRUSTUM:
        distance = _profile(np.hypot(x, z), y, core[0], core[1], core[2])
    elif kind == TORUS:
        distance = np.hypot(np.hypot(x, z) - core[0], y) - core[1]
    elif kind == CAPSULE:
        beyond = np.maximum(np.abs(y) - core[1], 0.0)
        distance = np.sqrt(x * x + beyond * beyond + z * z) - core[0]
    else:
        triangle = _profile(np.abs(x), y, core[0], core[1], 0.0)
        distance = _exterior(np.stack([triangle, np.abs(z) - core[2]], axis=-1))
    return distance - solid.rounding[index]


def _exterior(q: np.ndarray) -> np.ndarray:
    """Distance of a product of intervals from the distances `q` [M, k] to each."""
    return np.linalg.norm(np.maximum(q, 0.0), axis=-1) + np.minimum(q.max(axis=-1), 0.0)


def _profile(x: np.ndarray, y: np.ndarray, bottom: float, half: float, top: float) -> np.ndarray:
    """Distance in the half plane x >= 0 to the trapezoid of half widths `bottom`, `top`."""
    cap_x, cap_y = np.maximum(x - np.where(y < 0.0, bottom, top), 0.0), np.abs(y) - half
    edge_x, edge_y = bottom - top, -2.0 * half  # from the upper end of the side to its lower end
    along = ((x - top) * edge_x + (y - half) * edge_y) / max(edge_x**2 + edge_y**2, 1e-24)
    along = np.clip(along, 0.0, 1.0)
    side_x, side_y = x - top - along * edge_x, y - half - along * edge_y
    inside = (side_x < 0.0) & (cap_y < 0.0)
    distance = np.sqrt(np.minimum(cap_x**2 + cap_y**2, side_x**2 + side_y**2))
    return np.where(inside, -distance, distance)


def _ellipsoid(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance to an ellipsoid: the closest point is r^2 p / (t + r^2) at the largest root t of its equation.

    Newton from the left of a convex falling function never overshoots (Eberly, Distance from a Point to an
    Ellipse, an Ellipsoid, or a Hyperellipsoid, 2013).
    """
    if radii.min() == radii.max():
        return np.linalg.norm(points, axis=-1) - radii[0]
    p = np.maximum(np.abs(points), 1e-9 * radii.max())
    squared, weighted = radii * radii, radii * p
    t = (weighted - squared).max(axis=-1, keepdims=True)
    for _ in range(_ELLIPSOID_ITERATIONS):
        ratio = weighted / (t + squared)
        excess = (ratio * ratio).sum(-1, keepdims=True) - 1.0
        if excess.max(initial=0.0) < 1e-12:
            break
        t = t + 0.5 * excess / (ratio * ratio / (t + squared)).sum(-1, keepdims=True)
    distance = np.linalg.norm(p - squared * p / (t + squared), axis=-1)
    return np.where(((p / radii) ** 2).sum(-1) < 1.0, -distance, distance)
