"""Figures with a face: snowman, person, robot, robot head."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    BEAK,
    DARK,
    DARK_WOOD,
    LIGHT,
    SKIN,
    SNOW,
    STEEL,
    ball,
    box,
    contrast,
    eyes,
    frustum,
    mirrored,
    on_ball,
    ring,
    rod,
    shifted,
    tube,
    vary,
)
from dream3d.world.parts import Part


@category(
    "snowman",
    "character",
    "hat and scarf",
    "black red blue green purple",
    has_front=True,
    synonyms="snow man",
)
def snowman(rng: np.random.Generator, color: str) -> list[Part]:
    """Three snow balls, coal face and buttons, carrot nose, tall hat, scarf, stick arms."""
    low, mid, head = vary(rng, 0.56), vary(rng, 0.42), vary(rng, 0.33, 0.08)
    y_mid, y_head = low * 0.78 + mid * 0.72, low * 0.78 + mid * 1.44 + head * 0.72
    center = (0.0, y_head, 0.0)
    nose = on_ball(center, head, 0.0, -6.0)
    hat_y, hat = y_head + head * 0.72, vary(rng, 0.27, 0.1)
    hat_half = vary(rng, 0.19, 0.15)
    parts = [
        ball(SNOW, low),
        ball(SNOW, mid, (0.0, y_mid, 0.0)),
        ball(SNOW, head, center),
        ring(color, head * 0.82, 0.115, (0.0, y_head - head * 0.78, 0.0), main=True),
        frustum(color, hat * 1.6, 0.035, hat * 1.6, (0.0, hat_y, 0.0), rounding=0.02, main=True),
        frustum(
            color, hat, hat_half, hat * 1.04, (0.0, hat_y + hat_half, 0.0), rounding=0.02, main=True
        ),
        tube(BEAK, 0.085, shifted(nose, z=-0.04), shifted(nose, z=0.32), 0.015),
        *eyes(center, head, 0.105, 25.0, 14.0, white=DARK),
    ]
    for side in (1.0, -1.0):
        hand = (side * (mid + 0.42), y_mid + vary(rng, 0.26, 0.4), 0.05)
        parts.append(rod(DARK_WOOD, 0.038, (side * mid * 0.8, y_mid + 0.06, 0.0), hand))
    for angle in (28.0, -2.0):
        spot = on_ball((0.0, y_mid, 0.0), mid, 0.0, angle - 10.0)
        parts.append(ball(DARK, (0.085, 0.085, 0.035), spot, marker=True))
    parts.append(
        ball(DARK, (0.085, 0.085, 0.035), on_ball((0.0, 0.0, 0.0), low, 0.0, 22.0), marker=True)
    )
    return parts


@category(
    "person",
    "character",
    "shirt",
    "red blue green yellow orange purple",
    has_front=True,
    synonyms="human, people, man, woman",
)
def person(rng: np.random.Generator, color: str) -> list[Part]:
    """A figure with a large head, hair at the back, shirt and trousers."""
    trousers = contrast(color, (0.20, 0.24, 0.38), (0.55, 0.48, 0.38), apart=0.5)
    hair = [(0.25, 0.15, 0.10), (0.10, 0.09, 0.09), (0.52, 0.30, 0.12)][int(rng.integers(3))]
    width, leg = vary(rng, 0.27), vary(rng, 0.36)
    waist, torso = leg * 2.0, vary(rng, 0.32, 0.1)
    shoulder = waist + torso * 2.0
    head = vary(rng, 0.33, 0.08)
    center = (0.0, shoulder + head * 0.85, 0.0)
    parts = [
        box(
            color, (width, torso + 0.02, 0.19), (0.0, waist + torso, 0.0), rounding=0.10, main=True
        ),
        box(trousers, (width * 0.96, 0.12, 0.18), (0.0, waist + 0.02, 0.0), rounding=0.06),
        ball(SKIN, head, center),
        ball(
            hair,
            (head * 1.07, head * 1.0, head * 0.95),
            shifted(center, y=head * 0.17, z=-head * 0.27),
        ),
        *eyes(center, head, 0.12, 24.0, 4.0),
        ball(MOUTH, (0.13, 0.05, 0.04), on_ball(center, head, 0.0, -32.0), marker=True),
        ball(SKIN, 0.06, on_ball(center, head, 0.0, -10.0)),
    ]
    spread = vary(rng, 0.22, 0.35)
    parts += mirrored(rod(trousers, 0.125, (width * 0.52, waist, 0.0), (width * 0.58, 0.12, 0.0)))
    parts += mirrored(box(DARK, (0.12, 0.075, 0.19), (width * 0.58, 0.02, 0.07), rounding=0.05))
    elbow = (width + spread, shoulder - torso * 0.95, 0.03)
    parts += mirrored(rod(color, 0.105, (width * 0.85, shoulder - 0.09, 0.0), elbow, main=True))
    parts += mirrored(ball(SKIN, 0.115, (width + spread * 1.3, shoulder - torso * 1.25, 0.05)))
    return parts


MOUTH = (0.80, 0.25, 0.25)


@category(
    "robot",
    "character",
    "torso and head",
    "gray blue red orange cyan",
    has_front=True,
    synonyms="android, droid",
)
def robot(rng: np.random.Generator, color: str) -> list[Part]:
    """Box head with glowing eyes and antenna, box torso with a panel, jointed limbs."""
    limb = contrast(color, STEEL, SLATE_BLUE)
    width, torso = vary(rng, 0.40), vary(rng, 0.36)
    head = (vary(rng, 0.33), vary(rng, 0.26), 0.27)
    leg = vary(rng, 0.26)
    waist = leg * 2.0 + 0.12
    shoulder = waist + torso * 2.0
    head_y = shoulder + 0.07 + head[1]
    panel = contrast(color, CREAM_PANEL, DARK)
    lamp = contrast(color, "cyan", "yellow")
    parts = [
        box(color, (width, torso, 0.27), (0.0, waist + torso, 0.0), rounding=0.05, main=True),
        box(color, head, (0.0, head_y, 0.0), rounding=0.05, main=True),
        frustum(limb, 0.13, 0.08, 0.13, (0.0, shoulder + 0.03, 0.0)),
        rod(limb, 0.03, (0.0, head_y + head[1], 0.0), (0.0, head_y + head[1] + 0.16, 0.0)),
        ball(contrast(color, "red", "yellow"), 0.075, (0.0, head_y + head[1] + 0.2, 0.0)),
        box(
            panel,
            (width * 0.66, torso * 0.5, 0.03),
            (0.0, waist + torso * 1.12, 0.265),
            rounding=0.02,
            marker=True,
        ),
        box(DARK, (head[0] * 0.62, 0.05, 0.03), (0.0, head_y - head[1] * 0.55, 0.262), marker=True),
    ]
    for x, paint in ((-0.14, "red"), (0.0, "yellow"), (0.14, "green")):
        parts.append(
            ball(paint, (0.06, 0.06, 0.025), (x, waist + torso * 1.12, 0.295), marker=True)
        )
    for x in (-0.15, 0.15):
        spot = (x, head_y + head[1] * 0.22, 0.262)
        parts.append(
            tube("white", 0.115, shifted(spot, z=-0.02), shifted(spot, z=0.03), marker=True)
        )
        parts.append(
            tube(
                contrast(lamp, DARK),
                0.06,
                shifted(spot, z=0.02),
                shifted(spot, z=0.045),
                marker=True,
            )
        )
    parts += mirrored(ball(limb, 0.13, (width + 0.06, shoulder - 0.12, 0.0)))
    parts += mirrored(
        rod(limb, 0.085, (width + 0.13, shoulder - 0.16, 0.0), (width + 0.15, waist + 0.08, 0.06))
    )
    parts += mirrored(ball(color, 0.12, (width + 0.15, waist + 0.02, 0.07), main=True))
    parts += mirrored(frustum(limb, 0.12, leg, 0.10, (width * 0.5, leg + 0.1, 0.0)))
    parts += mirrored(
        box(color, (0.17, 0.08, 0.24), (width * 0.52, 0.06, 0.05), rounding=0.03, main=True)
    )
    return parts


SLATE_BLUE = (0.24, 0.27, 0.36)
CREAM_PANEL = (0.93, 0.93, 0.86)


@category(
    "robot head",
    "character",
    "the head",
    "gray blue red orange cyan",
    has_front=True,
    stackable=True,
    synonyms="android head, robots head",
)
def robot_head(rng: np.random.Generator, color: str) -> list[Part]:
    """One big box head: lamp eyes, grille mouth, ear bolts, antenna, neck."""
    metal = contrast(color, STEEL, SLATE_BLUE)
    size = (vary(rng, 0.62), vary(rng, 0.52), vary(rng, 0.52))
    front, eye = size[2], vary(rng, 0.185, 0.1)
    parts = [
        box(color, size, rounding=0.08, main=True),
        frustum(metal, 0.26, 0.09, 0.22, (0.0, -size[1] - 0.07, 0.0)),
        frustum(metal, 0.40, 0.06, 0.36, (0.0, -size[1] - 0.2, 0.0), rounding=0.02),
        rod(metal, 0.035, (0.0, size[1], 0.0), (0.0, size[1] + 0.24, 0.0)),
        ball(contrast(color, "red", "yellow"), 0.09, (0.0, size[1] + 0.3, 0.0)),
        box(
            DARK, (size[0] * 0.62, 0.115, 0.03), (0.0, -size[1] * 0.52, front - 0.005), marker=True
        ),
    ]
    parts += mirrored(tube(metal, 0.19, (size[0] - 0.02, 0.04, 0.0), (size[0] + 0.12, 0.04, 0.0)))
    for x in (-0.24, -0.08, 0.08, 0.24):
        parts.append(
            box("white", (0.035, 0.115, 0.03), (x, -size[1] * 0.52, front + 0.01), marker=True)
        )
    for side in (-1.0, 1.0):
        spot = (side * size[0] * 0.46, size[1] * 0.26, front)
        parts.append(tube("white", eye, shifted(spot, z=-0.02), shifted(spot, z=0.03), marker=True))
        parts.append(
            tube(DARK, eye * 0.62, shifted(spot, z=0.0), shifted(spot, z=0.05), marker=True)
        )
        parts.append(
            ball(
                LIGHT,
                (eye * 0.24, eye * 0.24, 0.02),
                shifted(spot, x=eye * 0.2, y=eye * 0.2, z=0.05),
                marker=True,
            )
        )
    return parts
