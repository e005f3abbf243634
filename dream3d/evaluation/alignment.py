"""How much of a prompt an asset's views show, and whether it has more than one front."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.evaluation.classifier import (
    AZIMUTH_BINS,
    CATEGORY_NAMES,
    COLOR_NAMES,
    NOTHING,
    RELATIONS,
    Reading,
)
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption, Thing

JANUS_RIVAL = 0.2
"""A second front counts when it gathers this share of the votes of the first."""
JANUS_VOTES = 0.08
"""And at least this share of all views."""


@dataclass(frozen=True)
class Recall:
    """Which attributes of a prompt each of N views shows, in [0, 1].

    Attributes:
        category: every named category is read, in its place.
        color: every named colour is read, in its place; 1 where the prompt names none.
        categories, colors: the share of the named categories, and of the named colours, that are read in their place.
        share: attributes recalled over the prompt's: one per category, one per named colour, one for the relation.
    """

    category: Float[Tensor, " N"]
    color: Float[Tensor, " N"]
    categories: Float[Tensor, " N"]
    colors: Float[Tensor, " N"]
    share: Float[Tensor, " N"]


def recall(caption: Caption, reading: Reading) -> Recall:
    """Compare what was read with what was asked.

    "A on B" has an upper and a lower place. The two of "A next to B" may be read in either order, because left and
    right swap with the view. A view that shows no object of the world recalls nothing: the colour of a formless blob
    is not the colour of an object.
    """
    orders = (
        list(permutations(caption.objects)) if caption.relation == "next to" else [caption.objects]
    )
    results = [_recall_in_order(order, caption.relation, reading) for order in orders]
    best = torch.stack([r.share for r in results]).argmax(0)  # [N]
    view = torch.arange(len(best))
    return Recall(
        *(
            torch.stack([getattr(r, name) for r in results])[best, view]
            for name in ("category", "color", "categories", "colors", "share")
        )
    )


def _recall_in_order(objects: Sequence[Thing], relation: str | None, reading: Reading) -> Recall:
    seen = (reading.category_1.argmax(-1) != NOTHING).float()
    categories, colors = [], []
    for place, (color, name) in enumerate(objects, start=1):
        categories.append(
            getattr(reading, f"category_{place}").argmax(-1) == CATEGORY_NAMES.index(name)
        )
        if color is not None:
            colors.append(getattr(reading, f"color_{place}").argmax(-1) == COLOR_NAMES.index(color))
    hits = [*categories, *colors]
    if relation is not None:
        hits.append(reading.relation.argmax(-1) == RELATIONS.index(relation))
    right_categories = torch.stack(categories).float()
    right_colors = torch.stack(colors).float() if colors else torch.ones(1, len(reading))
    return Recall(
        category=right_categories.prod(0) * seen,
        color=right_colors.prod(0) * seen if colors else torch.ones_like(seen),
        categories=right_categories.mean(0) * seen,
        colors=right_colors.mean(0) * seen if colors else torch.ones_like(seen),
        share=torch.stack(hits).float().mean(0) * seen,
    )


def has_front(caption: Caption) -> bool:
    """Whether a prompt's object, or one of its two, has a front a person recognises."""
    return any(CATEGORIES[name].has_front for _, name in caption.objects)


def front_votes(reading: Reading, azimuth_deg: Float[Tensor, " N"]) -> Float[Tensor, " A"]:
    """Where N views place the object's front, as votes per 45-degree direction; the true front is direction 0.

    A view from azimuth a that reads "seen from b" places the front at a - b. It votes with the probability that the
    front's mark is in view, spread over b as the evaluator is unsure. Views should lie at multiples of 45 degrees.
    """
    turns = (azimuth_deg / 45.0).round().long() % AZIMUTH_BINS  # [N]
    place = (turns[:, None] - torch.arange(AZIMUTH_BINS)) % AZIMUTH_BINS  # [N, A]
    weight = reading.marker[:, None] * reading.azimuth
    return torch.zeros(AZIMUTH_BINS).index_add_(0, place.reshape(-1), weight.reshape(-1))


def is_janus(reading: Reading, azimuth_deg: Float[Tensor, " N"]) -> bool:
    """Whether the front shows in more than one cluster of directions more than 60 degrees apart.

    The strongest direction is the front; any direction at least 90 degrees from it that gathers JANUS_RIVAL of its
    votes, and JANUS_VOTES of the number of views, is a second one.
    """
    votes = front_votes(reading, azimuth_deg)
    first = int(votes.argmax())
    away = (torch.arange(AZIMUTH_BINS) - first) % AZIMUTH_BINS
    far = torch.minimum(away, AZIMUTH_BINS - away) >= 2
    rival = votes[far].max().item()
    return rival >= JANUS_RIVAL * votes[first].item() and rival >= JANUS_VOTES * len(reading)


def views_right(reading: Reading, azimuth_deg: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """1 where the side the evaluator reads is the side the camera is on (nearest of eight)."""
    turns = (azimuth_deg / 45.0).round().long() % AZIMUTH_BINS
    return (reading.azimuth.argmax(-1) == turns).float()
