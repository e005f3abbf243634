"""Food: hamburger, ice cream, cake, pumpkin."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    CHERRY,
    CREAM,
    DARK,
    DARK_WOOD,
    LEAF,
    LIGHT,
    SNOW,
    WOOD,
    ball,
    box,
    contrast,
    frustum,
    on_ball,
    prism,
    ring,
    rod,
    shifted,
    tube,
    vary,
)
from dream3d.world.parts import Part

PATTY = (0.30, 0.16, 0.10)
CHEESE = (0.99, 0.78, 0.20)
LETTUCE = (0.48, 0.78, 0.26)
WAFFLE = (0.85, 0.62, 0.36)


@category(
    "hamburger",
    "food",
    "bun",
    "orange brown yellow",
    yaw_turns=0,
    stackable=True,
    supports=True,
    synonyms="burger, cheeseburger",
)
def hamburger(rng: np.random.Generator, color: str) -> list[Part]:
    """Domed bun with seeds over lettuce, cheese and a dark patty."""
    radius, dome = vary(rng, 0.70, 0.06), vary(rng, 0.36)
    patty = vary(rng, 0.11)
    seed = contrast(color, CREAM, (0.55, 0.40, 0.25))
    y = 0.30
    parts = [
        ball(color, (radius, dome, radius), (0.0, y + 2.0 * patty, 0.0), main=True),
        # Cuts stay within the object, because in a pair they cut the other one as well.
        frustum(
            LETTUCE,
            radius + 0.02,
            dome * 0.51,
            radius + 0.02,
            (0.0, y + 2.0 * patty - dome * 0.51, 0.0),
            carve=True,
        ),
        frustum(
            color, radius * 0.92, 0.12, radius * 0.98, (0.0, 0.10, 0.0), rounding=0.08, main=True
        ),
        frustum(
            contrast(color, PATTY, (0.48, 0.30, 0.20), apart=0.15),
            radius * 1.0,
            patty,
            radius * 1.0,
            (0.0, 0.22 + patty, 0.0),
            rounding=0.07,
        ),
        box(
            CHEESE,
            (radius * 0.76, 0.03, radius * 0.76),
            (0.0, 0.24 + 2.0 * patty, 0.0),
            rotation_deg=(0.0, vary(rng, 45.0, 0.9), 0.0),
        ),
        ring(LETTUCE, radius * 0.96, 0.075, (0.0, 0.29 + 2.0 * patty, 0.0)),
    ]
    for azimuth, elevation in (
        (0, 90),
        (0, 58),
        (60, 50),
        (120, 58),
        (180, 50),
        (240, 58),
        (300, 50),
        (30, 28),
        (90, 26),
        (150, 28),
        (210, 26),
        (270, 28),
        (330, 26),
    ):
        spot = on_ball(
            (0.0, y + 2.0 * patty, 0.0), (radius, dome, radius), float(azimuth), float(elevation)
        )
        parts.append(ball(seed, (0.055, 0.035, 0.055), spot))
    return parts


@category(
    "ice cream",
    "food",
    "scoops",
    "pink white brown yellow green",
    yaw_turns=0,
    synonyms="ice cream cone, icecream",
)
def ice_cream(rng: np.random.Generator, color: str) -> list[Part]:
    """Waffle cone, point down, with two scoops, melting rim, cherry."""
    cone = contrast(color, WAFFLE, (0.62, 0.40, 0.22), apart=0.3)
    half, mouth = vary(rng, 0.52, 0.1), vary(rng, 0.34)
    scoop, second = vary(rng, 0.40, 0.08), vary(rng, 0.30, 0.08)
    parts = [
        frustum(cone, 0.03, half, mouth, (0.0, -half, 0.0)),
        ball(color, (scoop, scoop * 0.9, scoop), (0.0, scoop * 0.5, 0.0), main=True),
        ball(color, second, (0.0, scoop * 1.25 + second * 0.5, 0.0), main=True),
        ball(CHERRY, 0.11, (0.0, scoop * 1.25 + second * 1.55, 0.0)),
        ring((0.60, 0.40, 0.22), mouth * 0.98, 0.045, (0.0, -0.03, 0.0)),
        ring((0.60, 0.40, 0.22), mouth * 0.66, 0.03, (0.0, -half * 0.70, 0.0)),
        ring((0.60, 0.40, 0.22), mouth * 0.36, 0.03, (0.0, -half * 1.30, 0.0)),
    ]
    for turn in range(6):
        angle = np.radians(60.0 * turn)
        s, c = float(np.sin(angle)), float(np.cos(angle))
        drip = vary(rng, 0.10, 0.6)
        r = scoop * 0.9
        parts.append(
            rod(color, 0.085, (s * r, 0.12, c * r), (s * r, 0.10 - drip, c * r), main=True)
        )
    return parts


@category(
    "cake",
    "food",
    "icing",
    "pink white brown yellow cyan",
    yaw_turns=0,
    stackable=True,
    supports=True,
)
def cake(rng: np.random.Generator, color: str) -> list[Part]:
    """Two round tiers with cream piping, cherries on top, on a plate."""
    cream = contrast(color, SNOW, (0.80, 0.42, 0.48), apart=0.2)
    wide, narrow = vary(rng, 0.62, 0.06), vary(rng, 0.40, 0.08)
    low, high = vary(rng, 0.20), vary(rng, 0.18)
    parts = [
        frustum((0.80, 0.83, 0.87), wide * 1.05, 0.03, wide * 1.24, (0.0, -0.03, 0.0)),
        frustum(color, wide, low, wide, (0.0, low, 0.0), rounding=0.04, main=True),
        frustum(
            color, narrow, high, narrow, (0.0, 2.0 * low + high, 0.0), rounding=0.04, main=True
        ),
        ring(cream, wide * 0.98, 0.055, (0.0, 0.04, 0.0)),
        ring(cream, wide * 0.95, 0.06, (0.0, 2.0 * low, 0.0)),
        ring(cream, narrow * 0.95, 0.055, (0.0, 2.0 * (low + high), 0.0)),
    ]
    top = 2.0 * (low + high)
    for turn in range(6):
        angle = np.radians(60.0 * turn)
        s, c = float(np.sin(angle)), float(np.cos(angle))
        parts.append(ball(CHERRY, 0.085, (s * narrow * 0.72, top + 0.06, c * narrow * 0.72)))
    return parts


@category(
    "pumpkin",
    "food",
    "skin",
    "orange",
    has_front=True,
    synonyms="jack o lantern",
)
def pumpkin(rng: np.random.Generator, color: str) -> list[Part]:
    """Ribbed and squat, with a carved glowing face and a green stalk."""
    glow = contrast(color, LIGHT, (0.55, 0.10, 0.05))
    edge = contrast(color, DARK, DARK_WOOD, apart=0.2)
    radius, height = vary(rng, 0.42, 0.06), vary(rng, 0.54, 0.08)
    offset = vary(rng, 0.34, 0.06)
    parts: list[Part] = []
    for turn in range(8):
        angle = np.radians(45.0 * turn)
        s, c = float(np.sin(angle)), float(np.cos(angle))
        parts.append(
            ball(color, (radius, height, radius), (s * offset, 0.0, c * offset), main=True)
        )
    belly = (offset + radius * 0.90, height * 0.97, offset + radius * 0.90)
    parts.append(ball(color, belly, main=True))
    for side in (-1.0, 1.0):
        spot = shifted(on_ball((0.0, 0.0, 0.0), belly, side * 19.0, 16.0), z=-0.03)
        turn = (0.0, side * 23.0, 0.0)
        parts.append(prism(edge, (0.18, 0.18, 0.08), spot, rotation_deg=turn, marker=True))
        inner = shifted(spot, y=-0.015, z=0.015)
        parts.append(prism(glow, (0.125, 0.115, 0.08), inner, rotation_deg=turn, marker=True))
    # The mouth bends around the belly in three pieces, each with a tooth between light and dark.
    for azimuth, tooth in ((-23.0, 0.06), (0.0, -0.06), (23.0, 0.06)):
        spot = shifted(on_ball((0.0, 0.0, 0.0), belly, azimuth, -15.0), z=-0.04)
        turn = (0.0, azimuth, 0.0)
        parts.append(box(edge, (0.165, 0.135, 0.08), spot, rotation_deg=turn, marker=True))
        parts.append(
            box(glow, (0.16, 0.075, 0.08), shifted(spot, z=0.015), rotation_deg=turn, marker=True)
        )
        parts.append(
            box(
                edge,
                (0.05, 0.05, 0.08),
                shifted(spot, y=tooth, z=0.03),
                rotation_deg=turn,
                marker=True,
            )
        )
    parts.append(
        tube(
            contrast(color, LEAF, WOOD),
            0.12,
            (0.0, height * 0.8, 0.0),
            (0.07, height + 0.2, 0.03),
            0.075,
        )
    )
    return parts
