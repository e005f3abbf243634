"""From a caption to geometry: single objects and pairs, in canonical pose inside the unit sphere."""

from dataclasses import dataclass, replace

import numpy as np

from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption, is_held_out
from dream3d.world.parts import Part
from dream3d.world.solid import Solid, bounds, normalised, pack, transformed

_SINK = 0.02  # how far the upper object of a pair stands in the lower one, so that they touch everywhere
_GAP = 0.06  # between two objects side by side


@dataclass(frozen=True)
class WorldObject:
    """One thing, or a pair, of the procedural world.

    Attributes:
        caption: as asked for.
        colors: the colour of each object of the caption, drawn where the caption leaves it open.
        parts: inside the unit sphere, their box centred at the origin.
        solid: the same parts packed; `owner` tells the objects of a pair apart.
    """

    caption: Caption
    colors: tuple[str, ...]
    parts: list[Part]
    solid: Solid

    @property
    def named(self) -> Caption:
        """The caption with every colour spelled out."""
        things = tuple(
            (c, name) for c, (_, name) in zip(self.colors, self.caption.objects, strict=True)
        )
        return replace(self.caption, objects=things)


def build_object(caption: Caption, rng: np.random.Generator) -> WorldObject:
    """An object as the caption describes it; proportions, secondary details and open colours are drawn from `rng`.

    An open colour is one of the category's typical colours and never a held-out combination.
    """
    colors = tuple(_color(rng, color, name) for color, name in caption.objects)
    groups = [
        normalised(CATEGORIES[name].build(rng, color), CATEGORIES[name].pair_size)
        for color, (_, name) in zip(colors, caption.objects, strict=True)
    ]
    owners = [0] * len(groups[0])
    parts = groups[0]
    if caption.relation == "on":
        # The support comes first, because a hollow of the upper object may cut what precedes it.
        upper, lower = groups
        parts = [*lower, *_placed_on(upper, lower, rng)]
        owners = [1] * len(lower) + [0] * len(upper)
    elif caption.relation == "next to":
        parts = [*groups[0], *_placed_beside(groups[0], groups[1])]
        owners = [0] * len(groups[0]) + [1] * len(groups[1])
    parts = normalised(parts)
    return WorldObject(caption, colors, parts, pack(parts, owners))


def _color(rng: np.random.Generator, color: str | None, name: str) -> str:
    if color is not None:
        return color
    choices = [c for c in CATEGORIES[name].typical_colors if not is_held_out(c, name)]
    return choices[int(rng.integers(len(choices)))]


def _placed_on(upper: list[Part], lower: list[Part], rng: np.random.Generator) -> list[Part]:
    """The upper object, somewhat smaller, centred on the lower one."""
    upper = transformed(upper, float(rng.uniform(0.7, 0.85)))
    rise = bounds(lower)[1][1] - bounds(upper)[0][1] - _SINK
    return transformed(upper, 1.0, (0.0, float(rise), 0.0))


def _placed_beside(first: list[Part], second: list[Part]) -> list[Part]:
    """The second object to the right of the first as seen from the front (+X), on the same ground."""
    (low, high), (own_low, _) = bounds(first), bounds(second)
    shift = (float(high[0] - own_low[0] + _GAP), float(low[1] - own_low[1]), 0.0)
    return transformed(second, 1.0, shift)
