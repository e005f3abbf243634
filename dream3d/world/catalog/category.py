"""What a category is, and the table every category files itself into."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dream3d.world.parts import Part

Builder = Callable[[np.random.Generator, str], list[Part]]
Theme = Literal[
    "primitive", "character", "animal", "vehicle", "building", "furniture", "thing", "food", "plant"
]


@dataclass(frozen=True)
class Category:
    """One kind of object the procedural world can make.

    Attributes:
        name: the canonical word or words of the grammar.
        build: `(rng, color) -> parts` with jittered proportions; `color` names the parts with `main=True`.
        theme: the group it is shown in.
        color_names: what the prompt's colour names ("a green snowman" has a green hat and scarf).
        typical_colors: where a colourless prompt draws its colour from.
        has_front: a person tells the front from the back and the sides at a glance; its marker parts are seen from
            azimuths within 45 degrees of the front and hidden beyond 110.
        yaw_turns: rotational symmetry about +Y: 0 any turn, 1 none, n turns by 360 / n degrees.
        stackable: may take part in "A on B" and "A next to B".
        supports: may be the B of "A on B" (only where stackable).
        pair_size: size in a pair, relative to a primitive.
        synonyms: other words a prompt may use; plurals are derived.
    """

    name: str
    build: Builder
    theme: Theme
    color_names: str
    typical_colors: tuple[str, ...]
    has_front: bool = False
    yaw_turns: int = 1
    stackable: bool = False
    supports: bool = False
    pair_size: float = 1.0
    synonyms: tuple[str, ...] = ()


CATEGORIES: dict[str, Category] = {}


def category(
    name: str,
    theme: Theme,
    color_names: str,
    typical_colors: str,
    *,
    has_front: bool = False,
    yaw_turns: int = 1,
    stackable: bool = False,
    supports: bool = False,
    pair_size: float = 1.0,
    synonyms: str = "",
) -> Callable[[Builder], Builder]:
    """Decorator that files a builder; the arguments are the fields of `Category`.

    Lists are written as text: `typical_colors` separated by blanks, `synonyms` by commas.
    """

    def add(build: Builder) -> Builder:
        if name in CATEGORIES:
            raise ValueError(f"category '{name}' is already defined")
        CATEGORIES[name] = Category(
            name,
            build,
            theme,
            color_names,
            tuple(typical_colors.split()),
            has_front,
            yaw_turns,
            stackable,
            supports,
            pair_size,
            tuple(word.strip() for word in synonyms.split(",") if word.strip()),
        )
        return build

    return add
