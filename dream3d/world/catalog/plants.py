"""Plants and a fungus: tree, cactus, flower, mushroom."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    CREAM,
    DARK_WOOD,
    GOLD,
    LEAF,
    ROSE,
    SAND,
    SNOW,
    TERRACOTTA,
    WOOD,
    ball,
    contrast,
    frustum,
    on_ball,
    ring,
    rod,
    tube,
    vary,
)
from dream3d.world.parts import Part


@category(
    "tree",
    "plant",
    "needles",
    "green",
    yaw_turns=0,
    synonyms="fir, fir tree, pine, pine tree, christmas tree",
)
def tree(rng: np.random.Generator, color: str) -> list[Part]:
    """Fir: four overlapping skirts of needles on a thick trunk."""
    trunk = contrast(color, DARK_WOOD, WOOD, apart=0.2)
    wide, skirt = vary(rng, 0.58, 0.1), vary(rng, 0.30, 0.1)
    stem = vary(rng, 0.20)
    parts = [
        frustum(trunk, 0.16, stem, 0.13, (0.0, stem, 0.0)),
        frustum(trunk, 0.24, 0.05, 0.15, (0.0, 0.05, 0.0)),
    ]
    y = 2.0 * stem
    for factor in (1.0, 0.80, 0.60, 0.40):
        half = skirt * (0.55 + 0.45 * factor)
        parts.append(
            frustum(
                color, wide * factor, half, wide * factor * 0.16, (0.0, y + half, 0.0), main=True
            )
        )
        y += half * 1.05
    return parts


@category("cactus", "plant", "stem and arms", "green", stackable=True, synonyms="cacti")
def cactus(rng: np.random.Generator, color: str) -> list[Part]:
    """Upright stem with two raised arms of different height, blossoms, in a pot."""
    pot = contrast(color, TERRACOTTA, SAND)
    bloom = contrast(color, ROSE, GOLD)
    radius, top = vary(rng, 0.21), vary(rng, 1.0, 0.1)
    parts = [
        rod(color, radius, (0.0, 0.0, 0.0), (0.0, top, 0.0), main=True),
        frustum(pot, 0.30, 0.20, 0.40, (0.0, -0.14, 0.0)),
        frustum(pot, 0.44, 0.06, 0.44, (0.0, 0.07, 0.0), rounding=0.02),
        frustum(DARK_WOOD, 0.37, 0.03, 0.37, (0.0, 0.115, 0.0)),
        ball(bloom, (0.13, 0.09, 0.13), (0.0, top + radius, 0.0)),
    ]
    arm = radius * 0.68
    for side, root, rise in ((1.0, 0.42, 0.34), (-1.0, 0.60, 0.22)):
        y, reach = root * top, vary(rng, 0.46, 0.08)
        tip = y + vary(rng, rise, 0.2)
        parts.append(rod(color, arm, (0.0, y, 0.0), (side * reach, y, 0.0), main=True))
        parts.append(rod(color, arm, (side * reach, y, 0.0), (side * reach, tip, 0.0), main=True))
        parts.append(ball(bloom, (0.09, 0.07, 0.09), (side * reach, tip + arm, 0.0)))
    return parts


@category(
    "flower",
    "plant",
    "petals",
    "red yellow pink purple white",
    has_front=True,
    synonyms="blossom",
)
def flower(rng: np.random.Generator, color: str) -> list[Part]:
    """One large blossom that looks forward, dark-eyed, on a stem with two leaves."""
    eye = contrast(color, GOLD, (0.36, 0.20, 0.10))
    green = contrast(color, LEAF, (0.62, 0.80, 0.30))
    height, petal = vary(rng, 0.72, 0.1), vary(rng, 0.25, 0.1)
    core = vary(rng, 0.20, 0.1)
    head = (0.0, height, 0.10)
    parts = [
        tube(eye, core, (0.0, height, 0.08), (0.0, height, 0.20), core * 0.8, marker=True),
        ball(green, (core * 1.1, core * 1.1, 0.10), (0.0, height, -0.02)),
        rod(green, 0.06, (0.0, -0.62, 0.0), (0.0, height, 0.0)),
        frustum(green, 0.36, 0.05, 0.24, (0.0, -0.62, 0.0), rounding=0.03),
    ]
    for turn in range(8):
        angle = np.radians(45.0 * turn)
        x, y = float(np.sin(angle)), float(np.cos(angle))
        reach = core + petal * 0.62
        spot = (head[0] + x * reach, head[1] + y * reach, head[2])
        parts.append(
            ball(
                color,
                (petal * 0.62, petal, 0.085),
                spot,
                rotation_deg=(0.0, 0.0, -45.0 * turn),
                main=True,
            )
        )
    for side, low in ((1.0, -0.38), (-1.0, -0.2)):
        leaf = (side * 0.26, low, 0.0)
        parts.append(
            ball(
                green,
                (0.27, 0.06, 0.14),
                leaf,
                rotation_deg=(0.0, 0.0, side * vary(rng, 32.0, 0.2)),
            )
        )
    return parts


@category(
    "mushroom",
    "plant",
    "cap",
    "red brown orange white",
    yaw_turns=0,
    stackable=True,
    synonyms="toadstool",
)
def mushroom(rng: np.random.Generator, color: str) -> list[Part]:
    """Wide domed cap with pale spots, gills below, thick stem."""
    spot_color = contrast(color, SNOW, (0.72, 0.52, 0.40), apart=0.3)
    stem = CREAM if color != "white" else (0.84, 0.72, 0.55)
    cap = (vary(rng, 0.68, 0.08), vary(rng, 0.48))
    half = vary(rng, 0.38)
    radii = (cap[0], cap[1], cap[0])
    center = (0.0, 2.0 * half, 0.0)
    parts = [
        ball(color, radii, center, main=True),
        # Cuts stay within the object, because in a pair they cut the other one as well.
        frustum(
            (0.88, 0.80, 0.68),
            cap[0] + 0.02,
            cap[1] * 0.5,
            cap[0] + 0.02,
            (0.0, 2.0 * half - 0.08 - cap[1] * 0.5, 0.0),
            carve=True,
        ),
        frustum(stem, vary(rng, 0.27), half, vary(rng, 0.20), (0.0, half, 0.0), rounding=0.05),
        ring(stem, 0.24, 0.06, (0.0, half * 1.35, 0.0)),
    ]
    start = float(rng.uniform(0.0, 60.0))
    for turn in range(5):
        parts.append(
            ball(spot_color, (0.13, 0.13, 0.13), _sunk(center, radii, start + 72.0 * turn, 22.0))
        )
    for turn in range(3):
        parts.append(
            ball(
                spot_color,
                (0.12, 0.12, 0.12),
                _sunk(center, radii, start + 36.0 + 120.0 * turn, 58.0),
            )
        )
    return parts


def _sunk(
    center: tuple[float, float, float],
    radii: tuple[float, float, float],
    azimuth: float,
    elevation: float,
) -> tuple[float, float, float]:
    """A place a little below the surface, so that a ball there shows as a shallow spot."""
    return on_ball(center, (radii[0] - 0.08, radii[1] - 0.07, radii[2] - 0.08), azimuth, elevation)
