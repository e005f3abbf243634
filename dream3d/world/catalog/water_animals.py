"""Animals of the water. Duck and penguin look at the viewer with big eyes."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    CREAM,
    DARK,
    GOLD,
    ROSE,
    SAND,
    Paint,
    Vector,
    ball,
    box,
    contrast,
    eyes,
    frustum,
    mirrored,
    on_ball,
    rod,
    shifted,
    tube,
    vary,
)
from dream3d.world.parts import Part


def _cone(color: Paint, radius: float, base: Vector, tip: Vector, main: bool = False) -> Part:
    return tube(color, radius, base, tip, 0.01, main=main)


@category(
    "duck",
    "animal",
    "feathers",
    "yellow white green",
    has_front=True,
    stackable=True,
    synonyms="ducky, rubber duck",
)
def duck(rng: np.random.Generator, color: str) -> list[Part]:
    """Bath duck: round head, wide bill, folded wings, raised tail."""
    bill = contrast(color, (0.98, 0.52, 0.06), (0.98, 0.85, 0.20))
    body = (vary(rng, 0.44), vary(rng, 0.36), vary(rng, 0.58, 0.1))
    head = vary(rng, 0.37, 0.08)
    center = (0.0, body[1] * 0.75 + head * 0.8, body[2] * 0.48)
    snout = on_ball(center, head, 0.0, -14.0)
    parts = [
        ball(color, body, main=True),
        ball(color, head, center, main=True),
        rod(color, 0.2, (0.0, 0.1, body[2] * 0.4), shifted(center, y=-0.1), main=True),
        ball(bill, (0.21, 0.06, 0.20), shifted(snout, y=0.035, z=0.06)),
        ball(bill, (0.17, 0.05, 0.15), shifted(snout, y=-0.035, z=0.04)),
        *eyes(center, head, 0.125, 22.0, 16.0),
        _cone(
            color,
            0.22,
            (0.0, 0.08, -body[2] * 0.72),
            (0.0, vary(rng, 0.42, 0.2), -body[2] - 0.24),
            main=True,
        ),
    ]
    parts += mirrored(
        ball(
            color,
            (0.11, 0.2, 0.36),
            (body[0] * 0.93, 0.08, -0.08),
            rotation_deg=(14.0, 0.0, 0.0),
            main=True,
        )
    )
    parts += mirrored(ball(bill, (0.14, 0.06, 0.2), (0.18, -body[1] * 0.98, 0.18)))
    return parts


@category("penguin", "animal", "back, head and flippers", "black blue gray", has_front=True)
def penguin(rng: np.random.Generator, color: str) -> list[Part]:
    """Upright egg with a pale belly and face, orange beak and feet, flippers."""
    pale = contrast(color, "white", (0.70, 0.76, 0.83), apart=0.3)
    beak = contrast(color, (0.98, 0.55, 0.08), (0.98, 0.85, 0.20))
    body = (vary(rng, 0.42), vary(rng, 0.58), vary(rng, 0.38))
    head = vary(rng, 0.34, 0.08)
    center = (0.0, body[1] * 0.85 + head * 0.55, 0.02)
    parts = [
        ball(color, body, main=True),
        ball(color, head, center, main=True),
        ball(
            pale,
            (body[0] * 0.68, body[1] * 0.80, body[2] * 0.465),
            (0.0, -0.05, body[2] * 0.555),
            marker=True,
        ),
        ball(
            pale,
            (head * 0.72, head * 0.60, head * 0.474),
            shifted(center, y=-0.02, z=head * 0.555),
            marker=True,
        ),
        *eyes(center, head * 1.03, 0.11, 23.0, 14.0),
        _cone(
            beak,
            0.10,
            on_ball(center, head * 0.9, 0.0, -10.0),
            shifted(on_ball(center, head, 0.0, -10.0), z=0.26),
        ),
    ]
    lift = vary(rng, 20.0, 0.5)
    parts += mirrored(
        ball(
            color,
            (0.085, 0.34, 0.17),
            (body[0] + 0.07, 0.06, -0.02),
            rotation_deg=(0.0, 0.0, lift),
            main=True,
        )
    )
    parts += mirrored(ball(beak, (0.17, 0.07, 0.24), (0.2, -body[1] - 0.0, 0.16)))
    parts.append(
        _cone(
            color,
            0.16,
            (0.0, -body[1] * 0.68, -body[2] * 0.6),
            (0.0, -body[1] * 0.95, -body[2] - 0.16),
            main=True,
        )
    )
    return parts


@category("fish", "animal", "body and tail", "orange blue yellow red cyan")
def fish(rng: np.random.Generator, color: str) -> list[Part]:
    """Tall body swimming toward the front, forked tail, fins, an eye on each side."""
    fin = contrast(color, CREAM, (0.95, 0.70, 0.20), apart=0.3)
    body = (vary(rng, 0.27), vary(rng, 0.42), vary(rng, 0.62, 0.1))
    tail = -body[2] - 0.05
    parts = [
        ball(color, body, main=True),
        ball(fin, (body[0] * 0.93, body[1] * 1.0, 0.10), (0.0, 0.0, 0.12)),
        ball(fin, (body[0] * 0.86, body[1] * 0.86, 0.08), (0.0, 0.0, -0.22)),
        ball(ROSE, (0.10, 0.075, 0.07), (0.0, -0.06, body[2] * 0.98)),
        ball(
            color,
            (0.05, 0.30, 0.15),
            (0.0, 0.2, tail - 0.14),
            rotation_deg=(-35.0, 0.0, 0.0),
            main=True,
        ),
        ball(
            color,
            (0.05, 0.30, 0.15),
            (0.0, -0.2, tail - 0.14),
            rotation_deg=(35.0, 0.0, 0.0),
            main=True,
        ),
        ball(
            color,
            (0.045, 0.22, 0.34),
            (0.0, body[1] * 0.95, -0.08),
            rotation_deg=(-14.0, 0.0, 0.0),
            main=True,
        ),
        ball(
            color,
            (0.045, 0.16, 0.16),
            (0.0, -body[1] * 0.98, -0.1),
            rotation_deg=(20.0, 0.0, 0.0),
            main=True,
        ),
    ]
    eye = on_ball((0.0, 0.0, 0.0), body, 44.0, 13.0)
    parts += mirrored(ball("white", (0.06, 0.115, 0.115), eye, rotation_deg=(0.0, -12.0, 0.0)))
    parts += mirrored(
        ball(DARK, (0.05, 0.07, 0.07), shifted(eye, x=0.025), rotation_deg=(0.0, -12.0, 0.0))
    )
    parts += mirrored(
        ball(
            fin, (0.04, 0.10, 0.19), (body[0] * 1.05, -0.12, -0.02), rotation_deg=(0.0, -28.0, 0.0)
        )
    )
    return parts


@category("turtle", "animal", "shell", "green brown orange purple", synonyms="tortoise")
def turtle(rng: np.random.Generator, color: str) -> list[Part]:
    """Domed shell with plates, four flippers, small head in front."""
    skin = contrast(color, (0.62, 0.78, 0.36), SAND)
    plate = contrast(color, (0.30, 0.20, 0.12), GOLD)
    shell = (vary(rng, 0.58), vary(rng, 0.46), vary(rng, 0.66, 0.1))
    base = shell[1] * 0.12
    parts = [
        ball(color, shell, main=True),
        box(CREAM, (1.0, 0.5, 1.0), (0.0, -0.5 - base, 0.0), carve=True),
        frustum(
            CREAM, shell[0] * 0.86, 0.06, shell[0] * 0.92, (0.0, -base - 0.04, 0.0), rounding=0.02
        ),
    ]
    center = (0.0, 0.06, shell[2] + 0.2)
    parts += [
        rod(skin, 0.12, (0.0, -0.05, shell[2] * 0.8), shifted(center, z=-0.05)),
        ball(skin, (0.21, 0.19, 0.23), center),
        *[
            ball(DARK, 0.06, spot)
            for spot in (on_ball(center, (0.2, 0.18, 0.22), a, 22.0) for a in (38.0, -38.0))
        ],
        _cone(skin, 0.09, (0.0, -0.08, -shell[2] * 0.85), (0.0, -0.12, -shell[2] - 0.2)),
    ]
    for z, turn in ((0.62, -35.0), (-0.62, 35.0)):
        parts += mirrored(
            ball(
                skin,
                (0.26, 0.085, 0.15),
                (shell[0] * 0.88, -base - 0.1, z * shell[2]),
                rotation_deg=(0.0, turn, -16.0),
            )
        )
    parts.append(ball(plate, (0.16, 0.05, 0.18), (0.0, shell[1] * 0.97, 0.0)))
    for azimuth in (0.0, 60.0, 120.0, 180.0, 240.0, 300.0):
        parts.append(
            ball(
                plate,
                0.11,
                on_ball(
                    (0.0, -0.02, 0.0),
                    (shell[0] * 0.95, shell[1] * 0.96, shell[2] * 0.95),
                    azimuth,
                    32.0,
                ),
            )
        )
    return parts
