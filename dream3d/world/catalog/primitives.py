"""The six primitives: one part, all of it in the named colour."""

import numpy as np

from dream3d.world.catalog.category import category
from dream3d.world.catalog.shapes import ball, box, frustum, ring, vary
from dream3d.world.parts import Part

_ANY = "red orange yellow green cyan blue purple pink brown black white gray"


@category(
    "cube",
    "primitive",
    "all of it",
    _ANY,
    yaw_turns=4,
    stackable=True,
    supports=True,
    synonyms="box, block",
)
def cube(rng: np.random.Generator, color: str) -> list[Part]:
    """Equal edges, slightly rounded."""
    return [box(color, (0.6, 0.6, 0.6), rounding=vary(rng, 0.04, 0.5), main=True)]


@category(
    "sphere",
    "primitive",
    "all of it",
    _ANY,
    yaw_turns=0,
    stackable=True,
    supports=True,
    synonyms="ball, orb",
)
def sphere(rng: np.random.Generator, color: str) -> list[Part]:
    """A ball; there is nothing to vary."""
    return [ball(color, 0.9, main=True)]


@category(
    "cylinder",
    "primitive",
    "all of it",
    _ANY,
    yaw_turns=0,
    stackable=True,
    supports=True,
)
def cylinder(rng: np.random.Generator, color: str) -> list[Part]:
    """Upright, taller than wide."""
    radius = vary(rng, 0.46)
    return [frustum(color, radius, vary(rng, 0.72, 0.08), radius, rounding=0.02, main=True)]


@category("cone", "primitive", "all of it", _ANY, yaw_turns=0, stackable=True, supports=True)
def cone(rng: np.random.Generator, color: str) -> list[Part]:
    """Apex up."""
    return [frustum(color, vary(rng, 0.62), vary(rng, 0.75, 0.1), 0.0, main=True)]


@category(
    "torus",
    "primitive",
    "all of it",
    _ANY,
    yaw_turns=0,
    stackable=True,
    supports=True,
    synonyms="donut, doughnut, ring",
)
def torus(rng: np.random.Generator, color: str) -> list[Part]:
    """Lying flat, with an open hole."""
    return [ring(color, 0.62, vary(rng, 0.25, 0.15), main=True)]


@category(
    "capsule",
    "primitive",
    "all of it",
    _ANY,
    yaw_turns=0,
    stackable=True,
    supports=True,
    synonyms="pill",
)
def capsule(rng: np.random.Generator, color: str) -> list[Part]:
    """Standing, a cylinder between two half balls."""
    return [Part("capsule", (vary(rng, 0.40), vary(rng, 0.52), 0.0), color, main=True)]
