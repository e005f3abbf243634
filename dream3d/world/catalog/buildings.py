"""Buildings. House and castle show their front by a large door or gate; the others look alike, or nearly so."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    DARK,
    DARK_WOOD,
    GLASS,
    GOLD,
    LIGHT,
    SLATE,
    SNOW,
    STEEL,
    WOOD,
    Paint,
    ball,
    box,
    contrast,
    frustum,
    mirrored,
    prism,
    ring,
    rod,
    tube,
    vary,
)
from dream3d.world.parts import Part

ROOF = (0.52, 0.20, 0.17)
PANE = (0.24, 0.36, 0.50)


def _window(x: float, y: float, z: float, frame: Paint, glass: Paint) -> list[Part]:
    """A framed window on the front wall."""
    return [
        box(frame, (0.145, 0.165, 0.025), (x, y, z), marker=True),
        box(glass, (0.105, 0.125, 0.03), (x, y, z + 0.01), marker=True),
    ]


@category(
    "house",
    "building",
    "walls",
    "white yellow red blue orange",
    has_front=True,
    synonyms="home, cottage",
)
def house(rng: np.random.Generator, color: str) -> list[Part]:
    """Gabled house: big door, two framed windows and a round one in front, chimney."""
    width, wall, depth = vary(rng, 0.56), vary(rng, 0.36), vary(rng, 0.54)
    rise = vary(rng, 0.36)
    roof = contrast(color, ROOF, SLATE)
    frame = contrast(color, SNOW, DARK_WOOD)
    door = contrast(color, DARK_WOOD, (0.86, 0.68, 0.45))
    eave, slope = 0.14, float(np.degrees(np.arctan2(rise, width)))
    half = (float(np.hypot(rise, width)) + eave) / 2.0
    reach = half - eave
    x = (width - reach * float(np.cos(np.radians(slope)))) + 0.02
    y = 2.0 * wall + reach * float(np.sin(np.radians(slope)))
    front = depth + 0.005
    parts = [
        box(color, (width, wall, depth), (0.0, wall, 0.0), main=True),
        prism(color, (width, rise / 2.0, depth), (0.0, 2.0 * wall + rise / 2.0, 0.0), main=True),
        box(STEEL, (width * 1.12, 0.04, depth * 1.12), (0.0, 0.0, 0.0)),
        box(
            (0.58, 0.42, 0.36),
            (0.10, 0.24, 0.10),
            (-width * 0.5, 2.0 * wall + rise * 0.75, -depth * 0.4),
        ),
    ]
    parts += mirrored(
        box(
            roof,
            (half, 0.045, depth + 0.12),
            (x - 0.01, y + 0.03, 0.0),
            rotation_deg=(0.0, 0.0, -slope),
        )
    )
    parts += [
        box(door, (0.165, 0.27, 0.03), (0.0, 0.29, front), marker=True),
        ball(GOLD, 0.04, (0.09, 0.28, front + 0.03), marker=True),
        *_window(-width * 0.62, wall * 1.1, front, frame, GLASS),
        *_window(width * 0.62, wall * 1.1, front, frame, GLASS),
        tube(
            frame,
            0.13,
            (0.0, 2.0 * wall + rise * 0.32, front - 0.02),
            (0.0, 2.0 * wall + rise * 0.32, front + 0.02),
            marker=True,
        ),
        tube(
            PANE,
            0.09,
            (0.0, 2.0 * wall + rise * 0.32, front),
            (0.0, 2.0 * wall + rise * 0.32, front + 0.03),
            marker=True,
        ),
    ]
    return parts


@category(
    "castle",
    "building",
    "walls and towers",
    "gray white brown yellow",
    has_front=True,
    synonyms="fortress",
)
def castle(rng: np.random.Generator, color: str) -> list[Part]:
    """Four towers with pointed roofs around a battlemented wall, a keep, and a dark gate in front."""
    half, wall = vary(rng, 0.52, 0.08), vary(rng, 0.28)
    tower, height = vary(rng, 0.19), vary(rng, 0.44, 0.1)
    roof = contrast(color, (0.62, 0.16, 0.20), SLATE)
    keep = vary(rng, 0.26)
    front = half + 0.005
    parts = [
        box(color, (half, wall, half), (0.0, wall, 0.0), main=True),
        box(color, (keep, 0.30, keep), (0.0, 2.0 * wall + 0.26, -0.06), main=True),
    ]
    for x in (-half, half):
        for z in (-half, half):
            parts.append(frustum(color, tower, height, tower * 0.95, (x, height, z), main=True))
            parts.append(frustum(roof, tower * 1.28, 0.19, 0.0, (x, 2.0 * height + 0.18, z)))
    top = 2.0 * wall + 0.05
    for t in (-0.42, 0.0, 0.42):
        for side in (-1.0, 1.0):
            parts.append(
                box(color, (0.075, 0.075, 0.06), (t * half, top, side * (half - 0.05)), main=True)
            )
            parts.append(
                box(color, (0.06, 0.075, 0.075), (side * (half - 0.05), top, t * half), main=True)
            )
    for x in (-0.72, 0.72):
        for z in (-0.72, 0.72):
            parts.append(
                box(
                    color,
                    (0.07, 0.075, 0.07),
                    (x * keep, 2.0 * wall + 0.6, -0.06 + z * keep),
                    main=True,
                )
            )
    parts += [
        rod(DARK_WOOD, 0.025, (0.0, 2.0 * wall + 0.5, -0.06), (0.0, 2.0 * wall + 1.0, -0.06)),
        box(roof, (0.15, 0.085, 0.025), (0.15, 2.0 * wall + 0.92, -0.06)),
        box(contrast(color, DARK_WOOD, WOOD), (0.19, 0.20, 0.03), (0.0, 0.20, front), marker=True),
        tube(
            contrast(color, DARK_WOOD, WOOD),
            0.19,
            (0.0, 0.38, front - 0.03),
            (0.0, 0.38, front + 0.03),
            marker=True,
        ),
    ]
    parts += mirrored(box(GOLD, (0.03, 0.18, 0.03), (0.075, 0.20, front + 0.01), marker=True))
    return parts


@category(
    "lighthouse",
    "building",
    "tower bands and roof",
    "red blue white black",
    yaw_turns=0,
    synonyms="light house",
)
def lighthouse(rng: np.random.Generator, color: str) -> list[Part]:
    """Tapering banded tower on a rock, gallery, glowing lantern room, domed roof."""
    bottom, top = vary(rng, 0.32), vary(rng, 0.20)
    half = vary(rng, 0.62, 0.08)
    band = contrast(color, SNOW, (0.78, 0.16, 0.16), apart=0.3)
    parts = [
        frustum((0.50, 0.47, 0.42), 0.55, 0.10, 0.42, (0.0, -half - 0.08, 0.0), rounding=0.05),
        frustum(color, bottom, half, top, main=True),
    ]
    for low, high in ((-0.55, -0.2), (0.2, 0.55)):
        r_low = bottom + (top - bottom) * (low + 1.0) / 2.0 + 0.012
        r_high = bottom + (top - bottom) * (high + 1.0) / 2.0 + 0.012
        parts.append(
            frustum(
                band,
                r_low,
                half * (high - low) / 2.0,
                r_high,
                (0.0, half * (low + high) / 2.0, 0.0),
            )
        )
    room = half + 0.19
    parts += [
        frustum(DARK, top * 1.45, 0.035, top * 1.55, (0.0, half + 0.02, 0.0)),
        ring(DARK, top * 1.45, 0.025, (0.0, half + 0.14, 0.0)),
        frustum(LIGHT, top * 0.82, 0.16, top * 0.82, (0.0, room, 0.0)),
        frustum(color, top * 1.25, 0.13, 0.04, (0.0, room + 0.28, 0.0), main=True),
        ball(DARK, 0.055, (0.0, room + 0.43, 0.0)),
    ]
    for azimuth in (45.0, 135.0, 225.0, 315.0):
        s, c = float(np.sin(np.radians(azimuth))), float(np.cos(np.radians(azimuth)))
        x, z = top * 0.84 * s, top * 0.84 * c
        parts.append(rod(DARK, 0.025, (x, half, z), (x, room + 0.17, z)))
    return parts


@category("windmill", "building", "tower", "white red brown blue", synonyms="wind mill")
def windmill(rng: np.random.Generator, color: str) -> list[Part]:
    """Tapering tower with a cap and four lattice sails turning in front."""
    sail = contrast(color, SNOW, (0.93, 0.78, 0.52), apart=0.3)
    cap = contrast(color, ROOF, SLATE)
    half = vary(rng, 0.56, 0.08)
    bottom, top = vary(rng, 0.44), vary(rng, 0.29)
    hub = (0.0, half + 0.06, top + 0.20)
    spin, length = float(rng.uniform(20.0, 70.0)), vary(rng, 0.33, 0.1)
    parts = [
        frustum(color, bottom, half, top, main=True),
        frustum(cap, top * 1.2, 0.18, 0.05, (0.0, half + 0.16, 0.0)),
        box((0.45, 0.62, 0.32), (0.62, 0.05, 0.62), (0.0, -half - 0.03, 0.0), rounding=0.04),
        tube(DARK_WOOD, 0.08, (0.0, half + 0.06, 0.0), (0.0, half + 0.06, top + 0.26)),
        box(
            contrast(color, DARK_WOOD, WOOD),
            (0.13, 0.23, 0.05),
            (0.0, -half + 0.22, bottom * 0.88),
            rotation_deg=(-12.0, 0.0, 0.0),
        ),
        ball(DARK_WOOD, 0.10, (0.0, hub[1], hub[2] + 0.04)),
    ]
    for turn in (0.0, 90.0, 180.0, 270.0):
        angle = np.radians(spin + turn)
        x, y = float(np.cos(angle)), float(np.sin(angle))
        along = (x * (length + 0.12), hub[1] + y * (length + 0.12), hub[2])
        roll = (0.0, 0.0, spin + turn)
        parts.append(box(sail, (length, 0.115, 0.025), along, rotation_deg=roll))
        parts.append(
            box(
                DARK_WOOD,
                (length + 0.06, 0.03, 0.04),
                (along[0], along[1], hub[2]),
                rotation_deg=roll,
            )
        )
    return parts
