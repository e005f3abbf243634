"""Vehicles, all pointing toward the front (+Z)."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    CREAM,
    DARK,
    GLASS,
    GOLD,
    LIGHT,
    SLATE,
    SNOW,
    STEEL,
    WOOD,
    Paint,
    Vector,
    ball,
    box,
    contrast,
    frustum,
    mirrored,
    prism,
    rod,
    shifted,
    tube,
    vary,
)
from dream3d.world.parts import Part

TAIL_LIGHT: Vector = (0.62, 0.05, 0.08)
PANE: Vector = (0.20, 0.30, 0.40)


def _wheels(x: float, y: float, z: float, radius: float, color: Paint) -> list[Part]:
    """A tyre with a bright hub on both sides."""
    hub = contrast(color, STEEL, GOLD, apart=0.2)
    return [
        *mirrored(tube(DARK, radius, (x - 0.11, y, z), (x + 0.04, y, z))),
        *mirrored(tube(hub, radius * 0.5, (x, y, z), (x + 0.06, y, z))),
    ]


def _lamp(color: Paint, radius: float, center: Vector) -> Part:
    """A round flush lamp that looks forward."""
    return tube(color, radius, shifted(center, z=-0.03), shifted(center, z=0.012), marker=True)


@category(
    "car",
    "vehicle",
    "body",
    "red blue yellow green white",
    has_front=True,
    synonyms="automobile, auto",
)
def car(rng: np.random.Generator, color: str) -> list[Part]:
    """Saloon: bonnet, wide windscreen, big lamps, grille, red tail lights."""
    width, length = vary(rng, 0.40, 0.08), vary(rng, 0.86, 0.08)
    body, cabin = vary(rng, 0.185), vary(rng, 0.19)
    wheel = vary(rng, 0.20)
    floor = 0.06
    top = floor + 2.0 * body
    glass = contrast(color, GLASS, PANE)
    z_cabin = -0.14
    half = vary(rng, 0.44, 0.08)
    front = z_cabin + half
    parts = [
        box(color, (width, body, length), (0.0, floor + body, 0.0), rounding=0.09, main=True),
        box(glass, (width * 0.88, cabin, half), (0.0, top + cabin - 0.05, z_cabin), rounding=0.06),
        box(
            color,
            (width * 0.90, 0.05, half * 0.93),
            (0.0, top + 2.0 * cabin - 0.05, z_cabin - 0.02),
            rounding=0.04,
            main=True,
        ),
        box(
            color,
            (width * 0.905, cabin, 0.045),
            (0.0, top + cabin - 0.05, z_cabin - 0.02),
            main=True,
        ),
        box(
            color,
            (width * 0.90, cabin, 0.07),
            (0.0, top + cabin - 0.05, z_cabin - half + 0.05),
            rounding=0.03,
            main=True,
        ),
        box(
            glass,
            (width * 0.80, cabin * 0.78, 0.03),
            (0.0, top + cabin - 0.05, front - 0.015),
            rounding=0.02,
            marker=True,
        ),
        box(
            DARK,
            (width * 0.42, 0.085, 0.03),
            (0.0, floor + body * 0.95, length - 0.018),
            marker=True,
        ),
        box(STEEL, (width * 0.96, 0.05, 0.05), (0.0, floor + 0.03, length - 0.02), rounding=0.02),
        box(STEEL, (width * 0.96, 0.05, 0.05), (0.0, floor + 0.03, -length + 0.02), rounding=0.02),
    ]
    for side in (-1.0, 1.0):
        parts.append(_lamp(LIGHT, 0.115, (side * width * 0.68, floor + body * 1.1, length)))
        parts.append(
            box(TAIL_LIGHT, (0.09, 0.06, 0.03), (side * width * 0.70, floor + body * 1.1, -length))
        )
    for z in (0.56, -0.56):
        parts += _wheels(width, 0.02, z * length, wheel, color)
    return parts


@category(
    "bus",
    "vehicle",
    "body",
    "yellow red blue green",
    has_front=True,
    synonyms="school bus",
)
def bus(rng: np.random.Generator, color: str) -> list[Part]:
    """A long tall box: a row of windows, one huge windscreen, sign, lamps."""
    width, length, half = vary(rng, 0.34, 0.08), vary(rng, 0.92, 0.08), vary(rng, 0.40)
    glass = contrast(color, GLASS, PANE)
    y = half + 0.05
    parts = [
        box(color, (width, half, length), (0.0, y, 0.0), rounding=0.06, main=True),
        box(
            contrast(color, SNOW, SLATE),
            (width * 0.8, 0.04, length * 0.9),
            (0.0, y + half, 0.0),
            rounding=0.03,
        ),
        box(
            glass,
            (width * 0.86, half * 0.42, 0.03),
            (0.0, y + half * 0.22, length - 0.018),
            rounding=0.02,
            marker=True,
        ),
        box(DARK, (width * 0.72, 0.065, 0.03), (0.0, y + half * 0.80, length - 0.018), marker=True),
        box(
            DARK,
            (width * 0.90, 0.06, 0.03),
            (0.0, y - half * 0.86, length - 0.018),
            rounding=0.02,
            marker=True,
        ),
        box(TAIL_LIGHT, (width * 0.8, 0.05, 0.03), (0.0, y - half * 0.55, -length)),
    ]
    for side in (-1.0, 1.0):
        parts.append(_lamp(LIGHT, 0.095, (side * width * 0.66, y - half * 0.48, length)))
    for z in (-0.72, -0.36, 0.0, 0.36, 0.72):
        parts += mirrored(
            box(glass, (0.03, half * 0.36, 0.125 * length), (width, y + half * 0.28, z * length))
        )
    for z in (0.58, -0.58):
        parts += _wheels(width, 0.06, z * length, 0.17, color)
    return parts


@category(
    "train",
    "vehicle",
    "boiler and cab",
    "black red green blue",
    has_front=True,
    synonyms="locomotive, steam train, steam engine",
)
def train(rng: np.random.Generator, color: str) -> list[Part]:
    """Steam locomotive: boiler, funnel, cab, dark smokebox door with one bright lamp, cowcatcher, six wheels."""
    trim = contrast(color, (0.80, 0.14, 0.12), GOLD)
    radius, length = vary(rng, 0.30, 0.1), vary(rng, 0.52, 0.1)
    y, z = 0.30 + radius, 0.26
    front = z + length
    cab = vary(rng, 0.44, 0.08)
    cab_z = z - length - 0.20
    parts = [
        tube(color, radius, (0.0, y, z - length), (0.0, y, front), main=True),
        tube(GOLD, radius * 1.03, (0.0, y, z - 0.12), (0.0, y, z - 0.06)),
        box(DARK, (0.34, 0.08, 0.96), (0.0, 0.22, 0.0)),
        box(color, (0.38, cab, 0.26), (0.0, 0.28 + cab, cab_z), rounding=0.03, main=True),
        box(trim, (0.45, 0.05, 0.34), (0.0, 0.30 + 2.0 * cab, cab_z), rounding=0.03),
        box(GLASS, (0.395, cab * 0.32, 0.13), (0.0, 0.28 + cab * 1.35, cab_z)),
        frustum(DARK, 0.10, vary(rng, 0.17, 0.2), 0.16, (0.0, y + radius + 0.12, front - 0.20)),
        ball(GOLD, (0.12, 0.15, 0.12), (0.0, y + radius, z - 0.22)),
        tube(
            contrast(color, DARK, STEEL),
            radius * 0.92,
            (0.0, y, front - 0.02),
            (0.0, y, front + 0.02),
            marker=True,
        ),
        tube(LIGHT, radius * 0.48, (0.0, y, front), (0.0, y, front + 0.045), marker=True),
        prism(trim, (0.36, 0.15, 0.12), (0.0, 0.12, front + 0.10)),
        box(trim, (0.38, 0.06, 0.05), (0.0, 0.25, front + 0.04)),
    ]
    for wz, wheel in ((0.52, 0.16), (0.10, 0.16), (-0.42, 0.22)):
        parts += mirrored(tube(trim, wheel, (0.31, wheel, wz), (0.39, wheel, wz)))
        parts += mirrored(tube(STEEL, wheel * 0.45, (0.36, wheel, wz), (0.41, wheel, wz)))
    return parts


@category(
    "rocket",
    "vehicle",
    "body",
    "white red gray blue orange",
    yaw_turns=4,
    synonyms="rocket ship",
)
def rocket(rng: np.random.Generator, color: str) -> list[Part]:
    """Standing on four fins: pointed nose, a porthole on each side, nozzle with a flame."""
    trim = contrast(color, SNOW, (0.86, 0.14, 0.12))
    radius, half, nose = vary(rng, 0.27), vary(rng, 0.48, 0.1), vary(rng, 0.27)
    parts = [
        frustum(color, radius * 0.85, half, radius, (0.0, 0.0, 0.0), main=True),
        frustum(trim, radius, nose, 0.02, (0.0, half + nose - 0.005, 0.0)),
        frustum(trim, radius * 0.93, 0.06, radius * 0.94, (0.0, -half * 0.42, 0.0)),
        frustum(DARK, 0.21, 0.07, 0.14, (0.0, -half - 0.05, 0.0)),
        ball(GOLD, (0.14, 0.20, 0.14), (0.0, -half - 0.16, 0.0)),
    ]
    fin = vary(rng, 0.24)
    for azimuth in (0.0, 90.0, 180.0, 270.0):
        s, c = float(np.sin(np.radians(azimuth))), float(np.cos(np.radians(azimuth)))
        out, far = radius * 0.75, radius * 0.75 + fin
        turn = (0.0, azimuth, 0.0)
        foot = Part(
            "prism",
            (0.26, 0.34, 0.05),
            color,
            (s * far * 0.72, -half * 0.78, c * far * 0.72),
            (0.0, azimuth + 90.0, 0.0),
            main=True,
        )
        hole = (s * radius, half * 0.36, c * radius)
        parts += [foot, ball(STEEL, (0.135, 0.135, 0.05), hole, rotation_deg=turn)]
        parts.append(
            ball(contrast(color, SLATE, GLASS), (0.09, 0.09, 0.07), hole, rotation_deg=turn)
        )
        parts.append(
            box(
                trim,
                (0.045, 0.12, 0.10),
                (s * out * 1.25, -half - 0.02, c * out * 1.25),
                rotation_deg=turn,
            )
        )
    return parts


@category(
    "airplane",
    "vehicle",
    "fuselage and tail fin",
    "white red blue yellow gray",
    synonyms="aeroplane, plane, aircraft, airliner",
)
def airplane(rng: np.random.Generator, color: str) -> list[Part]:
    """Propeller-less airliner: long fuselage, swept wings with engines, tail fin."""
    wing = contrast(color, STEEL, SLATE, apart=0.3)
    radius, length = vary(rng, 0.23), vary(rng, 0.60, 0.08)
    span, chord = vary(rng, 0.44, 0.1), vary(rng, 0.21)
    parts = [
        rod(color, radius, (0.0, 0.0, -length), (0.0, 0.0, length), main=True),
        tube(
            color, radius * 0.98, (0.0, 0.0, -length), (0.0, 0.08, -length - 0.34), 0.05, main=True
        ),
        ball(
            contrast(color, PANE, GLASS),
            (radius * 0.72, 0.10, 0.14),
            (0.0, radius * 0.62, length + 0.04),
        ),
        Part(
            "box",
            (0.045, 0.25, 0.15),
            color,
            (0.0, radius + 0.17, -length - 0.16),
            (-26.0, 0.0, 0.0),
            0.03,
            main=True,
        ),
    ]
    for side in (1.0, -1.0):
        sweep = (0.0, side * 20.0, -side * -4.0)
        parts.append(
            Part(
                "box",
                (span, 0.05, chord),
                wing,
                (side * (span * 0.9 + 0.06), -0.04, -0.06),
                sweep,
                0.03,
            )
        )
        parts.append(
            Part(
                "box",
                (0.24, 0.03, 0.11),
                color,
                (side * 0.24, 0.07, -length - 0.2),
                sweep,
                0.02,
                main=True,
            )
        )
        x = side * (span * 0.85 + 0.06)
        parts.append(rod(DARK, 0.085, (x, -0.13, -0.08), (x, -0.13, 0.16)))
        parts.append(tube(STEEL, 0.10, (x, -0.13, 0.08), (x, -0.13, 0.22)))
        for z in (-0.55, -0.25, 0.05, 0.35, 0.62):
            parts.append(
                ball(
                    contrast(color, PANE, GLASS),
                    (0.03, 0.045, 0.05),
                    (side * radius * 0.97, 0.05, z * length),
                )
            )
    return parts


@category(
    "helicopter",
    "vehicle",
    "cabin and tail",
    "red green yellow blue",
    has_front=True,
    synonyms="chopper",
)
def helicopter(rng: np.random.Generator, color: str) -> list[Part]:
    """Round cabin with a bubble window, tail boom, crossed rotor, skids."""
    body = (vary(rng, 0.38), vary(rng, 0.37), vary(rng, 0.46, 0.1))
    boom = vary(rng, 0.70, 0.08)
    blade, turn = vary(rng, 0.72, 0.06), float(rng.uniform(0.0, 90.0))
    gray = contrast(color, STEEL, SLATE, apart=0.3)
    mast = body[1] + 0.15
    end = (0.0, 0.14, -boom - 0.15)
    parts = [
        ball(color, body, main=True),
        ball(
            contrast(color, GLASS, PANE),
            (body[0] * 0.72, body[1] * 0.72, body[2] * 0.44),
            (0.0, 0.05, body[2] * 0.55),
            marker=True,
        ),
        box(color, (0.035, 0.3, 0.04), (0.0, 0.05, body[2] * 1.0), rounding=0.02, main=True),
        tube(color, 0.16, (0.0, 0.06, -body[2] * 0.6), end, 0.07, main=True),
        box(color, (0.04, 0.20, 0.10), shifted(end, y=0.12, z=-0.04), rounding=0.03, main=True),
        tube(gray, 0.17, shifted(end, x=0.045, y=0.06), shifted(end, x=0.075, y=0.06)),
        frustum(DARK, 0.12, 0.06, 0.07, (0.0, body[1] + 0.02, -0.04)),
        frustum(DARK, 0.04, 0.09, 0.04, (0.0, mast - 0.05, -0.04)),
        box(
            DARK,
            (blade, 0.035, 0.075),
            (0.0, mast + 0.03, -0.04),
            rotation_deg=(0.0, turn, 0.0),
            rounding=0.01,
        ),
        box(
            DARK,
            (blade, 0.035, 0.075),
            (0.0, mast + 0.03, -0.04),
            rotation_deg=(0.0, turn + 90.0, 0.0),
            rounding=0.01,
        ),
    ]
    skid = -body[1] - 0.15
    parts += mirrored(rod(gray, 0.045, (0.27, skid, -0.42), (0.27, skid, 0.46)))
    for z in (-0.2, 0.22):
        parts += mirrored(rod(gray, 0.035, (0.16, -body[1] * 0.7, z), (0.27, skid, z)))
    return parts


@category(
    "sailboat",
    "vehicle",
    "hull",
    "red blue green brown white",
    synonyms="sail boat, sailing boat, boat",
)
def sailboat(rng: np.random.Generator, color: str) -> list[Part]:
    """Pointed hull with a wooden deck, mast, large mainsail swung out, jib, flag."""
    sail = contrast(color, SNOW, (0.96, 0.80, 0.55), apart=0.16)
    width, length, depth = vary(rng, 0.36), vary(rng, 0.44, 0.08), vary(rng, 0.19)
    mast, low = vary(rng, 0.55, 0.08), 0.32
    swing = vary(rng, 20.0, 0.2)
    ahead = (float(np.sin(np.radians(swing))), float(np.cos(np.radians(swing))))
    wood = contrast(color, WOOD, CREAM)
    bow = length * 0.55
    return [
        # The mainsail is the rear half of a triangle; the front half is cut away before anything else exists.
        Part("prism", (0.88, mast, 0.04), sail, (0.0, low + mast, 0.0), (0.0, 90.0 + swing, 0.0)),
        box(
            sail,
            (1.2, 2.0, 0.8),
            (0.8 * ahead[0], 0.0, 0.8 * ahead[1]),
            rotation_deg=(0.0, swing, 0.0),
            carve=True,
        ),
        Part(
            "prism",
            (0.36, mast * 0.80, 0.04),
            sail,
            (-0.08, low + mast * 0.78, 0.44),
            (0.0, 90.0 - swing * 1.6, 0.0),
        ),
        box(color, (width, depth, length), (0.0, 0.0, -0.18), rounding=0.05, main=True),
        Part(
            "prism",
            (width, bow, depth),
            color,
            (0.0, 0.0, length + bow - 0.24),
            (90.0, 0.0, 0.0),
            0.03,
            main=True,
        ),
        box(
            color, (0.06, 0.10, length * 0.8), (0.0, -depth - 0.03, -0.1), rounding=0.03, main=True
        ),
        box(wood, (width * 0.82, 0.03, length * 0.86), (0.0, depth, -0.18)),
        box(CREAM, (width * 1.02, 0.035, length * 1.01), (0.0, depth * 0.45, -0.18), rounding=0.02),
        rod(WOOD, 0.045, (0.0, 0.0, 0.0), (0.0, low + 2.0 * mast + 0.05, 0.0)),
        box(contrast(color, "red", "blue"), (0.03, 0.07, 0.13), (0.0, low + 2.0 * mast, -0.13)),
    ]
