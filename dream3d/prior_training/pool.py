"""Drawn objects kept on the device and used more than once.

A GPU learns several times faster than its machine's CPU draws and renders. Here each object stays for a while; every
use lays its pictures over other backgrounds, with other noise, other words and another share of what is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.prior_training.batches import (
    TrainingBatch,
    batches,
    draw_told,
    token_ids,
    view_phrase,
)
from dream3d.prior_training.config import TrainingConfig
from dream3d.prompts import with_view
from dream3d.world.backgrounds import random_backgrounds
from dream3d.world.dataset import Mix, sample_batch

_FIRST_STEPS = 16
"""The pool begins with as many objects as this many steps use."""


@dataclass(frozen=True)
class DrawnObjects:
    """N objects from V sides each, before backgrounds.

    Attributes:
        pictures: premultiplied sRGB and coverage, 0 to 255.
        plain: token ids of the captions.
        named: token ids of the captions with view words, for every view.
        cameras: N * V, object by object.
    """

    pictures: UInt8[Tensor, "N V S S 4"]
    plain: Int[Tensor, "N L"]
    named: Int[Tensor, "N V L"]
    cameras: CameraBatch


def draw_objects(config: TrainingConfig, tokenizer: Any, rng: np.random.Generator) -> DrawnObjects:
    """The new objects of one step, `config.objects / config.reuse` of them."""
    mix = Mix(config.pair_share, config.primitive_share, config.front_share, config.colorless_share)
    count, size = config.objects // config.reuse, config.architecture.image_size
    world = sample_batch(rng, count, config.views, size, split="seen", mix=mix)
    named = [
        with_view(caption, view_phrase(view, rng))
        for caption, views in zip(world.captions, world.views, strict=True)
        for view in views
    ]
    pictures = torch.cat([world.foreground, world.alpha], dim=-1)
    return DrawnObjects(
        (pictures * 255.0).round().clamp(0.0, 255.0).byte(),
        token_ids(tokenizer, world.captions),
        token_ids(tokenizer, named).unflatten(0, (count, config.views)),
        world.cameras,
    )


class ObjectPool:
    """A ring of drawn objects on one device.

    Attributes:
        count: objects in it.
    """

    def __init__(self, config: TrainingConfig, tokenizer: Any, device: torch.device) -> None:
        self.config, self.device = config, device
        self.empty = token_ids(tokenizer, [""]).to(device)
        self.count = self._next = 0
        self._fields: dict[str, Tensor] = {}

    def add(self, drawn: DrawnObjects) -> None:
        """Put objects in, in place of the oldest once it is full."""
        self._size = (drawn.cameras.height, drawn.cameras.width)
        capacity, views = self.config.pool_objects, drawn.pictures.shape[1]
        cameras = {name: getattr(drawn.cameras, name).unflatten(0, (-1, views)) for name in _CAMERA}
        new = {"pictures": drawn.pictures, "plain": drawn.plain, "named": drawn.named, **cameras}
        if not self._fields:
            self._fields = {
                name: torch.empty(capacity, *value.shape[1:], dtype=value.dtype, device=self.device)
                for name, value in new.items()
            }
        rows = (torch.arange(len(drawn.plain)) + self._next) % capacity
        rows = rows.to(self.device)
        for name, value in new.items():
            self._fields[name][rows] = value.to(self.device)
        self._next = (self._next + len(rows)) % capacity
        self.count = min(capacity, self.count + len(rows))

    def draw(self, rng: np.random.Generator, generator: torch.Generator) -> TrainingBatch:
        """A step's batch of objects of the pool, all drawn alike.

        In a joint step the caption is dropped for all views of an object or for none, as it will be in guidance.

        Args:
            rng: decides what kind of step it is.
            generator: on the pool's device; decides all else.
        """
        config, device = self.config, self.device

        def chance(share: float, *shape: int) -> Bool[Tensor, "..."]:
            return torch.rand(shape, generator=generator, device=device) < share

        count = config.objects
        rows = torch.randint(self.count, (count,), generator=generator, device=device)
        told = draw_told(config, rng)
        pictures = self._fields["pictures"][rows].flatten(0, 1).float() / 255.0
        ids = self._fields["plain"][rows][:, None].expand_as(self._fields["named"][rows])
        named = chance(config.view_words_share, count, config.views)
        ids = torch.where(named[..., None], self._fields["named"][rows], ids)
        dropped = chance(config.caption_drop, count, 1 if told == "joint" else config.views)
        ids = torch.where(dropped[..., None], self.empty, ids)
        cameras = {name: self._fields[name][rows].flatten(0, 1) for name in _CAMERA}
        return TrainingBatch(
            over_backgrounds(pictures, generator),
            ids.flatten(0, 1),
            CameraBatch(height=self._size[0], width=self._size[1], **cameras),
            told,
        )


_CAMERA = ("c2w", "K", "azimuth_deg", "elevation_deg", "distance")


def over_backgrounds(
    pictures: Float[Tensor, "B S S 4"], generator: torch.Generator
) -> Float[Tensor, "B S S 3"]:
    """Premultiplied pictures over fresh random backgrounds."""
    foreground, alpha = pictures[..., :3], pictures[..., 3:]
    backgrounds = random_backgrounds(len(pictures), pictures.shape[1], generator)
    return foreground + (1.0 - alpha) * backgrounds


def pooled_batches(
    config: TrainingConfig, tokenizer: Any, seed: int, generator: torch.Generator
) -> Iterator[TrainingBatch]:
    """Endless batches; each step adds `config.objects / config.reuse` new objects to the pool and draws from all.

    Args:
        config: the run.
        tokenizer: of the captions.
        seed: of objects and cameras.
        generator: on the device where the pool lies; of backgrounds, words and which objects are used again.
    """
    pool = ObjectPool(config, tokenizer, torch.device(config.device))
    rng = np.random.default_rng([seed, 1])
    stream = batches(config, tokenizer, seed, draw_objects)
    while pool.count < min(_FIRST_STEPS * config.objects, config.pool_objects):
        pool.add(next(stream))
    while True:
        pool.add(next(stream))
        yield pool.draw(rng, generator)
