"""Animals of the land. All look at the viewer with big eyes: their front is unmistakable."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    CREAM,
    DARK,
    ROSE,
    SAND,
    STEEL,
    Paint,
    Vector,
    ball,
    box,
    contrast,
    eyes,
    mirrored,
    on_ball,
    ring,
    rod,
    shifted,
    tube,
    vary,
)
from dream3d.world.parts import Part


def _cone(color: Paint, radius: float, base: Vector, tip: Vector, main: bool = False) -> Part:
    return tube(color, radius, base, tip, 0.01, main=main)


@category(
    "cat",
    "animal",
    "fur",
    "orange gray black white brown",
    has_front=True,
    stackable=True,
    synonyms="kitty, kitten",
)
def cat(rng: np.random.Generator, color: str) -> list[Part]:
    """Sitting upright: pointed ears, whisker cheeks, pink nose, tail curling up on one side."""
    pale = contrast(color, CREAM, (0.72, 0.70, 0.68))
    body = (vary(rng, 0.36), vary(rng, 0.46), vary(rng, 0.36))
    head = vary(rng, 0.40, 0.08)
    center = (0.0, body[1] * 0.85 + head * 0.75, 0.12)
    parts = [
        ball(color, body, main=True),
        ball(
            color,
            (body[0] * 1.12, body[1] * 0.62, body[2] * 1.05),
            (0.0, -body[1] * 0.5, -0.06),
            main=True,
        ),
        ball(color, (head * 1.1, head * 0.95, head * 0.92), center, main=True),
        ball(
            pale,
            (body[0] * 0.62, body[1] * 0.74, body[2] * 0.474),
            (0.0, 0.0, body[2] * 0.56),
            marker=True,
        ),
        *eyes(
            center,
            (head * 1.1, head * 0.95, head * 0.92),
            0.125,
            24.0,
            10.0,
            white=(0.80, 0.95, 0.40),
        ),
    ]
    parts += mirrored(
        _cone(
            color,
            0.17,
            shifted(center, x=head * 0.62, y=head * 0.55),
            shifted(center, x=head * 0.88, y=head * 1.42),
            main=True,
        )
    )
    parts += mirrored(
        _cone(
            ROSE,
            0.09,
            shifted(center, x=head * 0.63, y=head * 0.6, z=0.09),
            shifted(center, x=head * 0.83, y=head * 1.2, z=0.06),
        )
    )
    snout = on_ball(center, (head * 1.1, head * 0.95, head * 0.92), 0.0, -26.0)
    parts += mirrored(ball(pale, (0.105, 0.085, 0.08), shifted(snout, x=0.075)))
    parts.append(ball(ROSE, (0.065, 0.05, 0.05), shifted(snout, y=0.075, z=0.06)))
    parts += mirrored(
        rod(
            color,
            0.095,
            (0.15, 0.0, body[2] * 0.7),
            (0.16, -body[1] * 0.9, body[2] * 0.95),
            main=True,
        )
    )
    parts += mirrored(ball(pale, (0.11, 0.075, 0.14), (0.17, -body[1] * 0.98, body[2] + 0.05)))
    hip = (body[0] * 0.5, -body[1] * 0.8, -body[2] * 0.95)
    bend, tip = (
        (body[0] + 0.25, -body[1] * 0.75, -body[2] - 0.02),
        (body[0] + 0.30, 0.30, -body[2] * 0.9),
    )
    parts += [rod(color, 0.075, hip, bend, main=True), rod(color, 0.075, bend, tip, main=True)]
    parts.append(ball(pale, 0.09, tip))
    return parts


@category(
    "dog",
    "animal",
    "fur",
    "brown white black gray orange",
    has_front=True,
    synonyms="puppy, doggy, doggie, pup",
)
def dog(rng: np.random.Generator, color: str) -> list[Part]:
    """Standing on four legs: long muzzle with a black nose and tongue, hanging ears, collar, raised tail."""
    ear = contrast(color, (0.36, 0.22, 0.13), CREAM)
    pale = contrast(color, CREAM, SAND, (0.62, 0.60, 0.58))
    body = (vary(rng, 0.28), vary(rng, 0.28), vary(rng, 0.52, 0.1))
    leg, head = vary(rng, 0.42), vary(rng, 0.33, 0.08)
    center = (0.0, body[1] + 0.30, body[2] * 0.95)
    muzzle = shifted(center, y=-head * 0.32, z=head * 0.95)
    collar = contrast(color, "red", "blue")
    parts = [
        ball(color, body, main=True),
        rod(color, 0.19, (0.0, 0.08, body[2] * 0.62), shifted(center, y=-0.12), main=True),
        ring(
            collar,
            0.185,
            0.05,
            (0.0, body[1] * 0.62 + 0.1, body[2] * 0.84),
            rotation_deg=(40.0, 0.0, 0.0),
        ),
        ball(color, head, center, main=True),
        ball(pale, (0.185, 0.15, 0.24), muzzle),
        ball(DARK, (0.10, 0.075, 0.07), shifted(muzzle, y=0.09, z=0.20)),
        box(ROSE, (0.075, 0.11, 0.025), shifted(muzzle, y=-0.17, z=0.16), rounding=0.02),
        *eyes(center, head, 0.11, 25.0, 22.0),
    ]
    parts += mirrored(
        ball(
            ear,
            (0.085, 0.26, 0.15),
            shifted(center, x=head * 1.0, y=-head * 0.12, z=-0.04),
            rotation_deg=(0.0, 0.0, 12.0),
        )
    )
    for z in (0.62, -0.62):
        parts += mirrored(
            rod(
                color,
                0.105,
                (body[0] * 0.6, -0.08, z * body[2]),
                (body[0] * 0.66, -leg, z * body[2]),
                main=True,
            )
        )
        parts += mirrored(
            ball(pale, (0.12, 0.075, 0.15), (body[0] * 0.66, -leg - 0.06, z * body[2] + 0.05))
        )
    back = (0.0, body[1] * 0.4, -body[2] * 0.92)
    parts.append(
        rod(color, 0.07, back, (0.0, body[1] + vary(rng, 0.26, 0.3), -body[2] - 0.2), main=True)
    )
    return parts


@category("rabbit", "animal", "fur", "white gray brown pink", has_front=True, synonyms="bunny")
def rabbit(rng: np.random.Generator, color: str) -> list[Part]:
    """Sitting: two tall ears with pink insides, front teeth, big feet, fluffy tail."""
    pale = contrast(color, "white", (0.80, 0.76, 0.74), apart=0.3)
    body = (vary(rng, 0.40), vary(rng, 0.38), vary(rng, 0.40))
    head, ear = vary(rng, 0.38, 0.08), vary(rng, 0.29, 0.15)
    center = (0.0, body[1] * 0.8 + head * 0.75, 0.14)
    parts = [
        ball(color, body, main=True),
        ball(color, (head, head * 0.95, head * 0.92), center, main=True),
        ball(
            pale,
            (body[0] * 0.66, body[1] * 0.74, body[2] * 0.474),
            (0.0, -0.04, body[2] * 0.56),
            marker=True,
        ),
        ball(pale, 0.17, (0.0, -body[1] * 0.45, -body[2] * 1.02)),
        *eyes(center, head, 0.11, 25.0, 12.0),
    ]
    snout = on_ball(center, head * 0.95, 0.0, -22.0)
    parts += mirrored(ball(pale, (0.10, 0.085, 0.07), shifted(snout, x=0.07)))
    parts.append(ball(ROSE, (0.07, 0.05, 0.05), shifted(snout, y=0.075, z=0.05)))
    parts.append(box("white", (0.055, 0.07, 0.025), shifted(snout, y=-0.12, z=0.02)))
    lean = vary(rng, 11.0, 0.5)
    top = shifted(center, x=head * 0.48, y=head * 0.75 + ear)
    parts += mirrored(
        ball(color, (0.135, ear * 1.15, 0.08), top, rotation_deg=(0.0, 0.0, -lean), main=True)
    )
    parts += mirrored(
        ball(
            ROSE,
            (0.08, ear * 0.88, 0.05),
            shifted(top, z=0.05),
            rotation_deg=(0.0, 0.0, -lean),
        )
    )
    parts += mirrored(
        ball(color, (0.15, 0.095, 0.28), (0.2, -body[1] * 0.92, body[2] * 0.7), main=True)
    )
    parts += mirrored(
        rod(color, 0.08, (0.2, 0.02, body[2] * 0.72), (0.12, -0.12, body[2] + 0.07), main=True)
    )
    return parts


@category("elephant", "animal", "skin", "gray blue pink", has_front=True)
def elephant(rng: np.random.Generator, color: str) -> list[Part]:
    """Barrel body on four pillars, huge ears, hanging trunk, white tusks."""
    inner = contrast(color, ROSE, STEEL, apart=0.3)
    body = (vary(rng, 0.42, 0.1), vary(rng, 0.42, 0.1), vary(rng, 0.52, 0.1))
    head, leg = vary(rng, 0.34, 0.08), vary(rng, 0.5, 0.1)
    center = (0.0, 0.24, body[2] + 0.10)
    ear = vary(rng, 0.33)
    parts = [
        ball(color, body, main=True),
        ball(color, head, center, main=True),
        *eyes(center, head, 0.105, 25.0, 18.0),
    ]
    parts += mirrored(
        ball(
            color,
            (ear, ear * 1.1, 0.07),
            shifted(center, x=head + ear * 0.6, y=0.05, z=-0.14),
            rotation_deg=(0.0, 12.0, 0.0),
            main=True,
        )
    )
    parts += mirrored(
        ball(
            inner,
            (ear * 0.72, ear * 0.82, 0.05),
            shifted(center, x=head + ear * 0.58, y=0.04, z=-0.085),
            rotation_deg=(0.0, 12.0, 0.0),
            marker=True,
        )
    )
    root, bend = (
        shifted(center, y=-head * 0.25, z=head * 0.8),
        shifted(center, y=-0.5, z=head + 0.16),
    )
    parts += [
        tube(color, 0.15, root, bend, 0.11, main=True),
        ball(color, 0.112, bend, main=True),
        tube(color, 0.11, bend, shifted(center, y=-0.78, z=head + 0.28), 0.085, main=True),
    ]
    parts += mirrored(
        _cone(
            "white",
            0.065,
            shifted(center, x=0.19, y=-0.2, z=head * 0.65),
            shifted(center, x=0.22, y=-0.36, z=head + 0.24),
        )
    )
    for z in (0.58, -0.58):
        parts += mirrored(
            tube(
                color,
                0.165,
                (0.24, -0.15, z * body[2]),
                (0.25, -leg - 0.25, z * body[2]),
                main=True,
            )
        )
        parts += mirrored(
            tube(CREAM, 0.175, (0.25, -leg - 0.2, z * body[2]), (0.25, -leg - 0.27, z * body[2]))
        )
    parts.append(
        rod(color, 0.035, (0.0, 0.1, -body[2] * 0.95), (0.0, -0.28, -body[2] - 0.08), main=True)
    )
    return parts
