"""Furniture. Chairs, beds and sofas open toward the front; only their shape tells front from back."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import (
    CREAM,
    DARK,
    DARK_WOOD,
    GOLD,
    LIGHT,
    SLATE,
    SNOW,
    STEEL,
    WOOD,
    ball,
    box,
    contrast,
    frustum,
    mirrored,
    ring,
    rod,
    tube,
    vary,
)
from dream3d.world.parts import Part


@category(
    "table",
    "furniture",
    "all of it",
    "brown white black gray",
    yaw_turns=2,
    stackable=True,
    supports=True,
    pair_size=1.5,
)
def table(rng: np.random.Generator, color: str) -> list[Part]:
    """Thick top on four legs with a frame below it."""
    x, z, leg = vary(rng, 0.74, 0.08), vary(rng, 0.52, 0.1), vary(rng, 0.40)
    thick, foot = vary(rng, 0.065), vary(rng, 0.075)
    parts = [box(color, (x, thick, z), (0.0, 2.0 * leg, 0.0), rounding=0.03, main=True)]
    for side in (-1.0, 1.0):
        for end in (-1.0, 1.0):
            corner = (side * (x - foot - 0.04), leg, end * (z - foot - 0.04))
            parts.append(box(color, (foot, leg, foot), corner, rounding=0.02, main=True))
        parts.append(
            box(
                color, (x - 0.15, 0.07, 0.035), (0.0, 2.0 * leg - 0.1, side * (z - 0.12)), main=True
            )
        )
        parts.append(
            box(
                color, (0.035, 0.07, z - 0.15), (side * (x - 0.12), 2.0 * leg - 0.1, 0.0), main=True
            )
        )
    return parts


@category(
    "chair",
    "furniture",
    "all but the cushion",
    "brown red white black blue",
)
def chair(rng: np.random.Generator, color: str) -> list[Part]:
    """Four legs, seat with a cushion, high slatted back."""
    x, z, leg = vary(rng, 0.36, 0.1), vary(rng, 0.36, 0.1), vary(rng, 0.32)
    back, foot = vary(rng, 0.42), vary(rng, 0.06)
    seat = 2.0 * leg
    parts = [
        box(color, (x, 0.06, z), (0.0, seat, 0.0), rounding=0.03, main=True),
        box(
            contrast(color, CREAM, (0.55, 0.62, 0.66)),
            (x * 0.84, 0.05, z * 0.84),
            (0.0, seat + 0.08, 0.02),
            rounding=0.04,
        ),
        box(
            color,
            (x, 0.11, 0.05),
            (0.0, seat + 2.0 * back - 0.08, -z + 0.05),
            rounding=0.03,
            main=True,
        ),
        box(
            color,
            (x * 0.9, 0.07, 0.04),
            (0.0, seat + back * 0.9, -z + 0.05),
            rounding=0.02,
            main=True,
        ),
    ]
    for side in (-1.0, 1.0):
        post = side * (x - foot)
        parts.append(box(color, (foot, leg, foot), (post, leg, z - foot), rounding=0.02, main=True))
        parts.append(
            box(
                color,
                (foot, leg + back, foot),
                (post, leg + back, -z + foot),
                rounding=0.02,
                main=True,
            )
        )
        parts.append(box(color, (0.03, 0.035, z * 0.9), (post, leg * 0.8, 0.0), main=True))
    parts.append(box(color, (x * 0.9, 0.035, 0.03), (0.0, leg * 0.8, z - foot), main=True))
    return parts


@category("bed", "furniture", "blanket and frame", "blue red brown green purple white")
def bed(rng: np.random.Generator, color: str) -> list[Part]:
    """Headboard at the back, mattress with two pillows, blanket over the front half."""
    sheet = contrast(color, SNOW, (0.72, 0.78, 0.86), apart=0.2)
    x, z = vary(rng, 0.54), vary(rng, 0.80, 0.06)
    board, foot = vary(rng, 0.36), vary(rng, 0.15)
    parts = [
        box(color, (x, 0.10, z), (0.0, 0.18, 0.0), rounding=0.03, main=True),
        box(sheet, (x * 0.95, 0.13, z * 0.97), (0.0, 0.36, 0.0), rounding=0.07),
        box(color, (x * 0.99, 0.13, z * 0.62), (0.0, 0.385, z * 0.36), rounding=0.07, main=True),
        box(sheet, (x * 1.0, 0.09, 0.09), (0.0, 0.44, -z * 0.26), rounding=0.05),
        box(color, (x * 1.04, board, 0.06), (0.0, board, -z), rounding=0.05, main=True),
        box(color, (x * 1.04, foot + 0.13, 0.055), (0.0, foot + 0.13, z), rounding=0.05, main=True),
    ]
    parts += mirrored(
        box(sheet, (x * 0.40, 0.10, 0.17), (x * 0.46, 0.53, -z * 0.68), rounding=0.08)
    )
    for end in (-1.0, 1.0):
        parts += mirrored(ball(contrast(color, DARK_WOOD, WOOD), 0.075, (x * 0.95, 0.0, end * z)))
    return parts


@category(
    "sofa",
    "furniture",
    "all but the pillows",
    "red blue gray green brown",
    synonyms="couch, settee",
)
def sofa(rng: np.random.Generator, color: str) -> list[Part]:
    """Wide seat between fat arms, tall back, two pillows, short feet."""
    x, z = vary(rng, 0.78, 0.06), vary(rng, 0.38)
    arm, back = vary(rng, 0.15), vary(rng, 0.38)
    pillow = contrast(color, CREAM, (0.90, 0.62, 0.25))
    parts = [
        box(color, (x, 0.15, z), (0.0, 0.20, 0.0), rounding=0.05, main=True),
        box(color, (x, back, 0.14), (0.0, 0.05 + back, -z + 0.02), rounding=0.08, main=True),
    ]
    parts += mirrored(box(color, (arm, 0.26, z), (x, 0.30, 0.02), rounding=0.10, main=True))
    parts += mirrored(
        box(color, (x * 0.42, 0.085, z * 0.8), (x * 0.42, 0.40, 0.08), rounding=0.06, main=True)
    )
    parts += mirrored(
        box(
            pillow,
            (0.19, 0.17, 0.075),
            (x * 0.52, 0.62, -z * 0.36),
            rotation_deg=(-18.0, 0.0, 0.0),
            rounding=0.06,
        )
    )
    for end in (-0.8, 0.8):
        parts += mirrored(
            frustum(contrast(color, DARK_WOOD, WOOD), 0.05, 0.07, 0.07, (x * 0.9, 0.0, end * z))
        )
    return parts


@category(
    "lamp",
    "furniture",
    "shade",
    "white yellow red green orange",
    yaw_turns=0,
    synonyms="table lamp, desk lamp, lampshade",
)
def lamp(rng: np.random.Generator, color: str) -> list[Part]:
    """Table lamp: round foot, turned stem, wide conical shade, glowing inside."""
    metal = contrast(color, DARK_WOOD, STEEL)
    foot, stem = vary(rng, 0.34), vary(rng, 0.40, 0.1)
    wide, narrow, half = vary(rng, 0.56), vary(rng, 0.30), vary(rng, 0.32)
    y = 2.0 * stem + half - 0.05
    return [
        frustum(color, wide, half, narrow, (0.0, y, 0.0), main=True),
        frustum(LIGHT, wide * 0.93, half, narrow * 0.85, (0.0, y - 0.05, 0.0), carve=True),
        ring(GOLD, wide - 0.005, 0.022, (0.0, y - half + 0.02, 0.0)),
        ball(LIGHT, 0.15, (0.0, y - half * 0.2, 0.0)),
        frustum(metal, foot, 0.05, foot * 0.85, (0.0, 0.0, 0.0), rounding=0.03),
        frustum(metal, foot * 0.6, 0.07, 0.08, (0.0, 0.1, 0.0)),
        rod(metal, 0.055, (0.0, 0.0, 0.0), (0.0, y, 0.0)),
        ball(metal, (0.15, 0.18, 0.15), (0.0, stem * 0.95, 0.0)),
    ]


@category(
    "clock",
    "furniture",
    "case",
    "red blue green yellow black",
    has_front=True,
    synonyms="alarm clock",
)
def clock(rng: np.random.Generator, color: str) -> list[Part]:
    """Alarm clock: drum with a white dial and two hands, twin bells, feet."""
    radius, depth = vary(rng, 0.62, 0.06), vary(rng, 0.24)
    metal = contrast(color, GOLD, STEEL)
    dial = contrast(color, SNOW, CREAM, (0.80, 0.86, 0.92), apart=0.1)
    front = depth
    parts = [
        tube(color, radius, (0.0, 0.0, -depth), (0.0, 0.0, depth), main=True),
        tube(dial, radius * 0.84, (0.0, 0.0, front - 0.01), (0.0, 0.0, front + 0.02), marker=True),
        tube(DARK, 0.07, (0.0, 0.0, front), (0.0, 0.0, front + 0.05), marker=True),
    ]
    for turn in (0.0, 90.0, 180.0, 270.0):
        s, c = float(np.sin(np.radians(turn))), float(np.cos(np.radians(turn)))
        tick = (s * radius * 0.68, c * radius * 0.68, front + 0.02)
        parts.append(
            box(DARK, (0.035, 0.075, 0.02), tick, rotation_deg=(0.0, 0.0, -turn), marker=True)
        )
    for angle, length in (
        (float(rng.uniform(35.0, 70.0)), 0.27),
        (float(rng.uniform(-40.0, -10.0)), 0.38),
    ):
        s, c = float(np.sin(np.radians(angle))), float(np.cos(np.radians(angle)))
        hand = (s * length / 2.0, c * length / 2.0, front + 0.035)
        parts.append(
            box(
                DARK,
                (0.045, length / 2.0 + 0.04, 0.015),
                hand,
                rotation_deg=(0.0, 0.0, -angle),
                marker=True,
            )
        )
    parts += mirrored(
        ball(metal, (0.22, 0.17, 0.18), (0.36, radius * 0.98, 0.0), rotation_deg=(0.0, 0.0, -32.0))
    )
    parts += mirrored(rod(SLATE, 0.06, (0.32, -radius * 0.8, 0.0), (0.45, -radius * 1.12, 0.0)))
    parts.append(ring(metal, 0.13, 0.035, (0.0, radius * 1.12, 0.0), rotation_deg=(90.0, 0.0, 0.0)))
    return parts
