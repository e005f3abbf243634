"""Batches of captioned multi-view images, drawn on the fly: what the embedded prior is trained on."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.world.backgrounds import random_background_arrays
from dream3d.world.catalog import CATEGORIES, COMPOSITES
from dream3d.world.colors import COLORS
from dream3d.world.grammar import Split, caption_text, random_caption, view_words
from dream3d.world.objects import WorldObject, build_object
from dream3d.world.render import WORLD_LIGHT, Light, marker_share, trace

FOV_DEG = 40.0
DISTANCE = 3.2
MARKER_SEEN = 0.004
"""A front marker counts as visible from this share of the image's pixels (16 of 64 x 64)."""

_CATEGORY_INDEX = {name: index for index, name in enumerate(CATEGORIES)}
_COLOR_INDEX = {name: index for index, name in enumerate(COLORS)}
_RELATIONS = (None, "on", "next to")


@dataclass(frozen=True)
class Mix:
    """What is drawn.

    Attributes:
        pair_share: of all captions, pairs ("A on B", "A next to B"); their members are drawn evenly.
        primitive_share: of all captions, single primitives; the rest are single composites.
        front_share: of the single composites, those with an unmistakable front.
        colorless_share: objects whose caption does not name the colour.
    """

    pair_share: float = 0.15
    primitive_share: float = 0.15
    front_share: float = 0.7
    colorless_share: float = 0.1


@dataclass(frozen=True)
class WorldBatch:
    """N objects seen from V sides each.

    Attributes:
        images: over the random backgrounds, sRGB in [0, 1].
        foreground: the object alone, multiplied by its coverage; images add what shows of the backgrounds.
        alpha: coverage by the object.
        captions: one per object, without view words; colours may be left open.
        views: the view words of every image, "front left" or "high back"; see `prompts.with_view`.
        category, color: indices into CATEGORIES and COLORS of each of the (up to) two objects in the caption's order,
            -1 where there is no second. Colours are the true ones, also where the caption leaves them open.
        relation: 0 single, 1 "on", 2 "next to".
        azimuth_bin: nearest of the eight azimuth words, 0 the front.
        has_front: a single object with an unmistakable front.
        marker_visible: markers of the front fill at least MARKER_SEEN of the image.
        cameras: N * V, object by object.
        objects: the geometry itself.
    """

    images: Float[Tensor, "N V S S 3"]
    foreground: Float[Tensor, "N V S S 3"]
    alpha: Float[Tensor, "N V S S 1"]
    captions: list[str]
    views: list[list[str]]
    category: Int[Tensor, "N 2"]
    color: Int[Tensor, "N 2"]
    relation: Int[Tensor, " N"]
    azimuth_bin: Int[Tensor, "N V"]
    has_front: Bool[Tensor, " N"]
    marker_visible: Bool[Tensor, "N V"]
    cameras: CameraBatch
    objects: list[WorldObject]


def sample_batch(
    rng: np.random.Generator,
    objects: int = 16,
    views: int = 4,
    size: int = 64,
    split: Split = "seen",
    mix: Mix | None = None,
    spread_share: float = 0.6,
    light: Light = WORLD_LIGHT,
) -> WorldBatch:
    """Draws objects, cameras and backgrounds, and renders them on one CPU core.

    Args:
        rng: the only source of chance; equal generators give equal batches.
        objects: N.
        views: V cameras for each object.
        size: pixels.
        split: "seen" leaves out held-out combinations, "held_out" draws only those, "all" draws everything.
        mix: how often pairs, primitives and objects with a front are drawn.
        spread_share: share of objects whose cameras stand evenly around it, at one elevation.
        light: shading.
    """
    mix = mix or Mix()
    things = [_draw_object(rng, split, mix) for _ in range(objects)]
    cameras = sample_cameras(rng, objects, views, size, spread_share)
    traces = [
        trace(thing.solid, cameras[n * views : (n + 1) * views], light)
        for n, thing in enumerate(things)
    ]
    rgb, alpha = (np.stack([getattr(t, name) for t in traces]) for name in ("rgb", "alpha"))
    backgrounds = random_background_arrays(objects * views, size, rng).reshape(rgb.shape)
    shares = np.stack([marker_share(o.solid, t.part) for o, t in zip(things, traces, strict=True)])
    azimuths = cameras.azimuth_deg.reshape(objects, views)
    elevations = cameras.elevation_deg.reshape(objects, views)
    return WorldBatch(
        images=torch.from_numpy(rgb + (1.0 - alpha) * backgrounds),
        foreground=torch.from_numpy(rgb),
        alpha=torch.from_numpy(alpha),
        captions=[caption_text(thing.caption) for thing in things],
        views=[
            [view_words(a, e) for a, e in zip(*rows, strict=True)]
            for rows in zip(azimuths.tolist(), elevations.tolist(), strict=True)
        ],
        category=_labels([[_CATEGORY_INDEX[n] for _, n in o.caption.objects] for o in things]),
        color=_labels([[_COLOR_INDEX[color] for color in thing.colors] for thing in things]),
        relation=torch.tensor([_RELATIONS.index(thing.caption.relation) for thing in things]),
        azimuth_bin=torch.floor(azimuths / 45.0 + 0.5).long() % 8,
        has_front=torch.tensor([_has_front(thing) for thing in things]),
        marker_visible=torch.from_numpy(shares >= MARKER_SEEN),
        cameras=cameras,
        objects=things,
    )


def sample_cameras(
    rng: np.random.Generator, objects: int, views: int, size: int, spread_share: float = 0.6
) -> CameraBatch:
    """Cameras of a batch, object by object: elevation -10 to 50, 15 % of them overhead (50 to 85).

    Args:
        rng: the only source of chance.
        objects: N.
        views: cameras for each object.
        size: pixels.
        spread_share: share of objects whose cameras are evenly spaced from a random start, at one elevation; the
            others have independent azimuths and elevations.
    """
    shape = (objects, views)
    spread = rng.random((objects, 1)) < spread_share
    ring = rng.uniform(0.0, 360.0, (objects, 1)) + 360.0 / views * np.arange(views)
    azimuth = np.where(spread, ring, rng.uniform(0.0, 360.0, shape)) % 360.0
    overhead = rng.random(shape) < 0.15
    elevation = np.where(overhead, rng.uniform(50.0, 85.0, shape), rng.uniform(-10.0, 50.0, shape))
    elevation = np.where(spread, elevation[:, :1], elevation)
    distance = DISTANCE * rng.uniform(0.95, 1.05, shape)
    azimuth, elevation, distance = (
        torch.from_numpy(values.reshape(-1)).float() for values in (azimuth, elevation, distance)
    )
    return orbit_cameras(azimuth, elevation, distance, FOV_DEG, size)


def _draw_object(rng: np.random.Generator, split: Split, mix: Mix) -> WorldObject:
    caption = random_caption(
        rng,
        split=split,
        pair_share=mix.pair_share,
        colorless_share=mix.colorless_share,
        primitive_share=min(1.0, mix.primitive_share / max(1.0 - mix.pair_share, 1e-9)),
        weights=_weights(mix.front_share),
    )
    return build_object(caption, rng)


@lru_cache(maxsize=16)
def _weights(front_share: float) -> dict[str, float]:
    """Weights of the composites that give those with a front their share."""
    fronts = [name for name in COMPOSITES if CATEGORIES[name].has_front]
    others = [name for name in COMPOSITES if not CATEGORIES[name].has_front]
    return {
        **dict.fromkeys(fronts, front_share / len(fronts)),
        **dict.fromkeys(others, (1.0 - front_share) / len(others)),
    }


def _has_front(thing: WorldObject) -> bool:
    names = [name for _, name in thing.caption.objects]
    return len(names) == 1 and CATEGORIES[names[0]].has_front


def _labels(rows: list[list[int]]) -> Int[Tensor, "N 2"]:
    return torch.tensor([[*row, -1][:2] for row in rows])
