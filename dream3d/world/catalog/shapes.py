"""Short names for parts, secondary colours, and the few placements the builders share.

Lengths are in the builder's own frame; objects are normalised afterwards. All `size` arguments are half sizes or radii,
as in `Part`. Secondary colours are sRGB triples that lie away from the twelve named colours.
"""

from typing import Any

import numpy as np

from dream3d.world.colors import COLORS
from dream3d.world.parts import Part

Vector = tuple[float, float, float]
Paint = str | Vector

SNOW: Vector = (0.94, 0.96, 1.0)
CREAM: Vector = (0.98, 0.93, 0.80)
SAND: Vector = (0.87, 0.78, 0.58)
WOOD: Vector = (0.68, 0.49, 0.30)
DARK_WOOD: Vector = (0.34, 0.21, 0.13)
STEEL: Vector = (0.74, 0.77, 0.81)
DARK: Vector = (0.13, 0.13, 0.15)
GLASS: Vector = (0.70, 0.88, 0.97)
LIGHT: Vector = (1.0, 0.94, 0.55)
GOLD: Vector = (0.93, 0.74, 0.22)
SKIN: Vector = (0.95, 0.76, 0.60)
LEAF: Vector = (0.33, 0.66, 0.25)
TERRACOTTA: Vector = (0.76, 0.40, 0.27)
SLATE: Vector = (0.27, 0.32, 0.40)
BEAK: Vector = (0.98, 0.60, 0.10)
ROSE: Vector = (0.95, 0.55, 0.62)
CHERRY: Vector = (0.80, 0.08, 0.16)


def vary(rng: np.random.Generator, value: float, amount: float = 0.12) -> float:
    """`value` times a factor drawn evenly from [1 - amount, 1 + amount]."""
    return float(value * rng.uniform(1.0 - amount, 1.0 + amount))


def srgb(color: Paint) -> Vector:
    """The sRGB triple of a named colour or of a triple."""
    return COLORS[color] if isinstance(color, str) else color


def contrast(color: Paint, *options: Paint, apart: float = 0.38) -> Paint:
    """The first option at least `apart` from `color` in sRGB, so that a detail never passes for the main colour.

    Falls back to the option farthest away.
    """
    own = np.asarray(srgb(color))
    distances = [float(np.linalg.norm(np.asarray(srgb(option)) - own)) for option in options]
    for option, distance in zip(options, distances, strict=True):
        if distance >= apart:
            return option
    return options[int(np.argmax(distances))]


def box(color: Paint, size: Vector, position: Vector = (0, 0, 0), **options: Any) -> Part:
    """A box with half sizes `size`."""
    return Part("box", size, color, position, **options)


def ball(
    color: Paint, radius: float | Vector, position: Vector = (0, 0, 0), **options: Any
) -> Part:
    """A sphere, or an ellipsoid where three radii are given."""
    radii = radius if isinstance(radius, tuple) else (radius, radius, radius)
    return Part("ellipsoid", radii, color, position, **options)


def frustum(
    color: Paint,
    bottom: float,
    half: float,
    top: float,
    position: Vector = (0, 0, 0),
    **options: Any,
) -> Part:
    """A frustum around +Y with half height `half`."""
    return Part("frustum", (bottom, half, top), color, position, **options)


def ring(
    color: Paint, radius: float, tube: float, position: Vector = (0, 0, 0), **options: Any
) -> Part:
    """A torus around +Y."""
    return Part("torus", (radius, tube, 0.0), color, position, **options)


def prism(color: Paint, size: Vector, position: Vector = (0, 0, 0), **options: Any) -> Part:
    """An isosceles triangle in XY (apex up), extruded along Z."""
    return Part("prism", size, color, position, **options)


def _between(start: Vector, end: Vector) -> tuple[Vector, float, Vector]:
    """Centre, half length and rotation of a solid whose +Y axis runs from `start` to `end`."""
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    length = float(np.linalg.norm(b - a))
    x, y, z = (b - a) / length
    tilt, turn = np.degrees(np.arccos(np.clip(y, -1.0, 1.0))), np.degrees(np.arctan2(x, z))
    centre = (a + b) / 2.0
    return (
        (float(centre[0]), float(centre[1]), float(centre[2])),
        length / 2.0,
        (float(tilt), float(turn), 0.0),
    )


def rod(color: Paint, radius: float, start: Vector, end: Vector, **options: Any) -> Part:
    """A capsule whose round ends are centred on `start` and `end`."""
    centre, half, rotation = _between(start, end)
    return Part("capsule", (radius, half, 0.0), color, centre, rotation, **options)


def tube(
    color: Paint,
    radius: float,
    start: Vector,
    end: Vector,
    end_radius: float | None = None,
    **options: Any,
) -> Part:
    """A cylinder from `start` to `end`, or a frustum where `end_radius` differs."""
    centre, half, rotation = _between(start, end)
    far = radius if end_radius is None else end_radius
    return Part("frustum", (radius, half, far), color, centre, rotation, **options)


def on_ball(
    center: Vector, radii: float | Vector, azimuth_deg: float, elevation_deg: float
) -> Vector:
    """The surface point of an ellipsoid seen from its centre in a direction; azimuth 0 is the front."""
    az, el = np.radians(azimuth_deg), np.radians(elevation_deg)
    direction = np.array([np.sin(az) * np.cos(el), np.sin(el), np.cos(az) * np.cos(el)])
    r = np.asarray(radii if isinstance(radii, tuple) else (radii,) * 3)
    point = np.asarray(center) + direction / np.linalg.norm(direction / r)
    return float(point[0]), float(point[1]), float(point[2])


def shifted(point: Vector, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Vector:
    """`point` moved."""
    return point[0] + x, point[1] + y, point[2] + z


def eyes(
    center: Vector,
    radii: float | Vector,
    size: float,
    spread_deg: float = 23.0,
    elevation_deg: float = 12.0,
    white: Paint = "white",
    pupil: Paint = DARK,
) -> list[Part]:
    """Two big round eyes on the front of a head: white discs with dark pupils, almost flush with the surface.

    They sit low on the surface so that they cannot be seen from behind.

    Args:
        center: of the head.
        radii: of the head, one or three.
        size: radius of one eye.
        spread_deg: angle of each eye off the middle.
        elevation_deg: angle of both above the head's centre.
        white: colour of the discs.
        pupil: colour of the pupils.
    """
    parts: list[Part] = []
    for side in (1.0, -1.0):
        spot = on_ball(center, radii, side * spread_deg, elevation_deg)
        turn = (-elevation_deg, side * spread_deg, 0.0)
        disc, dark = (size, size * 1.1, size * 0.36), (size * 0.64, size * 0.74, size * 0.30)
        parts.append(
            ball(white, disc, shifted(spot, z=-0.14 * size), rotation_deg=turn, marker=True)
        )
        inward = shifted(spot, x=-0.1 * side * size, z=0.02 * size)
        parts.append(ball(pupil, dark, inward, rotation_deg=turn, marker=True))
    return parts


def mirrored(part: Part) -> list[Part]:
    """The part and its mirror image on the other side of the plane x = 0."""
    x, y, z = part.position
    rx, ry, rz = part.rotation_deg
    twin = Part(
        part.kind,
        part.size,
        part.color,
        (-x, y, z),
        (rx, -ry, -rz),
        part.rounding,
        part.carve,
        part.marker,
        part.main,
    )
    return [part, twin]
