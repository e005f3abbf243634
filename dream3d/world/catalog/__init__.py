"""The objects of the procedural world: six primitives and the composite categories.

Adding one is a decorated builder in a theme's file. It changes the world's content hash, and with it invalidates the
shipped weights: see `dream3d.world.freeze`.
"""

from dream3d.world.catalog import (  # noqa: F401  (importing a theme files its categories)
    animals,
    buildings,
    characters,
    food,
    furniture,
    plants,
    primitives,
    things,
    vehicles,
    water_animals,
)
from dream3d.world.catalog.category import CATEGORIES as _FILED
from dream3d.world.catalog.category import Category

_THEMES = (
    "primitive",
    "character",
    "animal",
    "vehicle",
    "building",
    "furniture",
    "thing",
    "food",
    "plant",
)
# Sorted by theme, so that the order does not hang on that of the imports.
CATEGORIES: dict[str, Category] = {
    name: entry for theme in _THEMES for name, entry in _FILED.items() if entry.theme == theme
}

PRIMITIVES: tuple[str, ...] = tuple(
    name for name, entry in CATEGORIES.items() if entry.theme == "primitive"
)
COMPOSITES: tuple[str, ...] = tuple(name for name in CATEGORIES if name not in PRIMITIVES)

__all__ = ["CATEGORIES", "COMPOSITES", "PRIMITIVES", "Category"]
