"""The world's content hash: what it makes, not how its source is written.

Weights trained in the world carry this hash, because they are only right for the world they saw. Changing a category, a
colour, a word, the light or the camera changes the hash; reformatting the source does not. Whoever changes the world on
purpose sets FROZEN_HASH anew and trains the shipped weights again.
"""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dream3d.world.solid import Solid

FROZEN_HASH = "2cc7ec7e8ac19028"

_SEEDS = (0, 1)
_COLORS = ("red", "white", "black")
_GRAIN = 1e-4  # geometry is compared to this precision, so that the last digits of a platform do not matter


def content_hash() -> str:
    """First 16 hexadecimal digits of the SHA-256 of objects, words, colours, light and camera."""
    # Imported here: reading FROZEN_HASH must not load the renderer.
    from dream3d.world.catalog import CATEGORIES
    from dream3d.world.colors import COLORS
    from dream3d.world.dataset import DISTANCE, FOV_DEG
    from dream3d.world.grammar import (
        VOCABULARY,
        Caption,
        caption_text,
        held_out_colors,
        view_words,
    )
    from dream3d.world.objects import build_object
    from dream3d.world.render import WORLD_LIGHT

    facts = {
        "colors": {name: _grains(color) for name, color in COLORS.items()},
        "vocabulary": VOCABULARY,
        "categories": [
            [c.name, c.has_front, c.yaw_turns, c.stackable, c.supports, c.typical_colors]
            for c in CATEGORIES.values()
        ],
        "held_out": {name: held_out_colors(name) for name in CATEGORIES},
        "views": [view_words(a, e) for a in range(-180, 361, 15) for e in (-5, 0, 29, 31, 59, 61)],
        "sentence": caption_text(
            Caption((("red", "cube"), (None, "mug")), "on", "high front left")
        ),
        "light": _grains((*WORLD_LIGHT.direction, WORLD_LIGHT.ambient, WORLD_LIGHT.key)),
        "camera": _grains((FOV_DEG, DISTANCE)),
    }
    digest = hashlib.sha256(json.dumps(facts).encode())
    singles = [Caption(((color, name),)) for name in CATEGORIES for color in (*_COLORS, None)]
    pairs = [
        Caption((("red", name), ("blue", other)), relation)
        for name, other in (("cube", "table"), ("mug", "barrel"), ("cat", "sphere"))
        for relation in ("on", "next to")
    ]
    for caption in (*singles, *pairs):
        for seed in _SEEDS:
            digest.update(_geometry(build_object(caption, np.random.default_rng(seed)).solid))
    return digest.hexdigest()[:16]


def _grains(values: object) -> list[int]:
    """Numbers in units of the grain."""
    return np.rint(np.asarray(values, dtype=np.float64) / _GRAIN).astype(np.int64).ravel().tolist()


def _geometry(solid: "Solid") -> bytes:
    """Everything that defines one object; what solvers derive from it is left out."""
    arrays = (
        solid.kind,
        solid.size,
        solid.rotation,
        solid.translation,
        solid.color,
        solid.rounding,
        solid.carve,
        solid.marker,
        solid.owner,
    )
    return b"".join(np.array(_grains(array), dtype="<i8").tobytes() for array in arrays)
