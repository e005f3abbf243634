"""Household things: mug, teapot, barrel, crown, candle."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    DARK,
    GOLD,
    LIGHT,
    SNOW,
    STEEL,
    ball,
    contrast,
    frustum,
    ring,
    rod,
    tube,
    vary,
)
from dream3d.world.parts import Part

COFFEE = (0.24, 0.13, 0.08)


@category(
    "mug",
    "thing",
    "cup and handle",
    "white red blue yellow green",
    stackable=True,
    synonyms="cup, coffee mug, coffee cup",
)
def mug(rng: np.random.Generator, color: str) -> list[Part]:
    """Straight cup, open at the top, coffee inside, ear handle on its left (+X)."""
    radius, half, wall = vary(rng, 0.47, 0.1), vary(rng, 0.54, 0.1), 0.075
    grip = vary(rng, 0.28)
    return [
        frustum(color, radius * 0.97, half, radius, rounding=0.03, main=True),
        ring(
            color,
            grip,
            vary(rng, 0.085),
            (radius + 0.07, -0.02, 0.0),
            rotation_deg=(90.0, 0.0, 0.0),
            main=True,
        ),
        frustum(
            contrast(color, SNOW, (0.55, 0.60, 0.66), apart=0.3),
            radius - wall,
            half,
            radius - wall,
            (0.0, 0.12, 0.0),
            carve=True,
        ),
        frustum(COFFEE, radius - wall + 0.01, 0.04, radius - wall + 0.01, (0.0, half - 0.28, 0.0)),
    ]


@category(
    "teapot",
    "thing",
    "pot and lid",
    "white blue red green pink",
    stackable=True,
    synonyms="tea pot",
)
def teapot(rng: np.random.Generator, color: str) -> list[Part]:
    """Round belly, curved spout on its left (+X), ear handle on its right, lid with a knob."""
    trim = contrast(color, GOLD, (0.20, 0.30, 0.55))
    body = (vary(rng, 0.50, 0.08), vary(rng, 0.42), 0.0)
    belly = (body[0], body[1], body[0])
    grip = vary(rng, 0.25)
    tip = (body[0] + 0.46, body[1] * vary(rng, 0.75, 0.2), 0.0)
    knee = (body[0] + 0.18, -0.02, 0.0)
    return [
        ball(color, belly, main=True),
        tube(color, 0.17, (body[0] * 0.6, -0.12, 0.0), knee, 0.115, main=True),
        ball(color, 0.117, knee, main=True),
        tube(color, 0.115, knee, tip, 0.075, main=True),
        tube(
            DARK, 0.045, (tip[0] - 0.02, tip[1] - 0.03, 0.0), (tip[0] + 0.012, tip[1] + 0.018, 0.0)
        ),
        ring(
            color,
            grip,
            0.075,
            (-body[0] - 0.08, 0.04, 0.0),
            rotation_deg=(90.0, 0.0, 0.0),
            main=True,
        ),
        ring(trim, body[0] * 0.55, 0.04, (0.0, body[1] * 0.82, 0.0)),
        ball(color, (body[0] * 0.52, 0.14, body[0] * 0.52), (0.0, body[1] * 0.85, 0.0), main=True),
        ball(trim, 0.105, (0.0, body[1] * 0.85 + 0.21, 0.0)),
        frustum(
            trim, body[0] * 0.66, 0.045, body[0] * 0.6, (0.0, -body[1] * 0.95, 0.0), rounding=0.02
        ),
    ]


@category(
    "barrel",
    "thing",
    "staves",
    "brown red blue green",
    yaw_turns=0,
    stackable=True,
    supports=True,
    synonyms="keg, cask",
)
def barrel(rng: np.random.Generator, color: str) -> list[Part]:
    """Bulging, with four bright iron hoops and a recessed lid."""
    hoop = contrast(color, (0.24, 0.25, 0.28), STEEL)
    lid = contrast(color, (0.80, 0.62, 0.40), DARK)
    end, belly, half = vary(rng, 0.43), vary(rng, 0.58, 0.08), vary(rng, 0.68, 0.08)
    mid = belly * 0.985
    return [
        frustum(color, end, half * 0.32, mid, (0.0, -half * 0.68, 0.0), main=True),
        frustum(color, mid, half * 0.18, belly, (0.0, -half * 0.18, 0.0), main=True),
        frustum(color, belly, half * 0.18, mid, (0.0, half * 0.18, 0.0), main=True),
        frustum(color, mid, half * 0.32, end, (0.0, half * 0.68, 0.0), main=True),
        frustum(lid, end * 0.84, 0.06, end * 0.84, (0.0, half, 0.0), carve=True),
        ring(hoop, end - 0.005, 0.05, (0.0, half * 0.94, 0.0)),
        ring(hoop, mid - 0.01, 0.05, (0.0, half * 0.38, 0.0)),
        ring(hoop, mid - 0.01, 0.05, (0.0, -half * 0.38, 0.0)),
        ring(hoop, end - 0.005, 0.05, (0.0, -half * 0.94, 0.0)),
    ]


@category(
    "crown",
    "thing",
    "band and points",
    "yellow white red purple",
    yaw_turns=8,
    stackable=True,
)
def crown(rng: np.random.Generator, color: str) -> list[Part]:
    """Open ring with eight points, a bead on each, jewels around."""
    bead = contrast(color, (0.85, 0.10, 0.25), GOLD)
    gem = contrast(color, (0.15, 0.30, 0.85), SNOW)
    low, high, half = vary(rng, 0.56, 0.08), vary(rng, 0.66, 0.08), vary(rng, 0.20)
    point = vary(rng, 0.24)
    parts = [
        frustum(color, low, half, high, main=True),
        frustum(
            (0.45, 0.08, 0.16), low - 0.08, half + 0.01, high - 0.08, (0.0, 0.02, 0.0), carve=True
        ),
        ring(color, low, 0.055, (0.0, -half, 0.0), main=True),
    ]
    for turn in range(8):
        angle = np.radians(45.0 * turn)
        s, c = float(np.sin(angle)), float(np.cos(angle))
        r = high - 0.045
        base, tip = (
            (s * r, half - 0.1, c * r),
            (s * (r + 0.09), half + 2.0 * point - 0.12, c * (r + 0.09)),
        )
        parts.append(tube(color, 0.20, base, tip, 0.03, main=True))
        parts.append(ball(bead, 0.085, (tip[0], tip[1] + 0.03, tip[2])))
        parts.append(ball(gem, 0.09, (s * (low + high) / 2.0, 0.0, c * (low + high) / 2.0)))
    return parts


@category("candle", "thing", "wax", "white red yellow pink blue", stackable=True)
def candle(rng: np.random.Generator, color: str) -> list[Part]:
    """Short thick candle with drips and a tall flame, on a brass dish with a finger ring."""
    dish = contrast(color, GOLD, (0.45, 0.48, 0.54))
    radius, half = vary(rng, 0.30), vary(rng, 0.44)
    top = 2.0 * half
    parts = [
        frustum(color, radius, half, radius * 0.97, (0.0, half, 0.0), rounding=0.04, main=True),
        frustum(dish, 0.40, 0.07, 0.52, (0.0, 0.02, 0.0), rounding=0.03),
        ring(dish, 0.53, 0.05, (0.0, 0.09, 0.0)),
        ring(dish, 0.13, 0.05, (0.66, 0.08, 0.0), rotation_deg=(90.0, 0.0, 0.0)),
        rod(DARK, 0.028, (0.0, top - 0.05, 0.0), (0.0, top + 0.12, 0.0)),
        ball((1.0, 0.66, 0.10), (0.12, 0.20, 0.12), (0.0, top + 0.26, 0.0)),
        frustum((1.0, 0.66, 0.10), 0.095, 0.16, 0.0, (0.0, top + 0.46, 0.0)),
        ball(LIGHT, (0.135, 0.10, 0.135), (0.0, top + 0.19, 0.0)),
    ]
    for turn in (20.0, 130.0, 250.0):
        s, c = float(np.sin(np.radians(turn))), float(np.cos(np.radians(turn)))
        drip = vary(rng, 0.26, 0.4)
        r = radius * 0.97
        parts.append(
            rod(
                color,
                0.055,
                (s * r, top - 0.05, c * r),
                (s * r, top - 0.05 - drip, c * r),
                main=True,
            )
        )
    return parts
